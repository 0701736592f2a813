package federation

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

// TestTwoHubsApart: two hubs with the same name in their certificates have locks and holds of their own at one
// edge, by the name that the edge has for each link.
func TestTwoHubsApart(t *testing.T) {
	src := newSource()
	home := func(name string) *Remote {
		edge, hub := link.Pipe("berlin", "")
		t.Cleanup(func() { hub.Close(0, "") })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = (&server{conn: edge, src: src, name: name}).run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
		return NewRemote(hub)
	}
	first, south, north := home(""), home("south"), home("north")
	lock := branchline.Lock{ID: "1", Stream: testStream, Reason: "r", Created: time.Unix(1, 0).UTC(),
		Span: branchline.TimeRange{Start: time.Unix(1, 0).UTC(), End: time.Unix(2, 0).UTC()}}
	for i, r := range []*Remote{first, south} {
		if err := r.Lock(t.Context(), lock); err != nil {
			t.Fatalf("hub %d: %v", i, err)
		}
	}
	if err := north.Unlock(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		hub  *Remote
		want int
	}{"first": {first, 1}, "south": {south, 1}, "north": {north, 0}} {
		list, err := c.hub.Locks(t.Context())
		if err != nil || len(list) != c.want {
			t.Errorf("%s has %v, %v", name, list, err)
		}
	}
	all, err := src.Locks(t.Context())
	if err != nil || len(all) != 2 || all[0].ID == all[1].ID {
		t.Errorf("the edge has %+v, %v", all, err)
	}
}

// TestHubsOwnNames: no hub takes the name of a link by what its certificate says.
func TestHubsOwnNames(t *testing.T) {
	for _, uri := range []string{"hub south", "?hub south", "#hub south", "hub%20south"} {
		u, err := url.Parse("branchline://hub/" + uri)
		if err != nil {
			continue
		}
		if name := strings.TrimPrefix(u.String(), "branchline://hub/"); strings.HasPrefix(name, namedHub) {
			t.Errorf("a certificate can have the name %q", name)
		}
	}
}

// losing is a node that has lost one segment.
type losing struct {
	entered chan struct{}
	leave   chan struct{}
}

func (losing) Lost() ([]branchline.SegmentID, error) { return []branchline.SegmentID{{1}}, nil }

func (l losing) Restore(context.Context, branchline.SegmentID, io.Reader) error {
	l.entered <- struct{}{}
	<-l.leave
	return nil
}

// TestShareRestorer: what comes back over one link is not asked for over another meanwhile.
func TestShareRestorer(t *testing.T) {
	l := losing{make(chan struct{}), make(chan struct{})}
	r := ShareRestorer(l)
	done := make(chan error)
	go func() { done <- r.Restore(t.Context(), branchline.SegmentID{1}, nil) }()
	<-l.entered
	if lost, err := r.Lost(); err != nil || len(lost) != 0 {
		t.Errorf("another link sees %v, %v", lost, err)
	}
	if err := r.Restore(t.Context(), branchline.SegmentID{1}, nil); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("another link brings it back: %v", err)
	}
	close(l.leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if lost, err := r.Lost(); err != nil || len(lost) != 1 {
		t.Errorf("afterwards %v, %v", lost, err)
	}
}

// TestOneKeyTwoHubs enrols one node at two hubs over QUIC: both links stand at once, and both hubs know the node by
// the same key. One hub going away does not touch the other's link.
func TestOneKeyTwoHubs(t *testing.T) {
	a, b := startHub(t), startHub(t)
	who, err := identity.OpenNode(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	further, err := who.Further("south", clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	src := newSource()
	up := map[string]*Uplink{}
	for name, c := range map[string]struct {
		hub  *hub
		node *identity.Node
		site branchline.SiteID
	}{"": {a, who, "berlin"}, "south": {b, further, "branch-7"}} {
		token, err := c.hub.authority.AddSite(c.site, []string{c.hub.peers.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		u := NewUplink(UplinkConfig{Node: c.node, Source: src, Name: name, Token: token})
		run(t, u.Run)
		up[name] = u
	}
	north, south := a.wait("berlin"), b.wait("branch-7")
	if !north.Key().Equal(south.Key()) || !north.Key().Equal(who.Key().Public()) {
		t.Error("the hubs know the node by different keys")
	}
	a.stop()
	await(t, up[""], func(s UplinkState) bool { return !s.Up })
	if _, err := south.Cameras(t.Context()); err != nil || !up["south"].State().Up {
		t.Errorf("the other link: %v, %+v", err, up["south"].State())
	}
}
