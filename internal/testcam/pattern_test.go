package testcam

import (
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is a picture that the console's decoder reads too, in web/src/lib/pattern.test.ts.
type golden struct {
	TimeMicros int64  `json:"timeMicros"`
	Camera     uint16 `json:"camera"`
	Frame      uint32 `json:"frame"`
	Width      int    `json:"width"`
	Height     int    `json:"height"`
	Luma       []byte `json:"luma"`
}

func drawn(width, height int, m Mark) *Picture {
	enc := newEncoder(newPicture(width, height), 25)
	newScene(enc, m.Camera, "Entrance").draw(m)
	return enc.pic
}

// scaled returns the picture's luma at another size, each sample the mean of those it covers.
func scaled(p *Picture, width, height int) []byte {
	out := make([]byte, width*height)
	for y := range height {
		for x := range width {
			sum, n := 0, 0
			for sy := y * p.Height / height; sy < max((y+1)*p.Height/height, y*p.Height/height+1); sy++ {
				for sx := x * p.Width / width; sx < max((x+1)*p.Width/width, x*p.Width/width+1); sx++ {
					sum += int(p.Y[sy*p.Stride+sx])
					n++
				}
			}
			out[y*width+x] = byte(sum / n)
		}
	}
	return out
}

func TestPatternGolden(t *testing.T) {
	mark := Mark{time.UnixMicro(1795437296123456).UTC(), 4711, 3141592653}
	const width, height = 320, 180
	want := golden{mark.Time.UnixMicro(), mark.Camera, mark.Frame, width, height,
		scaled(drawn(640, 360, mark), width, height)}
	path := filepath.Join("testdata", "pattern.json")
	if *update {
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got golden
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	m, err := DecodePattern(got.Luma, got.Width, got.Width, got.Height)
	if err != nil || m != mark || got.TimeMicros != want.TimeMicros {
		t.Errorf("golden picture says %+v, %v; want %+v", m, err, mark)
	}
}

func TestPatternRoundTrip(t *testing.T) {
	sizes := []struct{ width, height, shownWidth, shownHeight int }{
		{640, 360, 640, 360}, {640, 360, 320, 180}, {640, 360, 213, 120}, {640, 360, 80, 45}, {640, 360, 500, 400},
		{320, 180, 320, 180}, {322, 182, 161, 91}, {704, 576, 352, 288}, {1280, 720, 427, 240}, {1920, 1080, 640, 360},
		{160, 90, 160, 90},
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		want := Mark{time.UnixMicro(random.Int64N(1 << 52)).UTC(), uint16(random.Uint32()), random.Uint32()}
		p := drawn(size.width, size.height, want)
		luma := scaled(p, size.shownWidth, size.shownHeight)
		got, err := DecodePattern(luma, size.shownWidth, size.shownWidth, size.shownHeight)
		if err != nil || got != want {
			t.Errorf("%+v: got %+v, %v; want %+v", size, got, err, want)
		}
	}
}

func TestPatternDamage(t *testing.T) {
	invert := func(p *Picture, r rect) {
		for y := r.y0; y < r.y1; y++ {
			for x := r.x0; x < r.x1; x++ {
				p.Y[y*p.Stride+x] = 251 - p.Y[y*p.Stride+x]
			}
		}
	}
	tests := []struct {
		name   string
		damage func(*Picture)
		want   error
	}{
		{"sound", func(*Picture) {}, nil},
		{"one bit", func(p *Picture) { invert(p, cellRect(640, 360, 2, 17)) }, ErrChecksum},
		{"one bit of the checksum", func(p *Picture) { invert(p, cellRect(640, 360, 3, 37)) }, ErrChecksum},
		{"a corner", func(p *Picture) { invert(p, cellRect(640, 360, 0, 0)) }, ErrNoPattern},
		{"grey", func(p *Picture) { p.fill(rect{0, 0, 640, 360}, color{90, 128, 128}) }, ErrNoPattern},
		{"no room", func(p *Picture) { p.Width = 20 }, ErrNoPattern},
		{"little data", func(p *Picture) { p.Y = p.Y[:1000] }, ErrNoPattern},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := drawn(640, 360, Mark{time.UnixMicro(1795437296123456), 1, 2})
			test.damage(p)
			if _, err := DecodePattern(p.Y, p.Stride, p.Width, p.Height); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
