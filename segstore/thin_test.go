package segstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/crypt"
)

// checkThinned holds what the store has of a thinned segment against the whole.
func checkThinned(t *testing.T, s *Store, seg testSegment) {
	t.Helper()
	id := seg.start.ID
	list, err := s.Segments(t.Context(), testStream, day(0, 99))
	must(t, err)
	i := slices.IndexFunc(list, func(l branchline.Segment) bool { return l.ID == id })
	if i < 0 {
		t.Fatalf("it is not listed: %+v", list)
	}
	keys := slices.DeleteFunc(slices.Clone(seg.fragments), func(f branchline.Fragment) bool { return !f.Key })
	if got := list[i]; !got.Sealed || got.Size != seg.seal.Size || got.Hash != seg.seal.Hash || Whole(got) ||
		!slices.Equal(got.Fragments, keys) {
		t.Errorf("listed as %+v", got)
	}
	end := seg.fragments[len(seg.fragments)-1].End()
	kept := []branchline.ByteRange{{End: seg.fragments[0].End()}, {Start: end}, {Start: end + 5, End: seg.seal.Size},
		{Start: seg.seal.Size, End: seg.seal.Size}, {Start: 3, End: 30}}
	for _, f := range keys {
		kept = append(kept, branchline.ByteRange{Start: f.Offset, End: f.End()},
			branchline.ByteRange{Start: f.Offset + 9, End: f.End() - 9})
	}
	for _, r := range kept {
		want := seg.file[r.Start:]
		if r.End != 0 {
			want = seg.file[r.Start:r.End]
		}
		if got := fetchAll(t, s, id, r); !bytes.Equal(got, want) {
			t.Errorf("bytes %d to %d differ", r.Start, r.End)
		}
	}
	left := seg.fragments[1]
	for _, r := range []branchline.ByteRange{{Start: left.Offset, End: left.End()}, {Start: left.Offset + 3},
		{End: seg.seal.Size}, {Start: left.Offset - 1, End: left.Offset + 1}, {Start: end - 1, End: end}} {
		if _, err := s.Fetch(t.Context(), id, r); !errors.Is(err, branchline.ErrGone) {
			t.Errorf("bytes %d to %d: %v", r.Start, r.End, err)
		}
	}
	r, err := s.Fetch(t.Context(), id, branchline.ByteRange{Start: 2})
	must(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	if !errors.Is(err, branchline.ErrGone) || !bytes.Equal(got, seg.file[2:left.Offset]) {
		t.Errorf("across what was left out: %d bytes, %v", len(got), err)
	}
	report, err := Check(Path(s.dir, testStream, id, seg.start.Start))
	if err != nil || !report.OK() || !report.Sealed || !report.Thinned || report.Of != len(seg.fragments) ||
		report.Fragments != len(keys) || report.Hash != seg.seal.Hash.String() {
		t.Errorf("checked as %v: %v", report, err)
	}
	size, err := s.SizeOnDisk(id)
	if err != nil || size != report.Size {
		t.Errorf("%d bytes on disk instead of %d: %v", size, report.Size, err)
	}
}

func TestThin(t *testing.T) {
	for _, origin := range []bool{true, false} {
		t.Run(fmt.Sprintf("origin %v", origin), func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, origin)
			seg := makeSegment(0, 0, 10, branchline.Hash{})
			other := makeSegment(1, 5, 4, seg.seal.Hash)
			record(t, s, seg)
			record(t, s, other)
			feed := allChanges(t, s)
			id := seg.start.ID
			before, err := s.Fetch(t.Context(), id, branchline.ByteRange{})
			must(t, err)
			defer before.Close()
			for range 2 {
				must(t, s.Thin(id))
				checkThinned(t, s, seg)
			}
			if got, err := io.ReadAll(before); err != nil || !bytes.Equal(got, seg.file) {
				t.Errorf("who read it before got %d bytes: %v", len(got), err)
			}
			if got := fetchAll(t, s, other.start.ID, branchline.ByteRange{}); !bytes.Equal(got, other.file) {
				t.Error("its neighbour differs")
			}
			size, err := s.SizeOnDisk(id)
			must(t, err)
			total := func(when string) {
				if got := s.Stats(); got.Bytes != size+other.seal.Size || got.Segments != 2 {
					t.Errorf("%s: %+v, want %d and %d bytes", when, got, size, other.seal.Size)
				}
			}
			total("thinned")
			must(t, s.Seal(id, seg.seal)) // does nothing
			must(t, s.Put(id, seg.fragments[1], seg.data(1)))
			if held, err := s.Held(testStream, day(0, 5)); err != nil || len(held) != 1 || held[0] != day(0, 5) {
				t.Errorf("held %v: it would be fetched again: %v", held, err)
			}
			if got := allChanges(t, s); got != feed {
				t.Errorf("feed %s, want %s", got, feed)
			}
			for _, rebuild := range []bool{false, true} {
				must(t, s.Close())
				if rebuild {
					must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
				}
				s = openStore(t, dir, origin)
				checkThinned(t, s, seg)
				total(fmt.Sprintf("opened anew, rebuilt %v", rebuild))
			}
			must(t, s.Remove(id, branchline.CauseExpired))
			must(t, s.Remove(other.start.ID, branchline.CauseExpired))
			if got := s.Stats(); got.Bytes != 0 || got.Segments != 0 {
				t.Errorf("all removed: %+v", got)
			}
		})
	}
}

func TestThinRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	grows, gone, rotten := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{}),
		makeSegment(2, 4, 4, branchline.Hash{})
	record(t, s, gone)
	record(t, s, rotten)
	must(t, s.Begin(testStream, branchline.SegmentStart{ID: grows.start.ID, Stream: testStream, Run: 2,
		Start: grows.start.Start, Init: grows.start.Init}))
	must(t, s.Remove(gone.start.ID, branchline.CauseExpired))
	flipBit(t, Path(dir, testStream, rotten.start.ID, rotten.start.Start), rotten.fragments[2].Offset+9, 1)
	for _, c := range []struct {
		name string
		id   branchline.SegmentID
		want error
	}{
		{"unknown", branchline.SegmentID{9}, branchline.ErrNotFound},
		{"removed", gone.start.ID, branchline.ErrGone},
		{"growing", grows.start.ID, branchline.ErrBusy},
		{"damaged", rotten.start.ID, branchline.ErrGone},
		{"damaged, again", rotten.start.ID, branchline.ErrGone},
	} {
		if err := s.Thin(c.id); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if left, _ := readNames(filepath.Join(dir, trashDir)); len(left) > 0 {
		t.Errorf("left in trash: %v", left)
	}
	last := makeSegment(3, 6, 4, branchline.Hash{})
	record(t, s, last)
	s.free = func(string) (int64, error) { return minFree - 1, nil }
	if err := s.Thin(last.start.ID); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("without room: %v", err)
	}
}

// TestStopThinningAtEveryStep stops before each change on disk; opened again, the segment is whole or
// thinned, and can be thinned.
func TestStopThinningAtEveryStep(t *testing.T) {
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	outcomes := map[bool]int{}
	for k, finished := 0, false; !finished; k++ {
		dir := t.TempDir()
		d := &stopping{left: 1 << 30}
		s, err := openStill(dir, Options{Signer: testKey()}, d)
		must(t, err)
		record(t, s, seg)
		d.mu.Lock()
		d.left = k
		d.mu.Unlock()
		err = s.Thin(seg.start.ID)
		finished = err == nil
		s.Close()
		s = openStore(t, dir, true)
		list, err := s.Segments(t.Context(), testStream, day(0, 9))
		if err != nil || len(list) != 1 {
			t.Fatalf("stopped at %d: %+v %v", k, list, err)
		}
		outcomes[Whole(list[0])]++
		if Whole(list[0]) {
			if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Errorf("stopped at %d: differs", k)
			}
		}
		if finished && Whole(list[0]) {
			t.Error("acknowledged and not durable")
		}
		checkFiles(t, dir)
		must(t, s.Thin(seg.start.ID))
		checkThinned(t, s, seg)
		must(t, s.Close())
		if k > 50 || t.Failed() {
			t.Fatalf("stopped at %d", k)
		}
	}
	if outcomes[true] < 5 || outcomes[false] < 2 {
		t.Errorf("stops left it whole or not: %v", outcomes)
	}
}

// thinnedFile is the excerpt of a segment with the key fragments only.
func thinnedFile(t testing.TB, seg testSegment) []byte {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir, true)
	record(t, s, seg)
	must(t, s.Thin(seg.start.ID))
	must(t, s.Close())
	file, err := os.ReadFile(Path(dir, testStream, seg.start.ID, seg.start.Start))
	must(t, err)
	return file
}

// TestEveryFlippedBitOfAnExcerptIsFound flips a bit in each byte, and takes bytes away from either end.
func TestEveryFlippedBitOfAnExcerptIsFound(t *testing.T) {
	file := thinnedFile(t, makeSegment(0, 0, 4, branchline.Hash{}))
	path := filepath.Join(t.TempDir(), "excerpt.mp4")
	sound := func(b []byte) bool {
		must(t, os.WriteFile(path, b, 0o644))
		report, err := Check(path)
		return err == nil && report.OK()
	}
	if !sound(file) {
		t.Fatal("sound file")
	}
	if _, err := ReadFooter(bytes.NewReader(file), int64(len(file))); !errors.Is(err, branchline.ErrInvalid) {
		t.Errorf("it passes for the whole: %v", err)
	}
	for i := range file {
		file[i] ^= 1 << (i % 8)
		if sound(file) {
			t.Errorf("flipped bit in byte %d is not found", i)
		}
		file[i] ^= 1 << (i % 8)
	}
}

// FuzzEnding reads any bytes as a file with its ending.
func FuzzEnding(f *testing.F) {
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	f.Add(seg.file)
	f.Add(thinnedFile(f, seg))
	f.Add(append(seg.seal.Footer, excerptBox([]bool{true, false, true, false})...))
	f.Add(excerptBox([]bool{true, false}))
	f.Add(append(seg.file, cryptBox(crypt.ID{1})...))
	f.Add(append(thinnedFile(f, seg), cryptBox(crypt.ID{1})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := readEnding(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if len(e.kept) == 0 || e.excerpt() == (len(e.kept) == len(e.Fragments)) {
			t.Errorf("%d of %d fragments, excerpt %v", len(e.kept), len(e.Fragments), e.excerpt())
		}
		for _, row := range e.kept {
			if at, err := e.place(row); err != nil || at+row.Length > int64(len(b)) {
				t.Errorf("fragment at %d of %d: %v", at, len(b), err)
			}
		}
		for _, row := range e.Fragments {
			if n := e.reach(row.Offset + 1); n < 0 || row.Offset+1+n > e.wholeSize() {
				t.Fatalf("%d bytes from %d on", n, row.Offset+1)
			}
		}
	})
}
