package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/branchline-video/branchline"
)

const (
	// dialStagger is how long an address has for itself before the next is tried beside it (RFC 8305).
	dialStagger = 250 * time.Millisecond
	// maxAddrs bounds the addresses of a name that are tried; a name server may tell any number.
	maxAddrs = 8
)

// Dial connects to the hub at addr, host and port, over the first of Options.Carriers that gets through. Of
// several addresses of the host each is tried as soon as the one before it has failed or is late, and the
// first that connects is kept. The errors on which somebody acts are [ErrIntercepted], [*CertificateError]
// and what that wraps. The caller closes the connection.
func Dial(ctx context.Context, addr string, opt Options) (Conn, error) {
	if len(opt.Uplinks) == 0 {
		return dialFrom(ctx, addr, opt)
	}
	attempts := make([]attempt, 0, len(opt.Uplinks))
	for _, l := range OrderUplinks(opt.Uplinks) {
		one := opt
		one.Local = l.Local
		attempts = append(attempts, attempt{l.String(), func(ctx context.Context) (Conn, error) {
			return dialFrom(ctx, addr, one)
		}})
	}
	return race(ctx, UplinkStagger, attempts)
}

// dialFrom dials from opt.Local.
func dialFrom(ctx context.Context, addr string, opt Options) (Conn, error) {
	addrs, err := opt.resolve(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	addrs = addrs[:min(len(addrs), maxAddrs)]
	carriers := opt.carriers()
	if len(carriers) == 1 {
		opt.Carriers = carriers
		return dialFirst(ctx, addrs, opt)
	}
	attempts := make([]attempt, 0, len(carriers))
	for _, c := range carriers {
		one := opt
		one.Carriers = []Carrier{c}
		attempts = append(attempts, attempt{string(c), func(ctx context.Context) (Conn, error) {
			return dialFirst(ctx, addrs, one)
		}})
	}
	return race(ctx, carrierStagger, attempts)
}

// dialFirst dials the addresses by the first of the carriers. It returns when all attempts have ended.
func dialFirst(ctx context.Context, addrs []*net.UDPAddr, opt Options) (Conn, error) {
	dial := dialOne
	if opt.carriers()[0] == CarrierTCP {
		dial = dialTCP
	}
	attempts := make([]attempt, 0, len(addrs))
	for _, a := range addrs {
		attempts = append(attempts, attempt{"dial " + a.String(), func(ctx context.Context) (Conn, error) {
			return dial(ctx, a, opt)
		}})
	}
	return race(ctx, dialStagger, attempts)
}

// attempt is one way to connect.
type attempt struct {
	name string
	dial func(context.Context) (Conn, error)
}

// race makes each attempt when the one before it has failed, or stagger after that began, and keeps the
// first that succeeds. It returns when all have ended.
func race(ctx context.Context, stagger time.Duration, all []attempt) (Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var attempts sync.WaitGroup
	conns, errs := make(chan Conn, len(all)), make([]error, len(all))
	before := make(chan struct{}) // closed when the attempt before has failed
	close(before)
	for i, a := range all {
		failed, turn := before, time.Duration(i)*stagger
		before = make(chan struct{})
		next := before
		attempts.Go(func() {
			select {
			case <-failed:
			case <-time.After(turn):
			case <-ctx.Done():
				return
			}
			c, err := a.dial(ctx)
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", a.name, err)
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
	e, err := opt.outward(addr)
	if err != nil {
		return nil, err
	}
	c, err := e.dial(ctx, addr, opt, w)
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	if opt.Join == "" {
		c.own = e
		return c, nil
	}
	b, err := dialled(c, e, addr, opt)
	if err != nil {
		c.own = e
		return nil, errors.Join(err, c.Close(0, ""))
	}
	return b, nil
}

// dial makes a connection of the endpoint, which w watches.
func (e *endpoint) dial(ctx context.Context, addr *net.UDPAddr, opt Options, w *watchdog) (*conn, error) {
	w.e = e
	conf := config()
	conf.Tracer, conf.DisablePathMTUDiscovery = opt.Tap.tracer(w), opt.Small
	if !opt.Small {
		conf.InitialPacketSize = max(packetSize, opt.known)
	}
	c, err := e.t.Dial(ctx, addr, guarded(opt.TLS), conf)
	if err != nil {
		return nil, quicHandshakeError(meaning(err))
	}
	w.watch(c)
	e.seeking.linked.Store(true)
	made := newConn(c, nil, "")
	made.via, made.mtu, made.peer.Uplink = e, &w.mtu, opt.Local.Name
	return made, nil
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

// dialled makes a bundle of a first connection. All of its connections share the socket: a firewall sees
// one flow, and an edge has one port, however many they are.
func dialled(c *conn, e *endpoint, addr *net.UDPAddr, opt Options) (*bundle, error) {
	key, err := newTicket(c.c.ConnectionState().TLS)
	if err != nil {
		return nil, err
	}
	b := newBundle(c, key, opt.Small, e.close)
	if e.outlet != nil {
		b.ways = newWays(e, addr, opt)
		b.own = b.ways.close
	}
	more := opt
	more.TLS = opt.TLS.Clone()
	more.TLS.NextProtos = []string{opt.Join}
	b.dial = b.patient(func(ctx context.Context, small bool) (Conn, error) {
		more := more
		more.Small, more.known = small || opt.Small, b.passes()
		by := e
		if b.ways != nil {
			var err error
			if by, err = b.ways.endpoint(b.byEndpoint()); err != nil {
				return nil, err
			}
		}
		c, err := by.dial(ctx, addr, more, new(watchdog))
		var refused *quic.TransportError
		if errors.As(err, &refused) && refused.Remote && refused.ErrorCode.IsCryptoError() {
			return nil, errors.Join(errAlone, err)
		}
		if err != nil {
			return nil, err
		}
		return c, nil
	})
	if b.ways == nil {
		b.near = more.near(addr)
	}
	b.work.Go(b.watch)
	if b.ways != nil {
		b.work.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			b.work.Go(func() {
				select {
				case <-b.done:
				case <-b.closing:
				}
				cancel()
			})
			b.ways.run(ctx)
		})
	}
	return b, nil
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
		if !o.Local.reaches(ip.IP) {
			continue
		}
		addrs = append(addrs, &net.UDPAddr{IP: ip.IP, Port: port, Zone: ip.Zone})
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolve: no address that can be reached from %s: %w", o.Local, branchline.ErrUnavailable)
	}
	return addrs, nil
}
