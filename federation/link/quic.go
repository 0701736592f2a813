package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"github.com/branchline-video/branchline"
)

const (
	// packetSize is how large packets are at first: RFC 9000's least, as a path of 1280 bytes never
	// connects with more. Path MTU discovery raises it.
	packetSize = 1200
	// A peer may have sent this much that was not read here. 100 Mbit/s over 200 ms is 2.5 MB, and a
	// sender that gets its credit back a round trip later needs twice that.
	firstStreamWindow = 512 << 10
	maxStreamWindow   = 5 << 20
	firstConnWindow   = 1 << 20
	maxConnWindow     = 8 << 20
	// Handshakes a second from unproven addresses, and at once, before each has to prove its address
	// first: a hub's edges may all come back together, a flood may not use the hub as an amplifier.
	freeHandshakes      = 50
	freeHandshakesBurst = 200
)

// Options are how connections are made.
type Options struct {
	// TLS holds keys and how the peer is verified; it is not changed. On the side that dials it must
	// verify the hub before the handshake completes.
	TLS *tls.Config
	// Verify decides, on the side that accepts, who the peer is, once it has proved to hold the key of
	// its certificate and before anything of it is read. A peer that is refused is told the code and
	// reason of the error, which is why this is not left to the TLS handshake: its alerts say nothing.
	Verify func(tls.ConnectionState) (branchline.SiteID, *Error)
	// ListenPacket opens the UDP socket; nil means the system's.
	ListenPacket func(addr string) (net.PacketConn, error)
	// Carriers are tried in this order, each as soon as the one before it has failed or is late; the first
	// that connects is kept. Nil means QUIC, then TCP. The side that accepts has both.
	Carriers []Carrier
	// DialStream and ListenStream open TCP sockets; nil means the system's, or none where ListenPacket is
	// set, as that stands for another network.
	DialStream   func(ctx context.Context, addr string) (net.Conn, error)
	ListenStream func(addr string) (net.Listener, error)
	// Local is where the side that dials leaves this machine, where the system opens the sockets.
	Local Local
	// Uplinks, if any, are tried instead of Local, in the order of their kinds.
	Uplinks []Uplink
	// Names, if set, keeps what names stood for, for when no name server can be reached.
	Names *Names
	// Tap, if set, is where the connections that are dialled are logged, and Qlog where those that are accepted are.
	Tap  *Tap
	Qlog *Qlog
	// Small keeps what the side that dials sends in packets of 1200 bytes, for a path that has stalled.
	Small bool
	known uint16 // bytes of a datagram of which the path is known to let such pass; 0 if that is not known
	// Join is the application protocol (ALPN) of further connections: what is dialled, or accepted with
	// another protocol, becomes a bundle. On the side that accepts TLS must know it. Empty means that every
	// connection is for itself.
	Join string
	// Bulk lets a bundle that is dialled take a connection over TCP, too, for the fetches of [WithBulk] over a short
	// path.
	Bulk bool
	// Single, on the side that accepts, names a protocol whose connections are never bundles.
	Single string
	// ResetKey lets a restarted node tell its peers at once that their connections are gone. The zero
	// key switches that off.
	ResetKey [32]byte
}

func config() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           HandshakeTimeout,
		MaxIdleTimeout:                 IdleTimeout,
		KeepAlivePeriod:                KeepAlive,
		InitialPacketSize:              packetSize,
		InitialStreamReceiveWindow:     firstStreamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: firstConnWindow,
		MaxConnectionReceiveWindow:     maxConnWindow,
		MaxIncomingStreams:             MaxStreams,
		MaxIncomingUniStreams:          -1,
		Allow0RTT:                      false,
		EnableDatagrams:                true,
	}
}

func listenUDP(addr string) (net.PacketConn, error) { return Local{}.listenUDP(addr) }

func (l Local) listenUDP(addr string) (net.PacketConn, error) {
	conf := net.ListenConfig{Control: l.prepare}
	p, err := conf.ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	return p, nil
}

func (o Options) open(addr string) (*endpoint, error) {
	packets, err := o.listenPacket(addr)
	if err != nil {
		return nil, err
	}
	return o.endpoint(packets), nil
}

// listenPacket opens a socket from here.
func (o Options) listenPacket(addr string) (net.PacketConn, error) {
	if o.ListenPacket != nil {
		return o.ListenPacket(addr)
	}
	return o.Local.listenUDP(addr)
}

// endpoint makes an endpoint of a socket, which is the endpoint's from then on.
func (o Options) endpoint(packets net.PacketConn) *endpoint {
	free := rate.NewLimiter(freeHandshakes, freeHandshakesBurst)
	if c, ok := packets.(*net.UDPConn); ok { // of a hub: for others it is noted what they send
		r := new(resend)
		r.linked.Store(true)
		packets = &notedUDP{withGRO(c), r}
	}
	t := &quic.Transport{
		Conn:                packets,
		VerifySourceAddress: func(net.Addr) bool { return !free.Allow() },
	}
	if o.Qlog != nil {
		t.ConnContext = func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			return o.Qlog.context(ctx), nil
		}
	}
	if o.ResetKey != [32]byte{} {
		key := quic.StatelessResetKey(o.ResetKey)
		t.StatelessResetKey = &key
	}
	return &endpoint{t: t, packets: packets}
}

// endpoint is a socket with everything that runs on it.
type endpoint struct {
	t       *quic.Transport
	packets net.PacketConn
	running sync.WaitGroup // what watches connections
	seeking *seeking       // on the side that dialled
	outlet  *outlet        // of a node with several ways; nil otherwise
}

func (e *endpoint) close() error {
	err := errors.Join(e.t.Close(), e.packets.Close())
	e.running.Wait()
	return err
}

type conn struct {
	c    *quic.Conn
	own  *endpoint // closed with the connection; nil if the listener owns it
	via  *endpoint // that it was dialled by; nil on the other side
	peer Peer
	mtu  *atomic.Uint64 // nil where it is not known
	once sync.Once
	end  error // set by once
}

func newConn(c *quic.Conn, own *endpoint, site branchline.SiteID) *conn {
	p := peerOf(c.ConnectionState().TLS, c.RemoteAddr(), CarrierQUIC)
	p.Site = site
	return &conn{c: c, own: own, peer: p}
}

func (c *conn) OpenStream(ctx context.Context, kind Kind) (Stream, error) {
	s, err := c.c.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("open %s stream: %w", kind, meaning(err))
	}
	return &stream{s: s, kind: kind}, nil
}

func (c *conn) AcceptStream(ctx context.Context) (Stream, error) {
	s, err := c.c.AcceptStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("accept stream: %w", meaning(err))
	}
	return &stream{s: s}, nil
}

func (c *conn) Peer() Peer { return c.peer }

// madeUpRTT is what quic-go tells of a connection before it has measured anything. Over a longer path it would be the
// least of all for as long as it is remembered.
const madeUpRTT = 100 * time.Millisecond

func (c *conn) Stats() Stats {
	s := c.c.ConnectionStats()
	var mtu uint64
	if c.mtu != nil {
		mtu = c.mtu.Load()
	}
	if s.MeanDeviation == 0 && s.MinRTT == madeUpRTT {
		s.SmoothedRTT, s.MinRTT, s.LatestRTT = 0, 0, 0
	}
	return Stats{
		RTT: s.SmoothedRTT, MinRTT: s.MinRTT, Connections: 1, Handshakes: 1, MTU: mtu,
		Sent: s.BytesSent, Received: s.BytesReceived, Lost: s.BytesLost,
		CongestionWindow: s.CongestionWindow, PacketsSent: s.PacketsSent, PacketsIn: s.PacketsReceived,
		Latest: s.LatestRTT,
	}
}

func (c *conn) Close(code Code, reason string) error {
	c.once.Do(func() {
		c.end = c.c.CloseWithError(quic.ApplicationErrorCode(code), clip(reason))
		if c.own != nil {
			c.end = errors.Join(c.end, c.own.close())
		}
	})
	return c.end
}

func clip(reason string) string { return reason[:min(len(reason), MaxReason)] }

// stream is a QUIC stream. The first byte of one that was opened here is its kind, sent together
// with the first bytes written.
type stream struct {
	s      *quic.Stream
	kind   Kind // 0 once sent, and on accepted streams; the writer's
	mu     sync.Mutex
	closed bool
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.s.Read(b)
	return n, meaning(err)
}

func (s *stream) Write(b []byte) (int, error) {
	if s.kind != 0 {
		b = append([]byte{byte(s.kind)}, b...)
		s.kind = 0
		n, err := s.s.Write(b)
		return max(n-1, 0), meaning(err)
	}
	n, err := s.s.Write(b)
	return n, meaning(err)
}

func (s *stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return meaning(s.s.Close())
}

func (s *stream) Reset(code Code) {
	s.s.CancelRead(quic.StreamErrorCode(code))
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if !closed { // quic-go would drop what was written and is still under way
		s.s.CancelWrite(quic.StreamErrorCode(code))
	}
}

func (s *stream) SetPriority(urgency int8) { s.s.SetPriority(urgency, true) }

// meaning translates quic-go's errors into this package's.
func meaning(err error) error {
	var reset *quic.StreamError
	var closed *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	var forgotten *quic.StatelessResetError
	var transport *quic.TransportError
	switch {
	case errors.As(err, &reset):
		return &Error{Code: Code(reset.ErrorCode), Remote: reset.Remote}
	case errors.As(err, &closed) && Code(closed.ErrorCode) == CodeStalled:
		if closed.ErrorMessage == ErrSilent.Error() {
			return ErrSilent // it was dark, and is given up because it is not any more
		}
		return ErrStalled
	case errors.As(err, &closed):
		return &Error{Code: Code(closed.ErrorCode), Reason: closed.ErrorMessage, Remote: closed.Remote, Conn: true}
	case errors.As(err, &transport) && transport.Remote && transport.ErrorCode == quic.ConnectionRefused:
		return &Error{Code: codeBusy, Reason: "too many connections are being made", Remote: true, Conn: true}
	case errors.As(err, &forgotten):
		return fmt.Errorf("%w: it has forgotten the connection", ErrSilent)
	case errors.As(err, &idle):
		return fmt.Errorf("%w for %v", ErrSilent, IdleTimeout)
	}
	return err
}
