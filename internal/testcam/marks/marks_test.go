package marks_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/branchline-video/branchline/internal/testcam"
	"github.com/branchline-video/branchline/internal/testcam/marks"
)

const timescale = 90000

var start = time.Date(2026, 3, 29, 0, 59, 59, 960_000_000, time.UTC)

// file makes fragmented MP4 of ten frames, five a fragment, the n-th 40 ms after the n-1st.
func file(t *testing.T) []byte {
	t.Helper()
	film, err := testcam.NewFilm(testcam.Stream{Width: 320, Height: 180}, 9, "marks")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	init := mp4.CreateEmptyInit()
	init.AddEmptyTrack(timescale, "video", "und")
	trak := init.Moov.Trak
	if err := trak.SetAVCDescriptor("avc1", [][]byte{film.SPS()}, [][]byte{film.PPS()}, true); err != nil {
		t.Fatal(err)
	}
	if err := init.Encode(&out); err != nil {
		t.Fatal(err)
	}
	for first := 0; first < 10; first += 5 {
		fragment, err := mp4.CreateFragment(uint32(first/5+1), trak.Tkhd.TrackID)
		if err != nil {
			t.Fatal(err)
		}
		for n := first; n < first+5; n++ {
			at := start.Add(time.Duration(n) * 40 * time.Millisecond)
			flags := mp4.NonSyncSampleFlags
			if n == 0 {
				flags = mp4.SyncSampleFlags
			}
			var data []byte
			for _, nalu := range film.AccessUnit(at, uint32(100+n), n == 0) {
				data = binary.BigEndian.AppendUint32(data, uint32(len(nalu)))
				data = append(data, nalu...)
			}
			fragment.AddFullSample(mp4.FullSample{
				Sample:     mp4.Sample{Flags: flags, Dur: 3600, Size: uint32(len(data))},
				DecodeTime: uint64(at.UnixMilli() * (timescale / 1000)), Data: data,
			})
		}
		if err := fragment.Encode(&out); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestRead(t *testing.T) {
	whole := file(t)
	tests := []struct {
		name   string
		data   []byte
		frames int
		err    error
	}{
		{"a file", whole, 10, nil},
		{"two files", slices.Concat(whole, whole), 20, nil},
		{"nothing", nil, 0, nil},
		{"cut in the last mdat", whole[:len(whole)-1], 5, io.ErrUnexpectedEOF},
		{"cut in the first box", whole[:5], 0, io.ErrUnexpectedEOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			frames, err := marks.Read(bytes.NewReader(test.data))
			if !errors.Is(err, test.err) || len(frames) != test.frames {
				t.Fatalf("got %d frames and error %v", len(frames), err)
			}
			for i, f := range frames {
				n := i % 10
				at := start.Add(time.Duration(n) * 40 * time.Millisecond)
				want := testcam.Mark{Time: at, Camera: 9, Frame: uint32(100 + n)}
				if f.Err != nil || f.Mark != want || !f.PTS.Equal(at) || !f.DTS.Equal(at) ||
					f.Key != (n == 0) || f.Duration != 40*time.Millisecond || f.Init != i/10+1 {
					t.Errorf("frame %d is %+v", i, f)
				}
			}
		})
	}
}

func TestReadTellsDamage(t *testing.T) {
	data := file(t)
	last := bytes.LastIndex(data, []byte("mdat"))
	for i := range 200 { // of the sixth frame's pattern
		data[last+4+4+20+i] ^= 0xff
	}
	frames, err := marks.Read(bytes.NewReader(data))
	if err != nil || len(frames) != 10 || frames[4].Err != nil || frames[5].Err == nil {
		t.Fatalf("got %d frames, error %v", len(frames), err)
	}
}
