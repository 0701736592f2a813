package federation

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

// afterStart lets the virtual time of a bubble pass until the process has begun. quic-go counts time from there; what
// it has for no time at all, as of packets that it left out, is later than any before, and it waits for that for ever.
func afterStart() { <-time.After(time.Until(time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC))) }

// hubHost is the hub's address in a simulated network; all others are the edge's.
const hubHost = "10.0.0.1"

// weather is a simulated network between one edge and one hub, for the virtual time of a bubble: a rate
// with a queue, a delay, loss, cuts of one or both directions, a least MTU, and a NAT.
type weather struct {
	seed  uint64
	quiet bool          // the hub asks for nothing
	delay time.Duration // one way
	rate  float64       // bits per second
	queue time.Duration // most time that a packet waits for the rate

	mu     sync.Mutex
	random *rand.Rand
	nodes  map[string]simnet.PacketReceiver
	port   int
	loss   float64
	cut    [2]bool // packets of the edge, of the hub
	free   [2]time.Time
	nat    map[string]*net.UDPAddr // outside of the edge's addresses; nil: none
	back   map[string]net.Addr     // and the other way
	bytes  [2]int                  // that set out

	arrived int // bytes at the hub
}

func newWeather(seed uint64, delay time.Duration, rate float64) *weather {
	return &weather{
		seed: seed, delay: delay, rate: rate, queue: 100 * time.Millisecond, random: rand.New(rand.NewPCG(seed, 7)),
		nodes: make(map[string]simnet.PacketReceiver),
	}
}

// ListenPacket opens a socket of the edge or, if addr is the hub's, of the hub.
func (w *weather) ListenPacket(addr string) (net.PacketConn, error) {
	if addr == hubHost+":7563" {
		return simnet.NewSimConn(&net.UDPAddr{IP: net.ParseIP(hubHost).To4(), Port: 7563}, w), nil
	}
	w.mu.Lock()
	w.port++
	port := 1024 + w.port
	w.mu.Unlock()
	return simnet.NewSimConn(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 2).To4(), Port: port}, w), nil
}

// AddNode is a part of [simnet.Router].
func (w *weather) AddNode(addr net.Addr, r simnet.PacketReceiver) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[addr.String()] = r
}

// SendPacket is a part of [simnet.Router].
func (w *weather) SendPacket(p simnet.Packet) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	way := 0
	if p.From.(*net.UDPAddr).IP.String() == hubHost {
		way = 1
	}
	w.bytes[way] += len(p.Data) + 28
	if w.cut[way] || w.random.Float64() < w.loss {
		return nil
	}
	now := time.Now()
	if w.free[way].Before(now) {
		w.free[way] = now
	}
	if w.free[way].Sub(now) > w.queue {
		return nil
	}
	w.free[way] = w.free[way].Add(time.Duration(float64(len(p.Data)+28) * 8 / w.rate * float64(time.Second)))
	if !w.translate(&p, way) {
		return nil
	}
	to := w.nodes[p.To.String()]
	if to == nil {
		return nil
	}
	if way == 0 {
		w.arrived += len(p.Data) + 28
	}
	time.AfterFunc(w.free[way].Sub(now)+w.delay, func() { to.RecvPacket(p) })
	return nil
}

func (w *weather) translate(p *simnet.Packet, way int) bool {
	switch {
	case w.nat == nil:
		return true
	case way == 1:
		to, ok := w.back[p.To.String()]
		p.To = to
		return ok
	}
	seen, ok := w.nat[p.From.String()]
	if !ok {
		w.port++
		seen = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 3).To4(), Port: 30000 + w.port}
		w.nat[p.From.String()], w.back[seen.String()] = seen, p.From
	}
	p.From = seen
	return true
}

// rebind puts a NAT before the edge, or restarts it.
func (w *weather) rebind() {
	w.set(func() { w.nat, w.back = map[string]*net.UDPAddr{}, map[string]net.Addr{} })
}

func (w *weather) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// sent returns how many bytes set out in both directions.
func (w *weather) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes[0] + w.bytes[1]
}

func percentile(all []time.Duration, p float64) time.Duration {
	return all[min(len(all)-1, int(float64(len(all))*p))]
}

// simulate runs a hub, which keeps its authority in a folder, and an edge with a folder for its node that enrols there,
// both on the network of the edge's configuration. linked is called for each link, with a context that ends with it.
func simulate(t *testing.T, authority, node string, cfg UplinkConfig, linked func(ctx context.Context, src *Remote)) (
	_ *Uplink, stop func(),
) {
	t.Helper()
	a, err := identity.OpenAuthority(authority, clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	peers, err := OpenPeers(PeersConfig{
		Addr: hubHost + ":7563", Authority: a, ListenPacket: cfg.ListenPacket,
		Linked: func(ctx context.Context, _ branchline.SiteID, src *Remote) { linked(ctx, src) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Token, err = a.AddSite("berlin", []string{hubHost + ":7563"}); err != nil {
		t.Fatal(err)
	}
	if cfg.Node, err = identity.OpenNode(node, clock.Clock{}); err != nil {
		t.Fatal(err)
	}
	u := NewUplink(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = peers.Run(ctx) })
	running.Go(func() { _ = u.Run(ctx) })
	return u, func() {
		cancel()
		running.Wait()
		if err := peers.Close(); err != nil {
			t.Error(err)
		}
	}
}
