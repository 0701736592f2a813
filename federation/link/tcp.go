package link

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// closeTime is how long closing a connection waits for the peer to hear why.
	closeTime = 500 * time.Millisecond
	// silence is how long nothing comes from the peer before the connection ends, as over QUIC.
	silence = KeepAlive + IdleTimeout
	// readAhead is how much is taken from the kernel at once: several TLS records, as a call costs more than a copy.
	readAhead = 64 << 10
)

// tcpConn is a connection over TCP and TLS. One goroutine reads what comes into the streams' buffers and
// never waits for anybody; another sends, in the streams' order. The side that dialled pings every
// KeepAlive, which the other answers, so that both hear of each other.
type tcpConn struct {
	conn     net.Conn // TLS
	socket   *socket  // below it
	peer     Peer
	clock    clock.Clock
	incoming chan *tcpStream
	slots    chan struct{} // filled by streams that were opened here
	done     chan struct{} // closed with the connection
	running  sync.WaitGroup
	silent   *time.Timer // ends the connection unless something comes
	beat     *time.Timer // pings; nil on the side that accepted
	stalled  stallWatch  // beat's
	pieces   sync.Pool   // of *piece; what waits in streams

	mu       sync.Mutex
	ready    *sync.Cond              // there is something to send, or the connection has ended
	welcome  *sync.Cond              // answered, less is unread, or the connection has ended
	answered bool                    // this side has written something on a stream, or has dialled
	end      error                   // why
	goodbye  []byte                  // the last frame to send
	open     map[*tcpStream]struct{} // all that are not over
	streams  map[uint32]*tcpStream   // those of them that both sides know
	nextIn   uint32                  // the next stream that the peer opens
	nextID   uint32                  // and that is opened here
	live     int                     // streams of the peer that are not over
	queues   [urgencies][]*tcpStream
	listed   []*tcpStream
	credit   int // bytes that may be sent
	room     int // bytes that the peer may send
	read     int // bytes read since the last credit
	grant    int // credit to send
	freed    int // streams that the peer may open more, to be told
	ping     bool
	pings    uint64 // pings sent
	pingedAt time.Time
	pong     *uint64
	rtt      time.Duration
	figures  Stats // the last read
}

// newTCP makes a connection of a TLS connection whose handshake is done, on the socket.
func newTCP(conn net.Conn, on *socket, peer Peer, dialled bool) *tcpConn {
	c := &tcpConn{
		conn: conn, socket: on, peer: peer, incoming: make(chan *tcpStream, MaxStreams),
		slots: make(chan struct{}, MaxStreams), done: make(chan struct{}), streams: make(map[uint32]*tcpStream),
		open: make(map[*tcpStream]struct{}), credit: maxConnWindow, room: maxConnWindow, nextIn: 1, nextID: 2,
	}
	c.ready, c.welcome = sync.NewCond(&c.mu), sync.NewCond(&c.mu)
	if dialled {
		c.nextIn, c.nextID = 2, 1
		c.answered = true
	}
	c.silent = time.AfterFunc(silence, func() { c.fail(fmt.Errorf("%w for %v", ErrSilent, silence)) })
	on.in = bufio.NewReaderSize(on.Conn, readAhead)
	on.heard = func() { c.silent.Reset(silence) }
	c.running.Add(2)
	go func() {
		defer c.running.Done()
		c.fail(c.receiving())
	}()
	go func() {
		defer c.running.Done()
		c.sending()
	}()
	if dialled {
		c.mu.Lock()
		c.beat = time.AfterFunc(0, c.beating)
		c.mu.Unlock()
	}
	return c
}

func (c *tcpConn) OpenStream(ctx context.Context, kind Kind) (Stream, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return nil, fmt.Errorf("open %s stream: %w", kind, c.cause())
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s stream: %w", kind, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return nil, fmt.Errorf("open %s stream: %w", kind, c.end)
	}
	s := newTCPStream(c, true)
	s.kind = kind
	c.open[s] = struct{}{}
	return s, nil
}

func (c *tcpConn) AcceptStream(ctx context.Context) (Stream, error) {
	select {
	case s := <-c.incoming:
		c.mu.Lock()
		defer c.mu.Unlock()
		s.accepted = true
		c.settle(s)
		return s, nil
	case <-c.done:
		return nil, fmt.Errorf("accept stream: %w", c.cause())
	case <-ctx.Done():
		return nil, fmt.Errorf("accept stream: %w", ctx.Err())
	}
}

// answer notes that this side has written something.
func (c *tcpConn) answer() {
	c.answered = true
	c.welcome.Signal()
}

func (c *tcpConn) Peer() Peer { return c.peer }

// cause returns why the connection has ended.
func (c *tcpConn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

func (c *tcpConn) Stats() Stats {
	figures := c.socket.figures()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil { // the system has forgotten the socket
		figures = c.figures
	}
	c.figures = figures
	if c.figures.RTT == 0 {
		c.figures.RTT = c.rtt
	}
	return c.figures
}

func (c *tcpConn) Close(code Code, reason string) error {
	goodbye := appendFrame(nil, frameClose, 0, 8+len(clip(reason)))
	goodbye = append(binary.BigEndian.AppendUint64(goodbye, uint64(code)), clip(reason)...)
	if c.finish(&Error{Code: code, Reason: clip(reason), Conn: true}, goodbye) {
		giveUp := time.AfterFunc(closeTime, func() { c.socket.Close() })
		defer giveUp.Stop()
	}
	c.running.Wait()
	return nil
}

// fail ends the connection for a reason that is not for the peer to hear.
func (c *tcpConn) fail(err error) {
	c.finish(err, nil)
	c.socket.abort()
}

// finish ends the connection and its streams, unless it has ended before. The goodbye is still sent, and
// the reader goes on until the peer has heard it.
func (c *tcpConn) finish(err error, goodbye []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return false
	}
	c.end, c.goodbye = err, goodbye
	for s := range c.open {
		s.endRead(err)
		s.endWrite(err)
	}
	c.silent.Stop()
	if c.beat != nil {
		c.beat.Stop()
	}
	close(c.done)
	c.ready.Broadcast()
	c.welcome.Signal()
	return true
}

// beating pings the peer and looks whether it gets what is sent.
func (c *tcpConn) beating() {
	if state, ok := c.socket.progress(); ok && c.stalled.look(state, c.clock.Now()) {
		c.fail(ErrStalled)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return
	}
	c.ping, c.pingedAt = true, c.clock.Now()
	c.pings++
	c.ready.Signal()
	c.beat.Reset(KeepAlive)
}

// lost says that the socket failed. A stream that ends well ends with io.EOF, which this is not.
func lost(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("connection lost: %w", err)
}

// settle forgets a stream that is over in both directions.
func (c *tcpConn) settle(s *tcpStream) {
	readOver, writeOver := s.readErr != nil || s.drained(), s.writeErr != nil || s.endSent
	if s.gone || !s.accepted || !readOver || !writeOver {
		return
	}
	s.gone = true
	delete(c.open, s)
	if s.id != 0 {
		delete(c.streams, s.id)
	}
	switch {
	case !s.mine:
		c.live--
		c.freed++
		c.ready.Signal()
	case s.id == 0: // the peer never heard of it
		select {
		case <-c.slots:
		default: // the peer gave back more than it had
		}
	}
}

// took gives credit for n bytes that were read or are of no use.
func (c *tcpConn) took(n int) {
	c.welcome.Signal()
	if c.read += n; c.read >= maxConnWindow/4 {
		c.grant, c.room, c.read = c.grant+c.read, c.room+c.read, 0
		c.ready.Signal()
	}
}
