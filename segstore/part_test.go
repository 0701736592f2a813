package segstore

import (
	"os"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestPartIsNoAlarm: what a replica holds in part, as at the ends of a retrieved range, is listed and
// checked by its sidecar, with and without the footer, and a flipped byte in it is still found.
func TestPartIsNoAlarm(t *testing.T) {
	for _, footer := range []bool{false, true} {
		dir := t.TempDir()
		s := openStore(t, dir, false)
		seg := makeSegment(0, 0, 6, branchline.Hash{})
		id := seg.start.ID
		must(t, s.Begin(testStream, seg.start))
		for _, i := range []int{2, 3, 5} {
			must(t, s.Put(id, seg.fragments[i], seg.data(i)))
		}
		if footer {
			must(t, s.Seal(id, seg.seal))
		}
		must(t, s.Close())
		path := growingPath(dir, testStream, id)
		r, err := Check(path)
		if err != nil || !r.OK() || !r.Part || r.Sealed || r.Fragments != 3 || !r.Start.Equal(seg.fragments[2].Start) {
			t.Errorf("footer %v: %v %v", footer, r, err)
		}
		list, err := List(dir, "", branchline.TimeRange{})
		if err != nil || len(list) != 1 || list[0].Sealed || len(list[0].Fragments) != 3 {
			t.Errorf("footer %v: list %+v %v", footer, list, err)
		}
		data, err := os.ReadFile(path)
		must(t, err)
		data[seg.fragments[3].Offset+70] ^= 1
		must(t, os.WriteFile(path, data, 0o644))
		if r, err := Check(path); err != nil || r.OK() || r.Fragments != 2 {
			t.Errorf("footer %v, damaged: %v %v", footer, r, err)
		}
	}
}
