package retain

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

// rank orders what pressure removes. Locked is what it never does.
type rank int

const (
	free rank = iota // no hub waits for it
	unretrieved
	held
	locked
	ranks
)

// line is a stream with its time sorted by rank.
type line struct {
	Stream
	camera branchline.CameraID
	spans  [ranks]branchline.Spans // of the ranks above free; they may overlap, and then the higher counts
}

// The ends of all time.
func dawn() time.Time { return time.Time{} }
func dusk() time.Time { return time.Unix(1<<40, 0).UTC() }

func newLine(s Stream, now time.Time) *line {
	l := &line{Stream: s, camera: s.ID.Camera()}
	var locks, holds, waiting []branchline.TimeRange
	for _, lock := range s.Locks {
		if lock.Active(now) {
			locks = append(locks, lock.Span)
		}
	}
	for _, h := range s.Holds {
		lasts := now.Before(h.Until)
		if lasts {
			holds = append(holds, h.Spans...)
		}
		if lasts || now.Before(h.Until.Add(s.Rule.Extend)) {
			waiting = append(append(waiting, h.Spans...), branchline.TimeRange{Start: h.Known, End: dusk()})
		}
	}
	l.spans[locked] = branchline.NewSpans(locks...)
	l.spans[held] = branchline.NewSpans(holds...)
	l.spans[unretrieved] = branchline.NewSpans(waiting...)
	return l
}

// rank returns the rank of a segment: the highest of any of its instants.
func (l *line) rank(s Segment) rank {
	for r := locked; r > free; r-- {
		if touches(l.spans[r], s.Span) {
			return r
		}
	}
	return free
}

// touches reports whether the set shares an instant with the range.
func touches(set branchline.Spans, r branchline.TimeRange) bool {
	i, _ := slices.BinarySearchFunc(set, r.Start, func(x branchline.TimeRange, t time.Time) int {
		if x.End.After(t) {
			return 1
		}
		return -1
	})
	return i < len(set) && set[i].Overlaps(r)
}

// where returns the time in which segments of a rank may lie.
func (l *line) where(r rank) branchline.Spans {
	if r > free {
		return l.spans[r]
	}
	return l.beyond(dusk())
}

// beyond returns the time before end that is of rank free.
func (l *line) beyond(end time.Time) branchline.Spans {
	open := branchline.Spans{{Start: dawn(), End: end}}
	for r := unretrieved; r < ranks; r++ {
		open = open.Minus(l.spans[r])
	}
	return open
}

// expired returns the time of which the segments are over their age and not postponed.
func (l *line) expired(now time.Time) branchline.Spans {
	if l.Rule.Keep <= 0 {
		return nil
	}
	old := branchline.Spans{{Start: dawn(), End: now.Add(-l.Rule.Keep)}}
	waiting := l.spans[unretrieved].Intersect(branchline.Spans{
		{Start: now.Add(-l.Rule.Keep - l.Rule.Extend), End: dusk()}})
	return old.Minus(l.spans[locked]).Minus(l.spans[held]).Minus(waiting)
}

// over returns by how much a segment is over an age, zero or less if it is not.
func over(s Segment, now time.Time, age time.Duration) time.Duration {
	if age <= 0 {
		return 0
	}
	return now.Sub(s.Span.End) - age
}

// isExpired reports whether age removes the segment now.
func (l *line) isExpired(s Segment, now time.Time) bool {
	late := over(s, now, l.Rule.Keep)
	r := l.rank(s)
	return late > 0 && (r == free || r == unretrieved && late > l.Rule.Extend)
}

// isCoarse reports whether age thins the segment now.
func (l *line) isCoarse(s Segment, now time.Time) bool {
	late := over(s, now, l.Rule.ThinAfter)
	r := l.rank(s)
	return late > 0 && (r == free || r == unretrieved && late > l.Rule.Extend)
}

// coarse returns the time in which segments may have to be thinned.
func (l *line) coarse(now time.Time) branchline.Spans {
	if l.Rule.ThinAfter <= 0 {
		return nil
	}
	old := branchline.Spans{{Start: dawn(), End: now.Add(-l.Rule.ThinAfter)}}
	waiting := l.spans[unretrieved].Intersect(branchline.Spans{
		{Start: now.Add(-l.Rule.ThinAfter - l.Rule.Extend), End: dusk()}})
	return old.Minus(l.Thinned).Minus(l.spans[locked]).Minus(l.spans[held]).Minus(waiting)
}

// older compares segments by start, stream and identifier.
func older(a, b Segment) int {
	return cmp.Or(a.Span.Start.Compare(b.Span.Start), cmp.Compare(a.Stream, b.Stream),
		slices.Compare(a.ID[:], b.ID[:]))
}

// walk yields the segments of the stream that touch the given time, the oldest first and each once, with
// the span of that time in which each was found.
func (p *planner) walk(l *line, where branchline.Spans) iter.Seq2[Segment, branchline.TimeRange] {
	return func(yield func(Segment, branchline.TimeRange) bool) {
		var last Segment
		for _, span := range where {
			for s := range p.facts.Segments(l.ID, span.Start) {
				if !s.Span.Start.Before(span.End) {
					break
				}
				if last.Stream != "" && older(s, last) <= 0 {
					continue // it touches an earlier span, too
				}
				if last = s; !yield(s, span) {
					return
				}
			}
		}
	}
}
