package link

import (
	"slices"
	"time"
)

const (
	// urgencies is how many there are, from 0.
	urgencies = 8
	// What is handed to the kernel in one piece, and how much unsent the kernel is told to keep, grow and
	// shrink with the path's rate: what is there is in front of everything that is more urgent and comes
	// later. At the least it is some 16 ms of 1 Mbit/s.
	minBatch   = 2 << 10
	firstBatch = 16 << 10
	maxBatch   = 64 << 10
	slowBatch  = 20 * time.Millisecond // a batch that takes longer was too large
	fastBatch  = 5 * time.Millisecond
)

// sending sends what there is, the most urgent first, until the connection ends.
func (c *tcpConn) sending() {
	size, buf := firstBatch, make([]byte, 0, maxBatch)
	c.socket.keepUnsent(2 * size)
	for {
		b, last := c.batch(buf[:0], size)
		began := c.clock.Now()
		if len(b) > 0 {
			err := c.socket.together(func() error {
				_, err := c.conn.Write(b)
				return err
			})
			if err != nil {
				c.fail(lost(err))
				return
			}
		}
		if last {
			return
		}
		took, was := c.clock.Now().Sub(began), size
		switch {
		case took > slowBatch:
			size = max(size/2, minBatch)
		case took < fastBatch && len(b) >= size:
			size = min(size*2, maxBatch)
		}
		if size != was {
			c.socket.keepUnsent(2 * size)
		}
	}
}

// batch waits until there is something to send and puts about size bytes of it in b; last means that
// nothing may follow.
func (c *tcpConn) batch(b []byte, size int) (_ []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.end != nil {
			return c.goodbye, true
		}
		b = c.appendControl(b)
		for len(b)+frameHeader < size {
			more := c.appendData(b, size-len(b)-frameHeader)
			if len(more) == len(b) {
				break
			}
			b = more
		}
		if len(b) > 0 {
			return b, false
		}
		c.ready.Wait()
	}
}

// appendControl takes all frames but data.
func (c *tcpConn) appendControl(b []byte) []byte {
	if c.ping {
		b, c.ping = appendCode(b, framePing, 0, c.pings), false
	}
	if c.pong != nil {
		b, c.pong = appendCode(b, framePong, 0, *c.pong), nil
	}
	if c.grant > 0 {
		b, c.grant = appendCount(b, frameCredit, 0, c.grant), 0
	}
	for i, s := range c.listed {
		if len(b) > maxBatch-maxStreamControl {
			c.listed = slices.Delete(c.listed, 0, i)
			return b
		}
		s.listed = false
		if s.id != 0 { // else with its first frame
			b = s.appendControl(b)
		}
	}
	clear(c.listed)
	c.listed = c.listed[:0]
	if c.freed > 0 { // after the resets, so that who floods has to read
		b, c.freed = appendCount(b, frameStreams, 0, c.freed), 0
	}
	return b
}

// maxStreamControl is the most that one stream's frames beside the data take.
const maxStreamControl = 3*frameHeader + 4 + 8 + 8

func (s *tcpStream) appendControl(b []byte) []byte {
	if s.grant > 0 && s.readErr == nil && !s.ended {
		b = appendCount(b, frameCredit, s.id, s.grant)
	}
	if s.stop != nil {
		b = appendCode(b, frameStop, s.id, uint64(*s.stop))
	}
	if s.reset != nil {
		b = appendCode(b, frameReset, s.id, uint64(*s.reset))
	}
	s.grant, s.stop, s.reset = 0, nil, nil
	return b
}

// appendData takes one frame with at most so many bytes of the most urgent stream that may send.
func (c *tcpConn) appendData(b []byte, most int) []byte {
	for u := range c.queues {
		q := &c.queues[u]
		for len(*q) > 0 {
			s := (*q)[0]
			n := min(s.out.size, s.credit, c.credit, maxFrame, most)
			if n == 0 && s.out.size > 0 {
				if s.credit > 0 {
					return b // nobody may send
				}
				c.unqueue(s) // until it gets credit
				continue
			}
			*q = append(slices.Delete(*q, 0, 1), s)
			return s.appendData(b, n)
		}
	}
	return b
}

// appendData takes n bytes of the stream, which is at the end of its queue.
func (s *tcpStream) appendData(b []byte, n int) []byte {
	c := s.c
	if s.id == 0 {
		s.id = c.nextID
		c.nextID += 2
		c.streams[s.id] = s
	}
	kind := frameData
	if s.closed && n == s.out.size {
		kind, s.endSent = frameEnd, true
	}
	b = appendFrame(b, kind, s.id, n)
	b = b[:len(b)+s.out.read(&c.pieces, b[len(b):len(b)+n])]
	s.credit -= n
	c.credit -= n
	if s.out.size == 0 {
		c.unqueue(s)
	}
	s.writeable.Broadcast()
	b = s.appendControl(b)
	c.settle(s)
	return b
}

// queue lets the stream send what it has.
func (c *tcpConn) queue(s *tcpStream) {
	if s.queued || s.writeErr != nil || s.endSent || s.out.size == 0 && !s.closed {
		return
	}
	s.queued = true
	c.queues[s.urgency] = append(c.queues[s.urgency], s)
	c.ready.Signal()
}

func (c *tcpConn) unqueue(s *tcpStream) {
	if !s.queued {
		return
	}
	s.queued = false
	q := &c.queues[s.urgency]
	*q = slices.DeleteFunc(*q, func(o *tcpStream) bool { return o == s })
}

// list lets the stream send frames beside its data.
func (c *tcpConn) list(s *tcpStream) {
	if !s.listed && (s.grant > 0 || s.stop != nil || s.reset != nil) {
		s.listed = true
		c.listed = append(c.listed, s)
		c.ready.Signal()
	}
}
