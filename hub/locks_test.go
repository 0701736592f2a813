package hub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	edgenode "github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/internal/clock"
)

// pair is a real hub and a real edge, linked over QUIC on loopback.
type pair struct {
	*testing.T
	hub     *hub.Node
	edge    *edgenode.Node
	who     *identity.Node
	token   string
	changed chan struct{} // gets a token when a lock stands otherwise
	unlink  func()
}

func newPair(t *testing.T, allow edgenode.Allow) *pair {
	t.Helper()
	p := &pair{T: t, changed: make(chan struct{}, 1)}
	tell := func() {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
	var err error
	p.hub, err = hub.Open(hub.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0",
		LockChanged: func(evidence.Lock) { tell() }})
	p.check(err)
	stop := p.run(p.hub.Run)
	t.Cleanup(func() { stop(); p.check(p.hub.Close()) })
	p.token, err = p.hub.Authority().AddSite(site, []string{p.hub.Addr().String()})
	p.check(err)
	p.who, err = identity.OpenNode(t.TempDir(), clock.Clock{})
	p.check(err)
	p.edge, err = edgenode.Open(edgenode.Config{Dir: t.TempDir(), Signer: p.who.Key(), Allow: allow,
		Cameras: []edgenode.CameraConfig{{ID: "door", URL: "rtsp://127.0.0.1:1/none"}}})
	p.check(err)
	t.Cleanup(func() { p.check(p.edge.Close()) })
	p.link()
	p.wait("the hub does not know the camera", func() bool { return p.hub.Jobs().Known(stream) == nil })
	return p
}

func (p *pair) check(err error) {
	p.Helper()
	if err != nil {
		p.Error(err)
	}
}

// run runs an activity until the returned function ends it.
func (p *pair) run(activity func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = activity(ctx) }()
	return func() { cancel(); <-done }
}

// link runs the edge's uplink until cut, or the end of the test.
func (p *pair) link() {
	up := federation.NewUplink(federation.UplinkConfig{Node: p.who, Source: p.edge, Token: p.token})
	p.unlink = p.run(up.Run)
	p.Cleanup(func() { p.unlink() })
	p.wait("no link", func() bool { return len(p.hub.Links()) == 1 })
}

func (p *pair) cut() {
	p.unlink()
	p.wait("still linked", func() bool { return len(p.hub.Links()) == 0 })
}

// wait waits for a condition of which a lock's change or a moment may tell.
func (p *pair) wait(what string, holds func() bool) {
	p.Helper()
	late, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-p.changed:
		case <-tick.C:
		case <-late:
			p.Fatalf("%s; locks: %+v", what, p.hub.Locks().Locks())
		}
	}
}

func (p *pair) lock() evidence.Lock {
	p.Helper()
	now := time.Now().UTC()
	l, err := p.hub.Locks().Create(p.Context(), evidence.Order{
		Streams: []branchline.StreamID{stream}, Span: branchline.TimeRange{Start: now.Add(-time.Hour), End: now},
		Until: now.Add(time.Hour), By: "erika", Reason: "case 12",
	})
	if err != nil {
		p.Fatal(err)
	}
	return l
}

// at returns the site's state to the lock and the cause.
func (p *pair) at(l evidence.Lock) string {
	l, err := p.hub.Locks().Lock(l.ID)
	if errors.Is(err, branchline.ErrNotFound) {
		return "forgotten"
	}
	state, cause := l.Edge()
	return strings.TrimSpace(fmt.Sprintf("%s %s", state, cause))
}

// stored returns what a store has locked of a stream.
func (p *pair) stored(c branchline.Control) []branchline.Lock {
	p.Helper()
	locks, err := c.Locks(p.Context())
	p.check(err)
	return locks
}

// TestLockReachesTheEdge locks at the hub over a real link, and takes the lock off.
func TestLockReachesTheEdge(t *testing.T) {
	p := newPair(t, edgenode.Allow{Hold: true, Lock: true})
	l := p.lock()
	if here := p.stored(p.hub.Store()); len(here) != 1 || here[0].Stream != stream || !l.Here() {
		t.Fatalf("the hub's own store has %+v", here)
	}
	p.wait("the edge has no lock", func() bool { return p.at(l) == "placed" })
	there := p.stored(p.edge)
	want := branchline.Lock{ID: "hub/" + l.ID + "-0", Stream: local, Span: l.Span, Until: l.Until, By: "erika",
		Reason: "case 12", Created: l.Created}
	if len(there) != 1 || there[0] != want {
		t.Errorf("the edge has %+v, want %+v", there, want)
	}
	p.check(p.hub.Locks().Remove(t.Context(), l.ID))
	p.wait("the lock is still known", func() bool { return p.at(l) == "forgotten" })
	if here, there := p.stored(p.hub.Store()), p.stored(p.edge); len(here)+len(there) > 0 {
		t.Errorf("still locked: %+v, %+v", here, there)
	}
}

// TestLockWaitsForTheLink locks and unlocks while the site is down.
func TestLockWaitsForTheLink(t *testing.T) {
	p := newPair(t, edgenode.Allow{Hold: true, Lock: true})
	p.cut()
	l := p.lock()
	if got := p.at(l); got != "pending "+evidence.CauseDark || len(p.stored(p.hub.Store())) != 1 {
		t.Errorf("while dark: %s, here %+v", got, p.stored(p.hub.Store()))
	}
	p.link()
	p.wait("the lock did not arrive", func() bool { return p.at(l) == "placed" && len(p.stored(p.edge)) == 1 })
	p.cut()
	p.check(p.hub.Locks().Remove(t.Context(), l.ID))
	if got := p.at(l); got != "pending "+evidence.CauseDark || len(p.stored(p.edge)) != 1 {
		t.Errorf("unlocked while dark: %s, there %+v", got, p.stored(p.edge))
	}
	p.link()
	p.wait("the lock was not taken off", func() bool { return p.at(l) == "forgotten" && len(p.stored(p.edge)) == 0 })
}

// TestLockIsRefused locks at a site whose administrator does not allow it.
func TestLockIsRefused(t *testing.T) {
	p := newPair(t, edgenode.Allow{Hold: true})
	l := p.lock()
	p.wait("the edge did not refuse", func() bool { return strings.HasPrefix(p.at(l), "refused ") })
	if got := p.at(l); !strings.Contains(got, "the site does not allow it (allow.lock") {
		t.Errorf("the site's words do not arrive: %s", got)
	}
	if here := p.stored(p.hub.Store()); len(here) != 1 {
		t.Errorf("the hub's own copies are not locked: %+v", here)
	}
	p.check(p.hub.Locks().Remove(t.Context(), l.ID))
	p.wait("the lock is still known", func() bool { return p.at(l) == "forgotten" })
}

// TestLockOfARevokedSite shows that a lock stays with the hub when its site is revoked, says so, and can be
// taken off.
func TestLockOfARevokedSite(t *testing.T) {
	p := newPair(t, edgenode.Allow{Hold: true, Lock: true})
	before := p.lock()
	p.wait("the edge has no lock", func() bool { return p.at(before) == "placed" })
	p.check(p.hub.Authority().Revoke(site))
	p.wait("a revoked site is linked", func() bool { return len(p.hub.Links()) == 0 })
	after := p.lock()
	if got := p.at(after); got != "refused the site is revoked" {
		t.Errorf("locked at a revoked site: %s", got)
	}
	if n := len(p.stored(p.hub.Store())); n != 2 {
		t.Errorf("%d locks here, want 2", n)
	}
	for _, l := range []evidence.Lock{before, after} {
		p.check(p.hub.Locks().Remove(t.Context(), l.ID))
		if got := p.at(l); got != "forgotten" {
			t.Errorf("taken off: %s", got)
		}
	}
}
