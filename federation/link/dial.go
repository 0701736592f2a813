package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// dialStagger is how long an address has for itself before the next is tried beside it (RFC 8305).
	dialStagger = 250 * time.Millisecond
	// maxAddrs bounds the addresses of a name that are tried; a name server may tell any number.
	maxAddrs = 8
)

// Dial connects to the hub at addr, host and port. Of several addresses of the host each is tried as
// soon as the one before it has failed or is late, and the first that connects is kept. The caller
// closes the connection.
func Dial(ctx context.Context, addr string, opt Options) (Conn, error) {
	addrs, err := opt.resolve(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return dialFirst(ctx, addrs[:min(len(addrs), maxAddrs)], opt)
}

// dialFirst returns when all attempts have ended.
func dialFirst(ctx context.Context, addrs []*net.UDPAddr, opt Options) (Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var attempts sync.WaitGroup
	conns, errs := make(chan Conn, len(addrs)), make([]error, len(addrs))
	before := make(chan struct{}) // closed when the attempt before has failed
	close(before)
	for i, a := range addrs {
		failed, turn := before, time.Duration(i)*dialStagger
		before = make(chan struct{})
		next := before
		attempts.Go(func() {
			select {
			case <-failed:
			case <-time.After(turn):
			case <-ctx.Done():
				return
			}
			c, err := dialOne(ctx, a, opt)
			if err != nil {
				errs[i] = fmt.Errorf("dial %s: %w", a, err)
				close(next)
				return
			}
			conns <- c
			cancel()
		})
	}
	attempts.Wait()
	close(conns)
	first, ok := <-conns
	if !ok {
		return nil, errors.Join(append(errs, ctx.Err())...)
	}
	for c := range conns {
		_ = c.Close(0, "") // it came at the same moment and is not needed
	}
	return first, nil
}

// dialOne makes one handshake, and a new one when the hub answers and the first does not get on: its next
// packet might be seconds away.
func dialOne(ctx context.Context, addr *net.UDPAddr, opt Options) (Conn, error) {
	for wait, grace := knockAfter, knockGrace; ; wait, grace = wait*2, grace*2 {
		attempt, end := context.WithCancelCause(ctx)
		var w watchdog
		knocked := make(chan struct{})
		go func() {
			defer close(knocked)
			if within(attempt, wait) && knock(attempt, addr, opt) == nil && (!w.heard() || within(attempt, grace)) {
				end(errAnswered)
			}
		}()
		c, err := handshake(attempt, addr, opt, &w)
		again := errors.Is(context.Cause(attempt), errAnswered)
		end(nil)
		<-knocked
		if err == nil || !again || ctx.Err() != nil {
			return c, err
		}
	}
}

func handshake(ctx context.Context, addr *net.UDPAddr, opt Options, w *watchdog) (Conn, error) {
	e, err := opt.open(anyPort(addr))
	if err != nil {
		return nil, err
	}
	conf := config()
	conf.Tracer, conf.DisablePathMTUDiscovery = w.trace, opt.Small
	c, err := e.t.Dial(ctx, addr, opt.TLS, conf)
	if err != nil {
		return nil, errors.Join(meaning(err), e.close())
	}
	w.watch(c, &e.running, func(ctx context.Context) error { return knock(ctx, addr, opt) })
	return newConn(c, e, ""), nil
}

// within waits so long and reports whether ctx has not ended meanwhile.
func within(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// anyPort is where a socket listens that speaks to addr.
func anyPort(addr *net.UDPAddr) string {
	if addr.IP.IsLoopback() {
		return net.JoinHostPort(addr.IP.String(), "0")
	}
	return ":0"
}

func (o Options) resolve(ctx context.Context, addr string) ([]*net.UDPAddr, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("read address: %w: %w", err, branchline.ErrInvalid)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, fmt.Errorf("read port: %w: %w", err, branchline.ErrInvalid)
	}
	ips, err := o.Names.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve: %w", err)
	}
	addrs := make([]*net.UDPAddr, 0, len(ips))
	for _, ip := range ips {
		addrs = append(addrs, &net.UDPAddr{IP: ip.IP, Port: port, Zone: ip.Zone})
	}
	return addrs, nil
}
