package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/testcam"
	"github.com/branchline-video/branchline/segstore"
)

// frameRate is that of all footage that is made here without a camera: fragments of half a second are half a group
// of pictures, 250 KB at 4 Mbit/s.
const frameRate = 20

func signer() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

// newMuxer makes a stream's segments as an edge does.
func newMuxer(stream branchline.StreamID, start time.Time, fragment time.Duration,
	film *testcam.Film) (*media.Muxer, error) {
	return media.NewMuxer(media.MuxerConfig{
		Stream: stream, Run: 1, Start: start, SegmentLength: time.Minute, FragmentLength: fragment,
		Tracks: []media.Track{{Codec: media.H264, ClockRate: media.VideoClockRate, SPS: film.SPS(), PPS: film.PPS()}},
		Format: media.Format{
			Checksum: segstore.ChecksumBox,
			Seal: func(r media.SealRequest) ([]byte, branchline.Hash, error) {
				return segstore.SealFooter(segstore.Footer{ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number,
					Codecs: r.Codecs, Fragments: r.Fragments, Prev: r.Prev}, r.Init, signer())
			},
		},
	})
}

// minute is a segment as a camera of 4 Mbit/s fills it, which any stream may be given.
type minute struct {
	start     branchline.SegmentStart
	fragments []branchline.Fragment
	data      [][]byte
	bytes     int64
}

// makeMinute makes as much of a minute as is asked for.
func makeMinute(length time.Duration) (*minute, error) {
	film, err := testcam.NewFilm(testcam.Stream{Bitrate: 4000, Rate: frameRate}, 1, "bench")
	if err != nil {
		return nil, err
	}
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	mux, err := newMuxer("cam.main", start, media.DefaultFragmentLength, film)
	if err != nil {
		return nil, err
	}
	m := new(minute)
	var asm media.Assembler
	take := func(items []branchline.Item, err error) error {
		for _, item := range items {
			data := asm.Add(item)
			switch {
			case item.Start != nil:
				m.start = *item.Start
			case item.Fragment != nil:
				m.fragments, m.data = append(m.fragments, item.Fragment.Fragment), append(m.data, data)
				m.bytes += int64(len(data))
			}
		}
		return err
	}
	for n := range int(length.Seconds() * frameRate) {
		at := time.Duration(n) * time.Second / frameRate
		key := n%frameRate == 0
		au := film.AccessUnit(start.Add(at), uint32(n), key)
		if err := take(mux.Write(media.AccessUnit{Track: 1, PTS: at, DTS: at, Key: key, Data: au})); err != nil {
			return nil, err
		}
	}
	return m, take(mux.Close(""))
}

// segment is the minute as the given one of a stream.
func (m *minute) segment(stream branchline.StreamID, run uint64, number int) branchline.SegmentStart {
	start := m.start
	start.ID, start.Stream, start.Run, start.Number = branchline.NewSegmentID(start.Start), stream, run, uint32(number)
	return start
}

// seal makes the footer of a segment that has so many of the minute's fragments.
func (m *minute) seal(s branchline.SegmentStart, fragments int,
	prev branchline.Hash) (branchline.SegmentSeal, error) {
	rows := m.fragments[:fragments]
	footer, hash, err := segstore.SealFooter(segstore.Footer{ID: s.ID, Stream: s.Stream, Run: s.Run, Number: s.Number,
		Codecs: s.Codecs, Fragments: rows, Prev: prev}, s.Init, signer())
	return branchline.SegmentSeal{ID: s.ID, Hash: hash, Footer: footer,
		Size: rows[len(rows)-1].End() + int64(len(footer))}, err
}

// library is a store full of minutes with next to nothing in them, but whole, chained and signed.
type library struct {
	dir       string // of the store
	streams   int
	segments  int // of all streams together
	fragments int // of each segment, with one frame each
}

func streamName(i int) branchline.StreamID { return branchline.CameraID(cameraName(i)).Stream("main") }

// make writes the files and the index, unless they are there. It returns how long the index took.
func (l library) make(ctx context.Context) (indexing time.Duration, err error) {
	done := filepath.Join(filepath.Dir(l.dir), filepath.Base(l.dir)+".complete")
	if _, err := os.Stat(done); err == nil {
		return 0, nil
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return 0, err
	}
	progress("writing %d segments", l.segments)
	group, filling := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	each := l.segments / l.streams
	end := time.Now().Add(-time.Hour).Truncate(time.Minute)
	for i := range l.streams {
		group.Go(func() error { return l.fill(filling, streamName(i), end.Add(-time.Duration(each)*time.Minute), each) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	progress("making their index")
	began := time.Now()
	n, err := segstore.Rebuild(ctx, l.dir, segstore.Options{}, nil)
	if err == nil && n != each*l.streams {
		err = fmt.Errorf("%d segments in the index, %d made", n, each*l.streams)
	}
	indexing = time.Since(began)
	if err == nil {
		err = os.WriteFile(done, nil, 0o644)
	}
	progress("index made in %v", indexing.Round(time.Second))
	return indexing, err
}

// fill writes the segments of one stream.
func (l library) fill(ctx context.Context, stream branchline.StreamID, start time.Time, count int) error {
	film, err := testcam.NewFilm(testcam.Stream{}, 1, "bench")
	if err != nil {
		return err
	}
	step := time.Minute / time.Duration(l.fragments)
	mux, err := newMuxer(stream, start, step, film)
	if err != nil {
		return err
	}
	w := writer{dir: l.dir, asm: media.Assembler{Buffers: new(buffer.Pool)}}
	key, other := [][]byte{film.SPS(), film.PPS(), {0x65, 1, 2, 3}}, [][]byte{{0x41, 1, 2, 3}}
	for n := range count * l.fragments {
		au := media.AccessUnit{Track: 1, PTS: time.Duration(n) * step, Data: other}
		if au.DTS = au.PTS; n%l.fragments == 0 {
			au.Key, au.Data = true, key
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := w.take(mux.Write(au)); err != nil {
			return err
		}
	}
	return w.take(mux.Close(""))
}

// writer puts segments in their places.
type writer struct {
	dir   string
	asm   media.Assembler
	start *branchline.SegmentStart
	file  []byte
	day   string // the newest folder made
}

func (w *writer) take(items []branchline.Item, err error) error {
	for _, item := range items {
		data := w.asm.Add(item)
		switch {
		case item.Start != nil:
			w.start, w.file = item.Start, append(w.file[:0], item.Start.Init...)
		case item.Fragment != nil:
			w.file = append(w.file, data...)
			w.asm.Buffers.Return(data)
		case item.Seal != nil:
			w.file = append(w.file, item.Seal.Footer...)
			if err := w.write(segstore.Path(w.dir, w.start.Stream, w.start.ID, w.start.Start)); err != nil {
				return err
			}
		}
	}
	return err
}

func (w *writer) write(path string) error {
	if day := filepath.Dir(path); day != w.day {
		if err := os.MkdirAll(day, 0o755); err != nil {
			return err
		}
		w.day = day
	}
	return os.WriteFile(path, w.file, 0o644)
}
