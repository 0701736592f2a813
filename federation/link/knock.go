package link

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// knockEvery is how often a hub that does not answer is knocked at: 2 kbit/s with all headers.
	knockEvery = 250 * time.Millisecond
	// knockSize is the least that a hub answers, and some bytes more.
	knockSize = 48
	// knockAfter is how long a handshake goes on before the hub is knocked at, and knockGrace how long one
	// that was heard of may still take after the answer. Both double with each new handshake, as a hub may
	// also be busy, or far away.
	knockAfter = 250 * time.Millisecond
	knockGrace = 500 * time.Millisecond
)

// errAnswered ends a handshake of which nothing was heard although the hub answers.
var errAnswered = errors.New("the hub answers, but not to this handshake")

// Knock waits until the hub at addr answers anything at all; an error means that ctx ended before. It is
// how a link is back at once when a dark path heals: QUIC's own attempts are seconds apart by then. A knock
// is a small packet that belongs to no connection, which a hub answers with a stateless reset (RFC 9000,
// section 10.3). The answer proves nothing about who gives it.
func Knock(ctx context.Context, addr string, opt Options) error {
	addrs, err := opt.resolve(ctx, addr)
	if err != nil {
		return fmt.Errorf("knock at %s: %w", addr, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addrs = addrs[:min(len(addrs), maxAddrs)]
	errs := make(chan error, len(addrs))
	for _, a := range addrs {
		go func() { errs <- knock(ctx, a, opt) }()
	}
	var first error
	answered := false
	for range addrs {
		err := <-errs
		if err == nil {
			answered = true
			cancel() // the others end, too
		}
		first = cmp.Or(first, err)
	}
	if answered {
		return nil
	}
	return first
}

// knock does so at one address.
func knock(ctx context.Context, addr *net.UDPAddr, opt Options) error {
	c, err := opt.listenPacket(opt.Local.from(addr.IP))
	if err != nil {
		return err
	}
	sent := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(sent)
		tick := time.NewTicker(knockEvery)
		defer tick.Stop()
		for {
			// What cannot be sent now may be later: a dark path also is one without a route.
			_, _ = c.WriteTo(knockPacket(), addr)
			select {
			case <-tick.C:
			case <-ctx.Done():
				_ = c.Close() // ends the read
				return
			}
		}
	}()
	err = answered(c, addr)
	if e := ctx.Err(); e != nil {
		err = e
	}
	cancel()
	<-sent
	return err
}

// answered returns when a packet comes from addr.
func answered(c net.PacketConn, addr *net.UDPAddr) error {
	buf := make([]byte, packetSize)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("knock at %s: %w", addr, err)
		}
		if u, ok := from.(*net.UDPAddr); ok && u.Port == addr.Port && u.IP.Equal(addr.IP) {
			return nil
		}
	}
}

// knockPacket looks like a packet of a connection that nobody has.
func knockPacket() []byte {
	b := make([]byte, knockSize)
	_, _ = rand.Read(b) // never fails
	b[0] = b[0]&0x3f | 0x40
	return b
}
