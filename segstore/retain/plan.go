package retain

import (
	"cmp"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

// Decide returns the plan for the facts, which it does not change.
func Decide(f Facts) Plan {
	if f.Most <= 0 || f.Most > MaxActions {
		f.Most = MaxActions
	}
	p := &planner{facts: f, taken: make(map[branchline.SegmentID]bool)}
	for _, s := range f.Streams {
		p.lines = append(p.lines, newLine(s, f.Now))
	}
	slices.SortFunc(p.lines, func(a, b *line) int { return cmp.Compare(a.ID, b.ID) })
	p.pressures = pressures(f)
	p.age()
	for _, d := range p.pressures {
		p.relieve(d)
	}
	if !p.more {
		p.spare()
	}
	p.thin()
	return p.plan()
}

// planner makes one plan.
type planner struct {
	facts     Facts
	lines     []*line // by stream
	pressures []*pressure
	removals  []*removal
	thinnings []Action
	taken     map[branchline.SegmentID]bool // removed
	more      bool
}

// removal is a segment to remove; from is the pressure that asked for it, nil for age.
type removal struct {
	Action
	rank   rank
	from   *pressure
	spared bool
}

// full reports, and notes, that the plan has as many actions as it may.
func (p *planner) full() bool {
	if len(p.removals)+len(p.thinnings) >= p.facts.Most {
		p.more = true
	}
	return p.more
}

// remove adds a removal and counts what it frees.
func (p *planner) remove(r *removal) {
	r.Kind = Remove
	p.taken[r.Segment.ID] = true
	p.removals = append(p.removals, r)
	for _, d := range p.pressures {
		if d.on(r.Segment) {
			d.need -= r.Segment.Bytes
		}
	}
	if r.from != nil {
		r.from.victims = append(r.from.victims, r)
	}
}

// age removes what is over its age, the oldest first.
func (p *planner) age() {
	for _, l := range p.lines {
		for s := range p.walk(l, l.expired(p.facts.Now)) {
			if !l.isExpired(s, p.facts.Now) {
				continue
			}
			if p.full() {
				break
			}
			p.remove(&removal{Action: Action{Segment: s, Cause: branchline.CauseExpired, Why: l.tooOld(s, p.facts.Now)}})
		}
	}
	slices.SortFunc(p.removals, func(a, b *removal) int { return older(a.Segment, b.Segment) })
}

// relieve removes what a pressure asks for.
func (p *planner) relieve(d *pressure) {
	for r := free; r < locked && d.need > 0; r++ {
		for s, l := range p.oldest(d, r) {
			if p.full() {
				return
			}
			cause := branchline.CauseRemovedEarly
			if over(s, p.facts.Now, l.Rule.Keep) > 0 {
				cause = branchline.CauseExpired
			}
			p.remove(&removal{Action: Action{Segment: s, Cause: cause, Why: d.why(r)}, rank: r, from: d})
			if d.need <= 0 {
				return
			}
		}
	}
}

// spare takes back what is not needed after all, because a later pressure has removed enough: of each
// pressure the last victims, as long as no pressure that they count for comes back or has a victim that
// goes after them. Their places in the plan are free again.
func (p *planner) spare() {
	for again := true; again; {
		again = false
		for _, d := range p.pressures {
			for len(d.victims) > 0 && p.canSpare(d.victims[len(d.victims)-1]) {
				r := d.victims[len(d.victims)-1]
				d.victims = d.victims[:len(d.victims)-1]
				r.spared, again = true, true
				for _, o := range p.pressures {
					if o.on(r.Segment) {
						o.need += r.Segment.Bytes
					}
				}
				delete(p.taken, r.Segment.ID)
			}
		}
	}
	p.removals = slices.DeleteFunc(p.removals, func(r *removal) bool { return r.spared })
}

func (p *planner) canSpare(r *removal) bool {
	for _, o := range p.pressures {
		if !o.on(r.Segment) {
			continue
		}
		if o.need+r.Segment.Bytes > 0 {
			return false
		}
		if n := len(o.victims); n > 0 && cmp.Or(cmp.Compare(o.victims[n-1].rank, r.rank),
			older(o.victims[n-1].Segment, r.Segment)) > 0 {
			return false
		}
	}
	return true
}

// thin adds what age thins, by stream and from the oldest on.
func (p *planner) thin() {
	for _, l := range p.lines {
		var from time.Time // up to here all is settled, or postponed
		for s, span := range p.walk(l, l.coarse(p.facts.Now)) {
			if span.Start.After(from) {
				from = span.Start
			}
			if !p.taken[s.ID] && l.isCoarse(s, p.facts.Now) {
				if p.full() {
					return
				}
				p.thinnings = append(p.thinnings, Action{Kind: Thin, Segment: s, Why: l.tooDetailed(s, p.facts.Now),
					Settles: branchline.TimeRange{Start: from, End: s.Span.End}})
			}
			from = s.Span.End
		}
	}
}

func (p *planner) plan() Plan {
	plan := Plan{More: p.more}
	for _, r := range p.removals {
		plan.Actions = append(plan.Actions, r.Action)
	}
	plan.Actions = append(plan.Actions, p.thinnings...)
	for _, d := range p.pressures {
		if d.need > 0 && !p.more {
			plan.Shortages = append(plan.Shortages, Shortage{Rule: d.String(), Bytes: d.need, Why: p.whyNot(d)})
		}
	}
	return plan
}
