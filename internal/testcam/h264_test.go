package testcam

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 23, 23, 59, 59, 0, time.UTC)

// sizes are streams whose pictures fall on macroblocks in all ways that there are.
func sizes() []Stream {
	return []Stream{
		{Width: 640, Height: 360}, {Width: 322, Height: 182, Rate: 30}, {Width: 704, Height: 576, Rate: 5},
		{Width: 160, Height: 90, Rate: 1}, {Width: 1280, Height: 720, Rate: 10, Bitrate: 6000},
	}
}

// frames makes a stream of n frames with a key frame every tenth, and calls each for every access unit
// and the picture that was coded.
func frames(t testing.TB, s Stream, n int, each func(au [][]byte, pic *Picture)) {
	t.Helper()
	film, err := NewFilm(s, 3, "Quay 3")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		at := epoch.Add(time.Duration(i) * time.Second / time.Duration(film.stream.Rate))
		each(film.AccessUnit(at, uint32(i), i%10 == 0), film.enc.pic)
	}
}

func samePicture(a, b *Picture) bool {
	return bytes.Equal(a.Y, b.Y) && bytes.Equal(a.Cb, b.Cb) && bytes.Equal(a.Cr, b.Cr)
}

func TestDecoderIsExact(t *testing.T) {
	for _, s := range sizes() {
		var d Decoder
		n := uint32(0)
		frames(t, s, 25, func(au [][]byte, want *Picture) {
			got, err := d.Decode(au)
			if err != nil || !samePicture(got, want) {
				t.Fatalf("%dx%d, frame %d: decoded picture differs, error %v", s.Width, s.Height, n, err)
			}
			if m, err := DecodePattern(got.Y, got.Stride, got.Width, got.Height); err != nil || m.Frame != n {
				t.Fatalf("%dx%d, frame %d: mark %+v, error %v", s.Width, s.Height, n, m, err)
			}
			n++
		})
	}
}

// TestFFmpegIsExact shows that an independent decoder sees the same samples.
func TestFFmpegIsExact(t *testing.T) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("ffmpeg is not on the PATH, so nobody else's decoder is compared with ours")
	}
	for _, s := range sizes() {
		var coded, want bytes.Buffer
		frames(t, s, 25, func(au [][]byte, pic *Picture) {
			for _, nalu := range au {
				coded.Write([]byte{0, 0, 0, 1})
				coded.Write(nalu)
			}
			half := pic.Stride / 2
			for y := range pic.Height {
				want.Write(pic.Y[y*pic.Stride:][:pic.Width])
			}
			for _, plane := range [][]byte{pic.Cb, pic.Cr} {
				for y := range pic.Height / 2 {
					want.Write(plane[y*half:][:pic.Width/2])
				}
			}
		})
		cmd := exec.CommandContext(t.Context(), ffmpeg, "-v", "error", "-f", "h264", "-i", "-", "-f", "rawvideo", "-")
		cmd.Stdin = &coded
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		got, err := cmd.Output()
		if err != nil || complaints.Len() > 0 || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%dx%d: ffmpeg decodes %d bytes, want %d; it says %v %s",
				s.Width, s.Height, len(got), want.Len(), err, complaints.String())
		}
	}
}

func TestPaddingReachesTheBitRate(t *testing.T) {
	const rate, bitrate, count = 25, 4000, 100
	size, pads := 0, 0
	frames(t, Stream{Rate: rate, Bitrate: bitrate}, count, func(au [][]byte, _ *Picture) {
		for _, nalu := range au {
			size += len(nalu)
			if nalu[0] == nalSEI {
				pads++
				if nalu[len(nalu)-1] != 0x80 || bytes.Contains(nalu, []byte{0, 0}) {
					t.Fatal("padding is not a well-formed NAL unit")
				}
			}
		}
	})
	if got := size * 8 * rate / count / 1000; got < bitrate*98/100 || got > bitrate*102/100 || pads == 0 {
		t.Errorf("%d kbit/s in %d pads, want %d", got, pads, bitrate)
	}
	for size := range 2000 {
		if nal := padding(size); size > 64 && (len(nal) < size-2 || len(nal) > size+2) {
			t.Fatalf("padding of %d bytes has %d", size, len(nal))
		}
	}
}

// TestFrameSizes keeps frames small: it fails when a change makes many macroblocks raw.
func TestFrameSizes(t *testing.T) {
	n, keys, others := 0, 0, 0
	frames(t, Stream{}, 50, func(au [][]byte, _ *Picture) {
		if n%10 == 0 {
			keys += len(au[len(au)-1]) / 5
		} else {
			others += len(au[len(au)-1]) / 45
		}
		n++
	})
	if keys > 130_000 || others > 4_000 {
		t.Errorf("key frames have %d bytes, others %d", keys, others)
	}
}

func TestEscape(t *testing.T) {
	tests := []struct{ raw, nal string }{
		{"", ""},
		{"\x01\x00\x00\x04", "\x01\x00\x00\x04"},
		{"\x00\x00\x01", "\x00\x00\x03\x01"},
		{"\x00\x00\x00\x00\x00\x80", "\x00\x00\x03\x00\x00\x03\x00\x80"},
		{"\x07\x00\x00\x03\x00\x00\x02", "\x07\x00\x00\x03\x03\x00\x00\x03\x02"},
		{"\x00\x00", "\x00\x00"},
	}
	for _, test := range tests {
		if got := string(escape(nil, []byte(test.raw))); got != test.nal {
			t.Errorf("escape %x is %x, want %x", test.raw, got, test.nal)
		}
		if got := string(unescape(nil, []byte(test.nal))); got != test.raw {
			t.Errorf("unescape %x is %x, want %x", test.nal, got, test.raw)
		}
	}
}

func TestLevels(t *testing.T) {
	for level := -300; level <= 300; level++ {
		for _, context := range []int{0, 8, 16} {
			var w bitWriter
			writeDC(&w, level, context)
			w.trailing()
			r := bitReader{buf: w.buf}
			if got, ok := readDC(&r, context); !ok || got != level || r.more() {
				t.Fatalf("level %d among %d coefficients is read as %d, %v", level, context, got, ok)
			}
		}
	}
}

func TestDecoderNeedsAKeyFrame(t *testing.T) {
	var units [][][]byte
	frames(t, Stream{Width: 320, Height: 180}, 12, func(au [][]byte, _ *Picture) {
		var own [][]byte
		for _, nalu := range au {
			own = append(own, bytes.Clone(nalu))
		}
		units = append(units, own)
	})
	tests := []struct {
		name  string
		units [][][]byte
		want  error
	}{
		{"from a key frame", [][][]byte{units[0], units[1]}, nil},
		{"from another", [][][]byte{units[1]}, ErrUnsupported},
		{"parameter sets alone", [][][]byte{units[0][:2], units[1]}, ErrUnsupported},
		{"parameter sets apart", [][][]byte{units[0][:2], units[0][2:], units[1]}, nil},
		{"a cut slice", [][][]byte{units[0], {units[1][0][:40]}}, ErrUnsupported},
		{"after a cut slice", [][][]byte{{units[0][0], units[0][2][:400]}, units[1]}, ErrUnsupported},
		{"a new key frame", [][][]byte{{units[0][0], units[0][2][:400]}, units[10], units[11]}, nil},
		{"empty units", [][][]byte{{{}}, units[0]}, nil},
	}
	for _, test := range tests {
		var d Decoder
		var err error
		for _, au := range test.units {
			_, err = d.Decode(au)
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	frames(f, Stream{Width: 160, Height: 90}, 2, func(au [][]byte, _ *Picture) {
		f.Add(bytes.Join(au, []byte{0, 0, 1}))
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Decoder
		nalus := bytes.Split(data, []byte{0, 0, 1})
		for range 2 {
			if _, err := d.Mark(nalus); err != nil && !errors.Is(err, ErrUnsupported) &&
				!errors.Is(err, ErrNoPattern) && !errors.Is(err, ErrChecksum) {
				t.Error(err)
			}
		}
	})
}

func TestToneGolden(t *testing.T) {
	for camera, want := range map[uint16]float64{0: 328.125, 1: 421.875, 6: 890.625, 7: 328.125} {
		if got := ToneHz(camera); got != want {
			t.Errorf("tone of camera %d has %v Hz, want %v", camera, got, want)
		}
	}
	path := filepath.Join("testdata", "tone.aac")
	got := toneFile(1, 50)
	if *update {
		if err := os.WriteFile(path, toneFile(1, 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(got, want) || len(want) < 10 {
		t.Errorf("frame is %x, golden file has %x, error %v", toneFrame(1), want, err)
	}
}

// toneFile returns an ADTS file of count frames.
func toneFile(camera uint16, count int) []byte {
	frame := toneFrame(camera)
	n := len(frame) + 7
	adts := []byte{0xff, 0xf1, 0x4c, 0x40 | byte(n>>11), byte(n >> 3), byte(n<<5) | 0x1f, 0xfc}
	return bytes.Repeat(append(adts, frame...), count)
}

// TestToneIsASine lets an independent decoder play the tone and looks at its pitch and purity.
func TestToneIsASine(t *testing.T) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("ffmpeg is not on the PATH, so nobody else's decoder hears the tone")
	}
	for camera := range uint16(toneBands) {
		cmd := exec.CommandContext(t.Context(), ffmpeg, "-v", "error", "-f", "aac", "-i", "-", "-f", "s16le", "-")
		cmd.Stdin = bytes.NewReader(toneFile(camera, 100))
		pcm, err := cmd.Output()
		if err != nil || len(pcm) < 2*aacRate*2 {
			t.Fatalf("ffmpeg decodes %d bytes: %v", len(pcm), err)
		}
		crossings, peak, last := 0, 0, int16(0)
		for i := aacRate; i < 3*aacRate; i += 2 { // one second, from half a second on
			v := int16(pcm[i]) | int16(pcm[i+1])<<8
			if last < 0 && v >= 0 {
				crossings++
			}
			last, peak = v, max(peak, int(v))
		}
		if hz := ToneHz(camera); crossings < int(hz)-1 || crossings > int(hz)+1 || peak < 1400 || peak > 2000 {
			t.Errorf("camera %d: %d waves a second of height %d, want %v Hz", camera, crossings, peak, hz)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	film, err := NewFilm(Stream{}, 1, "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		film.AccessUnit(epoch.Add(time.Duration(i)*40*time.Millisecond), uint32(i), i%25 == 0)
	}
}
