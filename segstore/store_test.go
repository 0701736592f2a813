package segstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
)

func day(from, to float64) branchline.TimeRange {
	at := func(s float64) time.Time { return testStart().Add(time.Duration(s * float64(time.Second))) }
	return branchline.TimeRange{Start: at(from), End: at(to)}
}

func TestRecordAndReadBack(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	b := makeSegment(1, 2, 4, a.seal.Hash)
	record(t, s, a)
	record(t, s, b)
	for range 2 {
		for _, seg := range []testSegment{a, b} {
			if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Errorf("segment at %s: read %d bytes, recorded %d", seconds(seg.start.Start), len(got), len(seg.file))
			}
			onDisk, err := os.ReadFile(Path(dir, testStream, seg.start.ID, seg.start.Start))
			must(t, err)
			if !bytes.Equal(onDisk, seg.file) {
				t.Errorf("file differs")
			}
		}
		list, err := s.Segments(t.Context(), testStream, day(1, 3))
		must(t, err)
		if len(list) != 2 || list[0].ID != a.start.ID || !slices.Equal(list[1].Fragments, b.fragments) ||
			list[1].Hash != b.seal.Hash || !list[1].Sealed || list[1].Size != b.seal.Size {
			t.Errorf("segments: %+v", list)
		}
		held, err := s.Held(testStream, day(-1, 10))
		must(t, err)
		if !slices.Equal(held, []branchline.TimeRange{day(0, 4)}) {
			t.Errorf("held %v", held)
		}
		tail, err := s.Tail(testStream)
		must(t, err)
		if tail.Run != 1 || tail.Hash != b.seal.Hash || !tail.End.Equal(day(0, 4).End) {
			t.Errorf("tail %+v", tail)
		}
		got, _ := changes(t, s, branchline.Position{}, 2)
		if want := []string{"sealed 0-2", "sealed 2-4"}; !slices.Equal(got, want) {
			t.Errorf("changes %q, want %q", got, want)
		}
		if st := s.Stats(); st.Segments != 2 || st.Bytes != a.seal.Size+b.seal.Size || st.Partial != 0 {
			t.Errorf("stats %+v", st)
		}
		must(t, s.Close())
		s = openStore(t, dir, true)
	}
}

// TestFeed writes down what a follower from zero sees after each step, and one that was there.
func TestFeed(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	cam := branchline.Camera{ID: "entrance", Name: "Door", Added: testStart(),
		Streams: []branchline.Stream{{ID: testStream, Codecs: "avc1", Width: 640, Height: 480}}}
	var at branchline.Position
	for _, c := range []struct {
		name       string
		do         func() error
		next, zero string
	}{
		{"camera", func() error { return s.PutCamera(cam) }, "camera entrance Door", "camera entrance Door"},
		{"open gap", func() error { return s.RecordGap(gap(-9, -9, branchline.CauseUnreachable, true)) },
			"gap -9--9 camera unreachable open", "camera entrance Door, gap -9--9 camera unreachable open"},
		{"gap ends", func() error { return s.RecordGap(gap(-9, 0, branchline.CauseUnreachable, false)) },
			"gap -9-0 camera unreachable", "camera entrance Door, gap -9-0 camera unreachable"},
		{"begin", func() error { return s.Begin(testStream, a.start) },
			"opened 0", "camera entrance Door, gap -9-0 camera unreachable, opened 0"},
		{"seal", func() error { record(t, s, a); return nil },
			"sealed 0-2", "camera entrance Door, gap -9-0 camera unreachable, sealed 0-2"},
		{"rename", func() error { cam.Name = "Gate"; return s.PutCamera(cam) },
			"camera entrance Gate", "gap -9-0 camera unreachable, sealed 0-2, camera entrance Gate"},
		{"remove", func() error { return s.Remove(a.start.ID, branchline.CauseExpired) }, "removed 0-2 expired",
			"gap -9-0 camera unreachable, camera entrance Gate, removed 0-2 expired, gap 0-2 expired"},
	} {
		must(t, c.do())
		must(t, s.PutCamera(cam)) // nothing new, so not in the feed
		var got []string
		got, at = changes(t, s, at, 1)
		if got[0] != c.next {
			t.Errorf("%s: next is %q, want %q", c.name, got[0], c.next)
		}
		if got := allChanges(t, s); got != c.zero {
			t.Errorf("%s: from zero %q, want %q", c.name, got, c.zero)
		}
	}
	before := allChanges(t, s)
	must(t, s.Close())
	s = openStore(t, dir, true)
	if got := allChanges(t, s); got != before {
		t.Errorf("after reopening %q, want %q", got, before)
	}
	cams, err := s.Cameras(t.Context())
	if err != nil || len(cams) != 1 || cams[0].Name != "Gate" || len(cams[0].Streams) != 1 {
		t.Errorf("cameras %+v %v", cams, err)
	}
	must(t, s.RecordGap(gap(4, 5, branchline.CauseRefused, true)))
	if tail, err := s.Tail(testStream); err != nil || tail.Gap == nil || tail.Gap.Cause != branchline.CauseRefused {
		t.Errorf("tail %+v %v", tail, err)
	}
	for _, bad := range []branchline.Position{{Epoch: at.Epoch + 1, Seq: at.Seq}, {Epoch: at.Epoch, Seq: at.Seq + 99}} {
		for _, err := range s.Changes(t.Context(), bad) {
			if !errors.Is(err, branchline.ErrGone) {
				t.Errorf("follow from %v: %v", bad, err)
			}
		}
	}
}

// TestFollowersSeeEveryStep has many followers while many changes happen at once.
func TestFollowersSeeEveryStep(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	const writers, each = 4, 10
	var group errgroup.Group
	for range 3 {
		group.Go(func() error {
			last, seen := uint64(0), make(map[string]bool)
			for ch, err := range s.Changes(context.Background(), branchline.Position{}) {
				if err != nil {
					return err
				}
				if ch.At.Seq <= last || seen[describe(ch)] {
					return fmt.Errorf("change %v after %d: %s", ch.At, last, describe(ch))
				}
				last, seen[describe(ch)] = ch.At.Seq, true
				if len(seen) == writers*each {
					return nil
				}
			}
			return errors.New("ended early")
		})
	}
	for w := range writers {
		group.Go(func() error {
			for i := range each {
				at := float64(w*1000 + i)
				if err := s.RecordGap(gap(at, at+1, branchline.CauseDamaged, false)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
}

// TestClosedStore shows that followers and readers end, and that later calls have an error.
func TestClosedStore(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	must(t, s.Begin(testStream, seg.start))
	r, err := s.Fetch(t.Context(), seg.start.ID, branchline.ByteRange{})
	must(t, err)
	var group errgroup.Group
	group.Go(func() error { _, err := io.ReadAll(r); r.Close(); return err })
	followed := make(chan error, 1)
	go func() {
		for _, err := range s.Changes(context.Background(), branchline.Position{}) {
			if err != nil {
				followed <- err
			}
		}
	}()
	must(t, s.Close())
	for what, err := range map[string]error{
		"reader": group.Wait(), "follower": <-followed, "begin": s.Begin(testStream, seg.start),
		"put": s.Put(seg.start.ID, seg.fragments[0], seg.data(0)), "seal": s.Seal(seg.start.ID, seg.seal),
		"gap": s.RecordGap(gap(0, 1, branchline.CauseDamaged, false)),
	} {
		if !errors.Is(err, branchline.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Tail(testStream); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("tail: %v", err)
	}
}

func TestSecondOpenIsBusy(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	if _, err := Open(dir, Options{}); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("second open: %v", err)
	}
	must(t, s.Close())
}

// TestJournalStaysSmall records one gap over and over, then loses the index.
func TestJournalStaysSmall(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	s.journalLimit = 2000
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Name: "Door"}))
	for i := range 60 {
		must(t, s.RecordGap(gap(0, float64(i+1), branchline.CauseUnreachable, true)))
		if s.journal.size > 2100 {
			t.Fatalf("journal of %d bytes", s.journal.size)
		}
		s.journalLimit = 2000
	}
	must(t, s.Close())
	must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
	s = openStore(t, dir, true)
	if got := allChanges(t, s); got != "camera entrance Door, gap 0-60 camera unreachable open" &&
		got != "gap 0-60 camera unreachable open, camera entrance Door" {
		t.Errorf("feed: %s", got)
	}
}

// TestTimesBeyondTheLine asks with ranges that nanoseconds since 1970 cannot hold.
func TestTimesBeyondTheLine(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	record(t, s, makeSegment(0, 0, 4, branchline.Hash{}))
	for _, span := range []branchline.TimeRange{
		{End: testStart().AddDate(9000, 0, 0)}, {Start: testStart(), End: testStart().AddDate(500, 0, 0)},
	} {
		held, err := s.Held(testStream, span)
		if err != nil || !slices.Equal(held, []branchline.TimeRange{day(0, 2)}) {
			t.Errorf("held in %v: %v %v", span, held, err)
		}
	}
}
