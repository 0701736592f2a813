package members

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// transport carries memberlist's packets and streams in a node's links.
type transport struct{ n *node }

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// errIsolated means that this node has no link at all. memberlist then gives up a probe without suspecting
// anybody: who is cut off knows nothing of others, and would come back with a rumour about each.
var errIsolated = errors.New("no link to any node")

// FinalAdvertiseAddr returns an address that is made of the node's name.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return addrOf(t.n.name), link.DefaultPort, nil
}

// WriteTo is not used: every node has a name.
func (t *transport) WriteTo([]byte, string) (time.Time, error) {
	return time.Time{}, fmt.Errorf("gossip to a node without a name: %w", branchline.ErrInvalid)
}

// WriteToAddress sends a packet. What nobody here can reach is lost without an error, as on any network.
func (t *transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	n := t.n
	n.screen().pass(n.name, b) // what this node itself suspects
	by, linked := n.to(to.Name)
	if !linked {
		return time.Time{}, errIsolated
	}
	if len(by) == 0 {
		n.m.counts.dropped.Add(1)
	}
	for _, l := range by {
		l.sendTo(to.Name, b)
	}
	return t.n.now(), nil
}

// PacketCh gives memberlist its packets.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.n.packets }

// StreamCh gives memberlist its streams.
func (t *transport) StreamCh() <-chan net.Conn { return t.n.streams }

// DialTimeout is not used: every node has a name.
func (t *transport) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, fmt.Errorf("gossip to a node without a name: %w", branchline.ErrInvalid)
}

// DialAddressTimeout opens a stream to a node. At an edge it goes through the hub, and a comparison of states
// with it, wherever memberlist meant it to go: the hub knows what there is to know, and each other way
// would be twice as long.
func (t *transport) DialAddressTimeout(to memberlist.Address, limit time.Duration) (net.Conn, error) {
	by, _ := t.n.to(to.Name)
	if len(by) == 0 {
		return nil, fmt.Errorf("gossip stream to %s: %w", to.Name, branchline.ErrUnavailable)
	}
	c := newStreamConn(by[0], to.Name)
	return c, c.SetDeadline(t.n.now().Add(limit))
}

// Shutdown has nothing to close: links are their owners'.
func (t *transport) Shutdown() error { return nil }

// deliver gives memberlist a packet that has been screened. One too many is lost.
func (n *node) deliver(from string, b []byte) {
	p := &memberlist.Packet{Buf: b, From: nodeAddr(from), Timestamp: n.now()}
	select {
	case n.packets <- p:
	default:
		n.m.counts.dropped.Add(1)
	}
}

// nodeAddr is the address of the node with the name.
type nodeAddr string

// Network returns the network's name.
func (nodeAddr) Network() string { return "link" }

// String returns host and port.
func (a nodeAddr) String() string { return fmt.Sprintf("%s:%d", addrOf(string(a)), link.DefaultPort) }
