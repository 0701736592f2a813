package link

import (
	"testing"
	"time"
)

// TestLatest has two connections of which one falls silent before there is a queue in front of the line.
func TestLatest(t *testing.T) {
	const idle, queue = 80 * time.Millisecond, 60 * time.Millisecond
	var quiet, busy trips
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	look := func(after, ofQuiet, ofBusy, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		got := latest([]trip{quiet.newest(now, ofQuiet), busy.newest(now, ofBusy), {}})
		if got != want {
			t.Errorf("after %v and %v: %v, want %v", ofQuiet, ofBusy, got, want)
		}
	}
	look(0, 0, 0, 0)
	look(0, idle, 0, idle)
	look(20*time.Millisecond, idle, idle+1, idle)
	look(20*time.Millisecond, idle, idle+2*time.Millisecond, idle)
	look(20*time.Millisecond, idle, idle+queue, idle+queue) // the first one's is of before
	look(20*time.Millisecond, idle+queue/2, idle+queue+1, idle+queue/2)
	look(10*time.Second, idle+queue/2, idle+queue+1, idle+queue/2) // nothing was sent since
}

// TestLatestOfTwoWays has connections over a short way and a long one, of which first both and then only one is used:
// it is the queue that counts, on whichever is shorter.
func TestLatestOfTwoWays(t *testing.T) {
	const short, long, queue = 20 * time.Millisecond, 60 * time.Millisecond, 15 * time.Millisecond
	var near, far trips
	var dsl, lte endpoint
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	look := func(ofNear, ofFar, want time.Duration) {
		t.Helper()
		now = now.Add(20 * time.Millisecond)
		both := []trip{near.newest(now, ofNear), far.newest(now, ofFar)}
		both[0].way, both[1].way = &dsl, &lte
		got := latest(both)
		if (got - want).Abs() > time.Microsecond {
			t.Errorf("after %v and %v: %v, want %v", ofNear, ofFar, got, want)
		}
	}
	look(short, long, short)
	for i := range time.Duration(10) {
		look(short, long+i, short)
	}
	look(short, long+queue, short+queue)
	now = now.Add(20 * time.Millisecond)
	var late trips // a connection that joins when there is a queue already
	joined := []trip{far.newest(now, long+queue+2), late.newest(now, long+queue)}
	joined[0].way, joined[1].way = &lte, &lte
	if got := latest(joined); (got - long - queue).Abs() > time.Microsecond {
		t.Errorf("with a connection that knows nothing but the queue: %v", got)
	}
	look(short+1, long+queue+1, short+1)
}
