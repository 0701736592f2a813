package segstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/branchline-video/branchline"
)

// witness notes what a store acknowledged, and what it was asked to take away.
type witness struct {
	mu   sync.Mutex
	list []string
}

func (w *witness) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, fmt.Sprintf(format, args...))
}

func (w *witness) now() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// fullLife are the segments of everything: the first is removed, the second goes to quarantine, the third
// stays, the last still grows.
func fullLife() []testSegment {
	var segs []testSegment
	var prev branchline.Hash
	for i := range 4 {
		segs = append(segs, makeSegment(uint32(i), 2*i, 3, prev))
		prev = segs[i].seal.Hash
	}
	return segs
}

// everything does all that changes a store, and notes what was acknowledged, until an error.
func everything(s *Store, segs []testSegment, note func(format string, args ...any)) (err error) {
	do := func(step func() error, what string, args ...any) {
		if err != nil {
			return
		}
		if err = step(); err == nil && what != "" {
			note(what, args...)
		}
	}
	do(func() error { return s.PutCamera(branchline.Camera{ID: "entrance", Name: "Door", Added: testStart()}) }, "camera")
	for i, seg := range segs {
		id := seg.start.ID
		do(func() error { return s.Begin(testStream, seg.start) }, "")
		for j, f := range seg.fragments {
			do(func() error { return s.Put(id, f, seg.data(j)) }, "")
			if j == 1 {
				do(func() error { return s.Sync(context.Background(), id) }, "synced %d", i)
			}
		}
		if i < len(segs)-1 {
			do(func() error { return s.Seal(id, seg.seal) }, "sealed %d", i)
		}
		if i == 2 {
			do(func() error { return s.RecordGap(gap(90, 99, branchline.CauseUnreachable, false)) }, "gap")
			do(func() error { note("leaving 0"); return s.Remove(segs[0].start.ID, branchline.CauseExpired) }, "left 0")
			do(func() error { note("leaving 1"); return s.Quarantine(segs[1].start.ID, "test") }, "left 1")
		}
	}
	do(func() error { return nil }, "end")
	return err
}

// checkOutcome opens the store in dir after a cut: nothing that was acknowledged before may be missing, all
// files must be right, and it must go on.
func checkOutcome(t *testing.T, dir string, origin bool, acked []string) {
	t.Helper()
	s := openStore(t, dir, origin)
	defer s.Close()
	checkFiles(t, dir)
	feed := allChanges(t, s)
	has := func(format string, args ...any) bool { return slices.Contains(acked, fmt.Sprintf(format, args...)) }
	if has("camera") && !strings.Contains(feed, "camera entrance Door") {
		t.Errorf("acknowledged camera is lost: %s", feed)
	}
	if has("gap") && !strings.Contains(feed, "gap 90-99") {
		t.Errorf("acknowledged gap is lost: %s", feed)
	}
	for i, seg := range fullLife() {
		switch known, err := s.lookup(seg.start.ID); {
		case has("left %d", i):
			if !errors.Is(err, branchline.ErrGone) {
				t.Errorf("segment %d is back: %v", i, err)
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, quarantineDir, seg.start.ID.String()+"*")); i == 1 && len(kept) != 1 {
				t.Errorf("in quarantine: %v", kept)
			}
			continue
		case has("leaving %d", i) && errors.Is(err, branchline.ErrGone):
			continue
		case err == nil && known.Sealed:
			checkSealed(t, s, seg, !origin || has("sealed %d", i))
		case has("sealed %d", i):
			t.Errorf("acknowledged segment %d is lost: %v", i, err)
		case has("synced %d", i):
			checkSynced(t, s, i, seg, origin)
		case err == nil && origin:
			t.Errorf("segment %d still grows at its origin", i)
		}
		if !origin {
			record(t, s, seg)
			if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Errorf("segment %d differs after going on", i)
			}
		}
	}
	record(t, s, makeSegment(9, 20, 2, branchline.Hash{}))
}

// checkSealed: whole, if that was acknowledged; else at least what was synced, sealed as cut.
func checkSealed(t *testing.T, s *Store, seg testSegment, whole bool) {
	t.Helper()
	got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{})
	if whole && !bytes.Equal(got, seg.file) {
		t.Errorf("segment %d has %d bytes, and not its own %d", seg.start.Number, len(got), len(seg.file))
	}
	if end := seg.fragments[0].End(); int64(len(got)) < end || !bytes.Equal(got[:end], seg.file[:end]) {
		t.Errorf("segment %d differs", seg.start.Number)
	}
}

// checkSynced: a replica holds in part what was synced; the origin has sealed it.
func checkSynced(t *testing.T, s *Store, i int, seg testSegment, origin bool) {
	t.Helper()
	held, err := s.Held(testStream, branchline.TimeRange{Start: seg.fragments[0].Start, End: seg.fragments[2].Start})
	if err != nil || len(held) != 1 || held[0].Duration() < seg.fragments[2].Start.Sub(seg.fragments[0].Start) {
		t.Errorf("of segment %d is held %v, and two fragments were synced: %v", i, held, err)
	}
	if origin {
		t.Errorf("segment %d is not sealed at its origin", i)
	}
}

// outcome is what a cut left.
type outcome struct {
	dir   string
	where string
	acked []string
}

// cuts opens and uses a store in dir on a volatile disk and returns what a power cut at any of its steps
// leaves. The steps before from are left out.
func cuts(t *testing.T, dir string, origin bool, acked []string, use func(s *Store, w *witness)) []outcome {
	t.Helper()
	v, w := newVolatile(t, dir), &witness{list: acked}
	var all []outcome
	step := 0
	v.before = func() {
		step++
		kinds := lucks(uint64(step))
		if !v.uncertain() {
			kinds = kinds[:1]
		}
		for i, l := range kinds {
			o := outcome{dir: memoryDir(t), where: fmt.Sprintf("step %d luck %d", step, i), acked: w.now()}
			v.cut(t, o.dir, l)
			all = append(all, o)
		}
	}
	var opt Options
	if origin {
		opt.Signer = testKey()
	}
	s, err := openStill(dir, opt, v)
	must(t, err)
	must(t, s.settleOnce(t.Context()))
	use(s, w)
	v.mu.Lock()
	v.before()
	v.before = func() {}
	v.mu.Unlock()
	must(t, s.Close())
	return all
}

// memoryDir is a temporary directory in memory where there is one: here it is the test that says what is
// durable, and not the disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "segstore-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// check checks all outcomes, and deletes them.
func check(t *testing.T, origin bool, all []outcome) {
	t.Helper()
	for _, o := range all {
		checkOutcome(t, o.dir, origin, o.acked)
		if t.Failed() {
			t.Fatalf("after a cut at %s, acknowledged %q", o.where, o.acked)
		}
		must(t, os.RemoveAll(o.dir))
	}
}

// TestCutAtEveryStep cuts power at every step of a store's life and of its repair, and of making an index
// anew from the files. Of what was not synced nothing, all, or any part outlasts the cut.
func TestCutAtEveryStep(t *testing.T) {
	for _, origin := range []bool{true, false} {
		t.Run(fmt.Sprintf("origin %v", origin), func(t *testing.T) {
			t.Parallel()
			segs := fullLife()
			all := cuts(t, memoryDir(t), origin, nil, func(s *Store, w *witness) {
				must(t, everything(s, segs, w.note))
			})
			some := []outcome{{dir: clone(t, all[len(all)-1].dir)}} // of which the opening is cut, too
			must(t, os.RemoveAll(filepath.Join(some[0].dir, indexDir)))
			some[0].acked = []string{"sealed 2", "synced 2", "synced 3", "camera", "gap"}
			for i := 0; i < len(all); i += 41 {
				some = append(some, outcome{dir: clone(t, all[i].dir), where: all[i].where, acked: all[i].acked})
			}
			check(t, origin, all)
			again := 0
			for _, o := range some {
				opened := cuts(t, o.dir, origin, o.acked, func(*Store, *witness) {})
				again += len(opened)
				check(t, origin, opened)
			}
			t.Logf("%d outcomes of a life, %d of opening after %d of them", len(all), again, len(some))
		})
	}
}

func clone(t *testing.T, dir string) string {
	t.Helper()
	to := memoryDir(t)
	must(t, copyAll(dir, to))
	return to
}

// copyAll copies all that is below a directory, with its holes.
func copyAll(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		target := to + strings.TrimPrefix(path, from)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		}
		return copySparse(path, target)
	})
}
