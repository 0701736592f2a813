package buffer

import "sync"

// maxLent bounds the buffers that are kept for the next fragment: half a second at 64 Mbit/s. Larger ones are
// rare, and made anew.
const maxLent = 4 << 20

// Pool lends the memory of fragments. Those that share it need as much as those need that use it at the same time.
// The zero value is ready, and methods may be called concurrently; a nil pointer lends new memory each time.
type Pool struct{ pool sync.Pool }

// Get returns an empty slice with room for size bytes.
func (b *Pool) Get(size int) []byte {
	if b == nil {
		return make([]byte, 0, size)
	}
	if lent, ok := b.pool.Get().(*[]byte); ok && cap(*lent) >= size {
		return (*lent)[:0]
	}
	const unit = 64 << 10 // so that fragments of about one size fit each other's buffers
	return make([]byte, 0, (size+unit-1)/unit*unit)
}

// Return gives bytes back, which nobody uses any more.
func (b *Pool) Return(data []byte) {
	if b != nil && cap(data) > 0 && cap(data) <= maxLent {
		b.pool.Put(&data)
	}
}
