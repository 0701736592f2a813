package media_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/media"
)

// epoch is the time of day at which the tests' cameras start.
func epoch() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC) }

// format makes small, recognisable boxes and counts up segment identifiers.
func format() media.Format {
	var n byte
	return media.Format{
		Checksum: func(head []byte, parts ...[]byte) []byte {
			sum := sha256.New()
			sum.Write(head)
			for _, p := range parts {
				sum.Write(p)
			}
			return append([]byte("\x00\x00\x00\x28free"), sum.Sum(nil)...)
		},
		Seal: func(r media.SealRequest) ([]byte, branchline.Hash, error) {
			text := fmt.Sprintf("%s %d/%d %d fragments after %s", r.Stream, r.Run, r.Number, len(r.Fragments), r.Prev)
			box := binary.BigEndian.AppendUint32(nil, uint32(8+len(text)))
			return append(append(box, "free"...), text...), sha256.Sum256([]byte(text)), nil
		},
		NewID: func(time.Time) branchline.SegmentID { n++; return branchline.SegmentID{15: n} },
	}
}

// clip is five seconds of H.264 with three B-frames between P-frames and a key frame each second,
// and AAC at 48 kHz, as x264 and ffmpeg made them, in the order of decoding.
func clip(t *testing.T) ([]media.Track, []media.Unit) {
	t.Helper()
	file, err := mp4.ReadMP4File("testdata/bframes.mp4")
	if err != nil {
		t.Fatal(err)
	}
	avc := file.Init.Moov.Traks[0].Mdia.Minf.Stbl.Stsd.AvcX.AvcC
	sound := file.Init.Moov.Traks[1].Mdia.Minf.Stbl.Stsd.Mp4a.Esds.DecConfigDescriptor.DecSpecificInfo.DecConfig
	tracks := []media.Track{
		{Codec: media.H264, ClockRate: media.VideoClockRate, SPS: avc.SPSnalus[0], PPS: avc.PPSnalus[0]},
		{Codec: media.AAC, ClockRate: 48000, Config: sound},
	}
	type timed struct {
		media.Unit
		dts time.Duration
	}
	var all []timed
	for i, samples := range samplesOf(t, file) {
		scale := time.Duration(file.Init.Moov.Traks[i].Mdia.Mdhd.Timescale)
		for _, s := range samples {
			pts := time.Duration(s.PresentationTime()) * time.Second / scale
			data := [][]byte{s.Data}
			if i == 0 {
				data = nalus(s.Data)
			}
			dts := time.Duration(s.DecodeTime) * time.Second / scale
			all = append(all, timed{media.Unit{Track: i + 1, PTS: pts, Arrived: epoch().Add(dts), Data: data}, dts})
		}
	}
	slices.SortStableFunc(all, func(a, b timed) int { return cmp.Compare(a.dts, b.dts) })
	units := make([]media.Unit, len(all))
	for i, u := range all {
		units[i] = u.Unit
	}
	return tracks, units
}

// samplesOf reads all samples of each track with a reader that is not ours.
func samplesOf(t *testing.T, file *mp4.File) [][]mp4.FullSample {
	t.Helper()
	all := make([][]mp4.FullSample, len(file.Init.Moov.Traks))
	for _, segment := range file.Segments {
		for _, fragment := range segment.Fragments {
			for i := range all {
				samples, err := fragment.GetFullSamples(file.Init.Moov.Mvex.Trexs[i])
				if err != nil {
					t.Fatal(err)
				}
				all[i] = append(all[i], samples...)
			}
		}
	}
	return all
}

func nalus(sample []byte) (au [][]byte) {
	for len(sample) > 4 {
		n := binary.BigEndian.Uint32(sample)
		au = append(au, sample[4:4+n])
		sample = sample[4+n:]
	}
	return au
}

// play feeds the units and returns all items up to the end of the last run.
func play(t *testing.T, f *media.Feed, units []media.Unit) (items []branchline.Item) {
	t.Helper()
	for _, u := range units {
		more, err := f.Write(u)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, more...)
	}
	more, err := f.End(branchline.CauseStopped)
	if err != nil {
		t.Fatal(err)
	}
	return append(items, more...)
}

// files assembles the segment files that the items make, and checks what each item promises.
func files(t *testing.T, items []branchline.Item) (all [][]byte) {
	t.Helper()
	var asm media.Assembler
	var file []byte
	for _, item := range items {
		fragment := asm.Add(item)
		switch {
		case item.Start != nil:
			file = bytes.Clone(item.Start.Init)
		case item.Fragment != nil:
			f := item.Fragment.Fragment
			if f.Offset != int64(len(file)) || f.Length != int64(len(fragment)) || f.Hash != sha256.Sum256(fragment) {
				t.Fatalf("fragment %+v does not describe its %d bytes at %d", f, len(fragment), len(file))
			}
			file = append(file, fragment...)
		case item.Seal != nil:
			file = append(file, item.Seal.Footer...)
			if int64(len(file)) != item.Seal.Size {
				t.Fatalf("segment has %d bytes, its seal says %d", len(file), item.Seal.Size)
			}
			all = append(all, file)
		}
	}
	return all
}

func feed(segment time.Duration) *media.Feed {
	return media.NewFeed(media.FeedConfig{Stream: "gate.main", SegmentLength: segment, Format: format()})
}

func TestAnIndependentReaderFindsEveryFrameWithItsTime(t *testing.T) {
	tracks, units := clip(t)
	f := feed(2 * time.Second)
	f.Session(tracks)
	all := files(t, play(t, f, units))
	if len(all) != 3 {
		t.Fatalf("5 s in segments of 2 s made %d files, want 3", len(all))
	}
	var got [2][]mp4.FullSample
	for _, data := range all {
		file, err := mp4.DecodeFile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for i, samples := range samplesOf(t, file) {
			got[i] = append(got[i], samples...)
		}
	}
	zero := units[0].PTS
	start := epoch().UnixNano()
	var n [2]int
	var last [2]uint64
	for _, u := range units {
		i := u.Track - 1
		if u.PTS < zero {
			continue // sound before the first picture
		}
		s := got[i][n[i]]
		n[i]++
		want := start + int64(u.PTS-zero)
		scale := int64(tracks[i].ClockRate)
		at := s.PresentationTime()/scale*1e9 + s.PresentationTime()%scale*1e9/scale
		if d := at - want; d < -25_000 || d > 25_000 {
			t.Fatalf("track %d sample %d is shown %d ns off", u.Track, n[i], d)
		}
		if s.DecodeTime <= last[i] || i == 0 && int64(s.DecodeTime) > s.PresentationTime() {
			t.Fatalf("track %d sample %d is decoded at %d, after %d, shown at %d",
				u.Track, n[i], s.DecodeTime, last[i], s.PresentationTime())
		}
		last[i] = s.DecodeTime
		if i == 0 && !slices.EqualFunc(nalus(s.Data), u.Data, bytes.Equal) || i == 1 && !bytes.Equal(s.Data, u.Data[0]) {
			t.Fatalf("track %d sample %d has other bytes", u.Track, n[i])
		}
	}
	if n != [2]int{len(got[0]), len(got[1])} || n[0] != 125 {
		t.Fatalf("expected %v samples, file has %d and %d", n, len(got[0]), len(got[1]))
	}
}

func TestFragmentsMeetAndAreShort(t *testing.T) {
	tracks, units := clip(t)
	f := feed(2 * time.Second)
	f.Session(tracks)
	var end time.Time
	var starts, keys int
	for _, item := range play(t, f, units) {
		switch {
		case item.Start != nil:
			starts++
			if !end.IsZero() && !item.Start.Start.Equal(end) {
				t.Fatalf("segment starts at %v, the last one ended at %v", item.Start.Start, end)
			}
			end = item.Start.Start
		case item.Fragment != nil:
			fr := item.Fragment.Fragment
			if !fr.Start.Equal(end) || fr.Duration <= 0 || fr.Duration > media.DefaultFragmentLength {
				t.Fatalf("fragment %v + %v does not follow %v", fr.Start, fr.Duration, end)
			}
			if fr.Key {
				keys++
			}
			end = fr.Span().End
		case item.RunEnd != nil && !item.RunEnd.At.Equal(end):
			t.Fatalf("run ends at %v, its last fragment at %v", item.RunEnd.At, end)
		}
	}
	if starts != 3 || keys != 5 {
		t.Fatalf("%d segments and %d key fragments, want 3 and 5", starts, keys)
	}
}

func TestEqualInputGivesEqualBytes(t *testing.T) {
	var all [2][][]byte
	for i := range all {
		tracks, units := clip(t)
		f := feed(time.Second)
		f.Session(tracks)
		all[i] = files(t, play(t, f, units))
	}
	if !slices.EqualFunc(all[0], all[1], bytes.Equal) {
		t.Fatal("two runs over the same input differ")
	}
}

func TestPlayersReadTheFiles(t *testing.T) {
	ffprobe, err := exec.LookPath("ffprobe")
	if err != nil {
		t.Skip("ffprobe is not installed")
	}
	tracks, units := clip(t)
	f := feed(10 * time.Second)
	f.Session(tracks)
	path := filepath.Join(t.TempDir(), "segment.mp4")
	if err := os.WriteFile(path, files(t, play(t, f, units))[0], 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(ffprobe, "-v", "warning", "-count_frames", "-show_entries",
		"stream=codec_name,nb_read_frames,has_b_frames", "-of", "compact=p=0", path).CombinedOutput()
	want := "codec_name=h264|has_b_frames=2|nb_read_frames=125\ncodec_name=aac|nb_read_frames=235\n"
	if err != nil || string(out) != want {
		t.Fatalf("ffprobe says %v\n%swant\n%s", err, out, want)
	}
}

func TestSingleFramesPlayOnTheSameTimeLine(t *testing.T) {
	tracks, units := clip(t)
	f := feed(10 * time.Second)
	f.Session(tracks)
	items := play(t, f, units)
	var stream []byte
	var frames *media.FrameFragmenter
	for _, item := range items {
		var err error
		switch {
		case item.Start != nil:
			frames, err = media.NewFrameFragmenter(item.Start.Init)
			stream = bytes.Clone(item.Start.Init)
		case item.Frame != nil:
			var one []byte
			one, err = frames.Marshal(item.Frame)
			stream = append(stream, one...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(data []byte) [][]mp4.FullSample {
		file, err := mp4.DecodeFile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return samplesOf(t, file)
	}
	live, stored := read(stream), read(files(t, items)[0])
	for i := range stored {
		if len(live[i]) != len(stored[i]) {
			t.Fatalf("track %d: %d frames live, %d stored", i+1, len(live[i]), len(stored[i]))
		}
		for j, s := range stored[i] {
			l := live[i][j]
			if l.DecodeTime != s.DecodeTime || l.PresentationTime() != s.PresentationTime() ||
				l.Flags != s.Flags || !bytes.Equal(l.Data, s.Data) {
				t.Fatalf("track %d frame %d differs between live and stored", i+1, j)
			}
		}
	}
}

func TestInfoNamesCodecsAndSize(t *testing.T) {
	tracks, units := clip(t)
	f := feed(time.Second)
	f.Session(tracks)
	start := play(t, f, units[:60])[0].Start
	info, err := media.Describe(start.Init)
	if err != nil {
		t.Fatal(err)
	}
	want := media.Info{
		Codecs: "avc1.640009,mp4a.40.2", Width: 128, Height: 96, TimeScales: []int{90000, 48000}, Video: []bool{true, false},
	}
	if d := gocmp.Diff(want, info); d != "" || start.Codecs != info.Codecs {
		t.Fatalf("start says %q; -want +got\n%s", start.Codecs, d)
	}
	for _, bad := range [][]byte{nil, start.Init[:40], make([]byte, media.MaxInit+1)} {
		if _, err := media.Describe(bad); err == nil {
			t.Errorf("a header of %d wrong bytes was read", len(bad))
		}
	}
}
