package federation

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// maxRequest bounds a Request: names, times, a certificate request, a hold with all its spans.
	maxRequest = 32 << 10
	// maxControl bounds an Answer on a control stream: a segment with 10,000 fragments.
	maxControl = 1 << 20
	// maxChange bounds an Answer on a changes stream: a camera with a hundred streams.
	maxChange = 64 << 10
	// maxFetch bounds the Answer before the bytes of a fetch: an error, if anything.
	maxFetch = 4 << 10
	// maxLive bounds an Answer on a live stream: a key frame of an 8K camera at its best.
	maxLive = 8 << 20

	// maxElements bounds the messages, and what else is in lists, within a message: a segment with 10,000
	// fragments has the most. Two bytes on the wire may be a message of a hundred in memory.
	maxElements = 16 << 10

	// maxLength bounds the bytes of a message's length.
	maxLength = 4

	// readAhead is how much of a stream is read at once.
	readAhead = 4 << 10
	// growBy is the step in which room for a message is made, as its bytes arrive: a length alone
	// makes nobody allocate.
	growBy = 64 << 10
)

func maxAnswer(kind link.Kind) int {
	switch kind {
	case link.KindChanges:
		return maxChange
	case link.KindFetch:
		return maxFetch
	case link.KindLive:
		return maxLive
	}
	return maxControl
}

// receiver reads length-delimited messages. One goroutine at a time uses it.
type receiver struct {
	r   *bufio.Reader
	buf []byte // of the last message; reused
}

func newReceiver(r io.Reader) *receiver { return &receiver{r: bufio.NewReaderSize(r, readAhead)} }

// message reads the next message of at most limit bytes into m. It returns io.EOF if the stream ends
// before one, an error wrapping [branchline.ErrTooLarge] or [branchline.ErrInvalid] for what it will
// not read, and otherwise the stream's error.
func (r *receiver) message(m proto.Message, limit int) error {
	size, err := r.size()
	if err != nil {
		return err
	}
	if size > uint64(limit) {
		return fmt.Errorf("read message of %d bytes, limit %d: %w", size, limit, branchline.ErrTooLarge)
	}
	r.buf = r.buf[:0]
	for left := int(size); left > 0; {
		n := min(left, growBy)
		r.buf = slices.Grow(r.buf, n)
		part := r.buf[len(r.buf) : len(r.buf)+n]
		if _, err := io.ReadFull(r.r, part); err != nil {
			return fmt.Errorf("read message: %w", unexpected(err))
		}
		r.buf = r.buf[:len(r.buf)+n]
		left -= n
	}
	if left := spare(r.buf, m.ProtoReflect().Descriptor(), maxElements); left < 0 {
		return fmt.Errorf("read message: more than %d parts: %w", maxElements, branchline.ErrTooLarge)
	}
	if err := proto.Unmarshal(r.buf, m); err != nil {
		return fmt.Errorf("read message: %w: %w", err, branchline.ErrInvalid)
	}
	return nil
}

// spare returns how many elements the encoded message leaves of left; what cannot be read ends the count, as it
// also ends the decoding.
func spare(b []byte, d protoreflect.MessageDescriptor, left int) int {
	for len(b) > 0 && left >= 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return left
		}
		value := b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, value); n < 0 {
			return left
		}
		b = value[n:]
		f := d.Fields().ByNumber(number)
		if f == nil || kind != protowire.BytesType || f.Message() == nil && !f.IsList() {
			continue
		}
		left--
		if f.Message() != nil {
			inner, _ := protowire.ConsumeBytes(value)
			left = spare(inner, f.Message(), left)
		}
	}
	return left
}

// size reads a message's length, an unsigned varint.
func (r *receiver) size() (uint64, error) {
	var size uint64
	for shift := 0; shift < 7*maxLength; shift += 7 {
		b, err := r.r.ReadByte()
		if err != nil {
			if shift > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		size |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return size, nil
		}
	}
	return 0, fmt.Errorf("read message length: more than %d bytes: %w", maxLength, branchline.ErrInvalid)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sender writes length-delimited messages. One goroutine at a time uses it.
type sender struct {
	w    io.Writer
	buf  []byte // reused
	torn bool   // a message was begun and not ended: no other can follow
}

// message writes m. It returns an error wrapping [branchline.ErrTooLarge] without writing anything if
// m has more than limit bytes.
func (s *sender) message(m proto.Message, limit int) error {
	size := proto.Size(m)
	if size > limit {
		return fmt.Errorf("write message of %d bytes, limit %d: %w", size, limit, branchline.ErrTooLarge)
	}
	s.buf = binary.AppendUvarint(s.buf[:0], uint64(size))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(s.buf, m)
	if err != nil {
		return fmt.Errorf("write message: %w: %w", err, branchline.ErrInvalid)
	}
	s.buf = b
	n, err := s.w.Write(b)
	s.torn = err != nil && n > 0
	return err
}
