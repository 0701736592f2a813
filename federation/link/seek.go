package link

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
)

// seeking is how an endpoint that dialled finds out that a dark path has healed: it knocks at the hub, once for
// all of its connections, and when the hub answers it sends again what they sent last.
type seeking struct {
	resend

	packets net.PacketConn // past resend's look
	addr    net.Addr       // the hub's
	knock   func(context.Context) error

	mu    sync.Mutex
	round *knocking // that goes on; nil: nobody waits
}

// knocking is one wait for an answer, for all who wait.
type knocking struct {
	cancel  context.CancelFunc
	waiters int           // the seeking's mu guards it
	done    chan struct{} // closed when it is over
	err     error         // set before
}

// outward opens an endpoint from which to dial the hub at addr.
func (o Options) outward(addr *net.UDPAddr) (*endpoint, error) {
	packets, err := o.listenPacket(o.Local.from(addr.IP))
	if err != nil {
		return nil, err
	}
	home := slices.IndexFunc(o.Uplinks, func(l Uplink) bool { return l.Local == o.Local })
	var out *outlet
	if len(o.Uplinks) > 1 && home >= 0 {
		out = newOutlet(home, len(o.Uplinks), packets)
		packets = out
	}
	s := &seeking{packets: packets, addr: addr}
	s.knock = func(ctx context.Context) error {
		if out != nil {
			if w := out.ways.Load(); w != nil {
				return w.knock(ctx)
			}
		}
		return knock(ctx, addr, o)
	}
	e := o.endpoint(s.noted(packets))
	e.seeking, e.outlet = s, out
	return e, nil
}

// errUnreached means that the hub could be asked by no way, as when all interfaces are down.
var errUnreached = errors.New("no way has a socket that works")

// seek returns when the hub has answered a knock; its error is ctx's.
func (s *seeking) seek(ctx context.Context, running *sync.WaitGroup) error {
	s.mu.Lock()
	k := s.round
	if k == nil {
		until, cancel := context.WithCancel(context.Background())
		k = &knocking{cancel: cancel, done: make(chan struct{})}
		s.round = k
		running.Go(func() { s.run(until, k) })
	}
	k.waiters++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if k.waiters--; k.waiters == 0 {
			k.cancel()
		}
	}()
	select {
	case <-k.done:
		return k.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run knocks until the hub answers or ctx ends, also where there is nothing to knock from for a while.
func (s *seeking) run(ctx context.Context, k *knocking) {
	for {
		if k.err = s.knock(ctx); k.err == nil || !within(ctx, knockEvery) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round = nil
	close(k.done)
}

// again sends again what was sent last; see take.
func (s *seeking) again(small bool) {
	for _, p := range s.take(small) {
		_, _ = s.packets.WriteTo(p, s.addr) // it is lost, as it was before
	}
}
