package link

import (
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// arrivals is how many packets of an outlet's sockets wait to be read; more wait in the sockets.
const arrivals = 64

// outlet is the socket of an endpoint of a node with several ways: one socket on each way, of which all that is
// sent goes through one and all that comes is taken from any. To the hub it is as if the branch's address changed
// when it moves from one to another, and its connections go on with all their streams (RFC 9000, section 9). Packets
// are small on it, as its ways need not let the same through.
type outlet struct {
	home int                  // the way that it was made for
	ways atomic.Pointer[ways] // nil until it is known whether the hub is reached by this one

	in     chan arrived
	closed chan struct{}
	work   sync.WaitGroup // what reads
	once   sync.Once

	mu      sync.Mutex
	at      int              // the way that it sends by
	moved   time.Time        // there
	sockets []net.PacketConn // by way; nil: none could be opened
	late    chan struct{}    // closed while a deadline for reads is over
}

// arrived is a packet.
type arrived struct {
	b    []byte
	from net.Addr
	way  int
}

// newOutlet returns one with the socket of its own way, which it takes.
func newOutlet(home, ways int, own net.PacketConn) *outlet {
	o := &outlet{
		home: home, at: home, sockets: make([]net.PacketConn, ways), late: make(chan struct{}),
		in: make(chan arrived, arrivals), closed: make(chan struct{}),
	}
	o.add(home, own)
	return o
}

// add gives the outlet a socket on a way, unless it has one there.
func (o *outlet) add(way int, c net.PacketConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.closed:
	default:
		if o.sockets[way] == nil {
			o.sockets[way] = c
			o.work.Go(func() { o.read(way, c) })
			return
		}
	}
	_ = c.Close()
}

// lacks reports whether the outlet has no socket on the way.
func (o *outlet) lacks(way int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sockets[way] == nil
}

func (o *outlet) read(way int, c net.PacketConn) {
	for {
		b := make([]byte, maxDatagram)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			o.drop(way, c) // the interface may be gone: another socket is opened when it is back
			return
		}
		select {
		case o.in <- arrived{b[:n], from, way}:
		case <-o.closed:
			return
		}
	}
}

// drop takes a socket away that does not work any more.
func (o *outlet) drop(way int, c net.PacketConn) {
	_ = c.Close()
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.closed:
	default:
		o.sockets[way] = nil
	}
}

// where returns the way by which the outlet sends, and since when.
func (o *outlet) where() (int, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.at, o.moved
}

// move makes the outlet send by a way, if it has a socket there.
func (o *outlet) move(way int, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sockets[way] == nil || o.at == way {
		return false
	}
	o.at, o.moved = way, now
	return true
}

// ReadFrom is a part of [net.PacketConn].
func (o *outlet) ReadFrom(b []byte) (int, net.Addr, error) {
	o.mu.Lock()
	late := o.late
	o.mu.Unlock()
	select {
	case p := <-o.in:
		if w := o.ways.Load(); w != nil {
			w.heard(p.way)
		}
		return copy(b, p.b), p.from, nil
	case <-late:
		return 0, nil, os.ErrDeadlineExceeded
	case <-o.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo is a part of [net.PacketConn]. What cannot be sent is lost, as on a way on which nothing arrives.
func (o *outlet) WriteTo(b []byte, to net.Addr) (int, error) {
	o.mu.Lock()
	c := o.sockets[o.at]
	o.mu.Unlock()
	if c != nil {
		if _, err := c.WriteTo(b, to); err == nil {
			return len(b), nil
		}
	}
	if w := o.ways.Load(); w != nil {
		w.dark(o)
	}
	return len(b), nil
}

// Close is a part of [net.PacketConn].
func (o *outlet) Close() error {
	o.once.Do(func() {
		o.mu.Lock()
		close(o.closed)
		all := slices.Clone(o.sockets)
		o.mu.Unlock()
		for _, c := range all {
			if c != nil {
				_ = c.Close()
			}
		}
		o.work.Wait()
	})
	return nil
}

// LocalAddr is a part of [net.PacketConn].
func (o *outlet) LocalAddr() net.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range append([]net.PacketConn{o.sockets[o.home]}, o.sockets...) {
		if c != nil {
			return c.LocalAddr()
		}
	}
	return new(net.UDPAddr)
}

// SetReadDeadline is a part of [net.PacketConn]: a deadline is over at once, or there is none.
func (o *outlet) SetReadDeadline(t time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t.IsZero() {
		o.late = make(chan struct{})
		return nil
	}
	select {
	case <-o.late:
	default:
		close(o.late)
	}
	return nil
}

// SetDeadline is a part of [net.PacketConn].
func (o *outlet) SetDeadline(t time.Time) error { return o.SetReadDeadline(t) }

// SetWriteDeadline is a part of [net.PacketConn]; writing never waits.
func (o *outlet) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer let quic-go ask for the large socket buffers that it wants.
func (o *outlet) SetReadBuffer(n int) error {
	return o.buffers(func(c buffers) error { return c.SetReadBuffer(n) })
}

// SetWriteBuffer does so for what is sent.
func (o *outlet) SetWriteBuffer(n int) error {
	return o.buffers(func(c buffers) error { return c.SetWriteBuffer(n) })
}

type buffers interface {
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

func (o *outlet) buffers(set func(buffers) error) error {
	o.mu.Lock()
	all := slices.Clone(o.sockets)
	o.mu.Unlock()
	for _, c := range all {
		if c, ok := c.(buffers); ok {
			if err := set(c); err != nil {
				return err
			}
		}
	}
	return nil
}
