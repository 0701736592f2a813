package link

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/branchline-video/branchline"
)

// pipeWindow is how much one direction of a stream in memory holds unread, as a QUIC stream holds its
// window: small, so that slow readers are felt soon.
const pipeWindow = 64 << 10

// Pipe returns the two ends of a connection in memory between the nodes a and b, as a and as b see
// it. It behaves as one over QUIC does; closing either end ends both. Priorities do nothing.
func Pipe(a, b branchline.SiteID) (atA, atB Conn) {
	p := &pipe{done: make(chan struct{})}
	toA, toB := make(chan *pipeStream, MaxStreams), make(chan *pipeStream, MaxStreams)
	ca := &pipeConn{p: p, out: toB, in: toA, peer: Peer{Site: b, Addr: "memory"}}
	cb := &pipeConn{p: p, out: toA, in: toB, peer: Peer{Site: a, Addr: "memory"}}
	ca.other, cb.other = cb, ca
	return ca, cb
}

// pipe is what both ends share.
type pipe struct {
	done chan struct{} // closed with the pipe

	mu     sync.Mutex
	by     *pipeConn // who closed it
	end    Error     // as by sees it
	halves []*half   // to end with the pipe
}

// ended returns why the pipe is closed, as c sees it; nil if it is open. The caller holds mu.
func (p *pipe) ended(c *pipeConn) error {
	if p.by == nil {
		return nil
	}
	e := p.end
	e.Remote = p.by != c
	return &e
}

func (p *pipe) cause(c *pipeConn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended(c)
}

func (p *pipe) add(c *pipeConn, halves ...*half) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ended(c); err != nil {
		return err
	}
	p.halves = append(slices.DeleteFunc(p.halves, (*half).over), halves...)
	return nil
}

// close marks the pipe closed and returns what is to end with it.
func (p *pipe) close(by *pipeConn, end Error) []*half {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by != nil {
		return nil
	}
	p.by, p.end = by, end
	close(p.done)
	return p.halves
}

type pipeConn struct {
	p       *pipe
	other   *pipeConn
	out, in chan *pipeStream
	peer    Peer
}

func (c *pipeConn) OpenStream(ctx context.Context, kind Kind) (Stream, error) {
	up, down := newHalf(c), newHalf(c.other)
	up.buf = []byte{byte(kind)}
	if err := c.p.add(c, up, down); err != nil {
		return nil, fmt.Errorf("open %s stream: %w", kind, err)
	}
	select {
	case c.out <- &pipeStream{in: up, out: down}:
		return &pipeStream{in: down, out: up}, nil
	case <-c.p.done:
		return nil, fmt.Errorf("open %s stream: %w", kind, c.p.cause(c))
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s stream: %w", kind, ctx.Err())
	}
}

func (c *pipeConn) AcceptStream(ctx context.Context) (Stream, error) {
	select {
	case s := <-c.in:
		return s, nil
	case <-c.p.done:
		return nil, fmt.Errorf("accept stream: %w", c.p.cause(c))
	case <-ctx.Done():
		return nil, fmt.Errorf("accept stream: %w", ctx.Err())
	}
}

func (c *pipeConn) Peer() Peer   { return c.peer }
func (c *pipeConn) Stats() Stats { return Stats{} }

func (c *pipeConn) Close(code Code, reason string) error {
	end := Error{Code: code, Reason: clip(reason), Conn: true}
	for _, h := range c.p.close(c, end) {
		h.fail(h.writer == c, end)
	}
	return nil
}

// pipeStream is one end of a stream.
type pipeStream struct{ in, out *half }

func (s *pipeStream) Read(b []byte) (int, error)  { return s.in.read(b) }
func (s *pipeStream) Write(b []byte) (int, error) { return s.out.write(b) }
func (s *pipeStream) SetPriority(int8)            {}

func (s *pipeStream) Close() error {
	s.out.finish()
	return nil
}

func (s *pipeStream) Reset(code Code) {
	s.in.fail(false, Error{Code: code})
	if !s.out.finished() {
		s.out.fail(true, Error{Code: code})
	}
}

// half is one direction of a stream.
type half struct {
	writer *pipeConn

	mu       sync.Mutex
	changed  *sync.Cond
	buf      []byte
	fin      bool
	readErr  error // what its reader is told; set together with writeErr
	writeErr error
}

func newHalf(writer *pipeConn) *half {
	h := &half{writer: writer}
	h.changed = sync.NewCond(&h.mu)
	return h
}

// fail ends the direction, by the decision of its writer or of its reader.
func (h *half) fail(byWriter bool, e Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readErr != nil || h.fin && len(h.buf) == 0 {
		return
	}
	here, there := e, e
	there.Remote = true
	h.readErr, h.writeErr = &here, &there
	if byWriter {
		h.readErr, h.writeErr = &there, &here
	}
	h.changed.Broadcast()
}

func (h *half) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fin = true
	h.changed.Broadcast()
}

func (h *half) finished() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fin
}

// over reports whether nothing will change any more.
func (h *half) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readErr != nil || h.fin && len(h.buf) == 0
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readErr != nil:
			return 0, h.readErr
		case len(h.buf) > 0 || len(b) == 0:
			n := copy(b, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.fin:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(b []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(b) > 0 {
		switch room := pipeWindow - len(h.buf); {
		case h.writeErr != nil:
			return n, h.writeErr
		case h.fin:
			return n, io.ErrClosedPipe
		case room > 0:
			k := min(room, len(b))
			h.buf = append(h.buf, b[:k]...)
			n, b = n+k, b[k:]
			h.changed.Broadcast()
		default:
			h.changed.Wait()
		}
	}
	return n, nil
}
