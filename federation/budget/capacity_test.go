package budget_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/budget"
)

// TestShareOfALongFastLine has a share in percent in force from the first moment on, of a line of which nothing is
// known: what is found is what the line can do, and not how far the rate had come when it was first looked at.
func TestShareOfALongFastLine(t *testing.T) {
	for _, idle := range []time.Duration{20 * time.Millisecond, 80 * time.Millisecond, 250 * time.Millisecond} {
		l := &line{rate: 100e6 / 8, idle: idle, tax: 1}
		world(t, budget.Config{Schedule: always(budget.Limit{Percent: 50})}, l,
			func(ctx context.Context, b *budget.Budget) {
				var sent atomic.Int64
				for range 8 {
					go passing(ctx, b, l, budget.Backfill, &sent)
				}
				wait(time.Minute)
				before := l.sample().Sent
				wait(20 * time.Second)
				rate := float64(l.sample().Sent-before) * 8 / 20
				if c := b.State().Capacity; c < 90*budget.Megabit || c > 110*budget.Megabit || rate < 40e6 || rate > 55e6 {
					t.Errorf("%v: measured %v of 100 Mbit/s, sent %.1f Mbit/s at 50 %%", idle, c, rate/1e6)
				}
			})
	}
}
