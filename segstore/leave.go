package segstore

import (
	"errors"
	"slices"

	"github.com/branchline-video/branchline"
)

// What a segment leaves on the time line when its file is lost, and what becomes of that when it is put
// back: at the origin of segments every moment is covered by a segment or by a gap, and by one of them.

// removeLeaving is remove that, at the origin, enters a gap with the cause where nothing else covers the
// sealed segment's span, in the same update.
func (l *ledger) removeLeaving(id branchline.SegmentID, cause branchline.Cause) error {
	seg, _, err := find(l.tx, id)
	if err != nil {
		return err
	}
	if err := l.remove(id, cause); err != nil || !l.origin || !seg.Sealed {
		return err
	}
	covered, err := l.covered(seg.Stream, seg.Span)
	if err != nil {
		return err
	}
	for _, span := range (branchline.Spans{seg.Span}).Minus(covered) {
		if err := l.explain(branchline.Gap{Stream: seg.Stream, Span: span, Cause: cause}); err != nil {
			return err
		}
	}
	return nil
}

// takePlace cuts out of a sealed segment's span the gaps that lost segments left, as it is one that was
// put back if there are any.
func (l *ledger) takePlace(seg branchline.Segment) error {
	gaps, err := l.gapsIn(seg.Stream, seg.Span)
	if err != nil {
		return err
	}
	for _, g := range gaps {
		if g.Open || !leftBehind(g.Cause) {
			continue
		}
		left := (branchline.Spans{g.Span}).Minus(branchline.Spans{seg.Span})
		if len(left) == 0 || !left[0].Start.Equal(g.Span.Start) {
			// Its entry in the journal is superseded by one of no length.
			left = slices.Insert(left, 0, branchline.TimeRange{Start: g.Span.Start, End: g.Span.Start})
		}
		for _, g.Span = range left {
			if err := l.explain(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// leftBehind reports whether the cause is one that the removal of a segment leaves.
func leftBehind(c branchline.Cause) bool {
	return c == branchline.CauseDiskFailed || c == branchline.CauseFailed || c == branchline.CauseRemovedEarly ||
		c == branchline.CauseExpired
}

// explain enters a gap that has ended, here and in the journal, unless one that is open begins there.
func (l *ledger) explain(g branchline.Gap) error {
	old, _, err := l.gapAt(keyAt('G', g.Stream, g.Span.Start))
	if err != nil && !errors.Is(err, branchline.ErrNotFound) || err == nil && old.Open {
		return err
	}
	changed, err := l.gap(g)
	if changed {
		l.noted = append(l.noted, branchline.Change{Gap: &g})
	}
	return err
}

func (l *ledger) gapAt(key []byte) (g branchline.Gap, seq uint64, err error) {
	b, err := l.tx.Get(key)
	if err != nil {
		return g, 0, err
	}
	return g, seq, decode("gap", b, sequenced(&seq, func(c *codec) { c.gap(&g) }))
}

// covered returns what segments and gaps cover of a stream in the span.
func (l *ledger) covered(stream branchline.StreamID, span branchline.TimeRange) (branchline.Spans, error) {
	gaps, err := l.gapsIn(stream, span)
	if err != nil {
		return nil, err
	}
	var parts []branchline.TimeRange
	for _, g := range gaps {
		parts = append(parts, g.Span)
	}
	for _, v := range l.tx.Scan(keyLine('S', stream), keyAt('S', stream, span.Start.Add(-MaxSpan))) {
		var seg branchline.Segment
		var seq uint64
		if err := decode("segment", v, sequenced(&seq, func(c *codec) { c.segment(&seg) })); err != nil {
			return nil, err
		}
		if !seg.Span.Start.Before(span.End) {
			break
		}
		parts = append(parts, seg.Span) // one that grows takes its part when it is sealed
	}
	return branchline.NewSpans(parts...), nil
}

// gapsIn returns the stream's gaps that overlap the span, the latest first. Gaps do not overlap one
// another, so the first that begins before the span is the last to look at.
func (l *ledger) gapsIn(stream branchline.StreamID, span branchline.TimeRange) ([]branchline.Gap, error) {
	var all []branchline.Gap
	for _, v := range l.tx.ScanReverse(keyLine('G', stream), keyAt('G', stream, span.End)) {
		var g branchline.Gap
		var seq uint64
		if err := decode("gap", v, sequenced(&seq, func(c *codec) { c.gap(&g) })); err != nil {
			return nil, err
		}
		if g.Span.Overlaps(span) {
			all = append(all, g)
		}
		if g.Span.Start.Before(span.Start) && !g.Span.Empty() {
			break
		}
	}
	return all, nil
}
