package policy

import (
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// LeaseLife is how long a hold spares footage at the edge without being renewed: a long weekend without
	// a link, and some days to bring over what gathered.
	LeaseLife = 7 * 24 * time.Hour
	// KnownStep is how much a hold may spare too much before it is placed anew, to give that free.
	KnownStep = 10 * time.Minute
	// HoldPause is the least time between two holds on one stream where the second only gives something free.
	HoldPause = time.Minute
)

// Considered is the Known of a hold whose holder wants nothing that is still to come: no footage waits for
// it to hear of it.
func Considered() time.Time { return time.Unix(1<<33, 0).UTC() }

// Hold returns what the edge is to spare for the hub from now on: the wants, as far as they exist or the
// feed has not told yet, less what is held. Under a policy that goes on to want, all that is recorded
// after Known is in it, as the hub hears of it only while there is a link; Known is then the time up to
// which the feed has told. Holder is left to the certificate. Without spans nothing is wanted, and
// the hold releases what was held before: its lease ends now.
func Hold(p Policy, wants []Want, f Facts, now time.Time) branchline.Hold {
	h := branchline.Hold{Stream: f.Stream, Known: Considered(), Until: now.Add(LeaseLife)}
	untold := branchline.NewSpans(branchline.TimeRange{Start: f.Told, End: h.Until})
	var wanted []branchline.TimeRange
	for _, w := range wants {
		if w.Stream == f.Stream {
			wanted = append(wanted, w.Span)
		}
	}
	if p.Kind != Never {
		h.Known = f.Told
		wanted = append(wanted, branchline.TimeRange{Start: later(f.Told, p.Since), End: h.Until})
	}
	possible := f.Exists.Union(untold)
	h.Spans = fewer(branchline.NewSpans(wanted...).Intersect(possible).Minus(f.Held), branchline.MaxHoldSpans)
	if len(h.Spans) == 0 {
		h.Known, h.Until = Considered(), now
	}
	return h
}

// fewer returns a set of at most so many spans that covers the set: the narrowest holes are filled.
func fewer(set branchline.Spans, most int) branchline.Spans {
	if len(set) <= most {
		return set
	}
	holes := make([]branchline.TimeRange, 0, len(set)-1)
	for i, span := range set[1:] {
		holes = append(holes, branchline.TimeRange{Start: set[i].End, End: span.Start})
	}
	slices.SortStableFunc(holes, func(a, b branchline.TimeRange) int { return int(a.Duration() - b.Duration()) })
	return set.Union(branchline.NewSpans(holes[:len(set)-most]...))
}

// Due reports whether the edge must be told of the hold next, of which sent was told at the given time; a
// zero time means that it was told nothing. What sent does not spare is due at once, a lease at half its
// life, and what it spares too much once that is worth a message.
func Due(next, sent branchline.Hold, at, now time.Time) bool {
	switch {
	case at.IsZero():
		return len(next.Spans) > 0
	case len(uncovered(next, sent)) > 0:
		return true
	case len(next.Spans) == 0:
		return len(sent.Spans) > 0 && now.Sub(at) >= HoldPause
	case now.Sub(at) >= LeaseLife/2:
		return true
	}
	return now.Sub(at) >= HoldPause && (next.Known.Sub(sent.Known) >= KnownStep || surplus(next, sent) >= KnownStep)
}

// uncovered returns what next spares of the time for which sent was placed, and sent does not.
func uncovered(next, sent branchline.Hold) branchline.Spans {
	spared := sent.Spans.Union(branchline.NewSpans(branchline.TimeRange{Start: sent.Known, End: sent.Until}))
	lease := branchline.NewSpans(branchline.TimeRange{End: sent.Until})
	return next.Spans.Intersect(lease).Minus(spared)
}

// surplus returns how much sent spares that next does not.
func surplus(next, sent branchline.Hold) time.Duration {
	sum := time.Duration(0)
	for _, span := range sent.Spans.Minus(next.Spans) {
		sum += span.Duration()
	}
	return sum
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
