package segstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

// TestIndexDamagedWhileRecording harms each file of the index in several places. Whatever was lost is
// there again afterwards, and what is recorded meanwhile, too.
func TestIndexDamagedWhileRecording(t *testing.T) {
	master := t.TempDir()
	s := openStore(t, master, true)
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Name: "Door", Streams: []branchline.Stream{{ID: testStream}}}))
	var prev branchline.Hash
	segs := make([]testSegment, 60)
	for i := range segs {
		segs[i] = makeSegment(uint32(i), i*2, 4, prev)
		prev = segs[i].seal.Hash
		record(t, s, segs[i])
	}
	must(t, s.RecordGap(gap(200, 210, branchline.CauseUnreachable, true)))
	unclean := snapshot(t, master)
	must(t, s.Close())
	harms := map[string]func([]byte) []byte{
		"flip first":  func(b []byte) []byte { b[0] ^= 1; return b },
		"flip middle": func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b },
		"flip last":   func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"cut":         func(b []byte) []byte { return b[:len(b)/3] },
		"empty":       func(b []byte) []byte { return nil },
	}
	for _, from := range []string{master, unclean} {
		files, err := filepath.Glob(filepath.Join(from, indexDir, "db", "*"))
		must(t, err)
		for _, path := range files {
			for name, harm := range harms {
				t.Run(fmt.Sprintf("%s %s %v", filepath.Base(path), name, from == master), func(t *testing.T) {
					testIndexDamage(t, from, filepath.Base(path), harm, segs)
				})
			}
		}
	}
}

func testIndexDamage(t *testing.T, from, name string, harm func([]byte) []byte, segs []testSegment) {
	dir := snapshot(t, from)
	path := filepath.Join(dir, indexDir, "db", name)
	b, err := os.ReadFile(path)
	must(t, err)
	if len(b) > 0 {
		b = harm(b)
	}
	must(t, os.WriteFile(path, b, 0o644))
	s, err := Open(dir, Options{Signer: testKey()})
	must(t, err)
	defer s.Close()
	tail, err := s.Tail(testStream)
	last := segs[len(segs)-1]
	if err != nil || tail.Run != 1 || tail.Hash != last.seal.Hash || tail.Gap == nil {
		t.Errorf("before anything was compared the stream stands at %+v, %v", tail, err)
	}
	more := makeSegment(uint32(len(segs)), 2*len(segs), 4, last.seal.Hash)
	record(t, s, more) // at once
	<-s.Settled()
	list, err := s.Segments(t.Context(), testStream, day(0, 1000))
	must(t, err)
	if len(list) != len(segs)+1 {
		t.Fatalf("%d segments of %d", len(list), len(segs)+1)
	}
	for i, seg := range append(slices.Clone(segs), more) {
		if list[i].Hash != seg.seal.Hash || !list[i].Sealed {
			t.Fatalf("segment %d: %+v", i, list[i])
		}
	}
	sealed := 0
	feed := allChanges(t, s)
	for _, ch := range strings.Split(feed, ", ") {
		if strings.HasPrefix(ch, "sealed") {
			sealed++
		}
	}
	if sealed != len(segs)+1 || !strings.Contains(feed, "gap 200-210 camera unreachable open") ||
		!strings.Contains(feed, "camera entrance Door") || strings.Contains(feed, "removed") {
		t.Errorf("feed has %d sealed: %s", sealed, feed)
	}
	if st := s.Stats(); st.Segments != int64(len(segs)+1) {
		t.Errorf("stats %+v", st)
	}
}

// TestIndexDamagedAtRunTime: damage that a running store comes upon is mended without a restart.
func TestIndexDamagedAtRunTime(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, a)
	b := makeSegment(1, 2, 4, a.seal.Hash)
	must(t, s.Begin(testStream, b.start))
	must(t, s.Put(b.start.ID, b.fragments[0], b.data(0)))
	must(t, s.refill(index.ErrDamaged))
	must(t, s.settleOnce(t.Context()))
	for i := 1; i < len(b.fragments); i++ {
		must(t, s.Put(b.start.ID, b.fragments[i], b.data(i)))
	}
	must(t, s.Seal(b.start.ID, b.seal))
	if got := allChanges(t, s); got != "sealed 0-2, sealed 2-4" {
		t.Errorf("feed: %s", got)
	}
	if tail := mustTail(t, s); tail.Hash != b.seal.Hash || tail.Run != 1 {
		t.Errorf("tail %+v", tail)
	}
}

// TestJournalLost takes the journal away, or its end, from a store whose index is whole: it is made again,
// so that losing the index afterwards loses nothing.
func TestJournalLost(t *testing.T) {
	for name, harm := range map[string]func(b []byte) []byte{
		"gone":  func([]byte) []byte { return nil },
		"cut":   func(b []byte) []byte { return b[:len(b)-20] },
		"flip":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"whole": func(b []byte) []byte { return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, true)
			a := makeSegment(0, 0, 4, branchline.Hash{})
			record(t, s, a)
			for i := range 5 {
				must(t, s.RecordGap(gap(float64(10*i), float64(10*i+4), branchline.CauseUnreachable, false)))
			}
			must(t, s.PutCamera(branchline.Camera{ID: "entrance", Name: "Door"}))
			must(t, s.RecordGap(gap(90, 99, branchline.CauseStopped, true)))
			want := strings.Split(allChanges(t, s), ", ")
			must(t, s.Close())
			path := filepath.Join(dir, journalFile)
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, harm(b), 0o644))
			s = openStore(t, dir, true)
			if got := strings.Split(allChanges(t, s), ", "); !slices.Equal(got, want) {
				t.Errorf("with the index: %v, want %v", got, want)
			}
			must(t, s.RecordGap(gap(90, 100, branchline.CauseStopped, false)))
			tail := mustTail(t, s)
			must(t, s.Close())
			must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
			s = openStore(t, dir, true)
			want[len(want)-1] = "gap 90-100 edge stopped"
			slices.Sort(want)
			got := strings.Split(allChanges(t, s), ", ")
			slices.Sort(got)
			if !slices.Equal(got, want) || mustTail(t, s) != tail {
				t.Errorf("without the index: %v, want %v; tail %+v, want %+v", got, want, mustTail(t, s), tail)
			}
		})
	}
}

// TestIndexLostAfterAClockStep: the newest run is not the latest by time, and recording goes on after it
// at once, before all files were read.
func TestIndexLostAfterAClockStep(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	day := 24 * 3600
	ahead := makeSegment(0, 40*day, 4, branchline.Hash{})
	record(t, s, ahead)
	var last testSegment
	for i := range 3 { // after the clock was put right
		last = makeRun(2, uint32(i), i*day, last.seal.Hash)
		record(t, s, last)
	}
	must(t, s.Close())
	must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
	s, err := openStill(dir, Options{Signer: testKey()}, disk{})
	must(t, err)
	defer s.Close()
	if tail := mustTail(t, s); tail.Run != 2 || tail.Hash != last.seal.Hash {
		t.Errorf("tail %+v", tail)
	}
	must(t, s.settleOnce(t.Context()))
	if st, tail := s.Stats(), mustTail(t, s); st.Segments != 4 || tail.Run != 2 || tail.Hash != last.seal.Hash {
		t.Errorf("stats %+v, tail %+v", st, tail)
	}
}

// makeRun is makeSegment of another run.
func makeRun(run uint64, number uint32, at int, prev branchline.Hash) testSegment {
	seg := makeSegment(number, at, 4, prev)
	seg.start.Run = run
	box, hash, err := SealFooter(Footer{ID: seg.start.ID, Stream: testStream, Run: run, Number: number,
		Codecs: seg.start.Codecs, Fragments: seg.fragments, Prev: prev}, seg.start.Init, testKey())
	if err != nil {
		panic(err)
	}
	seg.file = append(seg.file[:seg.fragments[len(seg.fragments)-1].End()], box...)
	seg.seal = branchline.SegmentSeal{ID: seg.start.ID, Hash: hash, Footer: box, Size: int64(len(seg.file))}
	return seg
}

// TestComparingDisturbsNothing compares over and over while segments are recorded and removed: none is
// taken for missing or for found.
func TestComparingDisturbsNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				if n == 0 {
					t.Error("nothing was compared")
				}
				return
			default:
			}
			if err := s.settleOnce(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	epoch := mustPosition(t, s).Epoch
	var prev branchline.Hash
	for i := range 60 {
		seg := makeSegment(uint32(i), i*2, 4, prev)
		prev = seg.seal.Hash
		record(t, s, seg)
		if i%2 == 0 {
			must(t, s.Remove(seg.start.ID, branchline.CauseExpired))
		}
	}
	close(stop)
	work.Wait()
	if feed := allChanges(t, s); strings.Contains(feed, string(branchline.CauseDiskFailed)) ||
		strings.Count(feed, "removed") != 30 || strings.Count(feed, "sealed") != 30 {
		t.Errorf("feed: %s", feed)
	}
	if got := mustPosition(t, s).Epoch; got != epoch {
		t.Error("followers were sent back")
	}
	checkFiles(t, s.dir)
}

func mustPosition(t *testing.T, s *Store) (at branchline.Position) {
	t.Helper()
	must(t, s.ix.View(func(tx *index.Tx) error {
		m, err := readMeta(tx)
		at = branchline.Position{Epoch: m.epoch, Seq: m.head}
		return err
	}))
	return at
}

// TestManyGapsAreEnteredLater, so that opening with an empty index does not wait for them; what was
// recorded since wins over them.
func TestManyGapsAreEnteredLater(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	n := adoptBatch + 100
	for i := range n {
		must(t, s.RecordGap(gap(float64(2*i), float64(2*i+1), branchline.CauseUnreachable, false)))
	}
	must(t, s.Close())
	must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
	s, err := openStill(dir, Options{Signer: testKey(), Clock: clock.New(testStart)}, disk{})
	must(t, err)
	defer s.Close()
	if got := strings.Count(allChanges(t, s), "gap"); got != 0 {
		t.Errorf("%d gaps were entered at once", got)
	}
	must(t, s.RecordGap(gap(10, 11.5, branchline.CauseDamaged, false)))
	must(t, s.settleOnce(t.Context()))
	var feed string
	for f := (follower{}); ; {
		batch, err := s.next(&f)
		must(t, err)
		if len(batch) == 0 {
			break
		}
		for _, ch := range batch {
			feed += describe(ch) + ", "
		}
	}
	if got := strings.Count(feed, "gap"); got != n || !strings.Contains(feed, "gap 10-11.5 stream damaged") {
		t.Errorf("%d of %d gaps", got, n)
	}
}

// TestRebuild makes the index of a store with volumes again, and not that of one that is open.
func TestRebuild(t *testing.T) {
	dir, vols := volumes(t)
	s := openVolumes(t, dir, vols)
	var prev branchline.Hash
	for i := range 20 {
		seg := makeSegment(uint32(i), i*2, 4, prev)
		prev = seg.seal.Hash
		record(t, s, seg)
	}
	must(t, s.RecordGap(gap(90, 99, branchline.CauseStopped, true)))
	want, tail := allChanges(t, s), mustTail(t, s)
	if _, err := Rebuild(t.Context(), dir, Options{}, nil); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("rebuilt while open: %v", err)
	}
	must(t, s.Close())
	told := 0
	n, err := Rebuild(t.Context(), dir, Options{}, func(segments int) { told = segments })
	if err != nil || n != 20 || told != 20 {
		t.Fatalf("%d segments, %d told, %v", n, told, err)
	}
	s = openVolumes(t, dir, vols)
	sorted := func(feed string) []string { return slices.Sorted(slices.Values(strings.Split(feed, ", "))) }
	now := mustTail(t, s)
	if got := allChanges(t, s); !slices.Equal(sorted(got), sorted(want)) || now.Hash != tail.Hash || now.Gap == nil {
		t.Errorf("feed %s, want %s; tail %+v, want %+v", got, want, mustTail(t, s), tail)
	}
	list, err := List(dir, "", branchline.TimeRange{})
	if err != nil || len(list) != 20 {
		t.Errorf("%d listed, %v", len(list), err)
	}
	for _, seg := range list {
		if report, err := Check(File(dir, seg)); err != nil || !report.OK() {
			t.Errorf("%v %v", report, err)
		}
	}
}

// TestWhatACrashLeftUnexplained: a hole between recordings that nobody told of becomes a gap, and
// what is explained, or open for the edge to end, stays as it is.
func TestWhatACrashLeftUnexplained(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Added: testStart(),
		Streams: []branchline.Stream{{ID: testStream}}}))
	must(t, s.RecordGap(gap(0, 4, branchline.CauseUnreachable, false)))
	var prev branchline.Hash
	put := func(number uint32, at int) {
		seg := makeSegment(number, at, 4, prev)
		prev = seg.seal.Hash
		record(t, s, seg)
	}
	put(0, 4)
	put(1, 6)
	put(2, 10) // nobody told why not from 8 on
	must(t, s.RecordGap(gap(12, 12, branchline.CauseRefused, true)))
	put(3, 20)
	must(t, s.Close())
	s = openStore(t, dir, true)
	must(t, s.RecordGap(gap(12, 20, branchline.CauseRefused, false))) // as the edge does then
	if got := allChanges(t, s); !strings.Contains(got, "gap 8-10 edge stopped") || strings.Count(got, "gap") != 3 {
		t.Errorf("feed %s", got)
	}
}
