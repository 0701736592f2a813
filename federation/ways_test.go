package federation

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
)

// fork is a hub that an edge reaches by several ways, each with weather of its own: way i has the address 10.0.i.2
// at the edge.
type fork []*weather

func newFork(seed uint64, delays ...time.Duration) (f fork) {
	for i, d := range delays {
		f = append(f, newWeather(seed+uint64(i), d, 4e6))
	}
	return f
}

func (f fork) uplinks(kinds ...link.UplinkKind) (all []link.Uplink) {
	for i, k := range kinds {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i), 2})
		all = append(all, link.Uplink{Local: link.Local{Name: fmt.Sprintf("%c", 'a'+i), Addr: addr}, Kind: k})
	}
	return all
}

// way returns the number of the way that an address of the edge is on.
func (f fork) way(a net.Addr) int { return int(a.(*net.UDPAddr).IP.To4()[2]) }

// AddNode is a part of [simnet.Router].
func (f fork) AddNode(addr net.Addr, r simnet.PacketReceiver) {
	for _, w := range f {
		w.AddNode(addr, r)
	}
}

// SendPacket is a part of [simnet.Router].
func (f fork) SendPacket(p simnet.Packet) error {
	edge := p.From
	if edge.(*net.UDPAddr).IP.String() == hubHost {
		edge = p.To
	}
	return f[f.way(edge)].SendPacket(p)
}

// ListenPacket opens a socket at the address.
func (f fork) ListenPacket(addr string) (net.PacketConn, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	udp := net.UDPAddrFromAddrPort(a)
	udp.IP = udp.IP.To4()
	if udp.Port == 0 {
		f[0].set(func() {
			f[0].port++
			udp.Port = 1024 + f[0].port
		})
	}
	return simnet.NewSimConn(udp, f), nil
}

// cut cuts a way, or heals it.
func (f fork) cut(way int, cut bool) { f[way].set(func() { f[way].cut = [2]bool{cut, cut} }) }

// roamer is an edge with several ways, a camera of 25 pictures a second, and a hub that watches it.
type roamer struct {
	fork
	t      *testing.T
	uplink *Uplink
	src    *sourcetest.Memory
	feed   sourcetest.Feed

	mu     sync.Mutex
	remote *Remote
	links  int
	last   time.Time // an item came
	worst  time.Duration
	missed int
	items  int
}

const fps = 25

// inFork runs test in a bubble of virtual time with a site that is linked and watched.
func inFork(t *testing.T, f fork, uplinks []link.Uplink, test func(r *roamer)) {
	t.Helper()
	authority, node := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		afterStart()
		src := newSource()
		r := &roamer{fork: f, t: t, src: src, feed: src.Feed(testStream)}
		r.feed.Begin(4000)
		u, stop := simulate(t, authority, node,
			UplinkConfig{Source: src, Uplinks: uplinks, ListenPacket: f.ListenPacket}, r.watch)
		r.uplink = u
		ctx, cancel := context.WithCancel(t.Context())
		var filming sync.WaitGroup
		filming.Go(func() { r.film(ctx) })
		defer func() {
			cancel()
			filming.Wait()
			stop()
			src.Close()
			<-time.After(time.Minute) // packets that are still on their way
		}()
		<-time.After(15 * time.Second)
		r.stall()
		r.links = 1
		test(r)
	})
}

// film publishes pictures, each in a fragment of its own.
func (r *roamer) film(ctx context.Context) {
	tick := time.NewTicker(time.Second / fps)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			r.feed.Append(i%fps == 0, 4000)
		case <-ctx.Done():
			return
		}
	}
}

func (r *roamer) watch(ctx context.Context, src *Remote) {
	r.mu.Lock()
	r.links++
	r.remote = src
	r.mu.Unlock()
	for ctx.Err() == nil {
		for i, err := range src.Live(ctx, testStream) {
			if err != nil {
				break
			}
			r.mu.Lock()
			now := time.Now()
			if !r.last.IsZero() {
				r.worst = max(r.worst, now.Sub(r.last))
			}
			r.last, r.items, r.missed = now, r.items+1, r.missed+i.Missed
			r.mu.Unlock()
		}
		<-time.After(10 * time.Millisecond)
	}
}

// stall returns the longest time without a picture since it was last asked, and how many items were missed.
func (r *roamer) stall() (worst time.Duration, missed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	worst, missed = max(r.worst, time.Since(r.last)), r.missed
	r.worst, r.missed = 0, 0
	return worst, missed
}

// TestLosingAWay loses one of two ways under a link and heals it again, by each policy: the hub sees one link all
// the time, and live stands still for less than a second.
func TestLosingAWay(t *testing.T) {
	for _, c := range []struct {
		name  string
		kinds []link.UplinkKind
	}{
		{"both", []link.UplinkKind{link.UplinkBoth, link.UplinkBoth}},
		{"prefer and standby", []link.UplinkKind{link.UplinkPrefer, link.UplinkStandby}},
		{"prefer and metered", []link.UplinkKind{link.UplinkPrefer, link.UplinkMetered}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range seeds(1) {
				f := newFork(uint64(seed), 10*time.Millisecond, 40*time.Millisecond)
				inFork(t, f, f.uplinks(c.kinds...), func(r *roamer) {
					if c.kinds[0] == link.UplinkBoth {
						r.spread()
					}
					for range 3 {
						for way := range f {
							f.cut(way, true)
							<-time.After(8 * time.Second)
							lost, missed := r.stall()
							f.cut(way, false)
							<-time.After(40 * time.Second)
							back, more := r.stall()
							t.Logf("seed %d, way %d: live stood still for %v and missed %d items, %v and %d when it was back; by %s",
								seed, way, lost, missed, back, more, r.uplink.State().Uplink)
							if lost > time.Second || back > time.Second {
								t.Errorf("seed %d, way %d: live stood still for %v and %v, at most 1 s allowed", seed, way, lost, back)
							}
						}
					}
					if r.links != 1 {
						t.Errorf("seed %d: the hub saw %d links, want one", seed, r.links)
					}
				})
			}
		})
	}
}

// spread checks that connections go by both ways.
func (r *roamer) spread() {
	for i, w := range r.uplink.Ways() {
		if w.Connections == 0 || w.Use != link.UseAll || !w.Up {
			r.t.Errorf("way %d stands %+v, want that connections go by it", i, w)
		}
	}
}
