package segstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/retain"
)

// TestRetentionOutlivesADeletedFolder: a day's folder that somebody has deleted stops no removal and no lock.
func TestRetentionOutlivesADeletedFolder(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	var segs []testSegment
	for i := range 3 {
		segs = append(segs, segmentOf(testStream, uint32(i), testStart().Add(time.Duration(i)*48*time.Hour), 4))
		recordSegment(t, s, segs[i])
	}
	for _, seg := range segs[:2] {
		must(t, os.RemoveAll(filepath.Dir(Path(dir, testStream, seg.start.ID, seg.start.Start))))
	}
	must(t, s.retire([]retain.Action{removal(segs[0], branchline.CauseExpired)}))
	must(t, s.Remove(segs[1].start.ID, branchline.CauseExpired))
	must(t, s.Lock(t.Context(), branchline.Lock{ID: "case-1", Stream: testStream, Span: day(0, 1)}))
	must(t, s.retire([]retain.Action{removal(segs[2], branchline.CauseExpired)}))
	if n := s.Stats().Segments; n != 0 {
		t.Errorf("%d segments are left", n)
	}
}
