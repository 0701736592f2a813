package edge

import (
	"crypto/ed25519"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
)

// fullOnce is a store whose n-th Put finds no room.
type fullOnce struct {
	*chain
	n int
}

func (s *fullOnce) Put(id branchline.SegmentID, f branchline.Fragment, data []byte) error {
	if s.n--; s.n == 0 {
		return syscall.ENOSPC
	}
	return s.chain.Put(id, f, data)
}

// TestChainNamesWhatIsStored records five segments of which the second is given up in its middle, once
// by a recorder that keeps up and once by one that is far behind.
func TestChainNamesWhatIsStored(t *testing.T) {
	for _, behind := range []bool{false, true} {
		key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
		dir := t.TempDir()
		store, err := segstore.Open(dir, segstore.Options{Signer: key})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		s := &stream{id: "gate.main", cfg: Config{Signer: key}, chain: &chain{Store: store, signer: key}}
		start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		items := run(t, start, s.seal)
		if behind {
			var all []branchline.Item
			for item := range items {
				all = append(all, item)
			}
			items = func(yield func(branchline.Item, error) bool) {
				for _, item := range all {
					if !yield(item, nil) {
						return
					}
				}
			}
		}
		made := make(map[branchline.SegmentID]branchline.Hash)
		err = record.Run(t.Context(), record.Config{
			Store: &fullOnce{s.chain, 4}, Stream: s.id, Logger: slog.New(slog.DiscardHandler), Gap: func(branchline.Gap) {},
		}, func(yield func(branchline.Item, error) bool) {
			for item, err := range items {
				if item.Seal != nil {
					made[item.Segment] = item.Seal.Hash
				}
				if !yield(item, err) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		segs, err := store.Segments(t.Context(), s.id, branchline.TimeRange{Start: start, End: start.Add(time.Hour)})
		if err != nil || len(segs) != 5 {
			t.Fatalf("segments %+v, %v", segs, err)
		}
		if segs[1].Span.Duration() != 500*time.Millisecond {
			t.Errorf("the second segment is not cut: %v", segs[1].Span)
		}
		var prev branchline.Hash
		for i, seg := range segs {
			report, err := segstore.Check(segstore.File(dir, seg))
			if err != nil || !report.OK() || i > 0 && report.Previous != prev.String() {
				t.Errorf("behind %v, segment %d: %v %v, want it after %v", behind, i, report, err, prev)
			}
			if made[seg.ID] == seg.Hash != (i != 1) && !behind {
				t.Errorf("segment %d: made as %v, stored as %v", i, made[seg.ID], seg.Hash)
			}
			prev = seg.Hash
		}
	}
}

// run makes five segments of a second, with a fragment each half second, while they are asked for.
func run(
	t *testing.T, start time.Time, seal func(media.SealRequest) ([]byte, branchline.Hash, error),
) func(func(branchline.Item, error) bool) {
	sps := []byte{0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0xf0, 0x11, 0x7e, 0xf0, 0x11, 0x00, 0x00, 0x03, 0x00,
		0x01, 0x00, 0x00, 0x03, 0x00, 0x30, 0x8f, 0x18, 0x32, 0x48}
	mux, err := media.NewMuxer(media.MuxerConfig{Stream: "gate.main", Run: 1, Start: start, SegmentLength: time.Second,
		Tracks: []media.Track{{Codec: media.H264, ClockRate: media.VideoClockRate,
			SPS: sps, PPS: []byte{0x68, 0xcb, 0x8c, 0xb2}}},
		Format: media.Format{Checksum: segstore.ChecksumBox, Seal: seal}})
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(branchline.Item, error) bool) {
		for n := range 20 {
			nalu, at := []byte{0x41, byte(n)}, time.Duration(n)*250*time.Millisecond
			if n%4 == 0 {
				nalu[0] = 0x65
			}
			au := media.AccessUnit{Track: 1, PTS: at, DTS: at, Key: n%4 == 0, Data: [][]byte{nalu}}
			items, err := mux.Write(au)
			for _, item := range items {
				if !yield(item, err) {
					return
				}
			}
		}
		items, err := mux.Close(branchline.CauseStopped)
		for _, item := range items {
			if !yield(item, err) {
				return
			}
		}
	}
}
