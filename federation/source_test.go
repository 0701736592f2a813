package federation

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/internal/clock"
)

const testStream = branchline.StreamID("entrance.main")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSource() *sourcetest.Memory {
	return sourcetest.NewMemory(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), branchline.Camera{
		ID: "entrance", Name: "Entrance, left", Added: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC),
		Streams: []branchline.Stream{{ID: testStream, Codecs: "avc1.42c01f", Width: 640, Height: 480}},
	})
}

// serveOn serves src at one end until the test ends.
func serveOn(t testing.TB, conn link.Conn, src branchline.Source) {
	serveWith(t, &server{conn: conn, src: src})
}

// serveWith serves until the test or the connection ends.
func serveWith(t testing.TB, s *server) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err == nil {
			t.Error("Serve returned no error")
		}
	})
}

func TestRemoteOverMemory(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		src := newSource()
		edge, hub := link.Pipe("berlin", "")
		serveOn(t, edge, src)
		t.Cleanup(func() { hub.Close(0, "") })
		return sourcetest.Fixture{Source: NewRemote(hub), Stream: testStream, Feed: src.Feed(testStream)}
	})
}

func TestRemoteOverQUIC(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		src := newSource()
		h := startHub(t)
		h.startEdge("berlin", src)
		return sourcetest.Fixture{Source: h.wait("berlin"), Stream: testStream, Feed: src.Feed(testStream)}
	})
}

// hub is a hub's side of the federation, on loopback, for a test.
type hub struct {
	testing.TB
	authority *identity.Authority
	peers     *Peers
	linked    chan *Remote
	ended     chan branchline.SiteID
	stop      func()
}

func startHub(t testing.TB) *hub { return startHubAt(t, t.TempDir(), "127.0.0.1:0", nil) }

func startHubAt(t testing.TB, dir, addr string, listen func(string) (net.PacketConn, error)) *hub {
	t.Helper()
	authority, err := identity.OpenAuthority(dir, clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{TB: t, authority: authority, linked: make(chan *Remote, 100), ended: make(chan branchline.SiteID, 100)}
	h.peers, err = OpenPeers(PeersConfig{
		Addr: addr, Authority: authority, Software: "test hub", Linked: h.link, ListenPacket: listen,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.stop = run(t, h.peers.Run, h.peers.Close)
	return h
}

func (h *hub) link(ctx context.Context, site branchline.SiteID, src *Remote) {
	h.linked <- src
	<-ctx.Done()
	h.ended <- site
}

// run runs an activity until the test ends, then ends it and closes what it used.
func run(t testing.TB, activity func(context.Context) error, closing ...func() error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := activity(ctx); ctx.Err() == nil {
			t.Errorf("ended by itself: %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
		for _, c := range closing {
			if err := c(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		closing = nil
	}
	t.Cleanup(stop)
	return stop
}

func (h *hub) addr() string { return h.peers.Addr().String() }

func (h *hub) token(site branchline.SiteID) string {
	h.Helper()
	token, err := h.authority.AddSite(site, []string{h.addr()})
	if err != nil {
		h.Fatal(err)
	}
	return token
}

func newNode(t testing.TB) *identity.Node {
	t.Helper()
	n, err := identity.OpenNode(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startEdge runs an uplink of a new edge with the source, and returns it.
func (h *hub) startEdge(site branchline.SiteID, src branchline.Source) *Uplink {
	h.Helper()
	u := NewUplink(UplinkConfig{Node: newNode(h.TB), Source: src, Token: h.token(site), Software: "test edge"})
	run(h.TB, u.Run)
	return u
}

// wait returns the source of the next link, which must be of the site.
func (h *hub) wait(site branchline.SiteID) *Remote {
	h.Helper()
	select {
	case r := <-h.linked:
		if r.Site() != site {
			h.Fatalf("site %s is linked, want %s", r.Site(), site)
		}
		return r
	case <-time.After(15 * time.Second):
		h.Fatalf("no link of site %s", site)
		return nil
	}
}

// await returns the first state of the uplink that fits.
func await(t *testing.T, u *Uplink, fits func(UplinkState) bool) UplinkState {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for s := range u.States(ctx) {
		if fits(s) {
			return s
		}
	}
	t.Fatalf("the uplink stays %+v", u.State())
	return UplinkState{}
}

func isUp(s UplinkState) bool   { return s.Up }
func isDown(s UplinkState) bool { return !s.Up && s.Err != nil }
