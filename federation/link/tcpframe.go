package link

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// frameKind is what a frame on a TCP connection is for.
type frameKind byte

// The frames. One of a kind that is not known is passed over.
const (
	frameData    frameKind = 0 // bytes of a stream; the first frame of a stream opens it
	frameEnd     frameKind = 1 // the last bytes of a direction of a stream, or none
	frameReset   frameKind = 2 // a code: the sender's direction of the stream ends, its bytes are lost
	frameStop    frameKind = 3 // a code: the sender reads no more of the stream
	frameCredit  frameKind = 4 // so many bytes more may be sent on the stream, or on all for stream 0
	frameStreams frameKind = 5 // so many streams more may be opened
	framePing    frameKind = 6 // eight bytes, which come back
	framePong    frameKind = 7
	frameClose   frameKind = 8 // a code and a text: the connection ends
)

const (
	// frameHeader is the size of a frame's header: kind, stream and the length of what follows.
	frameHeader = 1 + 4 + 2
	// maxFrame bounds what follows a header, so that a whole frame fits in one TLS record.
	maxFrame = 16<<10 - frameHeader
)

// errFrames means that the peer does not keep to the protocol.
var errFrames = errors.New("the peer breaks the rules of the connection")

type frame struct {
	kind   frameKind
	stream uint32
	size   int
}

// parseFrame reads a header. The size is one that the kind may have.
func parseFrame(b [frameHeader]byte) (frame, error) {
	f := frame{frameKind(b[0]), binary.BigEndian.Uint32(b[1:5]), int(binary.BigEndian.Uint16(b[5:]))}
	low, high := 0, maxFrame
	switch f.kind {
	case frameReset, frameStop, framePing, framePong:
		low, high = 8, 8
	case frameCredit, frameStreams:
		low, high = 4, 4
	case frameClose:
		low, high = 8, 8+MaxReason
	}
	if f.size < low || f.size > high {
		return f, fmt.Errorf("frame of kind %d with %d bytes: %w", f.kind, f.size, errFrames)
	}
	return f, nil
}

func appendFrame(b []byte, kind frameKind, stream uint32, size int) []byte {
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint16(b, uint16(size))
}

func appendCode(b []byte, kind frameKind, stream uint32, code uint64) []byte {
	return binary.BigEndian.AppendUint64(appendFrame(b, kind, stream, 8), code)
}

func appendCount(b []byte, kind frameKind, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, kind, stream, 4), uint32(n))
}
