package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// maxHandshakes bounds the TCP connections whose handshake is under way, or which nobody has accepted
	// yet: all sites of a hub may come at once. So many of them may be from one network, as several edges
	// may be behind one address; a stranger who sends nothing holds a place for HandshakeTimeout.
	maxHandshakes     = 512
	maxHandshakesFrom = 32
	// portTries is how often a free port is looked for that UDP and TCP both have.
	portTries = 8
	// acceptPause is how long the listener rests when it cannot accept, mostly for want of descriptors.
	acceptPause = 50 * time.Millisecond
)

// tcpListener accepts connections over TCP beside those over QUIC.
type tcpListener struct {
	l        net.Listener
	tls      *tls.Config
	verify   func(tls.ConnectionState) (branchline.SiteID, *Error)
	join     string     // the protocol of connections that join a bundle; empty: there are none
	joined   func(Conn) // takes them
	accepted chan<- Conn
	closing  context.Context // ends when Close begins
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	shake int // handshakes under way
	from  map[netip.Prefix]int
}

// listenTCP opens a TCP socket on the address. Connections go to accepted, those that join a bundle to joined.
func listenTCP(addr string, opt Options, accepted chan<- Conn, joined func(Conn)) (*tcpListener, error) {
	listen := opt.ListenStream
	if listen == nil {
		listen = listenStream
	}
	l, err := listen(addr)
	if err != nil {
		return nil, err
	}
	t := &tcpListener{
		l: l, tls: opt.TLS, verify: opt.Verify, join: opt.Join, joined: joined, accepted: accepted,
		from: make(map[netip.Prefix]int),
	}
	t.closing, t.cancel = context.WithCancel(context.Background())
	t.running.Go(t.accepting)
	return t, nil
}

func listenStream(addr string) (net.Listener, error) {
	conf := net.ListenConfig{KeepAlive: -1, Control: prepare}
	l, err := conf.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open TCP socket: %w", err)
	}
	return l, nil
}

// close ends the listener and every connection that it accepted, and waits for them.
func (t *tcpListener) close() error {
	t.cancel()
	err := t.l.Close()
	t.running.Wait()
	return err
}

func (t *tcpListener) accepting() {
	for t.closing.Err() == nil {
		raw, err := t.l.Accept()
		if err != nil {
			if !t.pause() {
				return
			}
			continue
		}
		leave, ok := t.enter(raw.RemoteAddr())
		on := &socket{Conn: raw}
		if !ok {
			on.abort()
			continue
		}
		t.running.Go(func() { t.serve(on, leave) })
	}
}

// enter takes a place for a handshake.
func (t *tcpListener) enter(addr net.Addr) (leave func(), ok bool) {
	from := Network(addr.String())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shake >= maxHandshakes || t.from[from] >= maxHandshakesFrom {
		return nil, false
	}
	t.shake++
	t.from[from]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.shake--
		if t.from[from]--; t.from[from] == 0 {
			delete(t.from, from)
		}
	}, true
}

// serve brings a connection from its first byte to its end.
func (t *tcpListener) serve(on *socket, leave func()) {
	c := t.handshake(on)
	if c == nil {
		leave()
		return
	}
	t.hand(c)
	leave()
	select {
	case <-c.done:
	case <-t.closing.Done():
	}
	_ = c.Close(0, "") // never fails
}

// hand gives the connection to who waits for it, unless it ends before.
func (t *tcpListener) hand(c *tcpConn) {
	if t.join != "" && c.peer.Protocol == t.join {
		t.joined(c)
		return
	}
	select {
	case t.accepted <- c:
	case <-c.done:
	case <-t.closing.Done():
	}
}

// handshake returns the connection of a peer that was accepted, nil of one that was not.
func (t *tcpListener) handshake(on *socket) *tcpConn {
	ctx, cancel := context.WithTimeout(t.closing, HandshakeTimeout)
	defer cancel()
	c := tls.Server(on, t.tls)
	if c.HandshakeContext(ctx) != nil || c.ConnectionState().NegotiatedProtocol == "" {
		on.abort()
		return nil
	}
	site, refused := t.verify(c.ConnectionState())
	peer := peerOf(c.ConnectionState(), on.RemoteAddr(), CarrierTCP)
	peer.Site = site
	conn := newTCP(c, on, peer, false)
	if refused != nil {
		_ = conn.Close(refused.Code, refused.Reason) // never fails
		return nil
	}
	return conn
}

// pause waits before the next try after a failed one, such as for want of descriptors; false means that
// the listener is closed.
func (t *tcpListener) pause() bool {
	select {
	case <-time.After(acceptPause):
		return true
	case <-t.closing.Done():
		return false
	}
}
