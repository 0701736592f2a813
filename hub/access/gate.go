package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many failed logins are free, and how long one more takes to become free again. A user's limit
// is wider than an address's, so that nobody can lock a user out from one address.
const (
	addressBurst    = 5
	addressInterval = 30 * time.Second
	userBurst       = 20
	userInterval    = 10 * time.Second
)

// maxTracked bounds the addresses, and the user names, whose failures are remembered: some 2 MB.
const maxTracked = 10_000

// gate limits failed logins. The zero gate has seen none.
type gate struct {
	mu        sync.Mutex
	addresses map[string]*rate.Limiter
	users     map[string]*rate.Limiter
}

// enter takes a place for one attempt at the given time, or tells how long to wait for one. The
// caller calls forgive when the attempt does not count as failed after all.
func (g *gate) enter(now time.Time, address, user string) (forgive func(), wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ofAddress := rate.NewLimiter(rate.Every(addressInterval), addressBurst)
	ofUser := rate.NewLimiter(rate.Every(userInterval), userBurst)
	byAddress := limiter(&g.addresses, now, network(address), ofAddress)
	byUser := limiter(&g.users, now, user, ofUser)
	first, second := byAddress.ReserveN(now, 1), byUser.ReserveN(now, 1)
	forgive = func() { first.CancelAt(now); second.CancelAt(now) }
	if wait = max(first.DelayFrom(now), second.DelayFrom(now)); wait > 0 {
		forgive()
		return nil, wait
	}
	return forgive, 0
}

// limiter returns the key's limiter, which is fresh where there was none. At the limit it forgets
// those that remember no failure any more, and if all do, any one.
func limiter(all *map[string]*rate.Limiter, now time.Time, key string, fresh *rate.Limiter) *rate.Limiter {
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
