package buffer

import "testing"

// TestRoom lends buffers of all sizes, large ones first, and gives each back before the next: each has room, and not
// much more than was asked for.
func TestRoom(t *testing.T) {
	var p Pool
	for _, size := range []int{
		mostLent + 1, mostLent, mostLent - 1, 1_250_000, leastLent + 1, leastLent, leastLent - 1, 1, 0, 1_250_000, mostLent,
	} {
		b := p.Get(size)
		if len(b) != 0 || cap(b) < size || cap(b) > max(2*size, leastLent) {
			t.Errorf("for %d bytes: %d of %d", size, len(b), cap(b))
		}
		p.Return(b)
		p.Return(make([]byte, size/3)) // of somebody else
	}
}
