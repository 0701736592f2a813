package segstore

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

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
				t.Errorf("segment at %s: %d bytes differ from the %d recorded", seconds(seg.start.Start), len(got), len(seg.file))
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
