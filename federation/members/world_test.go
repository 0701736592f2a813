package members

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

// wire is a link in memory that loses packets and delays them, and that dies when nothing passes, as one
// over QUIC does. Streams lose nothing; they stand still while it is cut.
type wire struct {
	delay time.Duration
	loss  float64

	mu      sync.Mutex
	rng     *rand.Rand
	up, dn  bool // cut: from the edge, from the hub
	frozen  time.Time
	carried [2]uint64 // bytes of packets and packets
	packets uint64
}

func (w *wire) cut(up, dn bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up, w.dn = up, dn
}

// deaf reports whether nothing comes from the hub.
func (w *wire) deaf() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dn
}

// passes reports whether a packet passes, and when it arrives.
func (w *wire) passes(up bool, size int) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.carried[0] += uint64(size)
	w.packets++
	if up && w.up || !up && w.dn || w.rng.Float64() < w.loss {
		return 0, false
	}
	late := w.delay + time.Duration(w.rng.Int64N(int64(w.delay)+1))
	if wait := time.Until(w.frozen); wait > 0 {
		late += wait
	}
	return late, true
}

// end is one end of a wire.
type end struct {
	link.Conn
	w     *wire
	edge  bool
	other *end
	in    chan []byte

	mu   sync.Mutex
	arr  uint64
	rtt  time.Duration
	last time.Time // when something arrived
}

// SendPacket implements link.Packets.
func (e *end) SendPacket(b []byte) error {
	b = append([]byte(nil), b...)
	e.carry(len(b), func() {
		select {
		case e.other.in <- b:
		default:
		}
	})
	return nil
}

// carry moves one packet to the other end, which acknowledges it.
func (e *end) carry(size int, arrived func()) {
	late, ok := e.w.passes(e.edge, size)
	if !ok {
		return
	}
	time.AfterFunc(late, func() {
		e.other.arrived()
		if back, ok := e.w.passes(!e.edge, 0); ok {
			time.AfterFunc(back, func() {
				e.arrived()
				e.mu.Lock()
				e.rtt++
				e.mu.Unlock()
			})
		}
		if arrived != nil {
			arrived()
		}
	})
}

func (e *end) arrived() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.arr++
	e.last = time.Now()
}

// ReceivePacket implements link.Packets.
func (e *end) ReceivePacket(ctx context.Context) ([]byte, error) {
	select {
	case b := <-e.in:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *end) Stats() link.Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return link.Stats{PacketsIn: e.arr, RTT: e.rtt}
}

// keep sends keep-alives, with the repetitions of QUIC, until nothing arrived for so long that the link is dead.
func (e *end) keep(ctx context.Context) error {
	e.arrived()
	for {
		for i := range 3 { // QUIC repeats what is not acknowledged
			e.mu.Lock()
			before := e.rtt
			e.mu.Unlock()
			e.carry(0, nil)
			if !rest(ctx, []time.Duration{4, 3, 3}[i]*link.KeepAlive/10) {
				return ctx.Err()
			}
			e.mu.Lock()
			acked, silent := e.rtt != before, time.Since(e.last)
			e.mu.Unlock()
			e.w.mu.Lock()
			if f := time.Since(e.w.frozen); f < silent { // a process that stood still counts from its waking
				silent = f
			}
			e.w.mu.Unlock()
			if silent > link.IdleTimeout {
				return link.ErrSilent
			}
			if acked && i == 0 {
				if !rest(ctx, 6*link.KeepAlive/10) {
					return ctx.Err()
				}
				break
			}
		}
	}
}

func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// centre is a hub in a test, branch an edge that may have links to several.
type centre struct {
	*testing.T
	m     *Members
	name  string
	sites map[branchline.SiteID]bool

	up    map[string]time.Time // since when a site is linked, or zero since when not
	since map[string]time.Time
}

func newCentre(t *testing.T, name string, sites ...string) *centre {
	t.Helper()
	c := &centre{T: t, name: HubName([]byte(name)), sites: map[branchline.SiteID]bool{},
		up: map[string]time.Time{}, since: map[string]time.Time{}}
	for _, s := range sites {
		c.sites[branchline.SiteID(s)] = true
	}
	var err error
	c.m, err = Open(Config{Hub: c.name, Known: func(s branchline.SiteID) bool { return c.sites[s] }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *centre) close() {
	defer pause(time.Minute) // a probe of memberlist's goes to its end
	if err := c.m.Close(); err != nil {
		c.Error(err)
	}
}

// standing joins what the hub knows of a site, as hub.Node does.
func (c *centre) standing(site string) Peer {
	l, ok := c.m.Link(branchline.SiteID(site))
	if !ok {
		return Peer{}
	}
	return Join(time.Now(), l, c.m.Gossip(branchline.SiteID(site)))
}

// linked runs one link between an edge and a hub until ctx ends or the wire is dead.
func linked(ctx context.Context, site string, at *Members, c *centre, w *wire) error {
	stop := ctx
	atEdge, atHub := link.Pipe(branchline.SiteID(site), "")
	e := &end{Conn: atEdge, w: w, edge: true, in: make(chan []byte, 64)}
	h := &end{Conn: atHub, w: w, in: make(chan []byte, 64)}
	e.other, h.other = h, e
	le, err := at.Attach(site, e)
	if err != nil {
		return err
	}
	lh, err := c.m.Attach(site, h)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	hubCtx, hubEnd := context.WithCancel(context.Background())
	defer hubEnd()
	var errs [2]error
	for i, side := range []*end{e, h} {
		done := []context.CancelFunc{cancel, hubEnd}[i]
		life := []context.Context{ctx, hubCtx}[i]
		work.Go(func() {
			defer done()
			errs[i] = side.keep(life)
		})
	}
	work.Go(func() {
		_ = le.Run(ctx, stop)
		_ = atEdge.Close(0, "")
		if stop.Err() != nil || errs[0] == nil {
			hubEnd()
		}
	})
	work.Go(func() { _ = lh.Run(hubCtx, context.Background()); _ = atHub.Close(0, "") })
	for i, l := range []*Link{le, lh} {
		conn := []link.Conn{atEdge, atHub}[i]
		work.Go(func() { serve(&work, l, conn) })
	}
	work.Wait()
	return errors.Join(errs[:]...)
}

// serve passes on the streams of gossip that a peer opens.
func serve(work *sync.WaitGroup, l *Link, conn link.Conn) {
	for {
		st, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		work.Go(func() {
			r := bufio.NewReader(st)
			if k, err := r.ReadByte(); err != nil || link.Kind(k) != link.KindGossip {
				st.Reset(codeGossip)
				return
			}
			l.Serve(context.Background(), st, r)
		})
	}
}

// site is an edge with its wires to hubs.
type site struct {
	name  string
	m     *Members
	wires []*wire
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// newSite starts an edge that dials its hubs again and again.
func newSite(t *testing.T, name string, seed uint64, loss float64, hubs ...*centre) *site {
	t.Helper()
	m, err := Open(Config{Clock: clock.Clock{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &site{name: name, m: m, stop: stop}
	for i, hub := range hubs {
		w := &wire{delay: 20 * time.Millisecond, loss: loss, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		s.wires = append(s.wires, w)
		s.done.Go(func() {
			for ctx.Err() == nil {
				if late, ok := w.passes(true, 0); ok && !w.deaf() { // a handshake
					rest(ctx, late)
					_ = linked(ctx, name, m, hub, w)
				}
				rest(ctx, 500*time.Millisecond)
			}
		})
	}
	return s
}

func (s *site) close(t *testing.T) {
	t.Helper()
	s.stop()
	s.done.Wait()
	if err := s.m.Close(); err != nil {
		t.Error(err)
	}
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("branch-%03d", i)
	}
	return all
}

// pause lets virtual time pass.
func pause(d time.Duration) { <-time.After(d) }
