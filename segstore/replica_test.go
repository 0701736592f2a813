package segstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
)

// TestAnyOrder shows that a segment put together from any permutation and repetition of its fragments,
// with the footer at any place and the store opened anew at any place, has the origin's bytes.
func TestAnyOrder(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		n := rapid.IntRange(1, 6).Draw(rt, "fragments")
		seg := makeSegment(uint32(round%200), round*10, n, branchline.Hash{})
		id := seg.start.ID
		again := rapid.SliceOfN(rapid.IntRange(0, n), 0, 4).Draw(rt, "again")
		steps := rapid.Permutation(append(slices.Collect(ints(n+1)), again...)).Draw(rt, "order")
		reopen := rapid.IntRange(0, 20*len(steps)).Draw(rt, "reopen before")
		must(t, s.Begin(testStream, seg.start))
		for i, step := range steps {
			if i == reopen {
				must(t, s.Close())
				s = openStore(t, dir, false)
			}
			must(t, s.Begin(testStream, seg.start))
			if step == n {
				must(t, s.Seal(id, seg.seal))
			} else {
				must(t, s.Put(id, seg.fragments[step], seg.data(step)))
			}
		}
		got, err := os.ReadFile(Path(dir, testStream, id, seg.start.Start))
		if err != nil || !bytes.Equal(got, seg.file) {
			rt.Fatalf("file differs from the origin's: %v", err)
		}
		if left, _ := readNames(filepath.Join(dir, growingDir, string(testStream))); len(left) > 0 {
			rt.Fatalf("left over: %v", left)
		}
	})
}

func ints(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// TestConcurrentWriters has a live recorder and two fetchers on the same segments.
func TestConcurrentWriters(t *testing.T) {
	s := openStore(t, t.TempDir(), false)
	var segs []testSegment
	for i := range 5 {
		segs = append(segs, makeSegment(uint32(i), i*10, 12, branchline.Hash{}))
	}
	var group errgroup.Group
	for w := range 3 {
		group.Go(func() error {
			for _, seg := range segs {
				order := slices.Collect(ints(len(seg.fragments)))
				if w > 0 {
					slices.Reverse(order)
				}
				if err := s.Begin(testStream, seg.start); err != nil {
					return err
				}
				for _, i := range order {
					if err := s.Put(seg.start.ID, seg.fragments[i], seg.data(i)); err != nil {
						return err
					}
				}
				if err := s.Seal(seg.start.ID, seg.seal); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error { s.syncAll(); s.syncAll(); return nil })
	must(t, group.Wait())
	for _, seg := range segs {
		if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
			t.Errorf("segment at %s differs", seconds(seg.start.Start))
		}
	}
	if got := allChanges(t, s); got != "sealed 0-6, sealed 10-16, sealed 20-26, sealed 30-36, sealed 40-46" {
		t.Errorf("feed: %s", got)
	}
	if st := s.Stats(); st.Segments != 5 || st.Partial != 0 {
		t.Errorf("stats %+v", st)
	}
}

// refusal is something that a replica must not take, tried on a store in which seg was begun.
type refusal struct {
	name string
	do   func(s *Store) error
	want error
}

func refuse(t *testing.T, seg testSegment, cases []refusal) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), false)
			must(t, s.Begin(testStream, seg.start))
			if err := c.do(s); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if st := s.Stats(); st.Segments != 0 {
				t.Errorf("sealed")
			}
			must(t, s.Close())
		})
	}
}

func TestRefusedSeals(t *testing.T) {
	seg, other := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	id := seg.start.ID
	changed := func(fromEnd int, bits byte) func(s *Store) error {
		seal := seg.seal
		seal.Footer = bytes.Clone(seal.Footer)
		seal.Footer[len(seal.Footer)-fromEnd] ^= bits
		return func(s *Store) error { return s.Seal(id, seal) }
	}
	refuse(t, seg, []refusal{
		{"another hash announced", func(s *Store) error {
			seal := seg.seal
			seal.Hash[0]++
			return s.Seal(id, seal)
		}, branchline.ErrMismatch},
		{"another segment's footer", func(s *Store) error { return s.Seal(id, other.seal) }, branchline.ErrMismatch},
		{"flipped table", changed(endSize+1, 1), branchline.ErrMismatch},
		{"flipped signature", changed(trailerSize+1, 1), branchline.ErrMismatch},
		{"newer version", changed(len(seg.seal.Footer)-boxHeaderSize, Version^(Version+1)), ErrNewer},
		{"no footer", func(s *Store) error {
			return s.Seal(id, branchline.SegmentSeal{ID: id})
		}, branchline.ErrInvalid},
		{"table against held fragment", func(s *Store) error {
			data := append(bytes.Clone(seg.data(1)[:100]), seg.data(2)[100:]...)
			data = append(data[:len(data)-ChecksumSize], ChecksumBox(data[:len(data)-ChecksumSize])...)
			f := seg.fragments[1]
			f.Hash = sha256.Sum256(data)
			return errors.Join(expect(s.Put(id, f, data), nil), s.Seal(id, seg.seal))
		}, branchline.ErrMismatch},
	})
}

func TestRefusedFragments(t *testing.T) {
	seg, other := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	longer := makeSegment(0, 0, 6, branchline.Hash{})
	id := seg.start.ID
	put := func(at, from int, shift int64) func(s *Store) error {
		f := seg.fragments[at]
		f.Offset += shift
		return func(s *Store) error { return s.Put(id, f, seg.data(from)) }
	}
	refuse(t, seg, []refusal{
		{"flipped bytes", put(0, 1, 0), branchline.ErrMismatch},
		{"short bytes", func(s *Store) error {
			return s.Put(id, seg.fragments[0], seg.data(0)[1:])
		}, branchline.ErrMismatch},
		{"over the init part", put(0, 0, -1), branchline.ErrMismatch},
		{"over another fragment", func(s *Store) error {
			return errors.Join(expect(put(0, 0, 0)(s), nil), put(0, 0, 1)(s))
		}, branchline.ErrMismatch},
		{"not in the footer", func(s *Store) error {
			return errors.Join(expect(s.Seal(id, seg.seal), nil), put(0, 0, 1)(s))
		}, branchline.ErrMismatch},
		{"of a segment never begun", func(s *Store) error {
			return s.Put(other.start.ID, other.fragments[0], other.data(0))
		}, branchline.ErrNotFound},
		{"after the footer, which is no error", func(s *Store) error {
			must(t, s.Seal(id, seg.seal))
			return s.Put(id, longer.fragments[4], longer.data(4))
		}, nil},
	})
}

func TestRefusedRest(t *testing.T) {
	seg, other := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	id := seg.start.ID
	fetch := func(id branchline.SegmentID, r branchline.ByteRange) func(s *Store) error {
		return func(s *Store) error {
			must(t, s.Put(seg.start.ID, seg.fragments[2], seg.data(2)))
			_, err := s.Fetch(t.Context(), id, r)
			return err
		}
	}
	hole := branchline.ByteRange{Start: seg.fragments[1].Offset, End: seg.fragments[2].End()}
	refuse(t, seg, []refusal{
		{"begun differently", func(s *Store) error {
			start := seg.start
			start.Run++
			return s.Begin(testStream, start)
		}, branchline.ErrMismatch},
		{"fetch over the end", fetch(id, branchline.ByteRange{Start: 1 << 20}), branchline.ErrInvalid},
		{"fetch of a hole", fetch(id, hole), branchline.ErrUnavailable},
		{"fetch from a hole on", fetch(id, branchline.ByteRange{Start: hole.Start}), branchline.ErrUnavailable},
		{"fetch backwards", fetch(id, branchline.ByteRange{Start: 5, End: 4}), branchline.ErrInvalid},
		{"fetch of the unknown", fetch(other.start.ID, branchline.ByteRange{}), branchline.ErrNotFound},
	})
}

// TestAbandoned begins the next segment at the origin while the last one was left unsealed.
func TestAbandoned(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	a, empty := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	must(t, s.Begin(testStream, a.start))
	must(t, s.Put(a.start.ID, a.fragments[0], a.data(0)))
	must(t, s.Begin(testStream, empty.start))
	record(t, s, makeSegment(2, 4, 4, branchline.Hash{}))
	if got := allChanges(t, s); got != "sealed 0-0.5, removed 2-2 disk slow, sealed 4-6" {
		t.Errorf("feed: %s", got)
	}
	checkFiles(t, s.dir)
}

// expect returns an error that is none of those looked for unless err is want.
func expect(err, want error) error {
	if !errors.Is(err, want) {
		return errors.New("instead of the expected error: " + fmt.Sprint(err))
	}
	return nil
}

// TestOriginLostItsTail: the hub received more live than the edge had synced when its power failed.
func TestOriginLostItsTail(t *testing.T) {
	s := openStore(t, t.TempDir(), false)
	long, short := makeSegment(0, 0, 6, branchline.Hash{}), makeSegment(0, 0, 3, branchline.Hash{})
	must(t, s.Begin("berlin."+testStream, long.start))
	for i, f := range long.fragments {
		must(t, s.Put(long.start.ID, f, long.data(i)))
	}
	must(t, s.Seal(long.start.ID, short.seal))
	if got := fetchAll(t, s, long.start.ID, branchline.ByteRange{}); !bytes.Equal(got, short.file) {
		t.Errorf("%d bytes, want the origin's %d", len(got), len(short.file))
	}
	checkFiles(t, s.dir)
}

// TestPlayablePart reads from a segment that is held in part, before and after opening anew.
func TestPlayablePart(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	seg := makeSegment(0, 0, 8, branchline.Hash{})
	id := seg.start.ID
	must(t, s.Begin(testStream, seg.start))
	for _, i := range []int{4, 5, 1} {
		must(t, s.Put(id, seg.fragments[i], seg.data(i)))
	}
	s.syncAll()
	for range 2 {
		held, err := s.Held(testStream, day(0, 9))
		must(t, err)
		if !slices.Equal(held, []branchline.TimeRange{day(0.5, 1), day(2, 3)}) {
			t.Errorf("held %v", held)
		}
		list, err := s.Segments(t.Context(), testStream, day(0, 9))
		must(t, err)
		want := []branchline.Fragment{seg.fragments[1], seg.fragments[4], seg.fragments[5]}
		if len(list) != 1 || list[0].Sealed || !slices.Equal(list[0].Fragments, want) {
			t.Errorf("segments %+v", list)
		}
		for _, r := range []branchline.ByteRange{
			{Start: 0, End: int64(len(seg.start.Init))},
			{Start: seg.fragments[4].Offset, End: seg.fragments[5].End()},
			{Start: seg.fragments[4].Offset + 7, End: seg.fragments[5].End() - 7},
		} {
			if got := fetchAll(t, s, id, r); !bytes.Equal(got, seg.file[r.Start:r.End]) {
				t.Errorf("bytes %v differ", r)
			}
		}
		files, err := List(dir, "", branchline.TimeRange{})
		if err != nil || len(files) != 1 {
			t.Errorf("list of files: %v %v", files, err)
		}
		must(t, s.Close())
		s = openStore(t, dir, false)
	}
	must(t, s.Remove(id, branchline.CauseExpired))
	if left, _ := filepath.Glob(filepath.Join(dir, "*", string(testStream), "*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestFollowGrowing reads a segment while it is recorded, to its footer.
func TestFollowGrowing(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	seg := makeSegment(0, 0, 8, branchline.Hash{})
	must(t, s.Begin(testStream, seg.start))
	r, err := s.Fetch(t.Context(), seg.start.ID, branchline.ByteRange{Start: 10})
	must(t, err)
	defer r.Close()
	got := slices.Clone(seg.file[:10])
	buf := make([]byte, 1<<16)
	for i, f := range seg.fragments {
		must(t, s.Put(seg.start.ID, f, seg.data(i)))
		for int64(len(got)) < f.End() {
			n, err := r.Read(buf)
			must(t, err)
			got = append(got, buf[:n]...)
		}
	}
	must(t, s.Seal(seg.start.ID, seg.seal))
	rest, err := io.ReadAll(r)
	if got = append(got, rest...); err != nil || !bytes.Equal(got, seg.file) {
		t.Errorf("followed %d bytes of %d: %v", len(got), len(seg.file), err)
	}
}

// snapshot copies the store's directory as it stands, which is what a killed process leaves.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func TestKilledOrigin(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	b := makeSegment(1, 2, 4, a.seal.Hash)
	record(t, s, a)
	must(t, s.Begin(testStream, b.start))
	for i := range 3 {
		must(t, s.Put(b.start.ID, b.fragments[i], b.data(i)))
	}
	dir = snapshot(t, dir)
	s = openStore(t, dir, true)
	list, err := s.Segments(t.Context(), testStream, day(0, 9))
	must(t, err)
	if len(list) != 2 || !list[1].Sealed || !slices.Equal(list[1].Fragments, b.fragments[:3]) {
		t.Fatalf("segments %+v", list)
	}
	f, err := readFooterFile(Path(dir, testStream, b.start.ID, b.start.Start))
	must(t, err)
	if !f.Cut || f.Prev != a.seal.Hash || f.Verify(b.start.Init) != nil {
		t.Errorf("footer cut %v, after %v", f.Cut, f.Prev)
	}
	tail, err := s.Tail(testStream)
	if err != nil || !tail.End.Equal(day(0, 3.5).End) || tail.Hash != f.Hash {
		t.Errorf("tail %+v %v", tail, err)
	}
	checkFiles(t, dir)
}

func TestKilledReplica(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	seg := makeSegment(0, 0, 6, branchline.Hash{})
	must(t, s.Begin(testStream, seg.start))
	for _, i := range []int{0, 3} {
		must(t, s.Put(seg.start.ID, seg.fragments[i], seg.data(i)))
	}
	must(t, s.Seal(seg.start.ID, seg.seal))
	s.syncAll()
	s = openStore(t, snapshot(t, dir), false)
	want := []branchline.TimeRange{day(0, 0.5), day(1.5, 2)}
	if held, _ := s.Held(testStream, day(0, 9)); !slices.Equal(held, want) {
		t.Errorf("held %v", held)
	}
	for _, i := range []int{1, 2, 4, 5} {
		must(t, s.Put(seg.start.ID, seg.fragments[i], seg.data(i)))
	}
	if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
		t.Errorf("differs from the origin's")
	}
}

// TestIndexLost deletes the index: everything is found again, under a new epoch.
func TestIndexLost(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, a)
	record(t, s, makeSegment(1, 2, 4, a.seal.Hash))
	must(t, s.RecordGap(gap(4, 4, branchline.CauseUnreachable, true)))
	must(t, s.RecordGap(gap(4, 8, branchline.CauseUnreachable, false)))
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Name: "Door"}))
	_, at := changes(t, s, branchline.Position{}, 4)
	before, tail := s.Stats(), mustTail(t, s)
	must(t, s.Close())
	for _, c := range []struct {
		name string
		harm func() error
	}{
		{"deleted", func() error { return os.RemoveAll(filepath.Join(dir, indexDir)) }},
		{"tables cut", func() error { return truncateAll(filepath.Join(dir, indexDir, "db", "*.sst")) }},
		{"manifest cut", func() error { return truncateAll(filepath.Join(dir, indexDir, "db", "MANIFEST")) }},
	} {
		must(t, c.harm())
		s = openStore(t, dir, true)
		if got := allChanges(t, s); got != "gap 4-8 camera unreachable, camera entrance Door, sealed 0-2, sealed 2-4" {
			t.Errorf("%s: %s", c.name, got)
		}
		if st := s.Stats(); st.Segments != before.Segments || st.Bytes != before.Bytes || mustTail(t, s) != tail {
			t.Errorf("%s: stats %+v, before %+v", c.name, st, before)
		}
		for _, err := range s.Changes(t.Context(), at) {
			if !errors.Is(err, branchline.ErrGone) {
				t.Errorf("%s: follower with the old epoch: %v", c.name, err)
			}
		}
		must(t, s.Close())
	}
}

func mustTail(t *testing.T, s *Store) Tail {
	tail, err := s.Tail(testStream)
	must(t, err)
	return tail
}

func truncateAll(glob string) error {
	files, err := filepath.Glob(glob)
	for _, f := range files {
		err = errors.Join(err, os.Truncate(f, 20))
	}
	return err
}

// TestFilesLostAndFound takes files away from a closed store and puts others in.
func TestFilesLostAndFound(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	a, b := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	record(t, s, a)
	must(t, s.Close())
	must(t, os.Remove(Path(dir, testStream, a.start.ID, a.start.Start)))
	must(t, os.WriteFile(Path(dir, testStream, b.start.ID, b.start.Start), b.file, 0o644))
	junk := Path(dir, testStream, branchline.SegmentID{}, b.start.Start)
	must(t, os.WriteFile(junk, b.file, 0o644))
	s = openStore(t, dir, true)
	if got := allChanges(t, s); got != "sealed 2-4, removed 0-2 disk failed, gap 0-2 disk failed" {
		t.Errorf("feed: %s", got)
	}
	if _, err := os.Stat(junk); err != nil {
		t.Errorf("a file that is no segment of ours is gone: %v", err)
	}
}

// TestManyPartials opens more segments at once than files may be open.
func TestManyPartials(t *testing.T) {
	if testing.Short() {
		t.Skip("creates several hundred files")
	}
	s := openStore(t, t.TempDir(), false)
	var segs []testSegment
	for i := range maxOpenFiles + 20 {
		seg := makeSegment(0, i*10, 2, branchline.Hash{})
		must(t, s.Begin(testStream, seg.start))
		must(t, s.Put(seg.start.ID, seg.fragments[0], seg.data(0)))
		segs = append(segs, seg)
	}
	open := 0
	for _, p := range s.list() {
		if p.file != nil {
			open++
		}
	}
	if open > maxOpenFiles {
		t.Errorf("%d files are open", open)
	}
	for _, i := range []int{0, 1, maxOpenFiles} {
		must(t, s.Put(segs[i].start.ID, segs[i].fragments[1], segs[i].data(1)))
		must(t, s.Seal(segs[i].start.ID, segs[i].seal))
	}
}
