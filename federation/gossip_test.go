package federation

import (
	"context"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/internal/clock"
)

// until waits for a condition of which nobody tells.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if is() {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(what)
		}
	}
}

// TestGossipInALink runs gossip over QUIC: two sites and their hub find each other, and one that is stopped has
// said so before its link is gone.
func TestGossipInALink(t *testing.T) {
	auth, err := identity.OpenAuthority(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	listed := map[branchline.SiteID]bool{"berlin": true, "lyon": true}
	name := members.HubName([]byte("a"))
	centre, err := members.Open(members.Config{Hub: name, Known: func(s branchline.SiteID) bool { return listed[s] }})
	if err != nil {
		t.Fatal(err)
	}
	peers, err := OpenPeers(PeersConfig{
		Addr: "127.0.0.1:0", Authority: auth, Members: centre,
		Linked: func(ctx context.Context, _ branchline.SiteID, _ *Remote) { <-ctx.Done() },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- peers.Run(ctx) }()
	defer func() {
		stop()
		<-served
		_ = peers.Close()
		_ = centre.Close()
	}()
	ends := map[branchline.SiteID]func(){}
	for site := range listed {
		token, err := auth.AddSite(site, []string{peers.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		m, err := members.Open(members.Config{})
		if err != nil {
			t.Fatal(err)
		}
		u := NewUplink(UplinkConfig{Node: newNode(t), Source: newSource(), Token: token, Members: m})
		life, end := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- u.Run(life) }()
		ends[site] = func() {
			end()
			<-done
			_ = m.Close()
		}
	}
	until(t, "three are alive", func() bool { return centre.Alive() == 3 })
	until(t, "acknowledgements are seen", func() bool {
		f, ok := centre.Link("berlin")
		return ok && f.Up && !f.Heard.IsZero() && f.Unanswered.IsZero()
	})
	ends["berlin"]()
	f, ok := centre.Link("berlin")
	if s := members.Join(time.Now(), f, centre.Gossip("berlin")); !ok || !f.Bye {
		t.Errorf("a site that was stopped is %v: %v", s, f)
	}
	ends["lyon"]()
}

// TestPacketsOverQUIC shows that a connection carries packets, and refuses one that is too large.
func TestPacketsOverQUIC(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, h, node)
	p, ok := conn.(link.Packets)
	if !ok {
		t.Fatal("a QUIC connection carries no packets")
	}
	if err := p.SendPacket(make([]byte, link.MaxPacket)); err != nil {
		t.Errorf("a packet of %d bytes: %v", link.MaxPacket, err)
	}
	if err := p.SendPacket(make([]byte, 64<<10)); err == nil {
		t.Error("a packet of 64 KiB was taken")
	}
}
