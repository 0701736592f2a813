package link

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// largePacket is from which size on a packet is taken to carry data.
	largePacket = 256
	// maxKept bounds the connections of which packets are kept, those of one endpoint.
	maxKept = MaxConnections
	// sameBurst is within which time two packets of a connection belong to one probe timeout, which sends two,
	// and holdEvery the least time between two that are held back.
	sameBurst = 2 * time.Millisecond
	holdEvery = 50 * time.Millisecond
	// resendEvery is the least time between two times that everything is sent again.
	resendEvery = 100 * time.Millisecond
)

// resend keeps the newest packets of each connection of an endpoint while some of them wait for
// acknowledgements. QUIC's probes become rarer the longer a path is dark, and there is no way to ask quic-go for
// one more; so when the hub answers a knock, what was sent last is sent once more as it is. The hub takes it as a
// packet that was late, acknowledges, and the connection goes on with all its streams where it was.
//
// The hub says nothing to a packet that it has already had, as when only its answers were lost. So of the two
// packets of each probe one is held back while nothing at all comes from the hub.
type resend struct {
	waiting atomic.Int32 // connections that wait for acknowledgements
	in      atomic.Int64 // packets that came, on all connections
	holding atomic.Int32 // connections that probe, and of which nothing comes
	closing atomic.Int32 // connections that are being closed
	linked  atomic.Bool  // there was a handshake, or it is a hub's socket

	mu    sync.Mutex
	last  time.Time // that all was sent again
	kept  map[string]*kept
	again int64 // packets sent again so far
}

// kept is what is kept of one connection: the peer's ID for it tells which.
type kept struct {
	large, small []byte
	held         []byte // never sent
	end          []byte // tells that it is closed
	sent, hold   time.Time
}

// note takes a look at a packet that is to be sent, and reports whether it is to be held back.
func (r *resend) note(b []byte) (hold bool) {
	if r.waiting.Load() == 0 || len(b) < knockSize/2 || b[0]&0x80 != 0 || len(b) > maxDatagram {
		return false
	}
	now := clock.Clock{}.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	id := string(b[1:5])
	k := r.kept[id]
	switch {
	case k == nil && len(r.kept) >= maxKept:
		return false
	case k == nil:
		if r.kept == nil {
			r.kept = make(map[string]*kept)
		}
		k = new(kept)
		r.kept[id] = k
	}
	end := r.closing.Load() > 0 && len(b) < largePacket
	if r.holding.Load() > 0 && !end && now.Sub(k.sent) < sameBurst && now.Sub(k.hold) >= holdEvery {
		k.held, k.hold = append(k.held[:0], b...), now
		return true
	}
	k.sent = now
	switch {
	case end:
		k.end = slices.Clone(b)
	case len(b) >= largePacket:
		k.large = append(k.large[:0], b...)
	default:
		k.small = append(k.small[:0], b...)
	}
	return false
}

// lost reports whether a packet of a link that was not sent for this error is to be taken for one that the path has
// lost: there is no route while an address changes or a cable is out, and quic-go would give its connection up. If
// there never is one again the link ends by its silence.
func (r *resend) lost(err error) bool {
	if err == nil || !r.linked.Load() {
		return false
	}
	for _, e := range []error{
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.ENOBUFS,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// maxDatagram is the largest packet that quic-go sends.
const maxDatagram = 1500

// wait notes that one connection more waits for acknowledgements, or does no more.
func (r *resend) wait(more int32) {
	if r.waiting.Add(more) > 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = nil
}

// take returns what is to be sent again.
//
// A connection that has only small ones can as well send another: that of an old packet makes it take the path for
// a long one. So they are only taken if asked for.
func (r *resend) take(small bool) (all [][]byte) {
	now := clock.Clock{}.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last) < resendEvery {
		return nil
	}
	r.last = now
	for _, k := range r.kept {
		switch {
		case k.end != nil:
			all = append(all, k.end)
			continue
		case len(k.held) >= largePacket || small && k.held != nil:
			all = append(all, k.held)
			k.held = nil
		case k.large != nil:
			all = append(all, slices.Clone(k.large))
		}
		if small && k.small != nil {
			all = append(all, slices.Clone(k.small))
		}
	}
	r.again += int64(len(all))
	return all
}

// noted wraps a socket so that r sees what is sent. What the socket has beside net.PacketConn and quic-go uses
// stays.
func (r *resend) noted(c net.PacketConn) net.PacketConn {
	switch c := c.(type) {
	case *net.UDPConn:
		return &notedUDP{withGRO(c), r}
	case buffered:
		return &notedSocket{c, r}
	}
	return &notedPackets{c, r}
}

// notedUDP has all that its socket has.
type notedUDP struct {
	*groSocket
	r *resend
}

func (c *notedUDP) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.r.note(b) {
		return len(b), nil
	}
	n, err := c.groSocket.WriteTo(b, to)
	if c.r.lost(err) {
		return len(b), nil
	}
	return n, err
}

func (c *notedUDP) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	if c.r.note(b) {
		return len(b), len(oob), nil
	}
	n, oobn, err = c.groSocket.WriteMsgUDP(b, oob, to)
	if c.r.lost(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// buffered is what quic-go asks of a socket that it cannot read in batches.
type buffered interface {
	net.PacketConn
	SyscallConn() (syscall.RawConn, error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

type notedSocket struct {
	buffered
	r *resend
}

func (c *notedSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.r.note(b) {
		return len(b), nil
	}
	return c.buffered.WriteTo(b, to)
}

type notedPackets struct {
	net.PacketConn
	r *resend
}

func (c *notedPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.r.note(b) {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

// SetReadBuffer and SetWriteBuffer pass on what quic-go asks for.
func (c *notedPackets) SetReadBuffer(n int) error {
	if b, ok := c.PacketConn.(buffers); ok {
		return b.SetReadBuffer(n)
	}
	return nil
}

// SetWriteBuffer does so for what is sent.
func (c *notedPackets) SetWriteBuffer(n int) error {
	if b, ok := c.PacketConn.(buffers); ok {
		return b.SetWriteBuffer(n)
	}
	return nil
}
