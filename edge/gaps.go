package edge

import (
	"cmp"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/segstore"
)

// refreshGap is how often an open gap is entered again with how far it is known to reach. After a
// crash the time from there on counts as the node's own absence.
const refreshGap = 10 * time.Minute

// gaps keeps the spans between a stream's runs: exactly one gap is open while no run is. It is not
// safe for concurrent use.
type gaps struct {
	stream branchline.StreamID
	clock  clock.Clock
	enter  func(branchline.Gap) error

	now   branchline.Gap // the open one, if Open
	known bool           // it was entered
	err   error          // the first that enter returned
}

func (g *gaps) put(gap branchline.Gap) {
	if err := g.enter(gap); g.err == nil {
		g.err = err
	}
}

// resume goes on where the store stands, and returns the time before which nothing may be recorded. A
// power cut may have taken segments and left gaps that came after them: what is between is absence, too.
func (g *gaps) resume(store *segstore.Store, added time.Time) (from time.Time, err error) {
	tail, err := store.Tail(g.stream)
	if err != nil {
		return from, err
	}
	from = tail.End
	if from.IsZero() {
		from = added
	}
	cause := branchline.CauseStopped
	past, err := store.Gaps(g.stream, from)
	if err != nil {
		return from, err
	}
	if tail.End.IsZero() && len(past) == 0 {
		cause = branchline.CauseUnreachable // a new camera: nobody was absent
	}
	ahead := tail.End.After(g.clock.Now()) // the clock was, and times before do not tell what came before
	for _, old := range past {
		switch {
		case ahead && !old.Open:
			continue
		case ahead:
			from = old.Span.Start
		case old.Open && old.Span.Start.Before(tail.End): // it was not entered that it ended
			held, err := store.Held(g.stream, branchline.TimeRange{Start: old.Span.Start, End: tail.End})
			if err != nil || len(held) == 0 {
				return from, err
			}
			old.Span.End, old.Open = held[0].Start, false
			g.put(old)
			continue
		case old.Span.Start.After(from):
			g.put(branchline.Gap{Stream: g.stream, Cause: branchline.CauseStopped,
				Span: branchline.TimeRange{Start: from, End: old.Span.Start}})
			from = old.Span.Start
		}
		if old.Open && absent(old.Cause) {
			cause = old.Cause
		} else if old.Span.End.After(from) {
			from = old.Span.End
			old.Open = false
			g.put(old)
		}
	}
	g.open(from, cause)
	g.announce()
	return from, g.err
}

// open begins a gap that is not announced yet: a run may follow at once.
func (g *gaps) open(start time.Time, cause branchline.Cause) {
	if cause == "" {
		cause = branchline.CauseDamaged // of parameters so changed that no run could follow
	}
	g.now = branchline.Gap{
		Stream: g.stream, Span: branchline.TimeRange{Start: start, End: start}, Cause: cause, Open: true,
	}
	g.known = false
}

// close ends the open gap where a run starts.
func (g *gaps) close(at time.Time) {
	if g.now.Open && (g.known || at.After(g.now.Span.Start)) {
		g.now.Open, g.now.Span.End = false, at
		if at.Before(g.now.Span.Start) { // the clock was ahead when the gap began
			g.now.Span.End = g.now.Span.Start
		}
		g.put(g.now)
	}
	g.now.Open = false
}

// because announces the open gap, if that is due, and splits it when its cause has changed. An empty
// cause tells nothing new. It returns the start of the open gap.
func (g *gaps) because(cause branchline.Cause) time.Time {
	if !g.now.Open {
		return time.Time{}
	}
	now := g.clock.Now().Round(0)
	switch {
	case g.now.Span.Start.Sub(now) > media.MaxCatchUp: // the clock was ahead when the gap began
		cause = cmp.Or(cause, g.now.Cause)
		g.close(now)
		g.open(now, cause)
		g.announce()
	case !g.known:
		g.announce()
	case cause != "" && cause != g.now.Cause:
		g.turn(now, cause)
	case now.Sub(g.now.Span.End) >= refreshGap:
		g.announce()
	}
	return g.now.Span.Start
}

// absent reports whether the cause is that nobody here was to record.
func absent(cause branchline.Cause) bool {
	return cause == branchline.CauseStopped || cause == branchline.CauseNotScheduled
}

// turn goes on with another cause: from now on, or, for the node's absence, which ended when the node
// was opened, from its known end on.
func (g *gaps) turn(now time.Time, cause branchline.Cause) {
	if absent(g.now.Cause) {
		now = g.now.Span.End
	}
	if now.After(g.now.Span.Start) {
		g.close(now)
		g.open(now, cause)
	} else {
		g.now.Cause = cause
	}
	g.announce()
}

// announce enters the open gap as far as it is known to reach.
func (g *gaps) announce() {
	if now := g.clock.Now().Round(0); now.After(g.now.Span.Start) {
		g.now.Span.End = now
	}
	g.known = true
	g.put(g.now)
}
