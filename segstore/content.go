package segstore

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
)

// content gives the fragments of one open segment file, each verified by its row before any of its
// bytes is given out. It is the only way to them. It keeps the fragment that was read last, so that who
// reads on inside that one reads and verifies it once. It is not safe for concurrent use.
type content struct {
	file io.ReaderAt
	end  *ending // of a sealed file: where each fragment is; nil: at its offset
	open *cipher // nil: in plain
	sums bool    // the checksum is enough, as who gets the bytes verifies the hash

	lent *buffer.Pool        // nil: the memory is its own
	row  branchline.Fragment // what data is; zero for nothing
	raw  []byte              // as it stands in the file
	data []byte              // in plain; in plain files raw
	room []byte              // for data, of an encrypted file
}

// fragment returns the plain bytes of the fragment that row describes, valid until the next call. It
// wraps ErrMismatch if they are not those, and io.EOF if the file ends before.
func (c *content) fragment(row branchline.Fragment) ([]byte, error) {
	if c.row.Length > 0 && sameBytes(c.row, row) {
		return c.data, nil
	}
	if err := checkRow(row); err != nil {
		return nil, err
	}
	c.row = branchline.Fragment{}
	at := row.Offset
	if c.end != nil {
		var err error
		if at, err = c.end.place(row); err != nil {
			return nil, err
		}
	}
	if int64(cap(c.raw)) < row.Length {
		c.lent.Return(c.raw)
		c.raw = c.lent.Get(int(row.Length))
	}
	c.raw = c.raw[:row.Length]
	if _, err := c.file.ReadAt(c.raw, at); err != nil {
		return nil, fmt.Errorf("read fragment at %d: %w", row.Offset, err)
	}
	var err error
	if c.data, err = c.open.decrypt(c.room, c.raw, row.Offset); err != nil {
		return nil, fmt.Errorf("fragment at %d: %w", row.Offset, err)
	}
	if c.open != nil {
		c.room = c.data
	}
	if err := c.check(row); err != nil {
		return nil, fmt.Errorf("fragment at %d: %w", row.Offset, err)
	}
	c.row = row
	return c.data, nil
}

// check verifies the data as the fragment that row describes.
func (c *content) check(row branchline.Fragment) error {
	switch {
	case c.sums && c.open != nil: // decrypting has verified it
	case c.sums:
		if !checksumHolds(c.data) {
			return fmt.Errorf("its checksum does not hold: %w", branchline.ErrMismatch)
		}
	default:
		if got := branchline.Hash(sha256.Sum256(c.data)); got != row.Hash {
			return fmt.Errorf("hash is %v and should be %v: %w", got, row.Hash, branchline.ErrMismatch)
		}
	}
	return nil
}

// giveBack returns what was lent. Of what calls returned nothing is used any more.
func (c *content) giveBack() {
	c.lent.Return(c.raw)
	c.lent.Return(c.room)
	c.row, c.raw, c.data, c.room = branchline.Fragment{}, nil, nil, nil
}

// forget makes the next call read the file anew.
func (c *content) forget() { c.row = branchline.Fragment{} }

// rowAt returns the row of the fragment in which the byte at offset is.
func rowAt(rows []branchline.Fragment, offset int64) (branchline.Fragment, bool) {
	i, ok := findRow(rows, offset)
	if !ok {
		i--
	}
	if i < 0 || rows[i].End() <= offset {
		return branchline.Fragment{}, false
	}
	return rows[i], true
}
