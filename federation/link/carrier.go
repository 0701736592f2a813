package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Carrier is what carries a connection over the network.
type Carrier string

// The carriers. TCP is for where UDP does not get through: there one lost packet holds up all streams.
const (
	CarrierQUIC Carrier = "quic"
	CarrierTCP  Carrier = "tcp"
)

// carrierStagger is how long a carrier has for itself before the next is tried beside it: several round
// trips of a slow path, and little of the 10 s within which a site is linked where UDP is blocked.
const carrierStagger = 1500 * time.Millisecond

// carriers returns those to try, in order. Who brings a network of packets alone has no other.
func (o Options) carriers() []Carrier {
	switch {
	case len(o.Carriers) > 0:
		return o.Carriers
	case !o.streams():
		return []Carrier{CarrierQUIC}
	}
	return []Carrier{CarrierQUIC, CarrierTCP}
}

// streams reports whether the side that dials can open TCP sockets.
func (o Options) streams() bool { return o.ListenPacket == nil || o.DialStream != nil }

// Local is where a connection leaves this machine. The zero value leaves that to the system.
type Local struct {
	Name   string     // for people
	Addr   netip.Addr // of one of this machine's interfaces
	Device string     // the interface itself, whatever the routes say; Linux only, with CAP_NET_RAW
}

// String returns it for people.
func (l Local) String() string {
	switch {
	case l.Name != "":
		return l.Name
	case l.Device != "":
		return l.Device
	case l.Addr.IsValid():
		return l.Addr.String()
	}
	return "any"
}

// reaches reports whether the peer's address is of the family of the local one.
func (l Local) reaches(ip net.IP) bool {
	return !l.Addr.IsValid() || l.Addr.Unmap().Is4() == (ip.To4() != nil)
}

// from returns the local address to open a socket on for the peer at ip.
func (l Local) from(ip net.IP) string {
	switch {
	case l.Addr.IsValid():
		return net.JoinHostPort(l.Addr.String(), "0")
	case ip.IsLoopback():
		return net.JoinHostPort(ip.String(), "0")
	}
	return ":0"
}

// dialStream connects a TCP socket to addr, from here.
func (l Local) dialStream(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, Control: l.prepare}
	if l.Addr.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.Addr, 0))
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

// Network returns what one client at the address, host and port, can be taken to own: an IPv4 address, or
// the /64 of an IPv6 address. All that are not understood are one.
func Network(addr string) netip.Prefix {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Prefix{}
	}
	ip := a.Addr().Unmap().WithZone("")
	p, _ := ip.Prefix(min(ip.BitLen(), 64)) // such a prefix always exists
	return p
}
