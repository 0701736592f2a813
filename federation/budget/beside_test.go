package budget_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/internal/clock"
)

// picture sends pictures of 1.75 Mbit/s, 25 a second and each second one that needs no others, until ctx ends, and
// notes the longest that one waited.
func picture(ctx context.Context, b *budget.Budget, l *line, worst *atomic.Int64) {
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		size := 7_500
		if i%25 == 0 {
			size = 40_000
		}
		began := clock.Clock{}.Now()
		for size > 0 {
			n := min(b.Chunk(), size)
			if pass(ctx, b, budget.Live, n) != nil {
				return
			}
			l.send(n)
			size -= n
		}
		worst.Store(max(worst.Load(), int64(clock.Clock{}.Now().Sub(began))))
		<-tick.C
	}
}

// TestBulkBesideLive has somebody watch from the moment on at which bulk begins: bulk gets what live leaves of the
// budget, or else of the line, whatever was there first.
func TestBulkBesideLive(t *testing.T) {
	for _, c := range []struct {
		line, budget budget.Rate
		idle         time.Duration
		bulk         float64 // bits a second at least
	}{
		{8 * budget.Megabit, 3 * budget.Megabit, 80 * time.Millisecond, 0.9e6},
		{8 * budget.Megabit, 0, 80 * time.Millisecond, 4.5e6},
		{8 * budget.Megabit, 3 * budget.Megabit, 20 * time.Millisecond, 0.9e6},
		{20 * budget.Megabit, 0, 40 * time.Millisecond, 14e6},
		{4 * budget.Megabit, 0, 40 * time.Millisecond, 1.2e6},
	} {
		l := &line{rate: float64(c.line) / 8, idle: c.idle, tax: 1.05}
		world(t, budget.Config{Schedule: always(budget.Limit{Rate: c.budget})}, l,
			func(ctx context.Context, b *budget.Budget) {
				var bulk, worst atomic.Int64
				live, end := context.WithCancel(ctx)
				go picture(live, b, l, &worst)
				wait(2 * time.Second)
				for range 8 {
					go passing(ctx, b, l, budget.Backfill, &bulk)
				}
				wait(20 * time.Second)
				before := bulk.Load()
				wait(20 * time.Second)
				rate := float64(bulk.Load()-before) * 8 / 20
				t.Logf("line %v, budget %v, %v: bulk %.2f Mbit/s beside 1.75 of live, a picture waited %v at most, bulk's limit %v",
					c.line, c.budget, c.idle, rate/1e6, time.Duration(worst.Load()), b.State().Bulk)
				if rate < c.bulk {
					t.Errorf("bulk got %.2f Mbit/s, want %.1f", rate/1e6, c.bulk/1e6)
				}
				end()
			})
	}
}
