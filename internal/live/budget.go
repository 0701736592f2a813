package live

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Budget bounds the bytes of several rings together. Each has an equal share for certain; while all
// together are over the budget, those over their share hold less. Together they never hold more than
// twice the budget, and an item each.
type Budget struct {
	bytes       int64
	used, count atomic.Int64 // bytes and rings

	mu    sync.Mutex
	rings map[*Ring]bool
}

// NewBudget returns a budget of so many bytes.
func NewBudget(bytes int64) *Budget { return &Budget{bytes: bytes, rings: make(map[*Ring]bool)} }

// over reports whether a ring that holds so many bytes has to hold less. A nil budget has no bounds.
func (b *Budget) over(held int) bool {
	return b != nil && b.used.Load() > b.bytes && int64(held) > b.bytes/max(b.count.Load(), 1)
}

func (b *Budget) add(bytes int) {
	if b != nil {
		b.used.Add(int64(bytes))
	}
}

// join takes a ring in. That makes the shares of the others smaller, and what is over goes at once:
// a ring to which nobody publishes would keep it.
func (b *Budget) join(r *Ring) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.rings[r] = true
	b.count.Add(1)
	all := slices.Collect(maps.Keys(b.rings))
	b.mu.Unlock()
	for _, other := range all {
		other.mu.Lock()
		other.trim()
		other.mu.Unlock()
	}
}

func (b *Budget) leave(r *Ring, bytes int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	delete(b.rings, r)
	b.count.Add(-1)
	b.mu.Unlock()
	b.used.Add(-int64(bytes))
}
