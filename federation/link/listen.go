package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// Listener accepts connections on a UDP socket and, if it can be had, a TCP socket with the same number.
type Listener struct {
	e        *endpoint
	l        *quic.Listener
	tcp      *tcpListener // nil without
	tcpErr   error        // why
	opt      Options
	bundles  bundles
	accepted chan Conn
	closing  chan struct{}
	closed   chan struct{} // closed when nothing is accepted any more
	ended    error         // why; set before
	running  sync.WaitGroup
	once     sync.Once
	end      error // set by once
}

// Listen opens the sockets on addr. Options.Verify must be set. Without the TCP socket it works too; see
// [Listener.TCP].
func Listen(addr string, opt Options) (*Listener, error) {
	accepted := make(chan Conn)
	for try := 1; ; try++ {
		l, err := listen(addr, opt, accepted)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		if _, port, _ := net.SplitHostPort(addr); l.tcpErr != nil && port == "0" && try < portTries {
			// The system chose the number for UDP alone.
			if err := l.e.close(); err != nil {
				return nil, fmt.Errorf("listen on %s: %w", addr, err)
			}
			continue
		}
		conf := config()
		conf.AllowConnectionWindowIncrease = new(windows).allow
		if opt.Qlog != nil {
			conf.Tracer = opt.Qlog.tracer
		}
		if l.l, err = l.e.t.Listen(opt.TLS, conf); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", addr, err), l.closeSockets())
		}
		l.running.Go(l.accepting)
		return l, nil
	}
}

// listen opens the sockets.
func listen(addr string, opt Options, accepted chan Conn) (*Listener, error) {
	e, err := opt.open(addr)
	if err != nil {
		return nil, err
	}
	l := &Listener{
		e: e, opt: opt, accepted: accepted, closing: make(chan struct{}), closed: make(chan struct{}),
		bundles: bundles{of: make(map[ticket]*bundle)},
	}
	if opt.ListenPacket == nil || opt.ListenStream != nil {
		l.tcp, l.tcpErr = listenTCP(e.packets.LocalAddr().String(), opt, accepted, l.bundles.take)
	}
	return l, nil
}

// Addr returns the address of the sockets.
func (l *Listener) Addr() net.Addr { return l.e.packets.LocalAddr() }

// TCP returns why there are no connections over TCP, nil if there are.
func (l *Listener) TCP() error { return l.tcpErr }

// accepting takes the connections over QUIC until the socket is closed. Those that join a bundle are not
// held up by a caller that accepts no others.
func (l *Listener) accepting() {
	defer close(l.closed)
	for {
		c, err := l.l.Accept(context.Background())
		if err != nil {
			l.ended = meaning(err)
			return
		}
		l.take(c)
	}
}

func (l *Listener) take(c *quic.Conn) {
	state := c.ConnectionState().TLS
	site, refused := l.opt.Verify(state)
	if refused != nil {
		// Nothing to do about a peer that is gone before it hears why.
		_ = c.CloseWithError(quic.ApplicationErrorCode(refused.Code), clip(refused.Reason))
		return
	}
	if l.opt.Qlog != nil {
		l.opt.Qlog.named(c.Context(), string(site))
	}
	one := Conn(newConn(c, nil, site))
	switch protocol := state.NegotiatedProtocol; {
	case l.opt.Join == "" || protocol == l.opt.Single:
	case protocol == l.opt.Join:
		l.bundles.take(one)
		return
	default:
		if key, err := newTicket(state); err == nil {
			one = l.bundles.found(one, key)
		}
	}
	select {
	case l.accepted <- one:
	case <-c.Context().Done():
		_ = one.Close(0, "")
	case <-l.closing:
		_ = one.Close(0, "")
	}
}

// Accept returns the next connection whose peer Options.Verify accepted. Its error means that the
// listener is closed or ctx is done. The caller closes the connection.
func (l *Listener) Accept(ctx context.Context) (Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept connection: %w", l.ended)
	case <-ctx.Done():
		return nil, fmt.Errorf("accept connection: %w", ctx.Err())
	}
}

// Close ends the listener and every connection that it accepted, and waits for them.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.closing)
		l.end = errors.Join(l.l.Close(), l.closeSockets())
		l.running.Wait() // what was just being accepted is the bundles' by then
		l.bundles.close()
	})
	return l.end
}

func (l *Listener) closeSockets() error {
	var err error
	if l.tcp != nil {
		err = l.tcp.close()
	}
	return errors.Join(err, l.e.close())
}
