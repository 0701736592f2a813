package segstore

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
)

// losing returns a store with segments 0-2, 2-4 and 4-6 that has lost the middle one, which it returns.
func losing(t *testing.T, dir string, origin bool) (*Store, testSegment) {
	t.Helper()
	s := openStore(t, dir, origin)
	one := makeSegment(0, 0, 4, branchline.Hash{})
	two := makeSegment(1, 2, 4, one.seal.Hash)
	for _, seg := range []testSegment{one, two, makeSegment(2, 4, 4, two.seal.Hash)} {
		record(t, s, seg)
	}
	flipByte(t, Path(dir, testStream, two.start.ID, two.start.Start), -2)
	list, err := s.Segments(t.Context(), testStream, day(0, 9))
	must(t, err)
	if len(list) == 3 {
		must(t, s.quarantine(two.start.ID, branchline.CauseDiskFailed, "test"))
	}
	return s, two
}

// TestRestore puts a lost segment back: its gap goes, in the feed and after a restart and a loss of the index,
// and the chain's end stays where it is.
func TestRestore(t *testing.T) {
	for _, origin := range []bool{true, false} {
		t.Run(fmt.Sprintf("origin %v", origin), func(t *testing.T) {
			dir := t.TempDir()
			s, two := losing(t, dir, origin)
			tail := mustTail(t, s)
			must(t, s.Restore(t.Context(), two.start.ID, bytes.NewReader(two.file)))
			want := "sealed 0-2, sealed 4-6, removed 2-4 disk failed, sealed 2-4"
			if origin {
				want += ", gap 2-2 disk failed"
			}
			for range 2 {
				if got := allChanges(t, s); got != want {
					t.Errorf("feed: %s", got)
				}
				if got := fetchAll(t, s, two.start.ID, branchline.ByteRange{}); !bytes.Equal(got, two.file) {
					t.Error("differs")
				}
				if lost, err := s.Lost(); err != nil || len(lost) > 0 {
					t.Errorf("lost: %v %v", lost, err)
				}
				if mustTail(t, s) != tail {
					t.Errorf("the tail moved: %+v", mustTail(t, s))
				}
				must(t, s.Restore(t.Context(), two.start.ID, bytes.NewReader(two.file))) // nothing happens
				must(t, s.Close())
				s = openStore(t, dir, origin)
			}
			must(t, s.Close())
			must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
			s = openStore(t, dir, origin)
			if got := allChanges(t, s); strings.Contains(got, "2-4 disk failed") || !strings.Contains(got, "sealed 2-4") {
				t.Errorf("feed of a new index: %s", got)
			}
			checkFiles(t, dir)
			left, err := readNames(filepath.Join(dir, restoreDir))
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v %v", left, err)
			}
		})
	}
}

// TestRefusedRestores: what is not whole, not this node's or not lost changes nothing.
func TestRefusedRestores(t *testing.T) {
	stranger := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	for _, c := range []struct {
		name string
		file func(seg testSegment) []byte
		want error
	}{
		{"flipped", func(seg testSegment) []byte {
			b := bytes.Clone(seg.file)
			b[seg.fragments[2].Offset+80] ^= 1
			return b
		}, branchline.ErrMismatch},
		{"cut", func(seg testSegment) []byte { return seg.file[:len(seg.file)-1] }, branchline.ErrInvalid},
		{"empty", func(testSegment) []byte { return nil }, branchline.ErrInvalid},
		{"signed by another", func(seg testSegment) []byte {
			box, _, err := SealFooter(Footer{ID: seg.start.ID, Stream: testStream, Run: 1, Number: seg.start.Number,
				Codecs: seg.start.Codecs, Fragments: seg.fragments}, seg.start.Init, stranger)
			must(t, err)
			return append(bytes.Clone(seg.file[:seg.fragments[3].End()]), box...)
		}, branchline.ErrDenied},
		{"another of what is held", func(testSegment) []byte {
			return makeSegment(0, 0, 4, branchline.Hash{1}).file
		}, branchline.ErrMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, two := losing(t, dir, true)
			before := allChanges(t, s)
			if err := s.Restore(t.Context(), two.start.ID, bytes.NewReader(c.file(two))); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			dropped := filepath.Join(dir, restoreDir, "x.mp4")
			must(t, os.WriteFile(dropped, c.file(two), 0o644))
			s.restoreAll(t.Context())
			left, err := readNames(filepath.Join(dir, restoreDir))
			if err != nil || fmt.Sprint(left) != "[x.refused]" {
				t.Errorf("left over: %v %v", left, err)
			}
			if got := allChanges(t, s); got != before {
				t.Errorf("feed: %s, before: %s", got, before)
			}
		})
	}
	t.Run("not lost at a replica", func(t *testing.T) {
		s := openStore(t, t.TempDir(), false)
		seg := makeSegment(0, 0, 4, branchline.Hash{})
		err := s.Restore(t.Context(), seg.start.ID, bytes.NewReader(seg.file))
		if !errors.Is(err, branchline.ErrDenied) || s.Stats().Segments != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("being written", func(t *testing.T) {
		s, two := losing(t, t.TempDir(), false)
		must(t, s.Begin(testStream, two.start))
		err := s.Restore(t.Context(), two.start.ID, bytes.NewReader(two.file))
		if !errors.Is(err, branchline.ErrBusy) {
			t.Errorf("%v", err)
		}
	})
}

// TestRestoreOfWhatIsNotAskedFor: of a removed segment nothing comes back in place of the lost one, nor under its
// own name.
func TestRestoreOfWhatIsNotAskedFor(t *testing.T) {
	s, two := losing(t, t.TempDir(), true)
	old := makeSegment(3, 6, 4, branchline.Hash{})
	record(t, s, old)
	must(t, s.Remove(old.start.ID, branchline.CauseExpired))
	before := allChanges(t, s)
	for id, want := range map[branchline.SegmentID]error{
		two.start.ID: branchline.ErrMismatch, old.start.ID: branchline.ErrDenied} {
		if err := s.Restore(t.Context(), id, bytes.NewReader(old.file)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if lost, err := s.Lost(); err != nil || len(lost) != 1 || allChanges(t, s) != before {
		t.Errorf("lost %v %v, feed: %s", lost, err, allChanges(t, s))
	}
}

// TestRestoreMeets: what came to a segment's place while its file was verified stays.
func TestRestoreMeets(t *testing.T) {
	s, two := losing(t, t.TempDir(), true)
	path := incomingPath(s.dir, two.start.ID)
	must(t, os.WriteFile(path, two.file, 0o644))
	seg, err := s.examine(t.Context(), path, two.start.ID)
	must(t, err)
	must(t, s.Begin(testStream, two.start))
	if err := s.putBack(path, seg); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("being written: %v", err)
	}
	for i, f := range two.fragments {
		must(t, s.Put(two.start.ID, f, two.data(i)))
	}
	must(t, s.Seal(two.start.ID, two.seal))
	before := allChanges(t, s)
	if err := s.putBack(path, seg); !errors.Is(err, errHeld) || allChanges(t, s) != before {
		t.Errorf("sealed: %v, feed: %s", err, allChanges(t, s))
	}
}

// TestRestoreTwiceAtOnce: each has a file of its own, and one of them is enough.
func TestRestoreTwiceAtOnce(t *testing.T) {
	dir := t.TempDir()
	s, two := losing(t, dir, true)
	id := two.start.ID
	r, w := io.Pipe()
	slow := make(chan error)
	go func() { slow <- s.Restore(t.Context(), id, r) }()
	_, err := w.Write(two.file[:100])
	must(t, err)
	must(t, s.Restore(t.Context(), id, bytes.NewReader(two.file)))
	_, err = w.Write(bytes.Repeat([]byte{1}, 100))
	must(t, err)
	must(t, w.Close())
	if err := <-slow; err == nil {
		t.Error("a damaged file is taken")
	}
	if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, two.file) {
		t.Error("differs")
	}
	must(t, s.Close())
	left := incomingPath(dir, id)
	must(t, os.WriteFile(left, nil, 0o644))
	openStore(t, dir, true)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left over by a crash: %v", err)
	}
}

// TestRestoreExcerpt: a thinned segment comes back with the size that its file has.
func TestRestoreExcerpt(t *testing.T) {
	dir := t.TempDir()
	s, _ := losing(t, dir, true)
	one := makeSegment(0, 0, 4, branchline.Hash{})
	must(t, s.Thin(one.start.ID))
	size, err := s.SizeOnDisk(one.start.ID)
	must(t, err)
	before := s.Stats().Bytes
	b, err := os.ReadFile(Path(dir, testStream, one.start.ID, one.start.Start))
	must(t, err)
	must(t, s.quarantine(one.start.ID, branchline.CauseDiskFailed, "test"))
	must(t, os.WriteFile(filepath.Join(dir, restoreDir, "a.mp4"), b, 0o644))
	s.restoreAll(t.Context())
	if got, err := s.SizeOnDisk(one.start.ID); err != nil || got != size || s.Stats().Bytes != before {
		t.Errorf("size %d instead of %d; totals %d instead of %d: %v", got, size, s.Stats().Bytes, before, err)
	}
}

// TestRestoreEncrypts: what comes back in plain, whole or thinned, stands encrypted in a store that encrypts,
// and nothing in plain is left.
func TestRestoreEncrypts(t *testing.T) {
	for _, thinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("thinned %v", thinned), func(t *testing.T) {
			dir := t.TempDir()
			seg := makeSegment(0, 0, 4, branchline.Hash{})
			id, file := seg.start.ID, seg.file
			if thinned {
				other := t.TempDir()
				p := openStore(t, other, true)
				record(t, p, seg)
				must(t, p.Thin(id))
				var err error
				file, err = os.ReadFile(Path(other, testStream, id, seg.start.Start))
				must(t, err)
			}
			s := openEncrypted(t, dir, "1", Options{Signer: testKey()})
			record(t, s, seg)
			must(t, s.quarantine(id, branchline.CauseDiskFailed, "test"))
			must(t, s.Restore(t.Context(), id, bytes.NewReader(file)))
			path := Path(dir, testStream, id, seg.start.Start)
			b, err := os.ReadFile(path)
			must(t, err)
			if bytes.Contains(b, seg.data(0)) || s.Stats().Bytes != int64(len(b)) || len(b) != len(file)+cryptSize {
				t.Errorf("%d bytes on disk of %d, total %d, or in plain", len(b), len(file), s.Stats().Bytes)
			}
			r := branchline.ByteRange{Start: seg.fragments[0].Offset, End: seg.fragments[0].End()}
			if got := fetchAll(t, s, id, r); !bytes.Equal(got, seg.data(0)) {
				t.Error("differs")
			}
			if r, err := (Files{Keys: testKeys(t, "1")}).Check(path); err != nil || !r.OK() || r.Encrypted == "" {
				t.Errorf("checked as %v: %v", r, err)
			}
			left, err := readNames(filepath.Join(dir, restoreDir))
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v %v", left, err)
			}
		})
	}
}

// TestDeposit: a copy put into the store's directory comes back, whether the store is open or not.
func TestDeposit(t *testing.T) {
	for _, open := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			s, two := losing(t, dir, true)
			if !open {
				must(t, s.Close())
			}
			outside := filepath.Join(t.TempDir(), "copy")
			must(t, os.WriteFile(outside, two.file, 0o644))
			report, err := Deposit(dir, outside)
			if err != nil || report.Segment != two.start.ID.String() {
				t.Fatalf("%v %v", report, err)
			}
			if !open {
				s = openStore(t, dir, true)
			}
			<-time.After(time.Minute)
			if got := fetchAll(t, s, two.start.ID, branchline.ByteRange{}); !bytes.Equal(got, two.file) {
				t.Error("differs")
			}
			flipByte(t, outside, 500)
			if _, err := Deposit(dir, outside); !errors.Is(err, branchline.ErrInvalid) {
				t.Errorf("damaged: %v", err)
			}
			must(t, s.Close())
		})
	}
}

// TestLostIsExplained: what a lost segment leaves is a gap where nothing else covers its time, in the same
// change of the index, and the parts of it that come back take their part of it.
func TestLostIsExplained(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []branchline.Gap
		beside []testSegment
		want   string // of the feed, after the removal of 2-6
	}{
		{"alone", nil, nil, "gap 2-6 disk failed"},
		{"a gap touches", []branchline.Gap{gap(6, 9, branchline.CauseUnreachable, false)}, nil,
			"gap 6-9 camera unreachable, gap 2-6 disk failed"},
		{"a gap overlaps, of a stepped clock", []branchline.Gap{gap(1, 3, branchline.CauseClockStep, false)}, nil,
			"gap 1-3 clock step, gap 3-6 disk failed"},
		{"an open gap begins there", []branchline.Gap{gap(2, 2, branchline.CauseUnreachable, true)}, nil,
			"gap 2-2 camera unreachable open"},
		{"another segment inside", nil, []testSegment{makeSegment(7, 3, 2, branchline.Hash{})},
			"sealed 3-4, gap 2-3 disk failed, gap 4-6 disk failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, true)
			seg := makeSegment(1, 2, 8, branchline.Hash{})
			record(t, s, seg)
			for _, g := range c.before {
				must(t, s.RecordGap(g))
			}
			for _, other := range c.beside {
				record(t, s, other)
			}
			check := func(when string) {
				t.Helper()
				feed := strings.Split(allChanges(t, s), ", ")
				feed = slices.DeleteFunc(feed, func(ch string) bool { return ch == "removed 2-6 disk failed" })
				slices.Sort(feed)
				want := strings.Split(c.want, ", ")
				slices.Sort(want)
				if got := strings.Join(feed, ", "); got != strings.Join(want, ", ") {
					t.Errorf("%s: %s", when, got)
				}
			}
			must(t, s.quarantine(seg.start.ID, branchline.CauseDiskFailed, "test"))
			check("removed")
			must(t, s.Close())
			s = openStore(t, dir, true)
			check("opened anew")
			must(t, s.Close())
			must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
			s = openStore(t, dir, true)
			check("with a new index")
			must(t, s.Restore(t.Context(), seg.start.ID, bytes.NewReader(seg.file)))
			checkLine(t, s)
			must(t, s.Close())
			s = openStore(t, dir, true)
			checkLine(t, s)
		})
	}
}

// checkLine fails if a gap that a removal leaves overlaps a segment.
func checkLine(t *testing.T, s *Store) {
	t.Helper()
	f := follower{}
	batch, err := s.next(&f)
	must(t, err)
	for _, g := range batch {
		for _, seg := range batch {
			if g.Gap != nil && leftBehind(g.Gap.Cause) && seg.Sealed != nil && g.Gap.Span.Overlaps(seg.Sealed.Span) {
				t.Errorf("%s and %s", describe(g), describe(seg))
			}
		}
	}
}
