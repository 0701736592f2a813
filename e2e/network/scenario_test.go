package network_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/branchline-video/branchline/e2e/network"
)

// The scenarios of links on bad networks, with the real programs. They take minutes: BRANCHLINE_WAN=1, as make
// test-wan sets it, runs all of them, and without it only the first ones are run.

// TestMain builds the binary once, unless BRANCHLINE names one.
func TestMain(m *testing.M) {
	if code := runAll(m); code != 0 {
		os.Exit(code)
	}
}

func runAll(m *testing.M) int {
	if os.Getenv("BRANCHLINE") == "" && network.Missing() == nil {
		dir, err := os.MkdirTemp("", "branchline-network-")
		if err == nil {
			bin := filepath.Join(dir, "branchline")
			var out []byte
			if out, err = exec.Command("go", "build", "-o", bin, "../../cmd/branchline").CombinedOutput(); err != nil {
				err = fmt.Errorf("build branchline: %w\n%s", err, out)
			}
			os.Setenv("BRANCHLINE", bin)
			defer os.RemoveAll(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// all skips a scenario that is only run where it is asked for.
func all(t *testing.T) {
	t.Helper()
	if os.Getenv("BRANCHLINE_WAN") == "" {
		t.Skip("skipped: takes minutes; make test-wan runs it")
	}
}

// site is a world with a branch that records more than its link can carry, so that its hub, whose policy wants
// all that was recorded while the link was down, has much to fetch. What comes are fragments of some 8 kB.
type site struct {
	*network.World
	t    *testing.T
	link *network.Link
}

const backfill = "  - {streams: \"*\", keep: backfill}\n"

func newSite(t *testing.T, link string) *site {
	t.Helper()
	return newSiteOf(t, network.Plan{
		Link: link, Cameras: 16, Kbits: 120, Segment: 5 * time.Second, Policies: backfill,
	})
}

func newSiteOf(t *testing.T, p network.Plan) *site {
	t.Helper()
	if err := network.Missing(); err != nil {
		t.Skip("skipped: ", err)
	}
	p.Binary, p.Dir, p.Seed = os.Getenv("BRANCHLINE"), t.TempDir(), 1
	w, err := network.OpenWorld(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.Logs())
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return &site{World: w, t: t, link: w.Links[0]}
}

func (s *site) linked(most time.Duration) time.Duration {
	s.t.Helper()
	took, err := s.Linked(s.t.Context(), 1, most)
	if err != nil {
		s.t.Fatal(err)
	}
	return took
}

// someData is how many packets must arrive until it counts as that bytes come: the last of a connection that
// the hub has forgotten are fewer.
const someData = 5

// data counts the packets with recordings that have arrived at the centre.
func (s *site) data() int64 { return s.link.Stats(network.Branch).Data }

// next waits until bytes of recordings arrive at the centre, and returns how long that took.
func (s *site) next(most time.Duration) time.Duration {
	s.t.Helper()
	before := s.data()
	come := func() bool { return s.data() >= before+someData }
	took, err := network.Until(s.t.Context(), 10*time.Millisecond, most, come)
	if err != nil {
		s.t.Fatalf("no bytes at the hub: %v", err)
	}
	return took
}

// flowing cuts the link for a while, so that there is much to fetch, and waits until it is being fetched.
func (s *site) flowing(cut time.Duration) {
	s.t.Helper()
	s.linked(20 * time.Second)
	s.link.Cut(true)
	s.passes(cut)
	s.link.Cut(false)
	for range 10 {
		s.next(time.Minute)
	}
}

// stall returns the longest time without bytes within so long.
func (s *site) stall(during time.Duration) (worst time.Duration) {
	s.t.Helper()
	began := time.Now()
	last, seen := began, s.data()
	_, err := network.Until(s.t.Context(), 10*time.Millisecond, 2*during, func() bool {
		if n := s.data(); n > seen {
			worst, last, seen = max(worst, time.Since(last)), time.Now(), n
		}
		return time.Since(began) > during
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return max(worst, time.Since(last))
}

func (s *site) passes(d time.Duration) { <-time.After(d) }

// limit fails the test if a figure is more than it may be.
func limit(t *testing.T, what string, got, most time.Duration) {
	t.Helper()
	t.Logf("%s: %.2f s (at most %v)", what, got.Seconds(), most)
	if got > most {
		t.Errorf("%s: %v, at most %v allowed", what, got, most)
	}
}

// TestSmallPath connects over a path of 1280 bytes, of which nobody tells, enrolment included.
func TestSmallPath(t *testing.T) {
	s := newSite(t, "rate=800kbit delay=40ms mtu=1280")
	limit(t, "linked over a path of 1280 bytes with ICMP dropped", s.linked(20*time.Second), 5*time.Second)
}

// TestUDPBlocked has a network that lets no UDP through.
func TestUDPBlocked(t *testing.T) {
	all(t)
	s := newSite(t, "rate=800kbit delay=40ms")
	s.flowing(20 * time.Second)
	c, err := s.Dial(network.Branch)(t.Context(), "tcp", s.link.Addr(network.Centre).String()+":7563")
	if err != nil {
		t.Skip("skipped: this hub does not listen for TCP: ", err)
	}
	c.Close()
	s.link.Change(func(s *network.Settings) { s.NoUDP = true })
	stall := s.stall(20 * time.Second)
	limit(t, "UDP blocked: bytes come by TCP, 5 s to notice and 10 s to link, after", stall, 15*time.Second)
	s.link.Change(func(s *network.Settings) { s.NoUDP = false })
	s.next(time.Minute)
}

// TestHole has the path lose large packets from one moment to the next, and nobody tells.
func TestHole(t *testing.T) {
	s := newSite(t, "rate=800kbit delay=40ms")
	s.flowing(20 * time.Second)
	s.passes(5 * time.Second) // packets have grown
	s.link.Change(func(s *network.Settings) { s.MTU = 1280 })
	limit(t, "stall when the path shrinks to 1280 bytes in silence", s.stall(10*time.Second), 5*time.Second)
}

// TestNAT restarts the NAT, and then gives the branch other addresses.
func TestNAT(t *testing.T) {
	all(t)
	s := newSite(t, "rate=800kbit delay=40ms")
	s.link.Rebind(netip.AddrFrom4([4]byte{10, 77, 0, 9}))
	s.flowing(20 * time.Second)
	var worst time.Duration
	for range 5 {
		s.link.Rebind(netip.AddrFrom4([4]byte{10, 77, 0, 9}))
		worst = max(worst, s.stall(4*time.Second))
	}
	limit(t, "first bytes after a NAT rebinding, the worst of 5", worst, 2*time.Second)
	s.link.Rebind(netip.Addr{})
	s.next(time.Minute)
	worst = 0
	for i := range 5 {
		if err := s.link.Readdress(byte(20 + i)); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, s.stall(4*time.Second))
	}
	limit(t, "first bytes after a change of the branch's address, the worst of 5", worst, 2*time.Second)
}

// TestCuts cuts the link in both directions or in one, for up to 20 s.
func TestCuts(t *testing.T) {
	all(t)
	s := newSite(t, "rate=800kbit delay=40ms")
	s.flowing(20 * time.Second)
	random := rand.New(rand.NewPCG(1, 1))
	for name, ends := range map[string][]network.End{
		"both": {network.Branch, network.Centre}, "up": {network.Branch}, "down": {network.Centre},
	} {
		var took []time.Duration
		for i := range 25 {
			cut := time.Duration(500+random.IntN(6000)) * time.Millisecond
			if i == 0 {
				cut = 20 * time.Second
			}
			for _, e := range ends {
				s.link.ChangeFrom(e, func(s *network.Settings) { s.Cut = true })
			}
			s.passes(cut)
			s.link.Cut(false)
			d := s.next(time.Minute)
			if d > 2*time.Second {
				t.Logf("cut of %s for %v: %v", name, cut, d)
			}
			took = append(took, d)
			s.passes(time.Duration(1000+random.IntN(3000)) * time.Millisecond)
		}
		slices.Sort(took)
		t.Logf("cuts of %s, %d heals: first bytes after %.2f s in the median", name, len(took),
			took[len(took)/2].Seconds())
		limit(t, "cuts of "+name+", first bytes at p99", took[len(took)-1], 2*time.Second)
	}
}

// TestFlapping has the link be up for 3 s and down for 3 s, again and again (FLAP, ten minutes by default).
func TestFlapping(t *testing.T) {
	all(t)
	during, err := time.ParseDuration(os.Getenv("FLAP"))
	if err != nil {
		during = 10 * time.Minute
	}
	s := newSiteOf(t, network.Plan{
		Link: "rate=4mbit delay=40ms", Cameras: 8, Kbits: 3000, Segment: 5 * time.Second, Policies: backfill,
	})
	// As much to fetch as the link brings in all that time: what is recorded while it flaps is no outage of its own.
	s.flowing(20*time.Second + during/8)
	measure := func(f func()) (wire, came, useful float64) {
		wire0, came0, useful0 := s.link.Stats(network.Branch).Bytes, s.bytes("fetch_received"), s.bytes("fetched")
		f()
		useful = s.bytes("fetched") - useful0
		wire = float64(s.link.Stats(network.Branch).Bytes - wire0)
		return wire / useful, (s.bytes("fetch_received") - came0) / useful, useful
	}
	whole, _, _ := measure(func() { s.passes(25 * time.Second) })
	wire, came, useful := measure(func() {
		for end := time.Now().Add(during); time.Now().Before(end); {
			s.link.Cut(true)
			s.passes(3 * time.Second)
			s.link.Cut(false)
			s.passes(3 * time.Second)
		}
		s.passes(3 * time.Second) // what was begun is stored
	})
	resent := came - 1
	t.Logf("%v of 3 s up, 3 s down: %.1f MB fetched at %.0f kbit/s while up, %.2f %% of it came twice (at most 1 %%); "+
		"on the wire %.3f bytes for each byte, on a whole link %.3f: QUIC sent %.1f %% more", during, useful/1e6,
		useful*8/1e3/(during.Seconds()/2), resent*100, wire, whole, (wire/whole-1)*100)
	if resent > 0.01 {
		t.Errorf("%.1f %% of the bytes were fetched again, at most 1 %% allowed", resent*100)
	}
	if wire > 1.02*whole { // QUIC's probes repeat what may have arrived before the cut
		t.Errorf("%.1f %% more on the wire than on a whole link, at most 2 %% allowed", (wire/whole-1)*100)
	}
}

// bytes returns one of the hub's counters of bytes: fetched, or fetch_received.
func (s *site) bytes(counter string) float64 {
	s.t.Helper()
	n, err := s.Metric(network.Centre, "branchline_hub_"+counter+"_bytes_total")
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestIdle counts what a site of 16 cameras sends and gets while nobody watches and no policy wants anything.
func TestIdle(t *testing.T) {
	all(t)
	s := newSiteOf(t, network.Plan{Link: "rate=20mbit delay=40ms", Cameras: 16, Kbits: 500})
	s.linked(20 * time.Second)
	s.passes(20 * time.Second)
	sent := func() int64 { return s.link.Stats(network.Branch).Bytes + s.link.Stats(network.Centre).Bytes }
	before := sent()
	const during = 2 * time.Minute // two segments of each camera are sealed
	s.passes(during)
	kbits := float64(sent()-before) * 8 / 1000 / during.Seconds()
	t.Logf("16 cameras, nothing watched: %.2f kbit/s in both directions together, with all headers (at most 4)", kbits)
	if kbits > 4 {
		t.Errorf("%.2f kbit/s, at most 4 allowed", kbits)
	}
}
