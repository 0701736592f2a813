package segstore

import (
	"bytes"
	"errors"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestRottenPartIsNotSealed flips a bit in what a replica holds in part while it is closed: with the last fragment
// or with the footer nothing is sealed, and put again all is as the origin's.
func TestRottenPartIsNotSealed(t *testing.T) {
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	id := seg.start.ID
	const footer = 4
	for _, c := range []struct {
		name          string
		before, after []int
	}{
		{"the last fragment", []int{footer, 0, 1, 3}, []int{2}},
		{"the footer", []int{3, 2, 1, 0}, []int{footer}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, false)
			put := func(i int) error {
				if i == footer {
					return s.Seal(id, seg.seal)
				}
				return s.Put(id, seg.fragments[i], seg.data(i))
			}
			must(t, s.Begin(testStream, seg.start))
			for _, i := range c.before {
				must(t, put(i))
			}
			must(t, s.Close())
			flipByte(t, growingPath(dir, testStream, id), seg.fragments[1].Offset+100)
			s = openStore(t, dir, false)
			for _, i := range c.after {
				if err := put(i); !errors.Is(err, branchline.ErrUnavailable) {
					t.Errorf("put %d: %v", i, err)
				}
			}
			if lost, err := s.Lost(); err != nil || len(lost) != 1 || s.Stats().Segments != 0 {
				t.Errorf("lost %v %v, %+v", lost, err, s.Stats())
			}
			record(t, s, seg)
			if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Error("differs from the origin's")
			}
			checkFiles(t, dir)
		})
	}
}

// TestRottenPartAtOpening: a crash came before a complete segment was sealed, and its bytes have rotted since.
func TestRottenPartAtOpening(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	must(t, s.Begin(testStream, seg.start))
	for i, f := range seg.fragments {
		must(t, s.Put(seg.start.ID, f, seg.data(i)))
	}
	must(t, s.Close())
	path := growingPath(dir, testStream, seg.start.ID)
	side, _, err := openLog(disk{}, sidecarPath(path))
	must(t, err)
	must(t, side.append(append([]byte{sideFooter}, seg.seal.Footer...)))
	must(t, side.close())
	flipByte(t, path, seg.fragments[1].Offset+100)
	s = openStore(t, dir, false)
	if st := s.Stats(); st.Segments != 0 || s.Quarantined() != 1 {
		t.Errorf("%+v, quarantined %d", st, s.Quarantined())
	}
	record(t, s, seg)
	if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
		t.Error("differs from the origin's")
	}
}
