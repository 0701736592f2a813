package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many failed logins are free, and how long one more takes to become free again. The strictest
// limit is on one user name from one address. A user's is wider, so that nobody can lock a user out
// from one address; an address's is wider still, as behind a proxy it is everybody's, and only keeps
// made-up names from filling the audit log.
const (
	pairBurst       = 5
	pairInterval    = 30 * time.Second
	userBurst       = 20
	userInterval    = 10 * time.Second
	addressBurst    = 100
	addressInterval = time.Second
)

// maxTracked bounds the addresses, the user names and the pairs of both whose failures are remembered:
// some 3 MB.
const maxTracked = 10_000

// gate limits failed logins. The zero gate has seen none.
type gate struct {
	mu                      sync.Mutex
	pairs, users, addresses map[string]*rate.Limiter
}

// enter takes a place for one attempt at the given time, or tells how long to wait for one. The
// caller calls forgive when the attempt does not count as failed after all.
func (g *gate) enter(now time.Time, address, user string) (forgive func(), wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	address = network(address)
	places := []*rate.Reservation{
		limiter(&g.pairs, now, address+" "+user, pairInterval, pairBurst).ReserveN(now, 1),
		limiter(&g.users, now, user, userInterval, userBurst).ReserveN(now, 1),
		limiter(&g.addresses, now, address, addressInterval, addressBurst).ReserveN(now, 1),
	}
	forgive = func() {
		for _, p := range places {
			p.CancelAt(now)
		}
	}
	for _, p := range places {
		wait = max(wait, p.DelayFrom(now))
	}
	if wait > 0 {
		forgive()
		return nil, wait
	}
	return forgive, 0
}

// limiter returns the key's limiter, which is fresh where there was none. At the limit it forgets
// those that remember no failure any more, and if all do, any one.
func limiter(
	all *map[string]*rate.Limiter, now time.Time, key string, every time.Duration, burst int,
) *rate.Limiter {
	if l, ok := (*all)[key]; ok {
		return l
	}
	if *all == nil {
		*all = map[string]*rate.Limiter{}
	}
	if len(*all) >= maxTracked {
		for k, l := range *all {
			if l.TokensAt(now) >= float64(l.Burst()) {
				delete(*all, k)
			}
		}
	}
	for k := range *all {
		if len(*all) < maxTracked {
			break
		}
		delete(*all, k)
	}
	fresh := rate.NewLimiter(rate.Every(every), burst)
	(*all)[key] = fresh
	return fresh
}

// network returns what one client can be taken to own: an IPv4 address, or the /64 of an IPv6 address.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() || ip.Is4In6() {
		return address
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}
