package link

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestFifo writes and reads in steps of all sizes: what comes out is what went in, and the memory is no more than what
// waits needs.
func TestFifo(t *testing.T) {
	var pool sync.Pool
	var f fifo
	var want bytes.Buffer
	random := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, len(piece{}) - 1, len(piece{}), len(piece{}) + 1, 3 * len(piece{}), 100, 5000}
	for step := range 20_000 {
		size := sizes[random.IntN(len(sizes))]
		switch {
		case step%1000 == 999:
			f.clear(&pool)
			want.Reset()
		case random.IntN(100) < 49 && want.Len() < 1<<20:
			b := make([]byte, size)
			for i := range b {
				b[i] = byte(step + i)
			}
			f.write(&pool, b)
			want.Write(b)
		default:
			got := make([]byte, size)
			got = got[:f.read(&pool, got)]
			if !bytes.Equal(got, want.Next(size)) {
				t.Fatalf("step %d: other bytes", step)
			}
		}
		if most := f.size/len(piece{}) + 2; f.size != want.Len() || len(f.pieces) > most || f.size == 0 && f.pieces != nil {
			t.Fatalf("step %d: %d bytes for %d in %d pieces", step, f.size, want.Len(), len(f.pieces))
		}
	}
}
