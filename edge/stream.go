package edge

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge/ingest"
	"github.com/branchline-video/branchline/internal/backoff"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/internal/live"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
)

// The pauses between attempts to reach a camera: short at first, because most outages are restarts.
const (
	firstPause = 300 * time.Millisecond
	mostPause  = 5 * time.Second
)

// stream records one feed of one camera.
type stream struct {
	id     branchline.StreamID
	camera ingest.Config
	cfg    Config
	chain  *chain
	ledger *ledger
	logger *slog.Logger
	ring   *live.Ring
	lent   *buffer.Pool
	feed   *media.Feed // used only by run
	gaps   gaps        // used only by run
	// endSegment asks run for a new segment; set by record.
	endSegment atomic.Bool
	unused     []string // used only by run: what was told to be not recorded
	count      counters
	meter      meter
}

// counters are read while the stream runs.
type counters struct {
	recording                    atomic.Bool
	sessions, failures, lost     atomic.Uint64
	frames, dropped, clamped     atomic.Uint64
	fragments, bytes, diskCauses atomic.Uint64
}

// StreamMetrics is a stream's state and what was counted since the node was opened.
type StreamMetrics struct {
	Stream    branchline.StreamID
	Recording bool   // a run is open
	Sessions  uint64 // sessions that the camera granted
	Failures  uint64 // sessions that failed, or could not be had
	Lost      uint64 // packets, or units that could not be put together
	Frames    uint64 // recorded
	Dropped   uint64 // received but of no use: before a random access point, or out of time
	Clamped   uint64 // recorded with a corrected decode time
	Fragments uint64 // written
	Bytes     uint64 // written
	DiskGaps  uint64 // gaps that the disk caused
}

func (s *stream) metrics() StreamMetrics {
	c := &s.count
	return StreamMetrics{
		Stream: s.id, Recording: c.recording.Load(),
		Sessions: c.sessions.Load(), Failures: c.failures.Load(), Lost: c.lost.Load(),
		Frames: c.frames.Load(), Dropped: c.dropped.Load(), Clamped: c.clamped.Load(),
		Fragments: c.fragments.Load(), Bytes: c.bytes.Load(), DiskGaps: c.diskCauses.Load(),
	}
}

// newStream finds where the stream stands and enters the node's own absence as a gap.
func newStream(n *Node, camera CameraConfig, label, url string) (*stream, error) {
	id := camera.ID.Stream(label)
	tail, err := n.store.Tail(id)
	if err != nil {
		return nil, err
	}
	logger := n.cfg.Logger.With("stream", id)
	s := &stream{
		id: id, cfg: n.cfg, ledger: n.ledger,
		chain: &chain{Store: n.store, signer: n.cfg.Signer}, logger: logger,
		camera: ingest.Config{URL: url, Audio: camera.Audio, Clock: n.cfg.Clock, Logger: logger},
		ring:   live.New(live.Limits{Shared: n.budget}), lent: &n.buffers,
	}
	s.gaps = gaps{stream: id, clock: n.cfg.Clock, enter: n.store.RecordGap}
	from, err := s.gaps.resume(n.store, n.ledger.camera(camera.ID).Added)
	if err != nil {
		return nil, err
	}
	s.gaps.enter = func(g branchline.Gap) error { n.ledger.gap(g); return nil }
	s.feed = media.NewFeed(media.FeedConfig{
		Stream: id, SegmentLength: n.cfg.SegmentLength,
		Chain:  media.Chain{Run: tail.Run, Prev: tail.Hash, End: from},
		Format: media.Format{Checksum: segstore.ChecksumBox, Seal: s.seal},
	})
	return s, nil
}

func (s *stream) seal(r media.SealRequest) ([]byte, branchline.Hash, error) {
	return segstore.SealFooter(segstore.Footer{
		ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number, Codecs: r.Codecs,
		Fragments: r.Fragments, Prev: s.chain.before(r.ID, r.Prev),
	}, r.Init, s.cfg.Signer)
}

// record writes the ring's items to the store until the ring is closed.
func (s *stream) record(ctx context.Context, items iter.Seq2[branchline.Item, error]) {
	err := record.Run(context.WithoutCancel(ctx), record.Config{
		Store: s.chain, Stream: s.id, Logger: s.logger,
		Gap: func(g branchline.Gap) {
			if g.Open {
				s.count.diskCauses.Add(1)
			}
			s.ledger.gap(g)
		},
		Buffers:    s.lent,
		EndSegment: func() { s.endSegment.Store(true) },
		Wrote:      func(n int) { s.count.fragments.Add(1); s.count.bytes.Add(uint64(n)) },
	}, items)
	if err != nil && !errors.Is(err, branchline.ErrUnavailable) {
		s.logger.Error("recorder ended", "error", err)
	}
}

// run keeps a session with the camera until ctx ends, and then closes the ring.
func (s *stream) run(ctx context.Context) {
	defer s.ring.Close(branchline.ErrUnavailable)
	pause := backoff.New(firstPause, mostPause)
	var told branchline.Cause
	for {
		played, err := s.session(ctx)
		if ctx.Err() != nil {
			s.stop(branchline.CauseStopped)
			return
		}
		cause := ingest.CauseOf(err)
		s.count.failures.Add(1)
		s.stop(cause)
		if played {
			pause.Reset()
		}
		if played || cause != told {
			s.logger.Warn("camera lost", "cause", cause, "error", err)
			told = cause
		}
		if pause.Wait(ctx) != nil {
			s.stop(branchline.CauseStopped)
			return
		}
	}
}

// session plays the camera until that fails, and reports whether anything was recorded.
func (s *stream) session(ctx context.Context) (played bool, err error) {
	session, err := ingest.Open(ctx, s.camera)
	if err != nil {
		return false, err
	}
	defer session.Close()
	s.count.sessions.Add(1)
	s.tellUnused(session.Unused())
	s.feed.Session(session.Tracks())
	before := s.feed.Chain().Run
	lost := s.count.lost.Load()
	err = session.Run(ctx, func(u media.Unit) error {
		if s.endSegment.Swap(false) {
			s.feed.EndSegment()
		}
		items, err := s.feed.Write(u)
		s.publish(items, "")
		s.count.lost.Store(lost + session.Lost())
		return err
	})
	return s.feed.Chain().Run > before, err
}

// tellUnused logs which of the camera's formats are not recorded, once for as long as they are the same.
func (s *stream) tellUnused(formats []string) {
	if len(formats) > 0 && !slices.Equal(formats, s.unused) {
		s.logger.Warn("camera tracks are not recorded", "formats", formats)
	}
	s.unused = formats
}

// stop ends the run, if one is open, and makes sure that a gap with the cause is.
func (s *stream) stop(cause branchline.Cause) {
	items, err := s.feed.End(cause)
	if err != nil {
		s.logger.Error("end run", "error", err)
	}
	s.publish(items, cause)
}

// publish gives items to the readers, and keeps the gaps between runs: where a run ended and none
// began at the same time there is one, with the run's cause. A cause says why there still is none.
func (s *stream) publish(items []branchline.Item, cause branchline.Cause) {
	for _, item := range items {
		switch {
		case item.Start != nil && item.Start.Number == 0:
			s.gaps.close(item.Start.Start)
			s.ledger.seen(s.id, item.Start.Init)
			s.logger.Info("recording", "run", item.Start.Run, "codecs", item.Start.Codecs)
		case item.RunEnd != nil:
			s.gaps.open(item.RunEnd.At, item.RunEnd.Cause)
			s.logger.Info("run ended", "run", item.RunEnd.Run, "cause", item.RunEnd.Cause)
		case item.Frame != nil:
			s.meter.add(item.Frame)
		}
		s.ring.Publish(item)
	}
	if !s.feed.Recording() {
		if from := s.gaps.because(cause); from.After(s.feed.Chain().End) {
			s.feed.NotBefore(from)
		}
	}
	c := s.feed.Counters()
	s.count.frames.Store(c.Frames)
	s.count.dropped.Store(c.Dropped)
	s.count.clamped.Store(c.Clamped)
	s.count.recording.Store(s.feed.Recording())
}
