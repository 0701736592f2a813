package segstore

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
)

// TestPartsStayOnDisk begins far more segments at a replica than may be in memory, as requests do that want
// a few seconds of each. All stay readable and can go on, also after opening anew.
func TestPartsStayOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	s.limit = 4
	var segs []testSegment
	for i := range 12 {
		seg := makeSegment(uint32(i), i*10, 3, branchline.Hash{})
		must(t, s.Begin(testStream, seg.start))
		must(t, s.Put(seg.start.ID, seg.fragments[i%3], seg.data(i%3)))
		segs = append(segs, seg)
	}
	before := allChanges(t, s)
	for range 2 {
		if n := len(s.partials); n > 4 {
			t.Errorf("%d partials are in memory", n)
		}
		if n := s.Stats().Partial; n != 12 {
			t.Errorf("%d partials in all", n)
		}
		held, err := s.Held(testStream, day(0, 200))
		list, err2 := s.Segments(t.Context(), testStream, day(0, 200))
		if len(held) != 12 || len(list) != 12 || err != nil || err2 != nil {
			t.Errorf("held %v, %d segments: %v %v", held, len(list), err, err2)
		}
		for i, seg := range segs {
			f := seg.fragments[i%3]
			got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{Start: f.Offset, End: f.End()})
			if !bytes.Equal(got, seg.data(i%3)) {
				t.Errorf("segment %d differs", i)
			}
			must(t, s.Sync(t.Context(), seg.start.ID))
			must(t, s.Begin(testStream, seg.start))
		}
		if got := allChanges(t, s); got != before {
			t.Errorf("feed %s, want %s", got, before)
		}
		must(t, s.Close())
		s = openStore(t, dir, false)
		s.limit = 4
	}
	must(t, s.Remove(segs[0].start.ID, branchline.CauseExpired))
	var group errgroup.Group
	for _, seg := range segs[1:] {
		for i, f := range seg.fragments {
			group.Go(func() error {
				err := s.Put(seg.start.ID, f, seg.data(i))
				for errors.Is(err, branchline.ErrBusy) { // more at a time than the limit
					err = s.Put(seg.start.ID, f, seg.data(i))
				}
				return err
			})
		}
	}
	must(t, group.Wait())
	for _, seg := range segs[1:] {
		must(t, s.Seal(seg.start.ID, seg.seal))
		if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
			t.Errorf("segment at %s differs", seconds(seg.start.Start))
		}
	}
	if st := s.Stats(); st.Segments != 11 || st.Partial != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestReadPartsStay: a partial that somebody reads is not left to the disk, and when all are read there is
// no room for one more.
func TestReadPartsStay(t *testing.T) {
	s := openStore(t, t.TempDir(), false)
	s.limit = 2
	a, b, c := makeSegment(0, 0, 2, branchline.Hash{}), makeSegment(1, 1, 2, branchline.Hash{}),
		makeSegment(2, 2, 2, branchline.Hash{})
	var readers []io.Closer
	for _, seg := range []testSegment{a, b} {
		must(t, s.Begin(testStream, seg.start))
		r, err := s.Fetch(t.Context(), seg.start.ID, branchline.ByteRange{})
		must(t, err)
		readers = append(readers, r)
	}
	if err := s.Begin(testStream, c.start); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("one more than may be in memory: %v", err)
	}
	must(t, readers[0].Close())
	must(t, s.Begin(testStream, c.start))
	if s.partial(a.start.ID) != nil || s.partial(b.start.ID) == nil {
		t.Error("the wrong one was left to the disk")
	}
	must(t, readers[1].Close())
}
