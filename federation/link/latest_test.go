package link

import (
	"testing"
	"time"
)

// TestLatest has two connections of which one falls silent before there is a queue in front of the line.
func TestLatest(t *testing.T) {
	const idle, queue = 80 * time.Millisecond, 60 * time.Millisecond
	var quiet, busy lastTrip
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	look := func(after, ofQuiet, ofBusy, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		if got := latest([]trip{quiet.of(now, ofQuiet), busy.of(now, ofBusy), {}}); got != want {
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
