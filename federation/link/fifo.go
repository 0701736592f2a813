package link

import "sync"

// piece is the memory that bytes of TCP streams wait in: as much as a TLS record carries at most.
type piece [16 << 10]byte

// fifo holds bytes in the order in which they came, in pieces that go back to a pool as soon as they are read: its
// memory does not move, and is less than two pieces more than what waits in it. The zero value is empty.
type fifo struct {
	pieces []*piece
	from   int // where the first piece's bytes begin
	size   int
}

// write appends all of b.
func (f *fifo) write(pool *sync.Pool, b []byte) {
	for len(b) > 0 {
		end := f.from + f.size
		if end == len(f.pieces)*len(piece{}) {
			p, ok := pool.Get().(*piece)
			if !ok {
				p = new(piece)
			}
			f.pieces = append(f.pieces, p)
		}
		n := copy(f.pieces[len(f.pieces)-1][end%len(piece{}):], b)
		f.size += n
		b = b[n:]
	}
}

// read takes up to len(b) bytes and returns how many.
func (f *fifo) read(pool *sync.Pool, b []byte) (n int) {
	for n < len(b) && f.size > 0 {
		first := f.pieces[0][f.from:]
		k := copy(b[n:], first[:min(len(first), f.size)])
		n, f.from, f.size = n+k, f.from+k, f.size-k
		if f.from == len(piece{}) || f.size == 0 {
			pool.Put(f.pieces[0])
			f.pieces[0], f.from = nil, 0
			if f.pieces = f.pieces[1:]; f.size == 0 {
				f.pieces = nil
			}
		}
	}
	return n
}

// clear drops what is there.
func (f *fifo) clear(pool *sync.Pool) {
	for _, p := range f.pieces {
		pool.Put(p)
	}
	*f = fifo{}
}
