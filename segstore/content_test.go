package segstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/branchline-video/branchline"
)

// place puts the segment's file where a store in dir keeps it.
func place(t testing.TB, dir string, seg testSegment) string {
	t.Helper()
	path := Path(dir, testStream, seg.start.ID, seg.start.Start)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, seg.file, 0o644))
	return path
}

func flipBit(t testing.TB, path string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

// TestFlippedBitIsNeverServed flips one bit in each of 1,000 sealed files, at a place of its own. Whoever
// asks gets right bytes up to the damage at most, and then that the segment is gone; before or after its
// footer was in memory.
func TestFlippedBitIsNeverServed(t *testing.T) {
	const files = 1000
	dir := t.TempDir()
	segs := make([]testSegment, files)
	for i := range segs {
		segs[i] = makeSegment(uint32(i), i, 2, branchline.Hash{})
		place(t, dir, segs[i])
	}
	s := openStore(t, dir, true)
	random := rand.New(rand.NewPCG(1, 2))
	for i, seg := range segs {
		id, at := seg.start.ID, random.Int64N(int64(len(seg.file)))
		if i%2 == 0 {
			fetchAll(t, s, id, branchline.ByteRange{End: 1}) // its footer is in memory now
		}
		flipBit(t, Path(dir, testStream, id, seg.start.Start), at, i%8)
		s.brake.good() // this is not about many in a row
		var got []byte
		r, err := s.Fetch(t.Context(), id, branchline.ByteRange{})
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		if !errors.Is(err, branchline.ErrGone) || errors.Is(err, branchline.ErrMismatch) {
			t.Errorf("file %d with a bit flipped at %d of %d: %d bytes, %v", i, at, len(seg.file), len(got), err)
		}
		if !bytes.Equal(got, seg.file[:len(got)]) || int64(len(got)) > at {
			t.Errorf("file %d with a bit flipped at %d: %d bytes were served", i, at, len(got))
		}
	}
	if st := s.Stats(); st.Segments != 0 {
		t.Errorf("%d segments are left", st.Segments)
	}
}

// TestDamagedPartIsFetchedAgain flips a bit of a fragment that a replica holds in part: it is not served,
// not held any more, also after opening anew or a kill, and put again.
func TestDamagedPartIsFetchedAgain(t *testing.T) {
	for _, c := range []string{"at once", "after a kill", "after opening anew"} {
		t.Run(c, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, false)
			seg := makeSegment(0, 0, 4, branchline.Hash{})
			id, bad := seg.start.ID, seg.fragments[1]
			must(t, s.Begin(testStream, seg.start))
			for i := range 3 {
				must(t, s.Put(id, seg.fragments[i], seg.data(i)))
			}
			must(t, s.Sync(t.Context(), id))
			flipBit(t, growingPath(dir, testStream, id), bad.Offset+20, 3)
			r, err := s.Fetch(t.Context(), id, branchline.ByteRange{End: seg.fragments[2].End()})
			must(t, err)
			got, err := io.ReadAll(r)
			must(t, r.Close())
			if !errors.Is(err, branchline.ErrUnavailable) || !bytes.Equal(got, seg.file[:bad.Offset]) {
				t.Errorf("%d bytes instead of %d: %v", len(got), bad.Offset, err)
			}
			must(t, s.Sync(t.Context(), id))
			switch c {
			case "after a kill":
				dir = snapshot(t, dir)
				s = openStore(t, dir, false)
			case "after opening anew":
				must(t, s.Close())
				s = openStore(t, dir, false)
			}
			list, err := s.Segments(t.Context(), testStream, day(0, 9))
			want := []branchline.Fragment{seg.fragments[0], seg.fragments[2]}
			if err != nil || len(list) != 1 || !slices.Equal(list[0].Fragments, want) {
				t.Fatalf("held %+v: %v", list, err)
			}
			record(t, s, seg)
			if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Error("differs after it was put again")
			}
		})
	}
}

// TestDamageWhileGrowing: the origin does not serve it either, and what is sealed with it goes to
// quarantine when it is asked for.
func TestDamageWhileGrowing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	id := seg.start.ID
	must(t, s.Begin(testStream, seg.start))
	must(t, s.Put(id, seg.fragments[0], seg.data(0)))
	must(t, s.Put(id, seg.fragments[1], seg.data(1)))
	flipBit(t, growingPath(dir, testStream, id), seg.fragments[1].Offset+20, 3)
	open, err := s.Fetch(t.Context(), id, branchline.ByteRange{Start: seg.fragments[1].Offset})
	must(t, err)
	defer open.Close()
	if n, err := open.Read(make([]byte, 10)); n > 0 || !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("read %d bytes: %v", n, err)
	}
	must(t, s.Seal(id, seg.seal))
	if n, err := open.Read(make([]byte, 10)); n > 0 || !errors.Is(err, branchline.ErrGone) {
		t.Errorf("read %d bytes after the seal: %v", n, err)
	}
	if got := allChanges(t, s); !strings.HasSuffix(got, "removed 0-1 disk failed, gap 0-1 disk failed") {
		t.Errorf("feed: %s", got)
	}
}

// counted counts the bytes that are read.
type counted struct {
	io.ReaderAt
	n *int64
}

func (c counted) ReadAt(b []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, at)
	*c.n += int64(n)
	return n, err
}

// TestReadOnce reads ranges in small pieces: each fragment is read from the file once.
func TestReadOnce(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	whole, part := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	record(t, s, whole)
	must(t, s.Begin(testStream, part.start))
	for i := range 3 {
		must(t, s.Put(part.start.ID, part.fragments[i], part.data(i)))
	}
	for _, c := range []struct {
		seg  testSegment
		want branchline.ByteRange
		read int64 // from fragments
	}{
		{whole, branchline.ByteRange{}, whole.fragments[3].End() - whole.fragments[0].Offset},
		{whole, branchline.ByteRange{Start: whole.fragments[1].Offset + 7, End: whole.fragments[1].End() - 7},
			whole.fragments[1].Length},
		{whole, branchline.ByteRange{Start: 3, End: whole.fragments[0].Offset}, 0},
		{whole, branchline.ByteRange{Start: whole.fragments[3].End() + 3}, 0},
		{whole, branchline.ByteRange{Start: whole.seal.Size, End: whole.seal.Size}, 0},
		{part, branchline.ByteRange{Start: 1, End: part.fragments[2].End()},
			part.fragments[2].End() - part.fragments[0].Offset},
	} {
		t.Run(fmt.Sprintf("%d to %d", c.want.Start, c.want.End), func(t *testing.T) {
			rc, err := s.Fetch(t.Context(), c.seg.start.ID, c.want)
			must(t, err)
			defer rc.Close()
			r, n := rc.(*reader), int64(0)
			r.content.file = counted{r.f, &n}
			first := r.content.row.Length // read by Fetch
			var got []byte
			small := make([]byte, 11)
			for {
				n, err := r.Read(small)
				got = append(got, small[:n]...)
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
			}
			end := c.want.End
			if end == 0 {
				end = int64(len(c.seg.file))
			}
			if !bytes.Equal(got, c.seg.file[c.want.Start:end]) {
				t.Error("differs")
			}
			if n += first; n != c.read {
				t.Errorf("read %d bytes of fragments, want %d", n, c.read)
			}
		})
	}
}
