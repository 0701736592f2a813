package edge

import (
	"crypto/ed25519"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

// chain is a stream's store as its recorder sees it. It makes every footer name the hash of the segment
// that was really stored before, which is not always the one that was made before: that may have been
// given up and sealed as cut. Begin and Seal are called by one goroutine.
type chain struct {
	*segstore.Store
	signer ed25519.PrivateKey
	init   []byte // of the newest segment begun

	mu    sync.Mutex
	begun branchline.SegmentID // the same
	prev  branchline.Hash      // of the segment stored before it
}

// Begin begins a segment; with that the store is done with all segments before it.
func (c *chain) Begin(stream branchline.StreamID, start branchline.SegmentStart) error {
	if err := c.Store.Begin(stream, start); err != nil {
		return err
	}
	tail, err := c.Tail(stream)
	if err != nil {
		return err
	}
	c.init = start.Init
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun, c.prev = start.ID, tail.Hash
	return nil
}

// before returns the hash to which the segment is chained; the expected one while its beginning has
// not been recorded yet.
func (c *chain) before(id branchline.SegmentID, expected branchline.Hash) branchline.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun != id {
		return expected
	}
	return c.prev
}

// Seal seals the segment, with a new footer if the given one was made too early to know what is before.
func (c *chain) Seal(id branchline.SegmentID, seal branchline.SegmentSeal) error {
	f, err := segstore.ParseFooter(seal.Footer)
	if err != nil {
		return err
	}
	if prev := c.before(id, f.Prev); prev != f.Prev {
		f.Prev = prev
		if seal.Footer, seal.Hash, err = segstore.SealFooter(f, c.init, c.signer); err != nil {
			return err
		}
	}
	return c.Store.Seal(id, seal)
}
