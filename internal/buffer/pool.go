package buffer

import (
	"math/bits"
	"sync"
)

// Buffers are kept in sizes that are powers of two, from leastLent to mostLent: half a second at 64 Mbit/s. So one
// holds at most twice what was asked for. Larger ones are rare, and made anew.
const (
	leastLent = 64 << 10
	mostLent  = leastLent << (sizes - 1)
	sizes     = 7
)

// Pool lends the memory of fragments. Those that share it need as much as those need that use it at the same time.
// The zero value is ready, and methods may be called concurrently; a nil pointer lends new memory each time.
type Pool struct{ bySize [sizes]sync.Pool }

// Get returns an empty slice with room for size bytes.
func (b *Pool) Get(size int) []byte {
	if b == nil || size > mostLent {
		return make([]byte, 0, size)
	}
	n := bits.Len(uint(max(size-1, 0) / leastLent))
	if lent, ok := b.bySize[n].Get().(*[]byte); ok {
		return (*lent)[:0]
	}
	return make([]byte, 0, leastLent<<n)
}

// Return gives bytes back, which nobody uses any more.
func (b *Pool) Return(data []byte) {
	if b != nil && cap(data) >= leastLent && cap(data) <= mostLent {
		b.bySize[bits.Len(uint(cap(data)/leastLent))-1].Put(&data)
	}
}
