package segstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// A segment that is removed leaves a gap, in the same update of the index and with one record in the
// journal: at the origin of segments always, so that every moment is covered by a segment or a gap; at a
// replica when retention removes it, for what is only lost there is fetched again. What a crash leaves:
//
//	renamed to trash/                             the next start removes it and enters the gap
//	the gap in the journal                        the same; the gap is there already
//	the index updated                             the next start unlinks the file

// takeOut replaces a segment by a tombstone and by the gap that it leaves. It has find's errors.
func (l *ledger) takeOut(id branchline.SegmentID, cause branchline.Cause) error {
	seg, _, err := find(l.tx, id)
	if err != nil {
		return err
	}
	if err := l.remove(id, cause); err != nil || !seg.Sealed || seg.Span.Empty() {
		return err
	}
	if !l.origin && !byRetention(cause) {
		return nil
	}
	return l.leave(seg, cause)
}

// takeOutTrash is takeOut of a file that a crash has left in trash/. Of a segment that a lost index does
// not know any more the gap is entered by what the file says, where it is the origin's own.
func (s *Store) takeOutTrash(path string, id branchline.SegmentID, cause branchline.Cause) error {
	return s.commitBy(s.ix.Relieve, func(l *ledger) error {
		err := l.takeOut(id, cause)
		if !errors.Is(err, branchline.ErrNotFound) || !l.origin {
			return err
		}
		seg, _, err := readSealed(path, "")
		if err != nil {
			s.log.Error("what was being removed is not readable, and leaves no gap", "path", path, "cause", err)
			return nil
		}
		return l.leave(seg, cause)
	})
}

// leave enters the gap that a removed segment leaves: where nothing else is told of its time. It extends
// the gap before if that touches and has the same cause, and reaches to the neighbours over holes of
// roundings.
func (l *ledger) leave(seg branchline.Segment, cause branchline.Cause) error {
	around := branchline.TimeRange{Start: seg.Span.Start.Add(-joinWithin), End: seg.Span.End.Add(joinWithin)}
	gaps, err := l.gapsTouching(seg.Stream, around)
	if err != nil {
		return err
	}
	taken, err := l.segmentsTouching(seg, around)
	if err != nil {
		return err
	}
	for _, g := range gaps {
		taken = append(taken, g.Span)
	}
	for _, free := range (branchline.Spans{around}).Minus(branchline.NewSpans(taken...)) {
		if free.Start.Equal(around.Start) {
			free.Start = seg.Span.Start
		}
		if free.End.Equal(around.End) {
			free.End = seg.Span.End
		}
		if free.Duration() < joinWithin || !free.Overlaps(seg.Span) {
			continue
		}
		g := branchline.Gap{Stream: seg.Stream, Span: free, Cause: cause}
		for _, before := range gaps {
			if before.Span.End.Equal(free.Start) && before.Cause == cause && !before.Open {
				g.Span.Start = before.Span.Start
			}
		}
		if err := l.tell(g); err != nil {
			return err
		}
	}
	return nil
}

// tell enters a gap that has ended, here and in the journal, unless one that is open begins there.
func (l *ledger) tell(g branchline.Gap) error {
	key := keyAt('G', g.Stream, g.Span.Start)
	if open, err := l.tx.Get(keyOpen(g.Stream)); err == nil && bytes.Equal(open, key) {
		return nil
	} else if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		return err
	}
	changed, err := l.gap(g)
	if changed {
		l.noted = append(l.noted, branchline.Change{Gap: &g})
	}
	return err
}

// takePlace takes the time of a segment that is put back out of the gaps that the removal of segments left.
// A gap that begins with it stays without length: what stands in feed and journal is not unsaid.
func (l *ledger) takePlace(seg branchline.Segment) error {
	gaps, err := l.gapsTouching(seg.Stream, seg.Span)
	if err != nil {
		return err
	}
	for _, g := range gaps {
		if g.Open || !leftBehind(g.Cause) || !g.Span.Overlaps(seg.Span) {
			continue
		}
		left := (branchline.Spans{g.Span}).Minus(branchline.Spans{seg.Span})
		if len(left) == 0 || !left[0].Start.Equal(g.Span.Start) {
			left = slices.Insert(left, 0, branchline.TimeRange{Start: g.Span.Start, End: g.Span.Start})
		}
		for _, g.Span = range left {
			if err := l.tell(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// segmentsTouching returns the spans of the stream's segments but seg that touch the range.
func (l *ledger) segmentsTouching(seg branchline.Segment, r branchline.TimeRange) ([]branchline.TimeRange, error) {
	var all []branchline.TimeRange
	for _, v := range l.tx.Scan(keyLine('S', seg.Stream), keyAt('S', seg.Stream, r.Start.Add(-MaxSpan))) {
		var other branchline.Segment
		var seq uint64
		if err := decode("segment", v, sequenced(&seq, func(c *codec) { c.segment(&other) })); err != nil {
			return nil, err
		}
		if !other.Span.Start.Before(r.End) {
			break
		}
		if !other.Sealed { // where it ends is not known yet; that it begins here is enough
			other.Span.End = other.Span.Start.Add(2 * joinWithin)
		}
		if other.ID != seg.ID && other.Span.Overlaps(r) {
			all = append(all, other.Span)
		}
	}
	return all, nil
}

// gapsTouching returns the stream's gaps that share an instant or an end with the range.
func (l *ledger) gapsTouching(stream branchline.StreamID, r branchline.TimeRange) ([]branchline.Gap, error) {
	var all []branchline.Gap
	add := func(v []byte) (branchline.Gap, error) {
		var g branchline.Gap
		var seq uint64
		err := decode("gap", v, sequenced(&seq, func(c *codec) { c.gap(&g) }))
		if !g.Span.Empty() && !g.Span.End.Before(r.Start) {
			all = append(all, g)
		}
		return g, err
	}
	start := keyAt('G', stream, r.Start)
	for k, v := range l.tx.ScanReverse(keyLine('G', stream), start) {
		if bytes.Equal(k, start) {
			continue // found below
		}
		g, err := add(v)
		if err != nil {
			return nil, err
		}
		if !g.Span.Empty() {
			break
		}
	}
	for _, v := range l.tx.Scan(keyLine('G', stream), start) {
		g, err := add(v)
		if err != nil {
			return nil, err
		}
		if !g.Span.Start.Before(r.End) {
			break
		}
	}
	return all, nil
}

// leftBehind reports whether the cause is one that the removal of a segment leaves.
func leftBehind(cause branchline.Cause) bool {
	return byRetention(cause) || cause == branchline.CauseDiskFailed || cause == branchline.CauseFailed ||
		cause == branchline.CauseStopped // for which a lost index took it
}

// empty frees the space of a file in trash/ and leaves its name, which a crash needs.
func (s *Store) empty(path string) error {
	f, err := s.fs.Open(path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// byRetention reports whether the cause is that retention has removed something.
func byRetention(cause branchline.Cause) bool {
	return cause == branchline.CauseExpired || cause == branchline.CauseRemovedEarly
}

// Dropped returns the spans in the range that were here and were removed by retention, in order.
func (s *Store) Dropped(stream branchline.StreamID, span branchline.TimeRange) (branchline.Spans, error) {
	var dropped []branchline.TimeRange
	err := s.ix.View(func(tx *index.Tx) error {
		l := ledger{tx: tx}
		gaps, err := l.gapsTouching(stream, span)
		for _, g := range gaps {
			if byRetention(g.Cause) {
				dropped = append(dropped, g.Span.Intersect(span))
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list dropped spans: %w", err)
	}
	return branchline.NewSpans(dropped...), nil
}
