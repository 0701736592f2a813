package catalog

import (
	"cmp"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

// State says where the footage of a span is.
type State string

// The states of a time line.
const (
	Held    State = "held"    // at the hub
	Edge    State = "edge"    // at the branch only
	Coming  State = "coming"  // in transfer
	Wanted  State = "wanted"  // queued
	Missing State = "gap"     // not recorded, or not known to be, with the cause
	Unknown State = "unknown" // of a site never seen
)

// Span is a piece of a time line. The fields after State are set only where they mean something.
type Span struct {
	branchline.TimeRange
	State  State
	Share  float64          // of coming: done, from 0 to 1
	Reason string           // of coming and wanted: what wants it
	Cause  branchline.Cause // of gap
}

// Transfer is footage on its way to the hub or queued for it.
type Transfer struct {
	Span   branchline.TimeRange
	Active bool    // bytes flow, or are about to; else it is queued
	Share  float64 // done, from 0 to 1
	Reason string  // what wants it
}

// Timeline says where the footage of a stream is: spans by start, each with exactly one state, without
// overlap, that together cover r as far as it is not after now. It is a pure function of its
// arguments: what the catalog knows, what the hub holds, and what is on its way.
func Timeline(
	r branchline.TimeRange, now time.Time, facts StreamFacts, held branchline.Spans, transfers []Transfer,
) []Span {
	if now.Before(r.End) {
		r.End = now
	}
	line := painter{left: branchline.NewSpans(r)}
	line.paint(held, Span{State: Held})
	for _, active := range []bool{true, false} {
		for _, t := range transfers {
			if t.Active == active {
				onItsWay := facts.Available.Intersect(branchline.NewSpans(t.Span))
				line.paint(onItsWay, t.state())
			}
		}
	}
	line.paint(facts.Available, Span{State: Edge})
	for _, g := range facts.Gaps {
		line.paint(branchline.NewSpans(g.Span), Span{State: Missing, Cause: g.Cause})
	}
	for _, o := range facts.Outages {
		line.paint(branchline.NewSpans(o.Span), Span{State: Missing, Cause: branchline.CauseLinkDown})
	}
	if facts.Known {
		before := branchline.TimeRange{Start: r.Start, End: facts.Added}
		line.paint(branchline.NewSpans(before), Span{State: Missing, Cause: branchline.CauseNotScheduled})
		line.paint(slices.Clone(line.left), Span{State: Missing, Cause: branchline.CauseWaiting})
	}
	line.paint(slices.Clone(line.left), Span{State: Unknown})
	return joined(line.painted)
}

func (t Transfer) state() Span {
	if t.Active {
		return Span{State: Coming, Share: t.Share, Reason: t.Reason}
	}
	return Span{State: Wanted, Reason: t.Reason}
}

// painter gives each instant the first state that it is painted with.
type painter struct {
	left    branchline.Spans
	painted []Span
}

func (p *painter) paint(where branchline.Spans, as Span) {
	for _, r := range p.left.Intersect(where) {
		as.TimeRange = r
		p.painted = append(p.painted, as)
	}
	p.left = p.left.Minus(where)
}

// Best puts the time lines of a camera's streams together: at each time the best state of any of
// them, in the order held, coming, wanted, edge, gap, unknown. The result has the properties of a
// [Timeline].
func Best(lines ...[]Span) []Span {
	var all []branchline.TimeRange
	byState := make(map[State][]Span)
	for _, line := range lines {
		for _, s := range line {
			all = append(all, s.TimeRange)
			byState[s.State] = append(byState[s.State], s)
		}
	}
	best := painter{left: branchline.NewSpans(all...)}
	for _, state := range []State{Held, Coming, Wanted, Edge, Missing, Unknown} {
		for _, s := range byState[state] {
			best.paint(branchline.Spans{s.TimeRange}, s)
		}
	}
	return joined(best.painted)
}

// joined sorts spans by start and makes one of neighbours that say the same.
func joined(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(a.Start.Compare(b.Start), a.End.Compare(b.End))
	})
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 {
			last := out[n-1]
			last.TimeRange = s.TimeRange
			if last == s && out[n-1].End.Equal(s.Start) {
				out[n-1].End = s.End
				continue
			}
		}
		out = append(out, s)
	}
	return out
}
