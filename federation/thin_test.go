package federation

import (
	"net"
	"os"
	"sync"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

// thinCable is a cable in memory from an edge to a hub with a rate, a delay and a queue towards the hub, and a
// delay back. It keeps to the clock of the test.
type thinCable struct {
	rate  float64 // bytes a second
	delay time.Duration
	queue int // packets

	mu    sync.Mutex
	ends  map[string]*thinEnd
	until time.Time // when what is queued will have gone
	ports int
	lost  int
	most  time.Duration // that a packet stood in the queue, since it was asked for
}

func (c *thinCable) listen(up bool) func(string) (net.PacketConn, error) {
	return func(addr string) (net.PacketConn, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ports++
		e := &thinEnd{
			cable: c, up: up, in: make(chan thinPacket, 4096), closed: make(chan struct{}), late: make(chan struct{}),
			addr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20000 + c.ports},
		}
		if c.ends == nil {
			c.ends = map[string]*thinEnd{}
		}
		c.ends[e.addr.String()] = e
		return e, nil
	}
}

// longest returns how long a packet stood in the queue at most since the last call.
func (c *thinCable) longest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.most
	c.most = 0
	return most
}

// arrival returns when a packet arrives that is sent now, and whether it does.
func (c *thinCable) arrival(up bool, size int) (time.Duration, bool) {
	if !up {
		return c.delay, true
	}
	now := clock.Clock{}.Now()
	stands := max(c.until.Sub(now), 0)
	if stands.Seconds()*c.rate > float64(c.queue*1200) {
		c.lost++
		return 0, false
	}
	if c.until.Before(now) {
		c.until = now
	}
	c.until = c.until.Add(time.Duration(float64(size+28) / c.rate * float64(time.Second)))
	c.most = max(c.most, stands)
	return c.until.Sub(now) + c.delay, true
}

type thinPacket struct {
	b    []byte
	from net.Addr
}

type thinEnd struct {
	cable *thinCable
	up    bool
	addr  *net.UDPAddr
	in    chan thinPacket

	mu     sync.Mutex
	once   sync.Once
	closed chan struct{}
	late   chan struct{} // closed at the read deadline
}

func (e *thinEnd) WriteTo(b []byte, to net.Addr) (int, error) {
	p := thinPacket{append([]byte(nil), b...), e.addr}
	e.cable.mu.Lock()
	peer := e.cable.ends[to.String()]
	after, arrives := e.cable.arrival(e.up, len(b))
	e.cable.mu.Unlock()
	if peer != nil && arrives {
		time.AfterFunc(after, func() {
			select {
			case peer.in <- p:
			default:
			}
		})
	}
	return len(b), nil
}

func (e *thinEnd) ReadFrom(b []byte) (int, net.Addr, error) {
	e.mu.Lock()
	late := e.late
	e.mu.Unlock()
	select {
	case p := <-e.in:
		return copy(b, p.b), p.from, nil
	case <-late:
		return 0, nil, os.ErrDeadlineExceeded
	case <-e.closed:
		return 0, nil, net.ErrClosed
	}
}

func (e *thinEnd) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

func (e *thinEnd) LocalAddr() net.Addr { return e.addr }

// SetReadDeadline is used with the past, to end a read, and with none.
func (e *thinEnd) SetReadDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.IsZero() {
		e.late = make(chan struct{})
		return nil
	}
	select {
	case <-e.late:
	default:
		close(e.late)
	}
	return nil
}

func (e *thinEnd) SetDeadline(time.Time) error      { return nil }
func (e *thinEnd) SetWriteDeadline(time.Time) error { return nil }
