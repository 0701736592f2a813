package segstore

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/branchline-video/branchline"
)

// codec walks the fields of a value in one order for both directions, so that what is written and
// what is read cannot drift apart. Numbers are big endian, as everywhere in MP4. After the first
// error it does nothing more.
type codec struct {
	buf     []byte // appended to when writing, consumed from the front when reading
	reading bool
	err     error
}

func (c *codec) fail(what string) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: %w", what, branchline.ErrInvalid)
	}
}

// take returns the next n bytes to read, or n new zero bytes to fill when writing; nil after an error.
func (c *codec) take(n int) []byte {
	switch {
	case c.err != nil:
		return nil
	case !c.reading:
		c.buf = append(c.buf, make([]byte, n)...)
		return c.buf[len(c.buf)-n:]
	case len(c.buf) < n:
		c.fail("record ends early")
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

// raw moves the bytes of an array.
func (c *codec) raw(p []byte) {
	b := c.take(len(p))
	switch {
	case b == nil:
	case c.reading:
		copy(p, b)
	default:
		copy(b, p)
	}
}

// number moves an unsigned or two's complement number of 1, 2, 4 or 8 bytes.
func number[T ~int | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64](c *codec, p *T, width int) {
	if !c.reading && width < 8 && uint64(*p)>>(8*width) != 0 {
		c.fail("number does not fit its field")
	}
	b := c.take(width)
	if b == nil {
		return
	}
	var word [8]byte
	if c.reading {
		copy(word[8-width:], b)
		*p = T(binary.BigEndian.Uint64(word[:]))
		return
	}
	binary.BigEndian.PutUint64(word[:], uint64(*p))
	copy(b, word[8-width:])
}

// text moves a string of at most limit bytes behind its length in two bytes.
func text[T ~string](c *codec, p *T, limit int) {
	n := len(*p)
	number(c, &n, 2)
	if n > limit {
		c.fail("text over its limit")
	}
	if b := c.take(n); c.reading {
		*p = T(b)
	} else {
		copy(b, *p)
	}
}

// flag moves a truth value in one byte.
func (c *codec) flag(p *bool) {
	var v uint8
	if *p {
		v = 1
	}
	number(c, &v, 1)
	if v > 1 {
		c.fail("flag is neither 0 nor 1")
	}
	if c.reading {
		*p = v == 1
	}
}

// instant moves a time as nanoseconds since 1970; the zero Time has the smallest number.
func (c *codec) instant(p *time.Time) {
	ns := int64(math.MinInt64)
	if !p.IsZero() {
		ns = p.UnixNano()
	}
	number(c, &ns, 8)
	if !c.reading {
		return
	}
	*p = time.Time{}
	if ns != math.MinInt64 {
		*p = time.Unix(0, ns).UTC()
	}
}

func (c *codec) span(p *branchline.TimeRange) {
	c.instant(&p.Start)
	c.instant(&p.End)
}

// fragment moves a row of a fragment table: rowSize bytes.
func (c *codec) fragment(p *branchline.Fragment) {
	var flags uint32
	if p.Key {
		flags = rowKey
	}
	number(c, &p.Offset, 8)
	number(c, &p.Length, 4)
	number(c, &flags, 4)
	c.instant(&p.Start)
	number(c, &p.Duration, 8)
	c.raw(p.Hash[:])
	if flags&^rowKey != 0 {
		c.fail("unknown fragment flags")
	}
	if c.reading {
		p.Key = flags&rowKey != 0
	}
}

// end tells the first error, and when reading also refuses bytes that nobody asked for.
func (c *codec) end() error {
	if c.err == nil && c.reading && len(c.buf) > 0 {
		c.fail("record goes on after its end")
	}
	return c.err
}
