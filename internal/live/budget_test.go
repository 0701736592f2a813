package live

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// fill publishes so many key frames of a kilobyte, all within a moment.
func fill(r *Ring, frames int) {
	r.Publish(branchline.Item{Start: &branchline.SegmentStart{Start: time.Unix(0, 0)}})
	for range frames {
		r.Publish(branchline.Item{Frame: &branchline.Frame{
			DTS: time.Unix(0, 0), FirstKey: true, Data: make([]byte, 1000)}})
	}
}

// TestBudget: rings that share a budget hold no more than twice of it, each keeps its share whatever the
// others publish, and what a closed one held is free again.
func TestBudget(t *testing.T) {
	const budget, count = 1 << 20, 16
	shared := NewBudget(budget)
	first := New(Limits{Shared: shared})
	fill(first, 900)
	if first.bytes < budget*9/10 {
		t.Errorf("alone a ring holds %d bytes", first.bytes)
	}
	rings := []*Ring{first}
	for range count - 1 {
		r := New(Limits{Shared: shared})
		fill(r, 3000)
		rings = append(rings, r)
	}
	for i, r := range rings {
		if r.bytes < budget/count*9/10 {
			t.Errorf("ring %d holds %d bytes, less than its share", i, r.bytes)
		}
	}
	if used := shared.used.Load(); used > 2*budget {
		t.Errorf("all hold %d bytes", used)
	}
	for _, r := range rings {
		r.Close(nil)
	}
	if used, left := shared.used.Load(), shared.count.Load(); used != 0 || left != 0 {
		t.Errorf("closed, and %d bytes in %d rings are taken", used, left)
	}
}
