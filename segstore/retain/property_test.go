package retain_test

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/retain"
)

// drawWorld draws a store of a few streams on two volumes, with locks, holds and all kinds of limits.
func drawWorld(t *rapid.T) *world {
	w := parse("now 1000")
	sec := func(n int) time.Time { return time.Unix(int64(n), 0).UTC() }
	for _, name := range []string{"a", "a/sub", "b"} {
		s := w.stream(name)
		s.Rule = retain.Rule{
			Keep:      time.Duration(rapid.SampledFrom([]int{0, 0, 300, 700}).Draw(t, "keep")) * time.Second,
			ThinAfter: time.Duration(rapid.SampledFrom([]int{0, 200}).Draw(t, "thin")) * time.Second,
			Extend:    time.Duration(rapid.SampledFrom([]int{0, 100, 400}).Draw(t, "extend")) * time.Second,
		}
		ranges := func(what string, most int) (all branchline.Spans) {
			for range rapid.IntRange(0, most).Draw(t, what) {
				from := rapid.IntRange(0, 990).Draw(t, "from")
				all = append(all, branchline.TimeRange{Start: sec(from), End: sec(from + rapid.IntRange(1, 200).Draw(t, "long"))})
			}
			return branchline.NewSpans(all...)
		}
		for i, r := range ranges("locks", 2) {
			l := branchline.Lock{ID: fmt.Sprint(i), Stream: s.ID, Span: r}
			if rapid.Bool().Draw(t, "ends") {
				l.Until = sec(rapid.IntRange(900, 1100).Draw(t, "until"))
			}
			s.Locks = append(s.Locks, l)
		}
		for range rapid.IntRange(0, 2).Draw(t, "holds") {
			s.Holds = append(s.Holds, branchline.Hold{Stream: s.ID, Spans: ranges("held", 3),
				Known: sec(rapid.IntRange(0, 1000).Draw(t, "known")), Until: sec(rapid.IntRange(800, 1200).Draw(t, "lease"))})
		}
		s.Thinned = ranges("thinned", 1)
		at := 0
		for range rapid.IntRange(0, 20).Draw(t, "segments") {
			at += rapid.IntRange(0, 30).Draw(t, "hole")
			end := at + rapid.IntRange(5, 50).Draw(t, "length")
			w.add(retain.Segment{Stream: s.ID, Bytes: rapid.Int64Range(1, 9).Draw(t, "bytes"),
				Span:   branchline.TimeRange{Start: sec(at), End: sec(end)},
				Volume: rapid.SampledFrom([]string{"d", "e"}).Draw(t, "volume")})
			at = end
		}
	}
	if rapid.Bool().Draw(t, "quota") {
		w.facts.Store = retain.Usage{Quota: rapid.Int64Range(1, 200).Draw(t, "store"),
			Ahead: rapid.Int64Range(0, 9).Draw(t, "ahead")}
	}
	if rapid.Bool().Draw(t, "camera") {
		w.facts.Cameras = []retain.Camera{{ID: "a", Usage: retain.Usage{Quota: rapid.Int64Range(1, 100).Draw(t, "a")}}}
	}
	for _, v := range []string{"d", "e"} {
		w.facts.Volumes = append(w.facts.Volumes, retain.Volume{Name: v, Free: rapid.Int64Range(0, 60).Draw(t, "free"),
			Floor: 40, Ahead: rapid.Int64Range(0, 9).Draw(t, "ahead")})
	}
	if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
		w.facts.Most = rapid.IntRange(1, 10).Draw(t, "most")
	}
	w.total()
	return w
}

// The ranks, written down anew: 0 free, 1 not retrieved, 2 held, 3 locked.
func rankOf(w *world, s retain.Segment) int {
	rank := 0
	for _, st := range w.facts.Streams {
		if st.ID != s.Stream {
			continue
		}
		for _, l := range st.Locks {
			if l.Span.Overlaps(s.Span) && l.Active(w.facts.Now) {
				rank = 3
			}
		}
		for _, h := range st.Holds {
			in := slices.ContainsFunc(h.Spans, s.Span.Overlaps)
			if in && h.Until.After(w.facts.Now) {
				rank = max(rank, 2)
			}
			if (in || s.Span.End.After(h.Known)) &&
				(h.Until.After(w.facts.Now) || h.Until.Add(st.Rule.Extend).After(w.facts.Now)) {
				rank = max(rank, 1)
			}
		}
	}
	return rank
}

// limit is a limit of the world, with how much is over it at the start.
type limit struct {
	name string
	over int64
	on   func(retain.Segment) bool
}

func limits(w *world) (all []limit) {
	for _, v := range w.facts.Volumes {
		all = append(all, limit{"volume " + v.Name, v.Floor + v.Ahead - v.Free,
			func(s retain.Segment) bool { return s.Volume == v.Name }})
	}
	for _, c := range w.facts.Cameras {
		all = append(all, limit{"camera " + string(c.ID), c.Bytes + c.Ahead - c.Quota,
			func(s retain.Segment) bool { return s.Stream.Camera() == c.ID }})
	}
	if u := w.facts.Store; u.Quota > 0 {
		all = append(all, limit{"store ", u.Bytes + u.Ahead - u.Quota, func(retain.Segment) bool { return true }})
	}
	return all
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		plan := retain.Decide(w.facts)
		if again := retain.Decide(w.facts); !reflect.DeepEqual(plan, again) {
			t.Fatalf("the same facts: %q, then %q", describe(plan), describe(again))
		}
		removed := make(map[branchline.SegmentID]retain.Action)
		for _, a := range plan.Actions {
			if a.Why == "" || a.Kind == retain.Remove && a.Cause == "" {
				t.Errorf("no explanation or cause: %+v", a)
			}
			if rankOf(w, a.Segment) == 3 {
				t.Errorf("%s %v, which is locked", a.Kind, a.Segment.Span)
			}
			if _, twice := removed[a.Segment.ID]; twice {
				t.Errorf("%v twice", a.Segment)
			}
			removed[a.Segment.ID] = a
			if a.Kind == retain.Thin {
				delete(removed, a.Segment.ID)
			}
		}
		if plan.More {
			if len(plan.Actions) != w.facts.Most {
				t.Errorf("%d actions of %d, and more", len(plan.Actions), w.facts.Most)
			}
			return
		}
		checkAge(t, w, removed)
		for _, l := range limits(w) {
			checkLimit(t, w, l, plan, removed)
		}
	})
}

// asked reports whether the removal was asked for by the limit, by its explanation.
func asked(a retain.Action, l limit) bool {
	return len(a.Why) > len(l.name) && a.Why[:len(l.name)] == l.name
}

// checkLimit: enough is freed if there is enough; nothing is removed that the limit, or another one,
// does not need; and nothing younger before something older.
func checkLimit(t *rapid.T, w *world, l limit, plan retain.Plan, removed map[branchline.SegmentID]retain.Action) {
	left := l.over
	var last *retain.Segment
	var kept []retain.Segment
	for _, list := range w.segments {
		for _, s := range list {
			if a, ok := removed[s.ID]; ok && l.on(s) {
				left -= s.Bytes
				if asked(a, l) && (last == nil || after(w, s, *last)) {
					last = &s
				}
			} else if l.on(s) && rankOf(w, s) < 3 {
				kept = append(kept, s)
			}
		}
	}
	if left > 0 && len(kept) > 0 {
		t.Errorf("%s: %d over and %d segments kept that are not locked: %q", l.name, left, len(kept), describe(plan))
	}
	short := int64(0)
	for _, s := range plan.Shortages {
		if asked(retain.Action{Why: s.Rule}, l) {
			short += s.Bytes
		}
	}
	if short != max(left, 0) {
		t.Errorf("%s: %d over, and a shortage of %d told", l.name, left, short)
	}
	if last == nil {
		return
	}
	for _, s := range kept {
		if after(w, *last, s) {
			t.Errorf("%s: %v of %s is removed and the older %v of %s is not", l.name, last.Span, last.Stream, s.Span, s.Stream)
		}
	}
	for _, o := range limits(w) { // the last one is needed, by this limit or by another that it counts for
		for _, list := range w.segments {
			for _, s := range list {
				if _, ok := removed[s.ID]; ok && o.on(s) && s.ID != last.ID {
					o.over -= s.Bytes
				}
			}
		}
		if o.on(*last) && (o.over > 0 || lastAfter(w, o, removed, *last)) {
			return
		}
	}
	t.Errorf("%s: %v of %s is removed without need: %q", l.name, last.Span, last.Stream, describe(plan))
}

// lastAfter reports whether the limit has asked for a segment that goes after s.
func lastAfter(w *world, l limit, removed map[branchline.SegmentID]retain.Action, s retain.Segment) bool {
	for _, a := range removed {
		if asked(a, l) && after(w, a.Segment, s) {
			return true
		}
	}
	return false
}

// after reports whether a goes after b under pressure.
func after(w *world, a, b retain.Segment) bool {
	return cmp.Or(cmp.Compare(rankOf(w, a), rankOf(w, b)), a.Span.Start.Compare(b.Span.Start),
		cmp.Compare(a.Stream, b.Stream), slices.Compare(a.ID[:], b.ID[:])) > 0
}

// checkAge: what is over its age is removed, unless a hub waits for it, and then not longer than may be.
func checkAge(t *rapid.T, w *world, removed map[branchline.SegmentID]retain.Action) {
	for _, st := range w.facts.Streams {
		for _, s := range w.segments[st.ID] {
			late := w.facts.Now.Sub(s.Span.End) - st.Rule.Keep
			a, gone := removed[s.ID]
			rank := rankOf(w, s)
			due := st.Rule.Keep > 0 && late > 0 && (rank == 0 || rank == 1 && late > st.Rule.Extend)
			if due && !gone {
				t.Errorf("%v of %s is over its age and stays", s.Span, st.ID)
			}
			if gone && (a.Cause == branchline.CauseExpired) != (st.Rule.Keep > 0 && late > 0) {
				t.Errorf("%v of %s: cause %s", s.Span, st.ID, a.Cause)
			}
		}
	}
}
