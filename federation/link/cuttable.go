package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Cuttable is a cable: the packet connections that it wraps lose every packet, in both directions,
// while it is cut, large ones while it is narrow, and some at random if it is told to; its TCP connections
// stand still while it is cut. Nobody is told, as with a real one. The zero value is whole. Its methods may be
// called at any time.
type Cuttable struct {
	// Seed is of the losses at random; it is not changed after the first packet.
	Seed uint64

	cut  atomic.Bool
	most atomic.Int64  // bytes of a packet that passes; 0 for no limit
	loss atomic.Uint64 // of 1<<32 packets
	nth  atomic.Uint64 // packet

	mu     sync.Mutex
	healed chan struct{} // closed by Heal; nil while the cable is whole
	ended  []net.Conn    // closed at this end while the cable is cut; the other hears of it when it heals
}

// Lose makes the cable lose a share of all packets at random, from 0 for none to 1. The n-th packet after
// the cable was made is lost or not by the seed alone.
func (c *Cuttable) Lose(share float64) { c.loss.Store(uint64(share * (1 << 32))) }

func (c *Cuttable) unlucky() bool {
	loss := c.loss.Load()
	return loss > 0 && rand.New(rand.NewPCG(c.Seed, c.nth.Add(1))).Uint64()>>32 < loss
}

// Cut makes the cable lose every packet from now on.
func (c *Cuttable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.healed == nil {
		c.healed = make(chan struct{})
	}
	c.cut.Store(true)
}

// Heal makes the cable whole again.
func (c *Cuttable) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut.Store(false)
	if c.healed != nil {
		close(c.healed)
		c.healed = nil
	}
	for _, conn := range c.ended {
		_ = conn.Close() // nobody asks any more
	}
	c.ended = nil
}

// keep takes a connection that was closed at this end, if the cable is cut.
func (c *Cuttable) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.healed != nil {
		c.ended = append(c.ended, conn)
	}
	return c.healed != nil
}

// whole waits until the cable is whole; false if stop is closed before.
func (c *Cuttable) whole(stop <-chan struct{}) bool {
	for {
		c.mu.Lock()
		healed := c.healed
		c.mu.Unlock()
		if healed == nil {
			return true
		}
		select {
		case <-healed:
		case <-stop:
			return false
		}
	}
}

// DialStream connects a TCP socket through the cable. It fits [Options.DialStream].
func (c *Cuttable) DialStream(ctx context.Context, addr string) (net.Conn, error) {
	if !c.whole(ctx.Done()) {
		return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	conn, err := Local{}.dialStream(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &cutStream{Conn: conn, cable: c, closed: make(chan struct{})}, nil
}

// cutStream holds up what goes through the cable while that is cut, as TCP would send it again.
type cutStream struct {
	net.Conn
	cable  *Cuttable
	closed chan struct{}
	once   sync.Once
}

func (c *cutStream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.cable.whole(c.closed) {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *cutStream) Write(b []byte) (int, error) {
	if !c.cable.whole(c.closed) {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

func (c *cutStream) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		if err = nil; c.cable.keep(c.Conn) {
			err = c.SetDeadline(time.Unix(1, 0)) // ends what is being read and written
			return
		}
		err = c.Conn.Close()
	})
	return err
}

// IsCut reports whether the cable is cut.
func (c *Cuttable) IsCut() bool { return c.cut.Load() }

// Narrow makes the cable lose packets of more bytes than most, as a path does whose least MTU has shrunk
// behind a firewall that lets nobody know. With 0 all pass again.
func (c *Cuttable) Narrow(most int) { c.most.Store(int64(most)) }

func (c *Cuttable) loses(packet int) bool {
	most := c.most.Load()
	return c.cut.Load() || most > 0 && int64(packet) > most || c.unlucky()
}

// ListenPacket opens a UDP socket on addr at the end of the cable. It fits [Options.ListenPacket].
func (c *Cuttable) ListenPacket(addr string) (net.PacketConn, error) {
	p, err := listenUDP(addr)
	if err != nil {
		return nil, err
	}
	return c.Wrap(p), nil
}

// Wrap puts the cable between p and its user. Only what net.PacketConn has is passed on: the faster
// calls of a UDP socket would go round the cable.
func (c *Cuttable) Wrap(p net.PacketConn) net.PacketConn { return &cutConn{PacketConn: p, cable: c} }

type cutConn struct {
	net.PacketConn
	cable *Cuttable
}

func (c *cutConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := c.PacketConn.ReadFrom(b)
		if err != nil || !c.cable.loses(n) {
			return n, addr, err
		}
	}
}

func (c *cutConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if c.cable.loses(len(b)) {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, addr)
}

// SyscallConn lets quic-go forbid routers to cut packets in pieces, without which it keeps them small.
func (c *cutConn) SyscallConn() (syscall.RawConn, error) {
	if u, ok := c.PacketConn.(*net.UDPConn); ok {
		return u.SyscallConn()
	}
	return nil, fmt.Errorf("not a socket: %w", net.ErrClosed)
}

// SetReadBuffer and SetWriteBuffer let quic-go ask for the large socket buffers that it wants.
func (c *cutConn) SetReadBuffer(n int) error {
	if u, ok := c.PacketConn.(*net.UDPConn); ok {
		return u.SetReadBuffer(n)
	}
	return nil
}

func (c *cutConn) SetWriteBuffer(n int) error {
	if u, ok := c.PacketConn.(*net.UDPConn); ok {
		return u.SetWriteBuffer(n)
	}
	return nil
}
