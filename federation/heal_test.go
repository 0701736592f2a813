package federation

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/sourcetest"
)

// seeds is how many seeds a test looks at: few, or as many as the environment asks for.
func seeds(few int) int {
	if n, err := strconv.Atoi(os.Getenv("SEEDS")); err == nil {
		return n
	}
	return few
}

// branch is an edge that is always recording, its hub that always fetches from it, and the weather between.
type branch struct {
	*weather
	uplink *Uplink
	src    endless

	mu     sync.Mutex
	first  time.Time // when the first byte came that was asked for after mark
	from   time.Time
	links  int
	got    int64 // bytes that the hub has, each counted once
	asked  int   // fetches so far
	change chan struct{}
}

// endless is a source with one segment that never ends.
type endless struct{ *sourcetest.Memory }

func (endless) Fetch(_ context.Context, _ branchline.SegmentID, b branchline.ByteRange) (io.ReadCloser, error) {
	return io.NopCloser(zeros{}), nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// inWeather runs test in a bubble of virtual time, with an edge that is linked to its hub.
func inWeather(t *testing.T, w *weather, test func(t *testing.T, b *branch)) {
	t.Helper()
	authority, node := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		afterStart()
		b := &branch{weather: w, src: endless{sourcetest.NewMemory(time.Now())}, change: make(chan struct{}, 1)}
		u, stop := simulate(t, authority, node, UplinkConfig{Source: b.src, ListenPacket: w.ListenPacket}, b.follow)
		b.uplink = u
		defer func() {
			stop()
			b.src.Close()
			<-time.After(time.Minute) // packets that are still on their way
		}()
		b.next(t, time.Minute)
		test(t, b)
	})
}

// follow fetches without end, as the hub does while the site is linked.
func (b *branch) follow(ctx context.Context, src *Remote) {
	b.mu.Lock()
	b.links++
	b.mu.Unlock()
	if b.quiet {
		select {
		case b.change <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		b.fetch(ctx, src)
		<-time.After(10 * time.Millisecond) // a stream may end and the link go on
	}
}

func (b *branch) fetch(ctx context.Context, src *Remote) {
	b.mu.Lock()
	b.asked++
	b.mu.Unlock()
	body, err := src.Fetch(ctx, branchline.SegmentID{1}, branchline.ByteRange{})
	if err != nil {
		return
	}
	defer body.Close()
	buf := make([]byte, 4096)
	for {
		n, err := body.Read(buf)
		if err != nil {
			return
		}
		b.mu.Lock()
		b.got += int64(n)
		if b.first.IsZero() && !b.from.After(time.Now()) {
			b.first = time.Now()
			select {
			case b.change <- struct{}{}:
			default:
			}
		}
		b.mu.Unlock()
	}
}

// next returns how long it takes from now until the next byte comes.
func (b *branch) next(t *testing.T, most time.Duration) time.Duration {
	t.Helper()
	b.mu.Lock()
	began := time.Now()
	b.from, b.first = began, time.Time{}
	select {
	case <-b.change:
	default:
	}
	b.mu.Unlock()
	select {
	case <-b.change:
	case <-time.After(most):
		t.Fatalf("nothing came for %v; the uplink is %+v", most, b.uplink.State())
	}
	return time.Since(began)
}

// TestHeal cuts links for times from half a second to some minutes, and an hour, in both directions or in
// one, and measures how long after healing the first new byte is at the hub.
func TestHeal(t *testing.T) {
	var all []time.Duration
	for _, c := range []struct {
		rtt  time.Duration
		loss float64
	}{{20 * time.Millisecond, 0}, {80 * time.Millisecond, 0.01}, {200 * time.Millisecond, 0.01}} {
		t.Run(fmt.Sprintf("rtt %v loss %g", c.rtt, c.loss), func(t *testing.T) {
			var here []time.Duration
			for seed := range seeds(8) {
				w := newWeather(uint64(seed), c.rtt/2, 4e6)
				w.loss = c.loss
				inWeather(t, w, func(t *testing.T, b *branch) { here = append(here, heals(t, b, 25)...) })
			}
			slices.Sort(here)
			t.Logf("%d heals: first new byte after %v in the median, %v at p99, %v at most",
				len(here), percentile(here, 0.5), percentile(here, 0.99), here[len(here)-1])
			all = append(all, here...)
		})
	}
	slices.Sort(all)
	if p99 := percentile(all, 0.99); p99 > 2*time.Second {
		t.Errorf("of %d heals the first new byte comes %v after healing at p99, at most 2 s allowed", len(all), p99)
	}
}

func heals(t *testing.T, b *branch, times int) (all []time.Duration) {
	random := rand.New(rand.NewPCG(b.seed, 8))
	for i := range times {
		<-time.After(time.Duration(2+random.IntN(3000)) * time.Millisecond)
		cut := time.Duration(500+random.IntN(7000)) * time.Millisecond
		switch {
		case i == 7:
			cut = time.Hour
		case i%5 == 4:
			cut = time.Duration(20+random.IntN(200)) * time.Second
		}
		ways := [][2]bool{{true, true}, {true, true}, {true, false}, {false, true}}[random.IntN(4)]
		b.set(func() { b.cut = ways })
		<-time.After(cut)
		b.set(func() { b.cut = [2]bool{} })
		took := b.next(t, time.Minute)
		if took > 2*time.Second {
			t.Logf("cut %v for %v: %v", ways, cut, took)
		}
		all = append(all, took)
	}
	return all
}

// TestFlapping has a link be up for 3 s and down for 3 s, ten minutes long. The one connection goes on through all
// of it, so that no byte is asked for twice. QUIC itself sends again what was under way and not acknowledged: the
// share of that which had arrived before is what is more on the wire than over a whole link.
func TestFlapping(t *testing.T) {
	for seed := range seeds(2) {
		w := newWeather(uint64(seed), 40*time.Millisecond, 4e6)
		inWeather(t, w, func(t *testing.T, b *branch) {
			wire := func(f func()) float64 {
				arrived, got := b.figures()
				f()
				arrived2, got2 := b.figures()
				return float64(arrived2-arrived) / float64(got2-got)
			}
			<-time.After(20 * time.Second)
			whole := wire(func() { <-time.After(10 * time.Second) })
			_, asked, _ := b.counts()
			flapping := wire(func() {
				for range 100 {
					b.set(func() { b.cut = [2]bool{true, true} })
					<-time.After(3 * time.Second)
					b.set(func() { b.cut = [2]bool{} })
					<-time.After(3 * time.Second)
				}
			})
			resent := flapping/whole - 1
			links, asked2, _ := b.counts()
			t.Logf("seed %d: %d links, %d fetches broken, %.2f %% more on the wire than over a whole link",
				seed, links, asked2-asked, 100*resent)
			if links != 1 || asked2 != asked {
				t.Errorf("seed %d: %d links and %d broken fetches, want that the first go on", seed, links, asked2-asked)
			}
			if resent > 0.02 {
				t.Errorf("seed %d: QUIC sent %.2f %% of the bytes again, at most 2 %% allowed", seed, 100*resent)
			}
		})
	}
}

// counts returns how many links and fetches were begun, and the bytes of the fetches.
func (b *branch) counts() (links, asked int, got int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.links, b.asked, b.got
}

// figures returns how many bytes arrived at the hub, with all headers, and how many of the fetches.
func (b *branch) figures() (arrived, got int64) {
	b.set(func() { arrived = int64(b.arrived) })
	_, _, got = b.counts()
	return arrived, got
}

// TestRebinding restarts the NAT before the edge in the middle of a fetch, again and again: the same
// connection goes on from another port.
func TestRebinding(t *testing.T) {
	for seed := range seeds(2) {
		w := newWeather(uint64(seed), 40*time.Millisecond, 4e6)
		w.loss = 0.01
		w.rebind()
		inWeather(t, w, func(t *testing.T, b *branch) {
			var worst time.Duration
			for range 5 {
				<-time.After(2 * time.Second)
				b.rebind()
				worst = max(worst, b.next(t, time.Minute))
			}
			links, _, _ := b.counts()
			t.Logf("seed %d: 5 rebindings, first new byte after %v at most, %d links", seed, worst, links)
			if worst > 2*time.Second {
				t.Errorf("seed %d: the first new byte comes %v after a rebinding", seed, worst)
			}
			if links != 1 {
				t.Errorf("seed %d: %d links were made, want that the first goes on", seed, links)
			}
		})
	}
}

// TestLossy shows that loss alone, in a fetch and while nothing goes on, ends no link.
func TestLossy(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		for seed := range seeds(2) {
			w := newWeather(uint64(seed), 40*time.Millisecond, 4e6)
			w.loss, w.quiet = 0.03, quiet
			inWeather(t, w, func(t *testing.T, b *branch) {
				const minutes = 2
				<-time.After(minutes * time.Minute)
				links, _, got := b.counts()
				t.Logf("seed %d, quiet %v: %d links, %.1f MB in %d minutes", seed, quiet, links, float64(got)/1e6, minutes)
				if links != 1 {
					t.Errorf("seed %d, quiet %v: %d links at 3 %% loss, want that the first goes on", seed, quiet, links)
				}
			})
		}
	}
}

// TestLongPath has a bundle grow over a path that is longer than what quic-go assumes of a new connection: neither end
// ever tells of a round trip that nobody has measured.
func TestLongPath(t *testing.T) {
	const trip = 300 * time.Millisecond
	w := newWeather(1, trip/2, 20e6)
	w.loss = 0.01
	inWeather(t, w, func(t *testing.T, b *branch) {
		most := 0
		for range 2000 {
			<-time.After(10 * time.Millisecond)
			s := b.uplink.Stats()
			most = max(most, s.Connections)
			for _, rtt := range []time.Duration{s.RTT, s.MinRTT, s.Latest} {
				if rtt != 0 && rtt < trip {
					t.Fatalf("with %d connections a round trip of %v, %v, %v is told of, want at least %v or none",
						s.Connections, s.RTT, s.MinRTT, s.Latest, trip)
				}
			}
		}
		if most < 2 {
			t.Errorf("%d connections at most: the path did not make the bundle grow", most)
		}
	})
}

// TestIdle counts what an idle link sends.
func TestIdle(t *testing.T) {
	w := newWeather(1, 40*time.Millisecond, 4e6)
	w.quiet = true
	inWeather(t, w, func(t *testing.T, b *branch) {
		<-time.After(10 * time.Second)
		before := b.sent()
		<-time.After(time.Minute)
		kbits := float64(b.sent()-before) * 8 / 60 / 1000
		t.Logf("an idle link sends %.2f kbit/s in both directions together, headers of UDP and IP included", kbits)
		if kbits > 2 {
			t.Errorf("an idle link sends %.2f kbit/s", kbits)
		}
	})
}
