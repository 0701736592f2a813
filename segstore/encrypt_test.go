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
	"github.com/branchline-video/branchline/segstore/crypt"
)

// testKeys returns keys of which each digit is one.
func testKeys(t testing.TB, digits string) *crypt.Keys {
	t.Helper()
	if digits == "" {
		return nil
	}
	var text string
	for _, d := range digits {
		text += strings.Repeat("0"+string(d)+"f", 21) + "0\n"
	}
	keys, err := crypt.Parse("keys "+digits, []byte(text))
	must(t, err)
	return keys
}

func openEncrypted(t testing.TB, dir, digits string, opt Options) *Store {
	t.Helper()
	opt.Keys = testKeys(t, digits)
	s, err := Open(dir, opt)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func both() map[string]Options {
	return map[string]Options{"origin": {Signer: testKey()}, "replica": {}}
}

// TestEncrypted: what leaves the store is as in plain, and on disk nothing of it is readable.
func TestEncrypted(t *testing.T) {
	for name, opt := range both() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openEncrypted(t, dir, "1", opt)
			seg, part := makeSegment(0, 0, 6, branchline.Hash{}), makeSegment(1, 3, 4, branchline.Hash{})
			id := seg.start.ID
			record(t, s, seg)
			must(t, s.Begin(testStream, part.start))
			must(t, s.Put(part.start.ID, part.fragments[0], part.data(0)))
			must(t, s.Sync(t.Context(), part.start.ID))
			path, growing := Path(dir, testStream, id, seg.start.Start), growingPath(dir, testStream, part.start.ID)
			for file, plain := range map[string]testSegment{path: seg, growing: part} {
				raw, err := os.ReadFile(file)
				must(t, err)
				for i := 0; i < len(plain.fragments) && plain.fragments[i].End() <= int64(len(raw)); i++ {
					f := plain.fragments[i]
					for at := f.Offset; at+16 < f.End(); at += 16 {
						if bytes.Contains(raw, plain.file[at:at+16]) {
							t.Fatalf("%s shows what is at %d", file, at)
						}
					}
				}
			}
			for at := range seg.file[:len(seg.file)-1] {
				r := branchline.ByteRange{Start: int64(at), End: int64(min(at+300, len(seg.file)))}
				if got := fetchAll(t, s, id, r); !bytes.Equal(got, seg.file[r.Start:r.End]) {
					t.Fatalf("bytes from %d on differ", at)
				}
			}
			got := fetchAll(t, s, part.start.ID, branchline.ByteRange{End: part.fragments[0].End()})
			if !bytes.Equal(got, part.file[:len(got)]) {
				t.Error("what grows differs")
			}
			if got := s.Stats().Bytes; got != seg.seal.Size+cryptSize {
				t.Errorf("%d bytes on disk instead of %d", got, seg.seal.Size+cryptSize)
			}
			with, without := Files{Keys: testKeys(t, "1")}, Files{Keys: testKeys(t, "2")}
			for _, file := range []string{path, growing} {
				if r, err := with.Check(file); err != nil || !r.OK() || r.Encrypted == "" || r.Fragments == 0 {
					t.Errorf("checked as %v: %v", r, err)
				}
				r, err := without.Check(file)
				if err != nil || r.OK() || len(r.Problems) > 0 || r.Unverified == "" ||
					!strings.Contains(r.String(), "not verified: give") || !strings.Contains(r.String(), r.Encrypted) ||
					!strings.Contains(r.String(), "keys 2") {
					t.Errorf("checked with another key as %v: %v", r, err)
				}
			}
			var plain, film bytes.Buffer
			must(t, with.Excerpt(&plain, path, branchline.TimeRange{}))
			must(t, with.Cat(&film, []string{path, growing}, day(0, 3.4)))
			want := append(bytes.Clone(seg.file[:seg.fragments[5].End()]), part.data(0)...)
			if !bytes.Equal(plain.Bytes(), seg.file) || !bytes.Equal(film.Bytes(), want) {
				t.Error("exported it differs")
			}
			if err := without.Excerpt(io.Discard, path, branchline.TimeRange{}); !errors.Is(err, crypt.ErrNoKey) {
				t.Errorf("excerpt with another key: %v", err)
			}
			if err := without.Cat(io.Discard, []string{path}, day(0, 3)); !errors.Is(err, crypt.ErrNoKey) {
				t.Errorf("cat with another key: %v", err)
			}
		})
	}
}

// TestMissingKeyIsNoDamage: without the key nothing is served and nothing happens to the files, an index
// is made again, what grew is sealed; and with the key, an old one too, all is there.
func TestMissingKeyIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	origin := Options{Signer: testKey()}
	s := openEncrypted(t, dir, "1", origin)
	seg, cut := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	id := seg.start.ID
	record(t, s, seg)
	must(t, s.Begin(testStream, cut.start))
	must(t, s.Put(cut.start.ID, cut.fragments[0], cut.data(0)))
	must(t, s.Close())
	for _, digits := range []string{"", "2"} {
		must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
		s = openEncrypted(t, dir, digits, origin)
		list, err := s.Segments(t.Context(), testStream, day(0, 9))
		if err != nil || len(list) != 2 || !list[1].Sealed || len(list[0].Fragments) != 4 || len(list[1].Fragments) != 1 {
			t.Errorf("keys %q: listed %+v: %v", digits, list, err)
		}
		for range 2 {
			_, err := s.Fetch(t.Context(), id, branchline.ByteRange{})
			if end := seg.fragments[0].Offset; err == nil {
				r, e := s.Fetch(t.Context(), id, branchline.ByteRange{Start: end})
				if e == nil {
					r.Close()
				}
				err = e
			}
			if !errors.Is(err, crypt.ErrNoKey) || !errors.Is(err, branchline.ErrUnavailable) {
				t.Errorf("keys %q: fetch: %v", digits, err)
			}
		}
		if err := s.Thin(id); !errors.Is(err, crypt.ErrNoKey) {
			t.Errorf("keys %q: thin: %v", digits, err)
		}
		must(t, s.Close())
	}
	s = openEncrypted(t, dir, "31", origin)
	if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
		t.Error("differs with the key")
	}
	if got := fetchAll(t, s, cut.start.ID, branchline.ByteRange{End: cut.fragments[0].End()}); !bytes.Equal(got,
		cut.file[:len(got)]) {
		t.Error("what was cut differs")
	}
	if left, _ := readNames(filepath.Join(dir, quarantineDir)); len(left) > 0 {
		t.Errorf("in quarantine: %v", left)
	}
}

// TestEncryptionTurnedOnAndOff: a store has plain and encrypted files, with several keys, and reads all.
func TestEncryptionTurnedOnAndOff(t *testing.T) {
	dir := t.TempDir()
	var segs []testSegment
	for i, c := range []struct {
		keys  string
		plain bool
		want  string // the key's place among those of the last step
	}{{"", false, ""}, {"1", false, "1"}, {"21", false, "2"}, {"21", true, ""}} {
		s := openEncrypted(t, dir, c.keys, Options{Plain: c.plain})
		grows := makeSegment(uint32(i), i*10, 3, branchline.Hash{})
		for _, seg := range segs { // begun by the step before
			record(t, s, seg)
		}
		must(t, s.Begin(testStream, grows.start))
		must(t, s.Put(grows.start.ID, grows.fragments[2], grows.data(2)))
		segs = append(segs, grows)
		must(t, s.Close())
		report, err := Files{Keys: testKeys(t, "21")}.Check(growingPath(dir, testStream, grows.start.ID))
		want := ""
		if c.want != "" {
			first, _ := testKeys(t, c.want).First()
			want = first.ID().String()
		}
		if err != nil || report.Encrypted != want || !report.OK() {
			t.Errorf("step %d: %+v: %v", i, report, err)
		}
	}
	s := openEncrypted(t, dir, "21", Options{})
	for i, seg := range segs {
		record(t, s, seg)
		if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
			t.Errorf("segment %d differs", i)
		}
	}
}

// TestEncryptedIsBound harms encrypted files in ways that the cipher has to find: nothing of it is served.
func TestEncryptedIsBound(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	copyWithin := func(from, to branchline.Fragment) func(f *os.File, other []byte) error {
		return func(f *os.File, other []byte) error {
			b := make([]byte, from.Length)
			if _, err := f.ReadAt(b, from.Offset); err != nil {
				return err
			}
			_, err := f.WriteAt(b, to.Offset)
			return err
		}
	}
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	harms := map[string]func(f *os.File, other []byte) error{
		"swapped": copyWithin(seg.fragments[0], seg.fragments[2]),
		"spliced from another segment": func(f *os.File, other []byte) error {
			row := seg.fragments[0]
			_, err := f.WriteAt(other[row.Offset:row.End()], row.Offset)
			return err
		},
		"plain instead": func(f *os.File, _ []byte) error {
			_, err := f.WriteAt(seg.data(1), seg.fragments[1].Offset)
			return err
		},
	}
	for i := range 15 {
		at := random.Int64N(seg.seal.Size + cryptSize)
		harms[fmt.Sprintf("bit flipped at %d", at)] = func(f *os.File, _ []byte) error {
			flipBit(t, f.Name(), at, i%8)
			return nil
		}
	}
	for name, harm := range harms {
		dir := t.TempDir()
		s := openEncrypted(t, dir, "1", Options{Signer: testKey()})
		other := makeSegment(1, 2, 4, branchline.Hash{})
		record(t, s, seg)
		record(t, s, other)
		raw, err := os.ReadFile(Path(dir, testStream, other.start.ID, other.start.Start))
		must(t, err)
		path := Path(dir, testStream, seg.start.ID, seg.start.Start)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		must(t, errors.Join(harm(f, raw), f.Close()))
		if strings.Contains(name, "bit") { // so that the ending is read anew
			must(t, s.Close())
			s = openEncrypted(t, dir, "1", Options{Signer: testKey()})
		}
		if r, err := (Files{Keys: testKeys(t, "1")}).Check(path); err == nil && r.OK() {
			t.Errorf("%s: checked as %v", name, r)
		}
		var got []byte
		r, err := s.Fetch(t.Context(), seg.start.ID, branchline.ByteRange{})
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		if err == nil || !bytes.Equal(got, seg.file[:len(got)]) {
			t.Errorf("%s: %d bytes of %d were served: %v", name, len(got), len(seg.file), err)
		}
		if got := fetchAll(t, s, other.start.ID, branchline.ByteRange{}); !bytes.Equal(got, other.file) {
			t.Errorf("%s: its neighbour differs", name)
		}
		must(t, s.Close())
	}
}

// TestThinEncrypted: the fragments kept stay encrypted as they are.
func TestThinEncrypted(t *testing.T) {
	dir := t.TempDir()
	s := openEncrypted(t, dir, "1", Options{Signer: testKey()})
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, seg)
	path := Path(dir, testStream, seg.start.ID, seg.start.Start)
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, s.Thin(seg.start.ID))
	after, err := os.ReadFile(path)
	must(t, err)
	kept := seg.fragments[2]
	if !bytes.Contains(after, before[kept.Offset:kept.End()]) {
		t.Error("what was kept is not as it was")
	}
	for _, rebuild := range []bool{false, true} {
		if rebuild {
			must(t, s.Close())
			must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
			s = openEncrypted(t, dir, "1", Options{Signer: testKey()})
		}
		for i := 0; i < 4; i += 2 {
			f := seg.fragments[i]
			if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{Start: f.Offset, End: f.End()}); !bytes.Equal(got,
				seg.data(i)) {
				t.Errorf("fragment %d differs", i)
			}
		}
		if got, _ := s.SizeOnDisk(seg.start.ID); got != int64(len(after)) || s.Stats().Bytes != got {
			t.Errorf("%d bytes on disk and %d in all, want %d", got, s.Stats().Bytes, len(after))
		}
	}
	if r, err := (Files{Keys: testKeys(t, "1")}).Check(path); err != nil || !r.OK() || !r.Thinned {
		t.Errorf("%v: %v", r, err)
	}
}

// TestStopEncryptedAtEveryStep is TestStopAtEveryStep for a store that encrypts, which is opened again with
// the key, and without.
func TestStopEncryptedAtEveryStep(t *testing.T) {
	seg := makeSegment(0, 0, 3, branchline.Hash{})
	for name, opt := range both() {
		for _, digits := range []string{"1", ""} {
			if digits == "" && opt.Signer == nil {
				continue // nothing is sealed there without the rest
			}
			t.Run(name+" with keys "+digits, func(t *testing.T) {
				t.Parallel()
				for k, finished := 0, false; !finished; k++ {
					finished = stopEncrypted(t, k, opt, digits, seg)
					if k > 100 || t.Failed() {
						t.Fatalf("stopped at %d", k)
					}
				}
			})
		}
	}
}

func stopEncrypted(t *testing.T, k int, opt Options, digits string, seg testSegment) (finished bool) {
	dir, id := t.TempDir(), seg.start.ID
	opt.Keys = testKeys(t, "1")
	s, err := openWith(dir, opt, &stopping{left: k})
	var acked []string
	if err == nil {
		life(s, []testSegment{seg}, func(what string) { acked = append(acked, what) })
		finished = slices.Contains(acked, "removed")
		s.Close()
	}
	s = openEncrypted(t, dir, digits, Options{Signer: opt.Signer})
	known, err := s.lookup(id)
	if slices.Contains(acked, id.String()) && !slices.Contains(acked, "gap") && (err != nil || !known.Sealed) {
		t.Errorf("stopped at %d: acknowledged and lost: %v", k, err)
	}
	must(t, s.Close())
	s = openEncrypted(t, dir, "1", Options{Signer: opt.Signer})
	defer s.Close()
	<-s.Settled() // until then a removal that was stopped is not ended
	list, err := s.Segments(t.Context(), testStream, day(0, 9))
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		t.Errorf("stopped at %d: %v", k, err)
	}
	for _, l := range list {
		for _, f := range l.Fragments {
			got := fetchAll(t, s, id, branchline.ByteRange{Start: f.Offset, End: f.End()})
			if !bytes.Equal(got, seg.file[f.Offset:f.End()]) {
				t.Errorf("stopped at %d: fragment at %d differs", k, f.Offset)
			}
		}
	}
	if opt.Signer == nil {
		record(t, s, seg)
		if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
			t.Errorf("stopped at %d: differs after going on", k)
		}
	}
	if left, _ := readNames(filepath.Join(dir, quarantineDir)); len(left) > 0 {
		t.Errorf("stopped at %d: in quarantine: %v", k, left)
	}
	return finished
}
