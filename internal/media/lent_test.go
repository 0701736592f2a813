package media

import (
	"bytes"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
)

// TestBuffersAreLentAgain puts fragments of many sizes together in memory that is given back each time.
func TestBuffersAreLentAgain(t *testing.T) {
	const most = 8 << 20 // which is not kept
	buffers := new(buffer.Pool)
	asm := Assembler{Buffers: buffers}
	for _, size := range []int{10, 100_000, 1, 64 << 10, most, 70_000, 0} {
		frame := bytes.Repeat([]byte{byte(size)}, size)
		want := append(append([]byte("head"), frame...), "tail"...)
		asm.Add(branchline.Item{Frame: &branchline.Frame{Track: 1, Data: frame}})
		got := asm.Add(branchline.Item{Fragment: &branchline.FragmentEnd{Head: []byte("head"), Tail: []byte("tail"),
			Fragment: branchline.Fragment{Length: int64(len(want))}}})
		if !bytes.Equal(got, want) {
			t.Errorf("fragment of %d bytes came as %d", len(want), len(got))
		}
		buffers.Return(got)
		clear(got)
	}
	if lent := buffers.Get(most); len(lent) != 0 || cap(lent) < most {
		t.Errorf("lent %d of %d bytes", len(lent), cap(lent))
	}
	var none *buffer.Pool
	none.Return(none.Get(10))
}
