package segstore

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/branchline-video/branchline"
)

// The nouns as the index, the journal and the sidecars keep them. A segment is kept without its
// fragment table, which stands in the file's footer.

// maxStreams bounds the feeds of one camera.
const maxStreams = 16

const (
	kindOpened = iota + 1
	kindSealed
	kindRemoved
	kindGap
	kindCamera
	kindLock // in the journal alone, as the two below
	kindUnlock
	kindHold
	kindSegment = 16 // in the feed alone: the key of a segment that was opened or sealed
)

func (c *codec) segment(s *branchline.Segment) {
	c.raw(s.ID[:])
	text(c, &s.Stream, branchline.MaxID)
	number(c, &s.Run, 8)
	number(c, &s.Number, 4)
	c.span(&s.Span)
	text(c, &s.Codecs, MaxCodecs)
	number(c, &s.InitSize, 4)
	number(c, &s.Size, 8)
	c.flag(&s.Sealed)
	c.raw(s.Hash[:])
}

func (c *codec) removal(r *branchline.Removal) {
	c.raw(r.ID[:])
	text(c, &r.Stream, branchline.MaxID)
	c.span(&r.Span)
	text(c, &r.Cause, branchline.MaxName)
}

func (c *codec) gap(g *branchline.Gap) {
	text(c, &g.Stream, branchline.MaxID)
	c.span(&g.Span)
	text(c, &g.Cause, branchline.MaxName)
	c.flag(&g.Open)
}

func (c *codec) camera(m *branchline.Camera) {
	text(c, &m.ID, branchline.MaxID)
	text(c, &m.Name, branchline.MaxName)
	c.instant(&m.Added)
	c.flag(&m.Removed)
	n := len(m.Streams)
	number(c, &n, 1)
	if n > maxStreams {
		c.fail("too many streams")
		return
	}
	if c.reading && n > 0 {
		m.Streams = make([]branchline.Stream, n)
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		text(c, &s.ID, branchline.MaxID)
		text(c, &s.Codecs, MaxCodecs)
		number(c, &s.Width, 4)
		number(c, &s.Height, 4)
	}
}

// change moves all of a change but its position, which is its key.
func (c *codec) change(ch *branchline.Change) {
	var kind uint8
	switch {
	case ch.Opened != nil:
		kind = kindOpened
	case ch.Sealed != nil:
		kind = kindSealed
	case ch.Removed != nil:
		kind = kindRemoved
	case ch.Gap != nil:
		kind = kindGap
	case ch.Camera != nil:
		kind = kindCamera
	}
	number(c, &kind, 1)
	switch kind {
	case kindOpened:
		c.segment(present(&ch.Opened))
	case kindSealed:
		c.segment(present(&ch.Sealed))
	case kindRemoved:
		c.removal(present(&ch.Removed))
	case kindGap:
		c.gap(present(&ch.Gap))
	case kindCamera:
		c.camera(present(&ch.Camera))
	default:
		c.fail("change of no known kind")
	}
}

// present returns what p points to, made if it is not there yet.
func present[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

// begin moves what a sidecar's first record says about the segment; the init part is in the file.
func (c *codec) begin(s *branchline.SegmentStart, initSize *int64, initHash *branchline.Hash) {
	c.raw(s.ID[:])
	text(c, &s.Stream, branchline.MaxID)
	number(c, &s.Run, 8)
	number(c, &s.Number, 4)
	c.instant(&s.Start)
	text(c, &s.Codecs, MaxCodecs)
	number(c, initSize, 4)
	c.raw(initHash[:])
}

// encode returns the bytes that move writes.
func encode(move func(c *codec)) ([]byte, error) {
	var c codec
	move(&c)
	return c.buf, c.end()
}

// decode passes b through move and refuses an end too early or too late.
func decode(what string, b []byte, move func(c *codec)) error {
	c := codec{buf: b, reading: true}
	move(&c)
	if err := c.end(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}

// The keys of the index. A stream's name never contains the zero byte that ends it here.

func keyVersion() []byte { return []byte("V") }

// indexVersion is the version of the index's entries: an index of another one is made again.
func indexVersion() []byte { return []byte{4} }

func keyMeta() []byte { return []byte("E") }

func keyChange(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte("C"), seq) }

func keyTombstone(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte("X"), seq) }

func keyID(id branchline.SegmentID) []byte { return append([]byte("I"), id[:]...) }

func keyStream(s branchline.StreamID) []byte { return append([]byte("T"), s...) }

func keyOpen(s branchline.StreamID) []byte { return append([]byte("O"), s...) }

func keyCamera(id branchline.CameraID) []byte { return append([]byte("M"), id...) }

// keySequence returns the sequence number in a key of a change or a tombstone.
func keySequence(key []byte) (uint64, error) {
	if len(key) != 9 {
		return 0, fmt.Errorf("key of %d bytes: %w", len(key), branchline.ErrInvalid)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

// keyLine returns the prefix of a stream's entries of kind 'S' (segments) or 'G' (gaps).
func keyLine(kind byte, s branchline.StreamID) []byte {
	return append(append([]byte{kind}, s...), 0)
}

// keyAt returns the place of t on the stream's line; entries with an identifier follow it. Times that
// do not fit nanoseconds since 1970 are moved to the line's ends.
func keyAt(kind byte, s branchline.StreamID, t time.Time) []byte {
	ns := t.UnixNano()
	switch year := t.Year(); {
	case year < 1700:
		ns = math.MinInt64
	case year > 2200:
		ns = math.MaxInt64
	}
	return binary.BigEndian.AppendUint64(keyLine(kind, s), uint64(ns)^1<<63)
}

// timeOfKey returns the time in a key that keyAt made.
func timeOfKey(k []byte) time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64(k[len(k)-8:])^1<<63)).UTC()
}

func keySegment(s branchline.Segment) []byte {
	return append(keyAt('S', s.Stream, s.Span.Start), s.ID[:]...)
}
