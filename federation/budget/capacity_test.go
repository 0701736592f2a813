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
				rate := l.average(20 * time.Second)
				if c := b.State().Capacity; c < 90*budget.Megabit || c > 110*budget.Megabit || rate < 40e6 || rate > 55e6 {
					t.Errorf("%v: measured %v of 100 Mbit/s, sent %.1f Mbit/s at 50 %%", idle, c, rate/1e6)
				}
			})
	}
}

// TestShareOfALineThatRecovers has a share in percent of a line that is bad for a while. When it is good again that is
// found out, though all that is sent is a share of what it could when it was bad; and the share is kept to meanwhile.
func TestShareOfALineThatRecovers(t *testing.T) {
	l := &line{rate: 5e6 / 8, idle: 40 * time.Millisecond, tax: 1}
	world(t, budget.Config{Schedule: always(budget.Limit{Percent: 80})}, l,
		func(ctx context.Context, b *budget.Budget) {
			var sent atomic.Int64
			for range 4 {
				go passing(ctx, b, l, budget.Backfill, &sent)
			}
			wait(time.Minute)
			l.become(3e6)
			wait(25 * time.Minute)
			if c, got := b.State().Capacity, l.average(10*time.Minute); c > 3_300_000 || got > 1.02*0.8*float64(c) {
				t.Errorf("measured %v of 3 Mbit/s, sent %.2f Mbit/s at 80 %%", c, got/1e6)
			}
			l.become(5e6)
			wait(25 * time.Minute)
			if c, got := b.State().Capacity, l.average(time.Minute); c < 4_500_000 || got < 3.6e6 || got > 4.2e6 {
				t.Errorf("measured %v of 5 Mbit/s again, sent %.1f Mbit/s at 80 %%", c, got/1e6)
			}
		})
}

// TestPacketsCountedAnew has a link of which the system's counter of packets begins again at zero, as it has 32 bits.
func TestPacketsCountedAnew(t *testing.T) {
	b := open(t, budget.Config{Quota: budget.Quota{Bytes: 1e12}})
	s := budget.Sample{Sent: 1000, Packets: 1<<32 - 1}
	b.Attach(func() budget.Sample { return s })
	before := b.State().Used
	s = budget.Sample{Sent: 3000, Packets: 1}
	if got := b.State(); got.Used-before != 2000 || got.Capacity != 0 {
		t.Errorf("%d bytes are counted of 2000", got.Used-before)
	}
}

// TestLineThatBecomesSlowerThanTheLimit: what limits is the schedule, far below what the line takes without a queue,
// until the line becomes slower than that. Bulk fills it, and its queue stays short.
func TestLineThatBecomesSlowerThanTheLimit(t *testing.T) {
	for _, slower := range []float64{3e6, 2e6, 1.5e6, 1e6} {
		l := &line{rate: 5e6 / 8, idle: 40 * time.Millisecond, tax: 1}
		world(t, budget.Config{Schedule: always(budget.Limit{Percent: 50})}, l,
			func(ctx context.Context, b *budget.Budget) {
				var sent atomic.Int64
				for range 4 {
					go passing(ctx, b, l, budget.Backfill, &sent)
				}
				wait(time.Minute)
				l.become(slower)
				wait(time.Minute)
				l.longest()
				rate := l.average(time.Minute)
				if rtt := l.longest(); rtt > 120*time.Millisecond || rate < 0.9*min(slower, 2.5e6) {
					t.Errorf("%.1f Mbit/s: a round trip takes %v at most, sent %.2f Mbit/s", slower/1e6, rtt, rate/1e6)
				}
			})
	}
}
