package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/branchline-video/branchline"
)

// DefaultPort is the hub's port, of UDP and of TCP.
const DefaultPort = 7563

const (
	// KeepAlive is how often something is sent on an idle connection: often enough for every NAT, and
	// for two lost packets in a row within IdleTimeout.
	KeepAlive = time.Second
	// IdleTimeout is how long a connection lives without an answer. QUIC counts it from the first packet
	// sent after the last one received, which is a KeepAlive later: together less than the 5 s within
	// which a dead link is noticed.
	IdleTimeout = 3800 * time.Millisecond
	// StallTimeout is how long, beyond the round trip time, bytes may wait to be acknowledged while packets
	// of the peer arrive. QUIC itself would go on for most of a minute with packets that are too large.
	StallTimeout = 3 * time.Second
	// HandshakeTimeout bounds the wait for each answer of the peer while connecting.
	HandshakeTimeout = 5 * time.Second
	// MaxStreams bounds the streams that a peer has open at once: some for each camera of a large
	// branch, watched and fetched at the same time.
	MaxStreams = 256
	// MaxReason bounds the text that goes along when a connection is closed, so that it fits in a packet.
	MaxReason = 400
)

// Kind is what a stream is for: its first byte.
type Kind byte

// The kinds of stream. A peer resets a stream of a kind that it does not know.
const (
	KindControl Kind = 1 // one call, with its answers
	KindChanges Kind = 2
	KindFetch   Kind = 3
	KindLive    Kind = 4
	KindGossip  Kind = 5
	KindTest    Kind = 200 // on connections that measure the path, and on no other
	KindJoin    Kind = 6   // this package's own: the connection joins a bundle
)

// String returns the kind's name, for people.
func (k Kind) String() string {
	switch k {
	case KindControl:
		return "control"
	case KindChanges:
		return "changes"
	case KindFetch:
		return "fetch"
	case KindLive:
		return "live"
	case KindGossip:
		return "gossip"
	case KindTest:
		return "test"
	case KindJoin:
		return "join"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Conn is a connection between two nodes. Methods may be called concurrently.
type Conn interface {
	// OpenStream opens a stream of the kind; it waits while the peer's limit is reached. The peer sees
	// the stream with its first byte, so the caller writes before it reads.
	OpenStream(ctx context.Context, kind Kind) (Stream, error)
	// AcceptStream returns the next stream that the peer opened. Its kind is still to be read with
	// [ReadKind], which may take as long as the peer likes. The error tells why the connection ended.
	AcceptStream(ctx context.Context) (Stream, error)
	// Peer tells who is on the other side; it never changes.
	Peer() Peer
	// Stats returns the present figures.
	Stats() Stats
	// Close ends the connection and all its streams at once, tells the peer the code and the reason,
	// and waits until everything that belonged to the connection is given back. Closing a second time
	// does nothing.
	Close(code Code, reason string) error
}

// Stream is an ordered, reliable stream of bytes in both directions. One goroutine may read while
// another writes; Reset and SetPriority may be called by any.
type Stream interface {
	// Read returns io.EOF after the peer's last byte, and an [*Error] if either side reset the stream.
	io.Reader
	// Write blocks while the peer does not read; what it took may still wait to be sent.
	io.Writer
	// Close ends this side's direction: the peer reads io.EOF after the last byte.
	Close() error
	// Reset ends both directions at once; bytes still under way are lost. It does nothing to a
	// direction that has ended.
	Reset(code Code)
	// SetPriority orders what this side sends on the stream among the connection's streams, 0 first, 7
	// last. Streams of one urgency share what there is.
	SetPriority(urgency int8)
}

// Peer is the node on the other side.
type Peer struct {
	Site     branchline.SiteID // as in its certificate; empty for a hub and for one that has none yet
	Protocol string            // as agreed in the TLS handshake (ALPN); empty in memory
	Addr     string
	Carrier  Carrier // empty in memory
	Uplink   string  // by which it was dialled: the name of Options.Local
	Leaf     []byte  // its certificate, DER; nil if it has none
}

// Stats are the figures of a connection since it was made. Lost is an estimate.
//
// Times are zero as long as nothing is measured. Of a bundle they are the sums over its connections, those
// included that have ended, and RTT and MinRTT are the best of the present ones.
type Stats struct {
	RTT, MinRTT            time.Duration
	Sent, Received, Lost   uint64 // bytes, without UDP headers
	CongestionWindow       uint64 // bytes
	MTU                    uint64 // bytes of the largest UDP datagram that is known to pass; 0 if that is not known
	PacketsSent, PacketsIn uint64
	Connections            int           // at present
	Bulk                   bool          // one of them is over TCP, for fetches over a short path
	Handshakes             uint64        // connections made so far
	Latest                 time.Duration // the newest round trip time; zero also where only RTT is known
}

// Code tells the peer why a stream or a connection was ended. Its values are the wire format's.
type Code uint64

// Error is the end of a stream or connection by a decision of one of the two sides. Every other error
// of a connection means that the peer cannot be reached.
type Error struct {
	Code   Code
	Reason string // for people; connections only
	Remote bool   // the peer decided
	Conn   bool   // the whole connection, not just a stream
}

// Error tells side, code and reason.
func (e *Error) Error() string {
	what, who := "stream reset", "here"
	if e.Conn {
		what = "connection closed"
	}
	if e.Remote {
		who = "by the peer"
	}
	if e.Reason == "" {
		return fmt.Sprintf("%s %s (code %d)", what, who, e.Code)
	}
	return fmt.Sprintf("%s %s (code %d): %s", what, who, e.Code, e.Reason)
}

// ErrSilent means that nothing came from the peer for longer than [IdleTimeout].
var ErrSilent = errors.New("nothing received from the peer")

// ErrStalled means that packets came from the peer but none of what was sent to it was acknowledged for
// [StallTimeout]: mostly a path that has begun to lose large packets in silence.
var ErrStalled = errors.New("the peer gets nothing of what is sent")

// ErrNoPackets means that this connection carries no single packets.
var ErrNoPackets = errors.New("the connection carries no packets")

// CodeStalled is the [Code] with which a connection that has stalled is closed.
const CodeStalled Code = 13

// ReadKind reads the kind with which every stream begins. It must be the first read.
func ReadKind(s io.Reader) (Kind, error) {
	var b [1]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return 0, fmt.Errorf("read kind of stream: %w", err)
	}
	return Kind(b[0]), nil
}
