package record_test

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
)

// muxed makes the items of a run of two seconds in one segment, as an edge does.
func muxed(t *testing.T) (items []branchline.Item) {
	t.Helper()
	seal := func(r media.SealRequest) ([]byte, branchline.Hash, error) {
		return segstore.SealFooter(segstore.Footer{ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number,
			Codecs: r.Codecs, Fragments: r.Fragments, Prev: r.Prev}, r.Init, key())
	}
	sps := []byte{0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0xf0, 0x11, 0x7e, 0xf0, 0x11, 0x00, 0x00, 0x03, 0x00,
		0x01, 0x00, 0x00, 0x03, 0x00, 0x30, 0x8f, 0x18, 0x32, 0x48}
	mux, err := media.NewMuxer(media.MuxerConfig{Stream: stream, Run: 1, Start: epoch(),
		Tracks: []media.Track{{Codec: media.H264, ClockRate: media.VideoClockRate,
			SPS: sps, PPS: []byte{0x68, 0xcb, 0x8c, 0xb2}}},
		Format: media.Format{Checksum: segstore.ChecksumBox, Seal: seal}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 8 {
		nalu, at := []byte{0x41, byte(n)}, time.Duration(n)*250*time.Millisecond
		if n == 0 {
			nalu[0] = 0x65
		}
		more, err := mux.Write(media.AccessUnit{Track: 1, PTS: at, DTS: at, Key: n == 0, Data: [][]byte{nalu}})
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, more...)
	}
	more, err := mux.Close(branchline.CauseStopped)
	if err != nil {
		t.Fatal(err)
	}
	return append(items, more...)
}

// TestKilledBeforeItSealed: a hub sees a segment's seal live, and the edge is killed before its own
// store has it. What the edge seals after its restart is what both have in the end.
func TestKilledBeforeItSealed(t *testing.T) {
	items := muxed(t)
	seal := slices.IndexFunc(items, func(i branchline.Item) bool { return i.Seal != nil })
	id := items[seal].Segment
	written := func(s *segstore.Store, gap func(branchline.Gap), items []branchline.Item) {
		cfg := record.Config{Store: s, Stream: stream, Logger: slog.New(slog.DiscardHandler), Gap: gap}
		if err := record.Run(t.Context(), cfg, sequence(items)); err != nil {
			t.Fatal(err)
		}
	}
	open := func(dir string, opt segstore.Options) *segstore.Store {
		s, err := segstore.Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	dir, killed := t.TempDir(), t.TempDir()
	written(open(dir, segstore.Options{Signer: key()}), func(branchline.Gap) {}, items[:seal])
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	hub := open(t.TempDir(), segstore.Options{})
	written(hub, nil, items)

	edge := open(killed, segstore.Options{Signer: key()})
	segs, err := edge.Segments(t.Context(), stream, branchline.TimeRange{Start: epoch(), End: epoch().Add(time.Hour)})
	if err != nil || len(segs) != 1 || !segs[0].Sealed || segs[0].Hash == items[seal].Seal.Hash {
		t.Fatalf("the edge has %+v, %v, want one segment sealed anew", segs, err)
	}
	file := whole(t, edge, id)
	rows := segs[0].Fragments
	err = hub.Seal(id, branchline.SegmentSeal{
		ID: id, Hash: segs[0].Hash, Footer: file[rows[len(rows)-1].End():], Size: segs[0].Size,
	})
	if err != nil || !bytes.Equal(whole(t, hub, id), file) {
		t.Errorf("the hub's copy differs: %v", err)
	}
}

func whole(t *testing.T, s *segstore.Store, id branchline.SegmentID) []byte {
	t.Helper()
	r, err := s.Fetch(t.Context(), id, branchline.ByteRange{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
