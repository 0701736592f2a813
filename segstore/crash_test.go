package segstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/branchline-video/branchline"
)

var errStopped = errors.New("stopped")

// stopping is the disk until its k-th change; that one and all after it fail, as when the process or
// the machine stops there. If the k-th change is a write, it is done by half.
type stopping struct {
	disk

	mu   sync.Mutex
	left int // changes that still succeed
	done int
}

// step reports whether the next change happens, and whether it is the one to be torn.
func (d *stopping) step() (ok, last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left--
	if d.left >= 0 {
		d.done++
	}
	return d.left >= 0, d.left == -1
}

func (d *stopping) do(change func() error) error {
	if ok, _ := d.step(); !ok {
		return errStopped
	}
	return change()
}

func (d *stopping) Open(path string, flag int) (f file, err error) {
	err = d.do(func() error { f, err = d.disk.Open(path, flag); return err })
	if err != nil {
		return nil, err
	}
	return stoppingFile{f, d}, nil
}

func (d *stopping) Rename(from, to string) error {
	return d.do(func() error { return d.disk.Rename(from, to) })
}
func (d *stopping) Remove(path string) error {
	return d.do(func() error { return d.disk.Remove(path) })
}
func (d *stopping) MkdirAll(path string) error {
	return d.do(func() error { return d.disk.MkdirAll(path) })
}
func (d *stopping) SyncDir(path string) error {
	return d.do(func() error { return d.disk.SyncDir(path) })
}

type stoppingFile struct {
	file
	d *stopping
}

func (f stoppingFile) WriteAt(b []byte, at int64) (int, error) {
	ok, last := f.d.step()
	if ok {
		return f.file.WriteAt(b, at)
	}
	if last {
		f.file.WriteAt(b[:len(b)/2], at)
	}
	return 0, errStopped
}

func (f stoppingFile) Truncate(n int64) error {
	return f.d.do(func() error { return f.file.Truncate(n) })
}
func (f stoppingFile) Sync() error { return f.d.do(f.file.Sync) }

// life is what a process does with a store until it is stopped; acked is what it was told to be durable.
func life(s *Store, segs []testSegment, acked func(what string)) {
	for _, seg := range segs {
		if s.Begin(testStream, seg.start) != nil {
			return
		}
		for i, f := range seg.fragments {
			if s.Put(seg.start.ID, f, seg.data(i)) != nil {
				return
			}
			if i == 1 {
				s.syncAll()
			}
		}
		if s.Seal(seg.start.ID, seg.seal) != nil {
			return
		}
		acked(seg.start.ID.String())
	}
	if s.RecordGap(gap(4, 9, branchline.CauseUnreachable, false)) == nil {
		acked("gap")
	}
	if s.Remove(segs[0].start.ID, branchline.CauseExpired) == nil {
		acked("removed")
	}
}

func gap(from, to float64, cause branchline.Cause, open bool) branchline.Gap {
	return branchline.Gap{Stream: testStream, Span: day(from, to), Cause: cause, Open: open}
}

// TestStopAtEveryStep stops a store before each of its changes on disk, opens it again, and checks that
// nothing acknowledged is missing, that all files are right, and that it can go on.
func TestStopAtEveryStep(t *testing.T) {
	a := makeSegment(0, 0, 2, branchline.Hash{})
	segs := []testSegment{a, makeSegment(1, 2, 3, a.seal.Hash)}
	for _, origin := range []bool{true, false} {
		t.Run(fmt.Sprintf("origin %v", origin), func(t *testing.T) {
			t.Parallel()
			for k, finished := 0, false; !finished; k++ {
				finished = stopAt(t, k, origin, segs)
				if k > 500 || t.Failed() {
					t.Fatalf("stopped at %d", k)
				}
			}
		})
	}
}

func stopAt(t *testing.T, k int, origin bool, segs []testSegment) (finished bool) {
	dir := t.TempDir()
	var opt Options
	if origin {
		opt.Signer = testKey()
	}
	d := &stopping{left: k}
	var acked []string
	s, err := openStill(dir, opt, d)
	if err == nil {
		s.settleOnce(t.Context()) // which may be where it stops
		life(s, segs, func(what string) { acked = append(acked, what) })
		finished = slices.Contains(acked, "removed")
		s.Close()
	}
	s = openStore(t, dir, origin)
	defer s.Close()
	checkAfterStop(t, s, acked, segs)
	if t.Failed() {
		t.Logf("stopped at change %d, acknowledged %v", k, acked)
	}
	return finished && d.left > 0
}

func checkAfterStop(t *testing.T, s *Store, acked []string, segs []testSegment) {
	t.Helper()
	checkFiles(t, s.dir)
	for i, seg := range segs {
		id := seg.start.ID
		known, err := s.lookup(id)
		removed := i == 0 && slices.Contains(acked, "gap") && errors.Is(err, branchline.ErrGone)
		lost := err != nil || !known.Sealed || known.Hash != seg.seal.Hash
		if slices.Contains(acked, id.String()) && !removed && lost {
			t.Errorf("acknowledged segment %d is lost: %v", i, err)
		}
		if s.signer == nil && !removed { // a replica goes on where it was, and ends in the same bytes
			record(t, s, seg)
			if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Errorf("segment %d differs after going on", i)
			}
		}
		if s.signer != nil && err == nil && !known.Sealed {
			t.Errorf("segment %d still grows at its origin", i)
		}
	}
	if slices.Contains(acked, "removed") {
		_, err := s.Fetch(t.Context(), segs[0].start.ID, branchline.ByteRange{})
		if !errors.Is(err, branchline.ErrGone) {
			t.Errorf("fetch of the removed segment: %v", err)
		}
	}
	if slices.Contains(acked, "gap") {
		must(t, s.RecordGap(gap(4, 9, branchline.CauseUnreachable, false)))
		if !strings.Contains(allChanges(t, s), "gap 4-9") {
			t.Errorf("acknowledged gap is lost: %s", allChanges(t, s))
		}
	}
	record(t, s, makeSegment(9, 20, 2, branchline.Hash{}))
}

// allChanges returns the whole feed from zero.
func allChanges(t *testing.T, s *Store) string {
	t.Helper()
	f := follower{}
	batch, err := s.next(&f)
	must(t, err)
	var out []string
	for _, ch := range batch {
		out = append(out, describe(ch))
	}
	return strings.Join(out, ", ")
}

// checkFiles holds every sealed file against the checker, and the directories against what may be there.
func checkFiles(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, segmentsDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		report, err := Check(path)
		if err != nil || !report.OK() || !report.Sealed {
			return fmt.Errorf("%v: %w", report, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, trashDir)); len(left) > 0 {
		t.Errorf("trash is not empty: %v", left)
	}
}

// TestCutAtEveryByte ends a growing file at any byte, as a power cut may: the origin seals what is whole.
func TestCutAtEveryByte(t *testing.T) {
	seg := makeSegment(0, 0, 3, branchline.Hash{})
	master := t.TempDir()
	s := openStore(t, master, true)
	must(t, s.Begin(testStream, seg.start))
	for i, f := range seg.fragments {
		must(t, s.Put(seg.start.ID, f, seg.data(i)))
	}
	path := growingPath(master, testStream, seg.start.ID)
	must(t, s.Close())
	side, err := os.ReadFile(sidecarPath(path))
	must(t, err)
	end := int(seg.fragments[2].End())
	dir := t.TempDir()
	for size := 0; size <= end; size += 37 {
		if size+37 > end {
			size = end
		}
		path := growingPath(dir, testStream, seg.start.ID)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, append(slices.Clone(seg.file[:size]), make([]byte, size%3*50)...), 0o644))
		must(t, os.WriteFile(sidecarPath(path), side, 0o644))
		whole := 0
		for whole < 3 && seg.fragments[whole].End() <= int64(size) {
			whole++
		}
		s := openStore(t, dir, true)
		got, err := s.Segments(t.Context(), testStream, day(0, 9))
		if whole > 0 && (err != nil || len(got) != 1 || !slices.Equal(got[0].Fragments, seg.fragments[:whole])) {
			t.Fatalf("cut at %d with %d whole fragments: %+v %v", size, whole, got, err)
		}
		if whole == 0 && len(got) != 0 {
			t.Fatalf("cut at %d: %+v", size, got)
		}
		checkFiles(t, dir)
		if whole > 0 {
			must(t, s.Remove(seg.start.ID, branchline.CauseExpired))
		}
		must(t, s.Close())
	}
}

// failingSync is a disk on which no data can be synced.
type failingSync struct{ disk }

func (d failingSync) Open(path string, flag int) (file, error) {
	f, err := d.disk.Open(path, flag)
	if filepath.Ext(path) == ".mp4" {
		f = unsyncable{f}
	}
	return f, err
}

type unsyncable struct{ file }

func (unsyncable) Sync() error { return errStopped }

func TestFailedSyncIsNeverTrusted(t *testing.T) {
	s, err := openWith(t.TempDir(), Options{Signer: testKey()}, failingSync{})
	must(t, err)
	defer s.Close()
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	must(t, s.Begin(testStream, seg.start))
	must(t, s.Put(seg.start.ID, seg.fragments[0], seg.data(0)))
	s.syncAll()
	if err := s.Put(seg.start.ID, seg.fragments[1], seg.data(1)); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("put after a failed sync: %v", err)
	}
	if err := s.Seal(seg.start.ID, seg.seal); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("seal after a failed sync: %v", err)
	}
	if st := s.Stats(); st.Suspect != 1 || st.Segments != 0 {
		t.Errorf("stats %+v", st)
	}
}

// fullAt is a disk without room for the k-th write.
type fullAt struct {
	disk
	k *int
}

func (d fullAt) Open(path string, flag int) (file, error) {
	f, err := d.disk.Open(path, flag)
	return fullFile{f, d.k}, err
}

type fullFile struct {
	file
	k *int
}

func (f fullFile) WriteAt(b []byte, at int64) (int, error) {
	if *f.k--; *f.k == 0 {
		return 0, errStopped
	}
	return f.file.WriteAt(b, at)
}

// TestSealGoesOn has no room for a footer; there is some when the next segment begins.
func TestSealGoesOn(t *testing.T) {
	left := 0
	s, err := openWith(t.TempDir(), Options{Signer: testKey()}, fullAt{k: &left})
	must(t, err)
	defer s.Close()
	a := makeSegment(0, 0, 1, branchline.Hash{})
	must(t, s.Begin(testStream, a.start))
	must(t, s.Put(a.start.ID, a.fragments[0], a.data(0)))
	left = 1
	if err := s.Seal(a.start.ID, a.seal); !errors.Is(err, errStopped) {
		t.Errorf("sealed without room: %v", err)
	}
	must(t, s.Begin(testStream, makeSegment(1, 1, 1, a.seal.Hash).start))
	if ok, err := s.isSealed(a.start.ID); !ok {
		t.Fatalf("not sealed: %v", err)
	}
	if got := fetchAll(t, s, a.start.ID, branchline.ByteRange{}); !bytes.Equal(got, a.file) {
		t.Errorf("%d bytes, want the %d with the first footer", len(got), len(a.file))
	}
}
