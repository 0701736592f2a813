package network

import (
	"net/netip"
	"sync"
)

// Ports that the NAT gives, one after the other. With 16,000 given out it begins anew, and who had them
// before is forgotten.
const (
	firstPort = 40_000
	portCount = 16_000
)

// nat is a router with one public address before a branch. Each address behind it has a port of its own
// at the router; what comes from outside to a port that was not given is lost.
type nat struct {
	mu     sync.Mutex
	public netip.Addr // invalid: it is switched off
	given  uint16
	ports  map[address]address // inside: outside
	inside map[address]address // outside: inside
}

// rebind gives the NAT an address and forgets all ports that it gave, as after a restart of the router.
// The zero address switches it off.
func (n *nat) rebind(public netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.public = public
	n.ports, n.inside = make(map[address]address), make(map[address]address)
}

// out rewrites a packet of the branch. What has no ports passes as it is.
func (n *nat) out(ip []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, _, ok := ends(ip)
	if !n.public.IsValid() || !ok {
		return true
	}
	seen, known := n.ports[from]
	if !known {
		seen = address{from.protocol, n.public, firstPort + n.given%portCount}
		n.given++
		delete(n.ports, n.inside[seen])
		n.ports[from], n.inside[seen] = seen, from
	}
	setFrom(ip, seen)
	return true
}

// in rewrites a packet for the branch, or loses it.
func (n *nat) in(ip []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, to, ok := ends(ip)
	if !n.public.IsValid() || !ok {
		return true
	}
	from, known := n.inside[to]
	if known {
		setTo(ip, from)
	}
	return known
}
