package fetch

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/segstore"
)

// branch is an edge's store with one segment of one minute, over a link of many connections that keep
// dying.
type branch struct {
	*segstore.Store
	lanes int
	life  int64         // bytes that a stream gives before its connection ends; 0: all
	full  chan struct{} // closed when as many streams are open as are wanted at once; they wait for that

	mu     sync.Mutex
	open   int
	most   int
	asked  int
	given  int64
	wanted int
}

func (b *branch) Live(context.Context, branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return nil
}

func (b *branch) Cameras(context.Context) ([]branchline.Camera, error) { return nil, nil }

func (b *branch) Lanes() int { return b.lanes }

func (b *branch) Fetch(ctx context.Context, id branchline.SegmentID, r branchline.ByteRange) (io.ReadCloser, error) {
	body, err := b.Store.Fetch(ctx, id, r)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.asked++
	b.open++
	if b.most = max(b.most, b.open); b.open == b.wanted {
		b.wanted = -1
		close(b.full)
	}
	b.mu.Unlock()
	return &dying{ReadCloser: body, b: b, left: b.life, last: b.life > 0}, nil
}

type dying struct {
	io.ReadCloser
	b    *branch
	left int64
	last bool
}

func (d *dying) Read(p []byte) (int, error) {
	<-d.b.full
	if d.last && d.left == 0 {
		return 0, branchline.ErrUnavailable
	}
	if d.last {
		p = p[:min(int64(len(p)), d.left)]
	}
	n, err := d.ReadCloser.Read(p)
	d.left -= int64(n)
	d.b.mu.Lock()
	d.b.given += int64(n)
	d.b.mu.Unlock()
	return n, err
}

func (d *dying) Close() error {
	d.b.mu.Lock()
	d.b.open--
	d.b.mu.Unlock()
	return d.ReadCloser.Close()
}

// recorded returns a store with one sealed segment of 24 MB.
func recorded(t *testing.T) *segstore.Store { return recordedIn(t, t.TempDir()) }

func recordedIn(t *testing.T, dir string) *segstore.Store {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	s, err := segstore.Open(dir, segstore.Options{Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	mux, err := media.NewMuxer(media.MuxerConfig{
		Stream: "door.main", Run: 1, Start: at(0), SegmentLength: time.Minute,
		Tracks: []media.Track{{Codec: media.H264, ClockRate: media.VideoClockRate,
			SPS: []byte{0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0xf0, 0x11, 0x7e, 0xf0, 0x11, 0x00, 0x00, 0x03, 0x00,
				0x01, 0x00, 0x00, 0x03, 0x00, 0x30, 0x8f, 0x18, 0x32, 0x48},
			PPS: []byte{0x68, 0xcb, 0x8c, 0xb2}}},
		Format: media.Format{Checksum: segstore.ChecksumBox,
			Seal: func(r media.SealRequest) ([]byte, branchline.Hash, error) {
				return segstore.SealFooter(segstore.Footer{ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number,
					Codecs: r.Codecs, Fragments: r.Fragments, Prev: r.Prev}, r.Init, key)
			}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	for n := range 605 {
		nalu := append([]byte{0x41, byte(n), byte(n >> 8)}, bytes.Repeat([]byte{'x'}, 40_000)...)
		if n%10 == 0 {
			nalu[0] = 0x65
		}
		at := time.Duration(n) * 100 * time.Millisecond
		items, err := mux.Write(media.AccessUnit{Track: 1, PTS: at, DTS: at, Key: n%10 == 0, Data: [][]byte{nalu}})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range items {
			switch {
			case i.Start != nil && i.Start.Number > 0:
				return s
			case i.Start != nil:
				err = s.Begin("door.main", *i.Start)
			case i.Frame != nil:
				data.Write(i.Frame.Data)
			case i.Fragment != nil:
				all := append(append(bytes.Clone(i.Fragment.Head), data.Bytes()...), i.Fragment.Tail...)
				err = s.Put(i.Segment, i.Fragment.Fragment, all)
				data.Reset()
			case i.Seal != nil:
				err = s.Seal(i.Segment, *i.Seal)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// aTask is one for the first 100 s of a camera, with a crew of its own at the site.
func aTask(src branchline.Source) *task {
	return &task{
		stream: door, span: span(0, 100), take: takeWhole, crew: newCrew(src, clock.Clock{}, new(tally)),
	}
}

// TestStripe brings one large segment over as many streams as the link carries, while their connections
// keep dying, and hardly a byte twice.
func TestStripe(t *testing.T) {
	for name, c := range map[string]struct {
		lanes  int
		life   int64
		wanted int // streams at once
	}{
		"one connection":       {1, 0, leastStreams},
		"sixteen":              {16, 0, 24},
		"sixteen that die":     {16, 150_000, 24},
		"more than it is good": {1000, 0, 60},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			b := &branch{Store: recorded(t), lanes: c.lanes, life: c.life, wanted: c.wanted, full: make(chan struct{})}
			tk := aTask(b)
			if _, err := f.fetcher.bring(t.Context(), tk); err != nil {
				t.Fatal(err)
			}
			list := func(s *segstore.Store, id branchline.StreamID) branchline.Segment {
				segs, err := s.Segments(t.Context(), id, span(0, 50))
				if err != nil || len(segs) != 1 {
					t.Fatalf("%d segments, %v", len(segs), err)
				}
				return segs[0]
			}
			want, got := list(b.Store, "door.main"), list(f.store, door)
			if !got.Sealed || got.Hash != want.Hash || len(tk.damage) > 0 {
				t.Errorf("held are %d of %d fragments, sealed: %v; damage %v", len(got.Fragments), len(want.Fragments),
					got.Sealed, tk.damage)
			}
			// Where a bite is divided, what was read of the other's share at that moment is thrown away.
			if twice := b.given - want.Size; b.most > mostStreams || twice < 0 || twice > int64(b.most)*readSize {
				t.Errorf("%d streams at once; %d bytes came of %d", b.most, b.given, want.Size)
			}
			tk.crew.work.Wait()
			if tk.crew.room != memory {
				t.Errorf("%d bytes of memory are not given back", memory-tk.crew.room)
			}
			t.Logf("%d streams at once, %d in all", b.most, b.asked)
		})
	}
}
