package segstore

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
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

// unmount takes the volume in dir away, and leaves an empty mount point.
func unmount(t *testing.T, dir string) {
	t.Helper()
	must(t, os.Rename(dir, dir+".away"))
	must(t, os.Mkdir(dir, 0o755))
}

// TestAnAbsentVolumeLosesNothing when another is short of space, and thinning is late but not forgotten.
func TestAnAbsentVolumeLosesNothing(t *testing.T) {
	for _, open := range []bool{false, true} { // it goes away before the store opens, and while it is open
		dir, vols := volumes(t)
		rules := retain.Rules{Rules: []retain.Rule{{ThinAfter: time.Hour}}}
		s, err := openStill(dir, Options{Signer: testKey(), Volumes: vols}, disk{})
		must(t, err)
		var segs []testSegment
		for i := range 4 { // the first three on the second volume, the last on the first
			for j, v := range s.volumes[:2] {
				v.failed = nil
				if (i < 3) == (j == 0) {
					v.suspect(os.ErrInvalid)
				}
			}
			segs = append(segs, segmentOf(testStream, uint32(i), day(float64(2*i), 0).Start, 4))
			recordSegment(t, s, segs[i])
		}
		if !open {
			must(t, s.Close())
		}
		unmount(t, vols[1])
		must(t, os.MkdirAll(filepath.Dir(Path(vols[0], testStream, branchline.SegmentID{}, testStart())), 0o755))
		if !open {
			s, err = openStill(dir, Options{Signer: testKey(), Volumes: vols}, disk{})
			must(t, err)
		}
		s.retention.rules = rules
		s.retain()
		free := s.free
		s.free = func(d string) (int64, error) {
			if d == vols[0] {
				return 40 << 20, nil
			}
			return free(d)
		}
		s.retain()
		if n := s.Stats().Segments; n != 3 {
			t.Errorf("while open %v: %d segments are left, want those of the absent volume", open, n)
		}
		must(t, s.Lock(t.Context(), branchline.Lock{ID: "case-1", Stream: "yard.main", Span: day(0, 1)}))
		s.free = free
		must(t, os.Remove(vols[1]))
		must(t, os.Rename(vols[1]+".away", vols[1]))
		s.rejoin()
		s.retain()
		if n := s.RetentionStats().Thinned; n != 4 {
			t.Errorf("while open %v: %d segments thinned", open, n)
		}
		must(t, s.Close())
	}
}

// readOnly is a disk on which nothing below a directory can be moved.
type readOnly struct {
	disk
	below *string
}

func (d readOnly) Rename(from, to string) error {
	if *d.below != "" && strings.HasPrefix(from, *d.below) {
		return syscall.EROFS
	}
	return d.disk.Rename(from, to)
}

// TestAReadOnlyVolumeIsLeftAlone for a while, and what is on the others is removed.
func TestAReadOnlyVolumeIsLeftAlone(t *testing.T) {
	dir, vols := volumes(t)
	below := ""
	var now atomic.Int64
	now.Store(day(7200, 0).Start.UnixNano())
	s, err := openStill(dir, Options{Signer: testKey(), Volumes: vols,
		Clock: clock.New(func() time.Time { return time.Unix(0, now.Load()) })}, readOnly{below: &below})
	must(t, err)
	defer s.Close()
	for i := range retireBatch + 2 { // more than one plan takes, and one on the healthy volume
		s.volumes[0].failed, s.volumes[1].failed = nil, nil
		s.volumes[1].suspect(os.ErrInvalid)
		if i > retireBatch {
			s.volumes[0].suspect(os.ErrInvalid)
			s.volumes[1].failed = nil
		}
		recordSegment(t, s, segmentOf(testStream, uint32(i), day(float64(2*i), 0).Start, 4))
	}
	s.volumes[0].failed = nil
	below = vols[0]
	s.retention.rules.Rules = []retain.Rule{{Keep: time.Hour}}
	s.retain()
	if got := kept(vols...); got != "disk1 33, disk2 0" || s.Volumes()[0].Suspect == "" {
		t.Errorf("kept %s, volumes %+v", got, s.Volumes())
	}
	below = "" // it can be written again
	now.Add(int64(retainEvery))
	s.retain()
	if got := kept(vols...); got != "disk1 0, disk2 0" {
		t.Errorf("later: kept %s", got)
	}
}

// TestAMissingKeyStopsNoOtherThinning: what is opened by no key stays as it is, until the key is there.
func TestAMissingKeyStopsNoOtherThinning(t *testing.T) {
	dir := t.TempDir()
	n := 0
	for _, c := range []struct {
		keys         string
		add, thinned int
	}{{"1", retireBatch + 1, 0}, {"2", 1, 1}, {"12", 0, retireBatch + 1}} {
		var rules retain.Rules
		if c.thinned > 0 {
			rules.Rules = []retain.Rule{{ThinAfter: time.Hour}}
		}
		s := openEncrypted(t, dir, c.keys, Options{Signer: testKey(), Retention: rules})
		for range c.add {
			recordSegment(t, s, segmentOf(testStream, uint32(n), day(float64(2*n), 0).Start, 4))
			n++
		}
		s.retain()
		if got := s.RetentionStats().Thinned; got != uint64(c.thinned) {
			t.Errorf("with keys %s: %d segments thinned, want %d", c.keys, got, c.thinned)
		}
		must(t, s.Close())
	}
}

// TestAHoldPlacedAfterTheDecisionCounts: nothing of its stream is removed or thinned by a plan that does not
// know it, and the next one is made at once.
func TestAHoldPlacedAfterTheDecisionCounts(t *testing.T) {
	for _, rule := range []retain.Rule{{Keep: time.Hour}, {ThinAfter: time.Hour}} {
		s, err := openStill(t.TempDir(), Options{Signer: testKey()}, disk{})
		must(t, err)
		s.retention.rules.Rules = []retain.Rule{rule}
		for i, stream := range []branchline.StreamID{testStream, "yard.main"} {
			recordSegment(t, s, segmentOf(stream, uint32(2*i), day(0, 0).Start, 4))
			recordSegment(t, s, segmentOf(stream, uint32(2*i+1), day(2, 0).Start, 4))
		}
		plan, err := s.decide(retireBatch, true)
		must(t, err)
		must(t, s.Hold(t.Context(), branchline.Hold{Holder: "hub", Stream: testStream, Spans: branchline.Spans{day(0, 1)},
			Known: day(9, 0).Start, Until: s.clock.Now().Add(time.Hour)}))
		done := func() uint64 {
			st := s.RetentionStats()
			return st.Removed[branchline.CauseExpired] + st.Thinned
		}
		more, err := s.carryOut(plan)
		must(t, err)
		if done() != 2 || !more {
			t.Errorf("%+v: %d of the other stream's two segments, and more %v", rule, done(), more)
		}
		s.retain()
		if done() != 3 {
			t.Errorf("%+v: %d segments, want all but the one that is held", rule, done())
		}
		must(t, s.Close())
	}
}
