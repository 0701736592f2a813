package segstore

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Uncovered returns the parts of the span for which the store has neither a segment of the stream nor a
// gap, in order. At the origin there are none between the time since when the stream's camera is known and
// its newest entry: what a crash left unexplained is entered as a gap when the store settles.
func (s *Store) Uncovered(stream branchline.StreamID, span branchline.TimeRange) ([]branchline.TimeRange, error) {
	var parts []branchline.TimeRange
	err := s.ix.View(func(tx *index.Tx) error {
		var err error
		if parts, err = s.segmentSpans(tx, stream, span); err != nil {
			return err
		}
		for _, v := range tx.Scan(keyLine('G', stream), nil) {
			var g branchline.Gap
			var seq uint64
			if err := decode("gap", v, sequenced(&seq, func(c *codec) { c.gap(&g) })); err != nil {
				return err
			}
			if !g.Span.Start.Before(span.End) {
				break
			}
			parts = append(parts, g.Span)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find what is uncovered of %s: %w", stream, err)
	}
	for i := range parts {
		parts[i].End = parts[i].End.Add(joinWithin)
	}
	var holes []branchline.TimeRange
	for _, hole := range (branchline.Spans{span}).Minus(branchline.NewSpans(parts...)) {
		hole.Start = hole.Start.Add(-joinWithin)
		holes = append(holes, hole.Intersect(span))
	}
	return holes, nil
}

// segmentSpans returns the spans of the stream's segments that start before the end of span. One that grows has
// no end, and one that nobody works with, as when its volume is away, none that is known.
func (s *Store) segmentSpans(tx *index.Tx, stream branchline.StreamID,
	span branchline.TimeRange) ([]branchline.TimeRange, error) {
	var parts []branchline.TimeRange
	for _, v := range tx.Scan(keyLine('S', stream), keyAt('S', stream, span.Start.Add(-MaxSpan))) {
		var seg branchline.Segment
		var seq uint64
		if err := decode("segment", v, sequenced(&seq, func(c *codec) { c.segment(&seg) })); err != nil {
			return nil, err
		}
		if !seg.Span.Start.Before(span.End) {
			break
		}
		if p := s.partial(seg.ID); !seg.Sealed && p != nil {
			if seg.Span = p.segment().Span; p.grows() {
				seg.Span.End = span.End
			}
		}
		parts = append(parts, seg.Span)
	}
	return parts, nil
}

// explained is up to where a stream was recorded when the store was opened; what is before is history.
type explained struct {
	stream branchline.StreamID
	span   branchline.TimeRange
}

// history returns what was recorded or to be recorded of each stream before the store was opened.
func (s *Store) history() ([]explained, error) {
	cameras, err := s.Cameras(context.Background())
	if err != nil {
		return nil, err
	}
	oldest := s.clock.Now().Add(-gapAge + 24*time.Hour) // gaps before that may be forgotten
	var all []explained
	for _, camera := range cameras {
		for _, stream := range camera.Streams {
			tail, err := s.Tail(stream.ID)
			if err != nil {
				return nil, err
			}
			from := camera.Added
			if from.Before(oldest) {
				from = oldest
			}
			if span := (branchline.TimeRange{Start: from, End: tail.End}); !from.IsZero() && !span.Empty() {
				all = append(all, explained{stream.ID, span})
			}
		}
	}
	return all, nil
}

// explain enters gaps for what the process before this one left without a word, because it ended before
// it could tell.
func (s *Store) explain() error {
	for _, h := range s.past {
		holes, err := s.Uncovered(h.stream, h.span)
		if err != nil {
			return err
		}
		tail, err := s.Tail(h.stream)
		if err != nil {
			return err
		}
		for _, hole := range holes {
			if tail.Gap != nil && tail.Gap.Span.End.Equal(hole.Start) {
				continue // who records goes on with the open gap, or ends it
			}
			s.log.Warn("time without recording and without a reason is taken for a stop of this node",
				"stream", h.stream, "from", hole.Start, "to", hole.End)
			err := s.RecordGap(branchline.Gap{Stream: h.stream, Span: hole, Cause: branchline.CauseStopped})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
