package record

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"syscall"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/internal/media"
)

// Store is what is written to; a segstore.Store is one.
type Store interface {
	Begin(stream branchline.StreamID, start branchline.SegmentStart) error
	Put(id branchline.SegmentID, f branchline.Fragment, data []byte) error
	Seal(id branchline.SegmentID, seal branchline.SegmentSeal) error
}

// Config says where a stream is recorded to.
type Config struct {
	Store  Store
	Stream branchline.StreamID // as this node calls it
	Logger *slog.Logger
	// Gap, set on the edge alone, is told of every span that could not be recorded: open at once,
	// and closed when recording goes on. Without it the store is a replica, and nothing is sealed.
	Gap func(branchline.Gap)
	// EndSegment, set on the edge alone, asks for the segment to end at the next random access point, so
	// that recording can go on there after something could not be written. It is called again while that
	// lasts, at most once in retryEvery.
	EndSegment func()
	// Buffers, if set, lends the memory for fragments; recorders of one node share it.
	Buffers *buffer.Pool
	// Wrote, if set, is told the size of each fragment written.
	Wrote func(bytes int)
}

// Run records until the items end, and returns the error that they ended with, nil if there was none.
// Begin, Put and Seal are called from this goroutine, so a slow disk makes a slow reader of the items
// and nothing else. Whoever wants the last items written ends them, not ctx.
func Run(ctx context.Context, cfg Config, items iter.Seq2[branchline.Item, error]) error {
	r := &recorder{cfg: cfg, asm: media.Assembler{Buffers: cfg.Buffers}}
	for item, err := range items {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.record(item)
	}
	return nil
}

// retryEvery is how often, by the stream's own time, recording is tried again: often enough that it goes on
// within five seconds once the disk can be written, for cameras with a random access point every other second.
const retryEvery = 2 * time.Second

type recorder struct {
	cfg     Config
	asm     media.Assembler
	segment branchline.SegmentID // the one that is written; zero while none is
	given   branchline.SegmentID // the one that was given up
	end     time.Time            // up to which everything is written or told as a gap
	gap     branchline.Gap       // the open one, if its stream is set
	tried   time.Time            // when the newest segment was begun, by the stream's own time
}

func (r *recorder) record(item branchline.Item) {
	if item.Missed > 0 && r.segment != (branchline.SegmentID{}) {
		r.cfg.Logger.Warn("recorder missed items", "stream", r.cfg.Stream, "items", item.Missed)
		r.hole(branchline.CauseDiskSlow, r.end)
	}
	data := r.asm.Add(item)
	switch {
	case item.Start != nil:
		r.begin(item.Start)
	case item.Fragment != nil && item.Segment == r.segment:
		r.put(item.Fragment.Fragment, data)
	case item.Fragment != nil && r.gap.Stream != "":
		r.gap.Span.End = item.Fragment.Fragment.Span().End
		r.again(r.gap.Span.End)
	case item.Seal != nil && item.Segment == r.segment:
		r.seal(item.Seal)
	case item.RunEnd != nil:
		r.segment = branchline.SegmentID{}
		r.closeGap(item.RunEnd.At)
	}
	r.cfg.Buffers.Return(data)
}

func (r *recorder) begin(start *branchline.SegmentStart) {
	if start.ID == r.segment || start.ID == r.given {
		return
	}
	r.segment, r.end, r.tried = start.ID, start.Start, start.Start
	if err := r.cfg.Store.Begin(r.cfg.Stream, *start); err != nil {
		r.fail("begin segment", err, start.Start)
	}
}

func (r *recorder) put(f branchline.Fragment, data []byte) {
	if data == nil {
		r.hole(branchline.CauseDiskSlow, f.Start)
		return
	}
	if err := r.cfg.Store.Put(r.segment, f, data); err != nil {
		r.fail("write fragment", err, f.Start)
		return
	}
	if r.cfg.Wrote != nil {
		r.cfg.Wrote(len(data))
	}
	r.closeGap(f.Start)
	r.end = f.Span().End
}

func (r *recorder) seal(seal *branchline.SegmentSeal) {
	if r.cfg.Gap == nil {
		r.segment = branchline.SegmentID{}
		return
	}
	if err := r.cfg.Store.Seal(r.segment, *seal); err != nil {
		r.cfg.Logger.Error("seal segment", "stream", r.cfg.Stream, "segment", r.segment, "error", err)
	}
	r.segment = branchline.SegmentID{}
}

// fail gives up the segment after an error of the store at the given time.
func (r *recorder) fail(what string, err error, at time.Time) {
	r.cfg.Logger.Error(what, "stream", r.cfg.Stream, "segment", r.segment, "error", err)
	r.giveUp(diskCause(err), at)
}

// hole is what became of items that this reader lost: on the edge the end of the segment.
func (r *recorder) hole(cause branchline.Cause, at time.Time) {
	if r.cfg.Gap != nil {
		r.giveUp(cause, at)
	}
}

func (r *recorder) giveUp(cause branchline.Cause, at time.Time) {
	r.given, r.segment = r.segment, branchline.SegmentID{}
	if r.cfg.Gap == nil || r.gap.Stream != "" {
		return
	}
	r.gap = branchline.Gap{
		Stream: r.cfg.Stream, Span: branchline.TimeRange{Start: at, End: at}, Cause: cause, Open: true,
	}
	r.cfg.Gap(r.gap)
}

// again asks for a new segment while nothing is recorded.
func (r *recorder) again(now time.Time) {
	if r.cfg.EndSegment != nil && now.Sub(r.tried).Abs() >= retryEvery {
		r.tried = now
		r.cfg.EndSegment()
	}
}

func (r *recorder) closeGap(end time.Time) {
	if r.gap.Stream == "" {
		return
	}
	r.gap.Span.End, r.gap.Open = end, false
	r.cfg.Gap(r.gap)
	r.gap = branchline.Gap{}
}

func diskCause(err error) branchline.Cause {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return branchline.CauseDiskFull
	}
	return branchline.CauseDiskFailed
}
