package media

import "sync"

// maxLent bounds the buffers that are kept for the next fragment: half a second at 64 Mbit/s. Larger ones are
// rare, and made anew.
const maxLent = 4 << 20

// Buffers lends the memory in which fragments are put together. Recorders that share it need as much as those
// need that write at the same time. The zero value is ready, and methods may be called concurrently; a nil
// pointer lends new memory each time.
type Buffers struct{ pool sync.Pool }

// get returns an empty slice with room for size bytes.
func (b *Buffers) get(size int) []byte {
	if b == nil {
		return make([]byte, 0, size)
	}
	if lent, ok := b.pool.Get().(*[]byte); ok && cap(*lent) >= size {
		return (*lent)[:0]
	}
	const unit = 64 << 10 // so that fragments of about one size fit each other's buffers
	return make([]byte, 0, (size+unit-1)/unit*unit)
}

// Return gives a fragment's bytes back, which nobody uses any more.
func (b *Buffers) Return(data []byte) {
	if b != nil && cap(data) > 0 && cap(data) <= maxLent {
		b.pool.Put(&data)
	}
}
