package link

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxCredit bounds what a peer may let be sent at once: more than any window.
const maxCredit = 1 << 30

// receiving takes what comes until the connection ends, and returns why it does.
func (c *tcpConn) receiving() error {
	in, body := c.conn, make([]byte, maxFrame)
	for {
		var head [frameHeader]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return lost(err)
		}
		f, err := parseFrame(head)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(in, body[:f.size]); err != nil {
			return lost(err)
		}
		if err := c.take(f, body[:f.size]); err != nil {
			return err
		}
		c.hold()
	}
}

// maxUnanswered is how much of a peer to whom nothing was written yet, in bytes, is taken and not read: it may be
// anybody. What such a peer sends at first is a small message.
const maxUnanswered = 64 << 10

// hold waits while there is so much of such a peer.
func (c *tcpConn) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.answered && c.end == nil && maxConnWindow-c.room-c.read >= maxUnanswered {
		c.welcome.Wait()
	}
}

// take deals with one frame of the peer.
func (c *tcpConn) take(f frame, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.kind {
	case frameData, frameEnd:
		return c.takeData(f, body)
	case frameReset, frameStop, frameCredit:
		return c.takeControl(f, body)
	case frameStreams:
		for range binary.BigEndian.Uint32(body) {
			select {
			case <-c.slots:
			default:
				return fmt.Errorf("more streams given back than were opened: %w", errFrames)
			}
		}
	case framePing:
		echo := binary.BigEndian.Uint64(body)
		c.pong = &echo
		c.ready.Signal()
	case framePong:
		if binary.BigEndian.Uint64(body) == c.pings {
			c.rtt = c.clock.Now().Sub(c.pingedAt)
		}
	case frameClose:
		e := &Error{Code: Code(binary.BigEndian.Uint64(body)), Reason: string(body[8:]), Remote: true, Conn: true}
		if e.Code == CodeStalled {
			return ErrStalled
		}
		return e
	}
	return nil
}

func (c *tcpConn) takeData(f frame, b []byte) error {
	if c.room -= len(b); c.room < 0 {
		return fmt.Errorf("more bytes than the connection's window: %w", errFrames)
	}
	s, err := c.find(f.stream, true)
	if err != nil {
		return err
	}
	if s == nil {
		c.took(len(b)) // it was reset here
		return nil
	}
	if err := s.arrived(b, f.kind == frameEnd); err != nil {
		return fmt.Errorf("bytes on stream %d over its window or after its end: %w", f.stream, err)
	}
	return nil
}

// find returns the stream, nil if it is over. The next one of the peer is made if it may be.
func (c *tcpConn) find(id uint32, open bool) (*tcpStream, error) {
	if s := c.streams[id]; s != nil {
		return s, nil
	}
	mine := id%2 == c.nextID%2
	switch {
	case id != 0 && (mine && id < c.nextID || !mine && id < c.nextIn):
		return nil, nil
	case id == 0 || mine || !open || id != c.nextIn || c.live+c.freed >= MaxStreams: // freed ones it has not heard of
		return nil, fmt.Errorf("stream %d was not opened, or is one too many: %w", id, errFrames)
	}
	s := newTCPStream(c, false)
	s.id = id
	c.nextIn += 2
	c.live++
	c.streams[id], c.open[s] = s, struct{}{}
	if c.end != nil {
		s.endRead(c.end)
		s.endWrite(c.end)
		return s, nil //nolint:nilerr // that the connection has ended is for who reads
	}
	c.incoming <- s // never full: it has place for all that may live
	return s, nil
}

func (c *tcpConn) takeControl(f frame, body []byte) error {
	if f.kind == frameCredit && f.stream == 0 {
		return c.gain(&c.credit, body)
	}
	s, err := c.find(f.stream, false)
	if s == nil {
		return err
	}
	switch f.kind {
	case frameReset:
		s.endRead(&Error{Code: Code(binary.BigEndian.Uint64(body)), Remote: true})
	case frameStop:
		s.endWrite(&Error{Code: Code(binary.BigEndian.Uint64(body)), Remote: true})
	case frameCredit:
		err = c.gain(&s.credit, body)
		c.queue(s)
	}
	return err
}

// gain adds the credit that the peer gives.
func (c *tcpConn) gain(credit *int, body []byte) error {
	if *credit += int(binary.BigEndian.Uint32(body)); *credit > maxCredit {
		return fmt.Errorf("credit of %d bytes: %w", *credit, errFrames)
	}
	c.ready.Signal()
	return nil
}
