package link

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// nameTime is how long a name server has for an answer, if an older answer is at hand. On a path that is
	// dark or has just healed the system would ask for many seconds.
	nameTime = 500 * time.Millisecond
	// maxNames bounds the names that are kept: more than any node has hubs.
	maxNames = 64
)

// Names keeps the newest addresses of each name. The zero value has none; its methods may be called
// concurrently.
type Names struct {
	mu    sync.Mutex
	known map[string][]net.IPAddr
}

// lookup asks for the addresses of a host. A nil n keeps nothing.
func (n *Names) lookup(ctx context.Context, host string) ([]net.IPAddr, error) {
	if n == nil || net.ParseIP(host) != nil {
		return net.DefaultResolver.LookupIPAddr(ctx, host)
	}
	known := n.get(host)
	asking, cancel := ctx, context.CancelFunc(func() {})
	if len(known) > 0 {
		asking, cancel = context.WithTimeout(ctx, nameTime)
	}
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(asking, host)
	switch {
	case err == nil && len(ips) > 0:
		n.put(host, ips)
		return ips, nil
	case len(known) > 0 && ctx.Err() == nil:
		return known, nil
	}
	return nil, err
}

func (n *Names) get(host string) []net.IPAddr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[host]
}

func (n *Names) put(host string, ips []net.IPAddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = make(map[string][]net.IPAddr)
	}
	if len(n.known) < maxNames || n.known[host] != nil {
		n.known[host] = ips
	}
}
