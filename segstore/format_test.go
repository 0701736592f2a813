package segstore

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/media"
)

// TestGolden holds the format still: these bytes were written once and must be written again, and
// read, by every later version. -update writes them anew, which no released version may need.
func TestGolden(t *testing.T) {
	seg := makeSegment(3, 0, 4, branchline.Hash{1, 2, 3})
	golden := filepath.Join("testdata", "segment.mp4")
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		must(t, os.WriteFile(golden, seg.file, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(seg.file, want) {
		t.Error("the same segment is written differently")
	}
	f, err := ReadFooter(bytes.NewReader(want), int64(len(want)))
	must(t, err)
	must(t, f.Verify(seg.start.Init))
	if f.ID != seg.start.ID || f.Stream != testStream || f.Run != 1 || f.Number != 3 ||
		f.Prev != (branchline.Hash{1, 2, 3}) ||
		f.Codecs != seg.start.Codecs || f.Span != day(0, 2) || f.Hash != seg.seal.Hash || f.Cut {
		t.Errorf("footer read as %+v", f)
	}
	if diff := cmp.Diff(seg.fragments, f.Fragments); diff != "" {
		t.Error(diff)
	}
}

func TestSealFooterRefuses(t *testing.T) {
	good := makeSegment(0, 0, 3, branchline.Hash{})
	for _, c := range []struct {
		name string
		harm func(f *Footer)
	}{
		{"no identifier", func(f *Footer) { f.ID = branchline.SegmentID{} }},
		{"no stream", func(f *Footer) { f.Stream = "" }},
		{"long codecs", func(f *Footer) { f.Codecs = strings.Repeat("x", MaxCodecs+1) }},
		{"no fragments", func(f *Footer) { f.Fragments = nil }},
		{"too many fragments", func(f *Footer) { f.Fragments = make([]branchline.Fragment, MaxFragments+1) }},
		{"a hole", func(f *Footer) { f.Fragments[1].Offset++ }},
		{"an empty fragment", func(f *Footer) { f.Fragments[2].Length = ChecksumSize }},
		{"backwards", func(f *Footer) { f.Fragments[0].Duration = -1 }},
		{"too long", func(f *Footer) { f.Fragments[2].Start = f.Fragments[2].Start.Add(MaxSpan) }},
	} {
		f := Footer{ID: good.start.ID, Stream: testStream, Run: 1, Fragments: slices.Clone(good.fragments)}
		c.harm(&f)
		if _, _, err := SealFooter(f, good.start.Init, testKey()); !errors.Is(err, branchline.ErrInvalid) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	f := Footer{ID: good.start.ID, Stream: testStream, Run: 1, Fragments: good.fragments}
	if _, _, err := SealFooter(f, good.start.Init, nil); !errors.Is(err, branchline.ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
}

// TestEveryFlippedBitIsFound flips a bit in each byte of a segment file.
func TestEveryFlippedBitIsFound(t *testing.T) {
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	path := filepath.Join(t.TempDir(), "segment.mp4")
	check := func() (Report, error) {
		must(t, os.WriteFile(path, seg.file, 0o644))
		return Check(path)
	}
	if report, err := check(); err != nil || !report.OK() || !report.Sealed || report.Fragments != 2 {
		t.Fatalf("sound file: %v %v", report, err)
	}
	for i := range seg.file {
		seg.file[i] ^= 1 << (i % 8)
		if report, err := check(); err == nil && report.OK() {
			t.Errorf("flipped bit in byte %d is not found: %v", i, report)
		}
		seg.file[i] ^= 1 << (i % 8)
	}
}

func FuzzParseFooter(f *testing.F) {
	f.Add(makeSegment(0, 0, 1, branchline.Hash{}).seal.Footer)
	f.Add(makeSegment(1, 2, 9, branchline.Hash{4}).seal.Footer)
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, box []byte) {
		footer, err := ParseFooter(box)
		if err != nil {
			return
		}
		statement, err := footer.statement()
		if err != nil || !bytes.Equal(statement, box[boxHeaderSize:len(box)-endSize]) {
			t.Errorf("written again it differs: %v", err)
		}
	})
}

// FuzzFragment reads any bytes behind an init part as fragments.
func FuzzFragment(f *testing.F) {
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	f.Add(seg.file[len(seg.start.Init):])
	f.Add(seg.data(0)[:50])
	f.Add(ChecksumBox(nil))
	tracks, err := readTracks(seg.start.Init)
	must(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(0)
		for row, err := range fragments(bytes.NewReader(b), tracks, 0, int64(len(b))) {
			if err != nil || row.Offset != end || row.Length <= ChecksumSize || row.End() > int64(len(b)) {
				t.Fatalf("%+v: %v", row, err)
			}
			end = row.End()
		}
	})
}

// FuzzInit reads any bytes as an init part.
func FuzzInit(f *testing.F) {
	f.Add(testInit())
	f.Add(testInit()[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		readTracks(b)
		if init, err := readInit(bytes.NewReader(b), int64(len(b))); err == nil && len(init) > len(b) {
			t.Errorf("init part of %d bytes in %d", len(init), len(b))
		}
	})
}

// muxed returns what the real muxer makes of some seconds of video and sound, as segments' rows and
// their files.
func muxed(t *testing.T) (rows [][]branchline.Fragment, files [][]byte) {
	t.Helper()
	seal := func(r media.SealRequest) ([]byte, branchline.Hash, error) {
		rows = append(rows, r.Fragments)
		return SealFooter(Footer{ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number, Codecs: r.Codecs,
			Fragments: r.Fragments, Prev: r.Prev}, r.Init, testKey())
	}
	mux, err := media.NewMuxer(media.MuxerConfig{Stream: testStream, Run: 1, Start: testStart().Add(123456789),
		SegmentLength: 2 * time.Second, Format: media.Format{Checksum: ChecksumBox, Seal: seal},
		Tracks: []media.Track{
			{Codec: media.AAC, ClockRate: 48000, Config: []byte{0x11, 0x90}},
			{Codec: media.H264, ClockRate: media.VideoClockRate, PPS: []byte{0x68, 0xce, 0x38, 0x80},
				SPS: []byte{0x67, 0x42, 0xc0, 0x28, 0xd9, 0, 0x78, 2, 0x27, 0xe5, 0x84, 0, 0, 3, 0, 4, 0, 0, 3, 0,
					0xf0, 0x3c, 0x60, 0xc9, 0x20}},
		}})
	must(t, err)
	var items []branchline.Item
	write := func(au media.AccessUnit) {
		more, err := mux.Write(au)
		must(t, err)
		items = append(items, more...)
	}
	for i := range 140 {
		at := time.Duration(i) * time.Second / 30
		picture := bytes.Repeat([]byte{0x41, byte(i)}, 50)
		write(media.AccessUnit{Track: 2, PTS: at, DTS: at, Key: i%30 == 0, Data: [][]byte{picture}})
		write(media.AccessUnit{Track: 1, PTS: at, DTS: at, Data: [][]byte{bytes.Repeat([]byte{byte(i)}, 20)}})
	}
	more, err := mux.Close(branchline.CauseStopped)
	must(t, err)
	var asm media.Assembler
	for _, item := range append(items, more...) {
		data := asm.Add(item)
		switch {
		case item.Start != nil:
			files = append(files, bytes.Clone(item.Start.Init))
		case item.Fragment != nil:
			files[len(files)-1] = append(files[len(files)-1], data...)
		case item.Seal != nil:
			files[len(files)-1] = append(files[len(files)-1], item.Seal.Footer...)
		}
	}
	return rows, files
}

// TestScanAgreesWithMuxer shows that repair finds the same table in the boxes as the muxer made.
func TestScanAgreesWithMuxer(t *testing.T) {
	rows, files := muxed(t)
	if len(files) < 2 {
		t.Fatalf("%d segments", len(files))
	}
	for i, file := range files {
		init, err := readInit(bytes.NewReader(file), int64(len(file)))
		must(t, err)
		tracks, err := readTracks(init)
		must(t, err)
		var found []branchline.Fragment
		for f, err := range fragments(bytes.NewReader(file), tracks, int64(len(init)), int64(len(file))) {
			must(t, err)
			found = append(found, f)
		}
		if diff := cmp.Diff(rows[i], found); diff != "" {
			t.Errorf("segment %d: %s", i, diff)
		}
		path := filepath.Join(t.TempDir(), "segment.mp4")
		must(t, os.WriteFile(path, file, 0o644))
		if report, err := Check(path); err != nil || !report.OK() {
			t.Errorf("%v %v", report, err)
		}
	}
}

func TestListAndCat(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	b := makeSegment(1, 2, 4, a.seal.Hash)
	c := makeSegment(2, 4, 4, b.seal.Hash)
	record(t, s, a)
	record(t, s, b)
	must(t, s.Begin(testStream, c.start))
	must(t, s.Put(c.start.ID, c.fragments[0], c.data(0)))
	list, err := List(dir, "", branchline.TimeRange{}) // while it is open
	must(t, err)
	if len(list) != 3 || !list[0].Sealed || list[2].Sealed || len(list[2].Fragments) != 1 {
		t.Fatalf("list %+v", list)
	}
	if list, err = List(dir, testStream, day(2.1, 3)); err != nil || len(list) != 1 || list[0].ID != b.start.ID {
		t.Errorf("list of a range: %+v %v", list, err)
	}
	growing, err := Check(growingPath(dir, testStream, c.start.ID))
	if err != nil || !growing.OK() || growing.Sealed || growing.Fragments != 1 {
		t.Errorf("growing file: %v %v", growing, err)
	}
	var paths []string
	for _, seg := range []testSegment{a, b} {
		paths = append(paths, Path(dir, testStream, seg.start.ID, seg.start.Start))
	}
	var out bytes.Buffer
	must(t, Cat(&out, paths, day(1.6, 2.2))) // from the key fragment at 1 to 2.5
	want := bytes.Join([][]byte{a.start.Init, a.data(2), a.data(3), b.data(0)}, nil)
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, want %d", out.Len(), len(want))
	}
	if err := Cat(io.Discard, paths, day(50, 60)); !errors.Is(err, branchline.ErrNotFound) {
		t.Errorf("outside: %v", err)
	}
}
