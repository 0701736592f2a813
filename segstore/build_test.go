package segstore

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files anew")
	// What the engine itself forgets when it is given damaged files to open or to close. Of one that is not
	// closed at all there would be others.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).updateSize"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4/y.(*WaterMark).process"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2.(*Cache[...]).processItems"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2.(*defaultPolicy[...]).processItems"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

// The smallest real segments: one video track of 1000 units a second, fragments of half a second with
// two samples each.

const testStream = branchline.StreamID("entrance.main")

func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

// testStart is when stream time begins in tests.
func testStart() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func mp4Box(kind string, parts ...[]byte) []byte {
	b := make([]byte, 4, 64)
	b = append(b, kind...)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func testInit() []byte {
	tkhd := mp4Box("tkhd", words(7, 0, 0, 1), make([]byte, 68))
	mdhd := mp4Box("mdhd", words(0, 0, 0, 1000, 0, 0))
	hdlr := mp4Box("hdlr", words(0, 0), []byte("vide"), make([]byte, 13))
	return append(mp4Box("ftyp", []byte("iso5"), words(512), []byte("iso5iso6mp41")),
		mp4Box("moov", mp4Box("trak", tkhd, mp4Box("mdia", mdhd, hdlr)))...)
}

// testSegment is a whole segment as its origin makes it.
type testSegment struct {
	start     branchline.SegmentStart
	fragments []branchline.Fragment
	seal      branchline.SegmentSeal
	file      []byte
}

func (s testSegment) data(i int) []byte {
	f := s.fragments[i]
	return s.file[f.Offset:f.End()]
}

// makeSegment builds segment number of a run, with n fragments from second at of the test's time on.
func makeSegment(number uint32, at, n int, prev branchline.Hash) testSegment {
	start := testStart().Add(time.Duration(at) * time.Second)
	id := branchline.SegmentID{0: 1, 6: 0x70, 8: 0x80, 15: byte(number)}
	binary.BigEndian.PutUint32(id[10:], uint32(at))
	s := testSegment{start: branchline.SegmentStart{ID: id, Stream: testStream, Run: 1, Number: number,
		Start: start, Codecs: "avc1.42c01f", Init: testInit()}}
	s.file = append(s.file, s.start.Init...)
	for i := range n {
		s.add(start.Add(time.Duration(i)*500*time.Millisecond), i%2 == 0)
	}
	box, hash, err := SealFooter(Footer{ID: id, Stream: testStream, Run: 1, Number: number,
		Codecs: s.start.Codecs, Fragments: s.fragments, Prev: prev}, s.start.Init, testKey())
	if err != nil {
		panic(err)
	}
	s.file = append(s.file, box...)
	s.seal = branchline.SegmentSeal{ID: id, Hash: hash, Footer: box, Size: int64(len(s.file))}
	return s
}

func (s *testSegment) add(at time.Time, key bool) {
	ms := uint64(at.UnixMilli())
	flags := uint32(0x2000000)
	if !key {
		flags = 0x1010000
	}
	payload := sha256.Sum256(binary.BigEndian.AppendUint64(s.start.ID[:], ms))
	tfhd := mp4Box("tfhd", words(0x20000, 1))
	tfdt := mp4Box("tfdt", words(1<<24, uint32(ms>>32), uint32(ms)))
	trun := mp4Box("trun", words(0x0305, 2, 0, flags, 250, 16, 250, 16))
	b := mp4Box("prft", words(0, 1, 0, 0, uint32(ms)))
	b = append(b, mp4Box("moof", mp4Box("mfhd", words(0, 1)), mp4Box("traf", tfhd, tfdt, trun))...)
	b = append(b, mp4Box("mdat", payload[:])...)
	b = append(b, ChecksumBox(b)...)
	s.fragments = append(s.fragments, branchline.Fragment{Offset: int64(len(s.file)), Length: int64(len(b)), Start: at,
		Duration: 500 * time.Millisecond, Key: key, Hash: sha256.Sum256(b)})
	s.file = append(s.file, b...)
}

// openStore opens a store that the test closes itself, or that is closed at its end.
func openStore(t testing.TB, dir string, origin bool) *Store {
	t.Helper()
	opt := Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if origin {
		opt.Signer = testKey()
	}
	s, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	<-s.Settled()
	return s
}

// record writes the whole segment in order, as an edge does.
func record(t testing.TB, s *Store, seg testSegment) {
	t.Helper()
	must(t, s.Begin(testStream, seg.start))
	for i, f := range seg.fragments {
		must(t, s.Put(seg.start.ID, f, seg.data(i)))
	}
	must(t, s.Seal(seg.start.ID, seg.seal))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fetchAll(t testing.TB, s *Store, id branchline.SegmentID, r branchline.ByteRange) []byte {
	t.Helper()
	rc, err := s.Fetch(context.Background(), id, r)
	must(t, err)
	defer rc.Close()
	b, err := io.ReadAll(rc)
	must(t, err)
	return b
}

// changes returns n changes after a position in the notation of describe.
func changes(t testing.TB, s *Store, after branchline.Position, n int) ([]string, branchline.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var got []string
	at := after
	for ch, err := range s.Changes(ctx, after) {
		must(t, err)
		got = append(got, describe(ch))
		if at = ch.At; len(got) == n {
			return got, at
		}
	}
	t.Fatalf("only %d changes instead of %d: %v", len(got), n, got)
	return nil, at
}

func seconds(t time.Time) string { return fmt.Sprintf("%g", t.Sub(testStart()).Seconds()) }

func describe(ch branchline.Change) string {
	span := func(r branchline.TimeRange) string { return seconds(r.Start) + "-" + seconds(r.End) }
	switch {
	case ch.Opened != nil:
		return "opened " + seconds(ch.Opened.Span.Start)
	case ch.Sealed != nil:
		return "sealed " + span(ch.Sealed.Span)
	case ch.Removed != nil:
		return "removed " + span(ch.Removed.Span) + " " + string(ch.Removed.Cause)
	case ch.Gap != nil:
		open := ""
		if ch.Gap.Open {
			open = " open"
		}
		return "gap " + span(ch.Gap.Span) + " " + string(ch.Gap.Cause) + open
	case ch.Camera != nil:
		return "camera " + string(ch.Camera.ID) + " " + ch.Camera.Name
	}
	return "nothing"
}
