package segstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

func evidence() branchline.Lock {
	return branchline.Lock{ID: "evidence-0", Stream: testStream, Span: day(0, 100), By: "x", Reason: "y"}
}

// TestUnverifiedIndexStandsForNothing: an entry that the index cannot read is for the engine as if it had never
// been, until the index is verified. A journal that is due is not made again from such an index.
func TestUnverifiedIndexStandsForNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	must(t, s.Lock(t.Context(), evidence()))
	for i := 0; s.journal.size < 4000; i++ {
		must(t, s.RecordGap(gap(float64(i*2), float64(i*2+1), branchline.CauseUnreachable, false)))
	}
	must(t, s.Close())
	s, err := openStill(dir, Options{Signer: testKey()}, disk{})
	must(t, err)
	defer s.Close()
	s.journalLimit = 1
	must(t, s.ix.Update(func(tx *index.Tx) error { return tx.Delete(keyLock("evidence-0")) }))
	must(t, s.RecordGap(gap(-9, -8, branchline.CauseRefused, false)))
	must(t, s.refill(errors.New("the test says so")))
	must(t, s.enterLater())
	if locks, err := s.Locks(t.Context()); err != nil || len(locks) != 1 {
		t.Errorf("locks %v, %v", locks, err)
	}
}

// TestLocksCountFromTheJournal at opening, whatever the index has of it.
func TestLocksCountFromTheJournal(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	must(t, s.Lock(t.Context(), evidence()))
	must(t, s.ix.Update(func(tx *index.Tx) error { return tx.Delete(keyLock("evidence-0")) }))
	must(t, s.Close())
	s, err := openStill(dir, Options{Signer: testKey()}, disk{})
	must(t, err)
	defer s.Close()
	if locks, err := s.Locks(t.Context()); err != nil || len(locks) != 1 {
		t.Errorf("locks %v, %v", locks, err)
	}
}

// TestReadDamageIsMended: damage that is read asks for the index to be looked at.
func TestReadDamageIsMended(t *testing.T) {
	s, err := openStill(t.TempDir(), Options{Signer: testKey()}, disk{})
	must(t, err)
	defer s.Close()
	s.askMending()
	s.askMending() // which never waits
	if len(s.mend) != 1 {
		t.Error("nobody was asked")
	}
}

// awayWithIndex closes a store with two volumes that both have segments, and takes the index and the volume of
// the first segments away. It returns how to bring that back.
func awayWithIndex(t *testing.T, dir string, vols []string) (back func()) {
	t.Helper()
	s := openVolumes(t, dir, vols)
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Added: testStart(),
		Streams: []branchline.Stream{{ID: testStream}}}))
	v, err := s.volumeFor(testStream)
	must(t, err)
	var prev branchline.Hash
	for i := range 5 {
		if i == 3 {
			v.suspect(errors.New("the test says so"))
		}
		seg := makeSegment(uint32(i), i*2, 4, prev)
		prev = seg.seal.Hash
		record(t, s, seg)
	}
	must(t, s.Close())
	must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
	must(t, os.Rename(v.dir, v.dir+".away"))
	must(t, os.Mkdir(v.dir, 0o755))
	return func() {
		must(t, os.Remove(v.dir))
		must(t, os.Rename(v.dir+".away", v.dir))
	}
}

// TestIndexLostWhileAVolumeIsAway: what is away is not taken for never recorded.
func TestIndexLostWhileAVolumeIsAway(t *testing.T) {
	dir, vols := volumes(t)
	back := awayWithIndex(t, dir, vols)
	s, err := openStill(dir, Options{Signer: testKey(), Volumes: vols}, disk{})
	must(t, err)
	defer s.Close()
	must(t, s.settleOnce(t.Context()))
	back()
	if !s.rejoin() {
		t.Fatal("the volume does not rejoin")
	}
	must(t, s.settleOnce(t.Context()))
	if feed := allChanges(t, s); strings.Contains(feed, "gap") || strings.Count(feed, "sealed") != 5 {
		t.Errorf("feed: %s", feed)
	}
}

// TestGrewOnAVolumeThatWasAway: it is sealed when that is back, and hides no hole until then.
func TestGrewOnAVolumeThatWasAway(t *testing.T) {
	dir, vols := volumes(t)
	s, err := openStill(dir, Options{Signer: testKey(), Volumes: vols}, disk{})
	must(t, err)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	must(t, s.Begin(testStream, seg.start))
	must(t, s.Put(seg.start.ID, seg.fragments[0], seg.data(0)))
	v := s.partial(seg.start.ID).vol
	must(t, s.Close())
	must(t, os.Rename(v.dir, v.dir+".away"))
	must(t, os.Mkdir(v.dir, 0o755))
	s, err = openStill(dir, Options{Signer: testKey(), Volumes: vols}, disk{})
	must(t, err)
	defer s.Close()
	must(t, s.settleOnce(t.Context()))
	must(t, os.Remove(v.dir))
	must(t, os.Rename(v.dir+".away", v.dir))
	if !s.rejoin() {
		t.Fatal("the volume does not rejoin")
	}
	record(t, s, makeSegment(1, 60, 4, branchline.Hash{}))
	if holes, err := s.Uncovered(testStream, day(0, 62)); err != nil || len(holes) != 1 {
		t.Errorf("uncovered is %v, %v", holes, err)
	}
	must(t, s.resumeAll())
	list, err := s.Segments(t.Context(), testStream, day(0, 99))
	if err != nil || len(list) != 2 || !list[0].Sealed || len(list[0].Fragments) != 1 {
		t.Errorf("segments %+v, %v", list, err)
	}
}

// TestRebuildLeavesTrash to the node itself, which knows what a removal leaves.
func TestRebuildLeavesTrash(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Added: testStart(),
		Streams: []branchline.Stream{{ID: testStream}}}))
	a := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, a)
	record(t, s, makeSegment(1, 2, 4, a.seal.Hash))
	must(t, s.Close())
	must(t, os.Rename(Path(dir, testStream, a.start.ID, a.start.Start),
		filepath.Join(dir, trashDir, trashName(a.start.ID, branchline.CauseExpired))))
	_, err := Rebuild(t.Context(), dir, Options{}, nil)
	must(t, err)
	s = openStore(t, dir, true)
	if feed := allChanges(t, s); !strings.Contains(feed, "gap 0-2 expired") || strings.Contains(feed, "stopped") {
		t.Errorf("feed: %s", feed)
	}
}

// TestWhatIsGivenUp: an incomplete segment is deleted for what is wrong with it, never for the machine's state.
func TestWhatIsGivenUp(t *testing.T) {
	for _, err := range []error{syscall.EMFILE, syscall.ENOMEM, syscall.EIO, fs.ErrPermission, branchline.ErrUnavailable} {
		if useless(fmt.Errorf("load: %w", err)) {
			t.Errorf("given up for %v", err)
		}
	}
	for _, err := range []error{io.EOF, fs.ErrNotExist, branchline.ErrInvalid, branchline.ErrMismatch, errSealed} {
		if !useless(fmt.Errorf("load: %w", err)) {
			t.Errorf("kept in spite of %v", err)
		}
	}
}

// TestSidecarDamaged harms the sidecar, or the file, of what was growing at its origin: what the file shows is
// kept, and what cannot be used is put aside and not deleted.
func TestSidecarDamaged(t *testing.T) {
	for _, c := range []struct {
		name    string
		harm    func(data, side string) error
		sealed  int // fragments
		setAway bool
	}{
		{"nothing", func(string, string) error { return nil }, 3, false},
		{"sidecar gone", func(_, side string) error { return os.Remove(side) }, 3, false},
		{"sidecar empty", func(_, side string) error { return os.Truncate(side, 0) }, 3, false},
		{"sidecar flipped", func(_, side string) error { return flipAt(side, 30) }, 3, false},
		{"init part flipped", func(data, _ string) error { return flipAt(data, 100) }, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, true)
			seg := makeSegment(0, 0, 4, branchline.Hash{})
			must(t, s.Begin(testStream, seg.start))
			for i := range 3 {
				must(t, s.Put(seg.start.ID, seg.fragments[i], seg.data(i)))
			}
			must(t, s.Close())
			data := growingPath(dir, testStream, seg.start.ID)
			must(t, c.harm(data, sidecarPath(data)))
			s = openStore(t, dir, true)
			list, err := s.Segments(t.Context(), testStream, day(0, 9))
			must(t, err)
			got := 0
			for _, seg := range list {
				got += len(seg.Fragments)
			}
			away, err := s.quarantined()
			if err != nil || got != c.sealed || (len(away) > 0) != c.setAway {
				t.Errorf("%d fragments are sealed, %v is put aside, %v", got, away, err)
			}
		})
	}
}

func flipAt(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(path, b, 0o644)
}

// TestForeignFilesStayUnused: a file of another stream is not taken in by the folder that it lies in.
func TestForeignFilesStayUnused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, seg)
	must(t, s.Close())
	from := Path(dir, testStream, seg.start.ID, seg.start.Start)
	to := Path(dir, "yard.main", seg.start.ID, seg.start.Start)
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	must(t, os.Rename(from, to))
	s = openStore(t, dir, true)
	if feed := allChanges(t, s); strings.Contains(feed, "sealed") {
		t.Errorf("feed: %s", feed)
	}
	if _, err := os.Stat(to); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

// TestACopyReplacesWhatIsRotten, though nobody has noticed yet that it is.
func TestACopyReplacesWhatIsRotten(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, seg)
	path := Path(dir, testStream, seg.start.ID, seg.start.Start)
	must(t, flipAt(path, int(seg.fragments[1].Offset)+50))
	must(t, os.WriteFile(filepath.Join(dir, restoreDir, "copy.mp4"), seg.file, 0o644))
	s.restoreAll(t.Context())
	if got, err := os.ReadFile(path); err != nil || string(got) != string(seg.file) {
		t.Errorf("the rotten file is still there: %v", err)
	}
	if left, _ := readNames(filepath.Join(dir, restoreDir)); len(left) > 0 {
		t.Errorf("left in restore/: %v", left)
	}
}
