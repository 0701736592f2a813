package hub_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

// controls is what the hub asked of an edge, which takes it or refuses.
type controls struct {
	mu     sync.Mutex
	held   []branchline.Hold
	refuse error
}

func (e *edge) Hold(ctx context.Context, h branchline.Hold) error {
	e.controls.mu.Lock()
	e.controls.held = append(e.controls.held, h)
	refuse := e.controls.refuse
	e.controls.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	return e.Store.Hold(ctx, h)
}

// holds returns all holds that the edge was asked for.
func (e *edge) holds() []branchline.Hold {
	e.controls.mu.Lock()
	defer e.controls.mu.Unlock()
	return slices.Clone(e.controls.held)
}

// since returns a time as seconds since the edge began.
func (w *world) since(t time.Time) string { return fmt.Sprintf("%.0f", t.Sub(w.edge.began).Seconds()) }

// lastHold returns the newest hold, which must be one that can be placed.
func (w *world) lastHold() branchline.Hold {
	w.Helper()
	all := w.edge.holds()
	if len(all) == 0 {
		w.Fatal("nothing was ever held")
	}
	h := all[len(all)-1]
	if err := h.Check(); err != nil || h.Stream != local || h.Holder != "hub" {
		w.Fatalf("held %+v, %v", h, err)
	}
	return h
}

// TestHoldsWhatAPolicyWillWant: under a policy the edge spares what comes after what it has told, for as
// long as the lease lasts, and hears little of it while everything is brought.
func TestHoldsWhatAPolicyWillWant(t *testing.T) {
	for _, c := range []struct {
		policies []policy.Policy
		minutes  int
	}{{always(), 2}, {backfill(), 22}} {
		inWorld(t, c.policies, func(w *world) {
			pass(time.Duration(c.minutes) * time.Minute)
			if n, want := len(w.edge.holds()), 1+c.minutes/10; n < want || n > want+1 {
				t.Errorf("%d holds in %d minutes, expected one each ten minutes", n, c.minutes)
			}
			h, now := w.lastHold(), time.Now()
			if len(h.Spans) > 2 || !h.Spans.Covers(branchline.TimeRange{Start: now, End: h.Until}) ||
				h.Until.Sub(now) < policy.LeaseLife-20*time.Minute {
				t.Errorf("at %s, held: %v until %v", w.since(now), h.Spans, h.Until)
			}
			if behind := now.Sub(h.Known); behind < 0 || behind > policy.KnownStep+2*time.Minute {
				t.Errorf("at %s, considered up to %s", w.since(now), w.since(h.Known))
			}
			w.cut()
			dark := branchline.TimeRange{Start: time.Now(), End: time.Now().Add(time.Minute)}
			pass(time.Minute)
			w.edge.slow.Store(int64(2 * time.Second))
			before := len(w.edge.holds())
			w.heal()
			w.wait(10*time.Second, "the outage is not held for", func() bool { return len(w.edge.holds()) > before })
			if h := w.lastHold(); !h.Spans.Covers(dark) {
				t.Errorf("outage %s-%s, held for: %v", w.since(dark.Start), w.since(dark.End), h.Spans)
			}
			w.edge.slow.Store(0)
		})
	}
}

// TestHoldsForAJob: an order on a stream that no policy wants is spared until it is done, and nothing else
// waits for the hub.
func TestHoldsForAJob(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(time.Minute)
		if all := w.edge.holds(); len(all) > 0 {
			t.Fatalf("held without anybody wanting: %+v", all)
		}
		w.edge.slow.Store(int64(2 * time.Second))
		span := branchline.TimeRange{Start: w.edge.began.Add(10 * time.Second), End: w.edge.began.Add(40 * time.Second)}
		job := w.order(span)
		w.wait(10*time.Second, "the order is not held for", func() bool { return len(w.edge.holds()) > 0 })
		if h := w.lastHold(); !h.Spans.Covers(span) || h.Known.Before(time.Now().Add(policy.LeaseLife)) {
			t.Errorf("held for the order: %v, considered up to %v", h.Spans, h.Known)
		}
		w.edge.slow.Store(0)
		w.wait(time.Minute, "the job is not done", func() bool { return w.job(job.ID).State.Final() })
		w.wait(2*time.Minute, "the hold is not released", func() bool { return len(w.lastHold().Spans) == 0 })
		if h := w.lastHold(); h.Until.After(time.Now()) {
			t.Errorf("released until %v, now %v", h.Until, time.Now())
		}
		n := len(w.edge.holds())
		pass(5 * time.Minute)
		if more := w.edge.holds()[n:]; len(more) > 0 {
			t.Errorf("held again: %+v", more)
		}
	})
}

// TestReleasesAfterRestart: what an earlier hub with other policies held is released.
func TestReleasesAfterRestart(t *testing.T) {
	inWorld(t, always(), func(w *world) {
		w.wait(20*time.Second, "nothing is held", func() bool { return len(w.edge.holds()) > 0 })
		n := len(w.edge.holds())
		w.stopAndOpen(nil)
		w.wait(10*time.Second, "nothing is released", func() bool { return len(w.edge.holds()) > n })
		if h := w.lastHold(); len(h.Spans) > 0 || h.Until.After(time.Now()) {
			t.Errorf("released with %+v", h)
		}
		n = len(w.edge.holds())
		w.stopAndOpen(nil)
		pass(time.Minute)
		if more := w.edge.holds()[n:]; len(more) > 0 {
			t.Errorf("released again: %+v", more)
		}
	})
}

// TestRefusedHolds: a site that takes no holds is asked once for each link, and all else goes on.
func TestRefusedHolds(t *testing.T) {
	inWorld(t, always(), func(w *world) {
		w.edge.controls.mu.Lock()
		w.edge.controls.refuse = branchline.ErrDenied
		w.edge.controls.mu.Unlock()
		w.cut()
		w.heal()
		n := len(w.edge.holds())
		pass(time.Minute)
		if more := len(w.edge.holds()) - n; more != 1 {
			t.Errorf("asked %d times in a minute, expected once", more)
		}
		whole := branchline.TimeRange{Start: w.edge.began, End: time.Now().Add(-5 * time.Second)}
		if !w.holds(whole) {
			t.Errorf("not everything is here: %s", w.timeline(whole.Start, whole.End))
		}
	})
}
