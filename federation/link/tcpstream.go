package link

import (
	"io"
	"sync"
)

// sendBuffer is how much of a stream may have been written and not be sent yet. It is little, so that a
// stream that becomes less urgent has little in front of others.
const sendBuffer = 64 << 10

// tcpStream is a stream of a TCP connection. Everything in it is guarded by the connection's mutex.
type tcpStream struct {
	c    *tcpConn
	id   uint32 // 0 until its first frame goes out
	kind Kind   // 0 once written, and on accepted streams
	mine bool   // opened here
	gone bool   // both directions are over, and the connection has forgotten it

	readable  *sync.Cond
	in        fifo
	ended     bool // the peer's last byte is in
	readErr   error
	accepted  bool // or mine
	window    int  // how much the peer may send beyond what was read
	room      int  // how much of that it has not sent
	read      int  // bytes read since the last credit
	writeable *sync.Cond
	out       fifo
	closed    bool // Close was called
	endSent   bool
	writeErr  error
	credit    int // bytes that may be sent
	urgency   int8
	queued    bool // in the connection's queue of its urgency

	// Frames to send beside the data, with the next batch.
	grant       int
	reset, stop *Code
	listed      bool // in the connection's list of those with such frames
}

func newTCPStream(c *tcpConn, mine bool) *tcpStream {
	return &tcpStream{
		c: c, mine: mine, accepted: mine, window: firstStreamWindow, room: firstStreamWindow, credit: firstStreamWindow,
		readable: sync.NewCond(&c.mu), writeable: sync.NewCond(&c.mu),
	}
}

func (s *tcpStream) Read(b []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		switch {
		case s.readErr != nil:
			return 0, s.readErr
		case s.in.size > 0 || len(b) == 0:
			n := s.in.read(&s.c.pieces, b)
			s.took(n)
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.readable.Wait()
	}
}

// took gives credit for n bytes that were read.
func (s *tcpStream) took(n int) {
	s.c.took(n)
	if s.in.size == 0 {
		s.c.settle(s)
	}
	s.read += n
	if s.ended || s.read < s.window/2 {
		return
	}
	if more := min(s.window, maxStreamWindow-s.window); s.in.size < s.window/8 { // the reader is no slower
		s.read += more
		s.window += more
	}
	s.grant, s.room, s.read = s.grant+s.read, s.room+s.read, 0
	s.c.list(s)
}

func (s *tcpStream) Write(b []byte) (n int, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		room := sendBuffer - s.out.size
		switch {
		case s.writeErr != nil:
			return n, s.writeErr
		case s.closed:
			return n, io.ErrClosedPipe
		case room <= 0:
			s.writeable.Wait()
			continue
		case s.kind != 0:
			s.out.write(&s.c.pieces, []byte{byte(s.kind)})
			s.kind = 0
		}
		s.c.answer()
		k := min(room, len(b))
		s.out.write(&s.c.pieces, b[:k])
		n, b = n+k, b[k:]
		s.c.queue(s)
		if len(b) == 0 {
			return n, nil
		}
	}
}

func (s *tcpStream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.writeErr != nil {
		return s.writeErr
	}
	if !s.closed {
		s.closed = true
		s.c.queue(s)
	}
	return nil
}

func (s *tcpStream) Reset(code Code) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.readErr == nil && !s.drained() {
		if !s.ended {
			s.stop = &code
		}
		s.endRead(&Error{Code: code})
	}
	if s.writeErr == nil && !s.closed {
		s.reset = &code
		s.endWrite(&Error{Code: code})
	}
	s.c.list(s)
}

func (s *tcpStream) SetPriority(urgency int8) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	urgency = min(max(urgency, 0), urgencies-1)
	if urgency == s.urgency {
		return
	}
	was := s.queued
	s.c.unqueue(s)
	s.urgency = urgency
	if was {
		s.c.queue(s)
	}
}

// drained reports whether all that the peer sent and ended was read.
func (s *tcpStream) drained() bool { return s.ended && s.in.size == 0 }

// endRead ends the direction from the peer; what was not read is lost.
func (s *tcpStream) endRead(err error) {
	if s.readErr != nil || s.drained() {
		return
	}
	s.readErr = err
	s.c.took(s.in.size)
	s.in.clear(&s.c.pieces)
	s.readable.Broadcast()
	s.c.settle(s)
}

// endWrite ends the direction to the peer; what was not sent is lost.
func (s *tcpStream) endWrite(err error) {
	if s.writeErr != nil || s.endSent {
		return
	}
	s.writeErr = err
	s.out.clear(&s.c.pieces)
	s.c.unqueue(s)
	s.writeable.Broadcast()
	s.c.settle(s)
}

// arrived takes bytes of the peer.
func (s *tcpStream) arrived(b []byte, end bool) error {
	if s.readErr != nil || s.gone {
		s.c.took(len(b))
		return nil //nolint:nilerr // nobody reads it, which is no fault of the peer
	}
	if s.room -= len(b); s.room < 0 || s.ended {
		return errFrames
	}
	s.in.write(&s.c.pieces, b)
	s.ended = end
	s.readable.Broadcast()
	if end {
		s.c.settle(s)
	}
	return nil
}
