package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

// TestCutAndHeal pulls the cable for longer than the idle timeout: both sides notice, calls fail as
// unavailable, and after healing the site is back and a fetch goes on at its offset.
func TestCutAndHeal(t *testing.T) {
	h := startHub(t)
	src := newSource()
	feed := src.Feed(testStream)
	id := feed.Begin(1 << 20)
	feed.Seal()
	var cable link.Cuttable
	u := NewUplink(UplinkConfig{
		Node: newNode(t), Source: src, Token: h.token("berlin"), ListenPacket: cable.ListenPacket,
	})
	run(t, u.Run)
	before := h.wait("berlin")
	body, err := before.Fetch(t.Context(), id, branchline.ByteRange{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got := make([]byte, 100)
	if _, err := io.ReadFull(body, got); err != nil {
		t.Fatal(err)
	}
	cut := time.Now()
	cable.Cut()
	if _, err := before.Cameras(t.Context()); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("cameras over a cut cable: %v, want unavailable", err)
	}
	if took := time.Since(cut); took > 5*time.Second {
		t.Errorf("the hub noticed after %v", took)
	}
	<-h.ended
	if s := await(t, u, isDown); !errors.Is(s.Err, link.ErrSilent) {
		t.Errorf("the edge says %v, want silence", s.Err)
	}
	healed := time.Now()
	cable.Heal()
	after := h.wait("berlin")
	t.Logf("linked again %v after healing", time.Since(healed).Round(time.Millisecond))
	rest, err := after.Fetch(t.Context(), id, branchline.ByteRange{Start: int64(len(got))})
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Close()
	more, err := io.ReadAll(rest)
	if err != nil || len(got)+len(more) < 1<<20 {
		t.Errorf("the rest has %d bytes: %v", len(more), err)
	}
}

// TestNarrowPath shrinks the path in the middle of a fetch: the link stalls, and a new one with small
// packets takes its place, over which the fetch goes on.
func TestNarrowPath(t *testing.T) {
	h := startHub(t)
	src := newSource()
	feed := src.Feed(testStream)
	id := feed.Begin(8 << 20)
	feed.Seal()
	var cable link.Cuttable
	u := NewUplink(UplinkConfig{
		Node: newNode(t), Source: src, Token: h.token("berlin"), ListenPacket: cable.ListenPacket,
	})
	run(t, u.Run)
	first, err := h.wait("berlin").Fetch(t.Context(), id, branchline.ByteRange{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := io.CopyN(io.Discard, first, 4<<20); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cable.Narrow(1250)
	if _, err := io.ReadAll(first); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("the fetch ended with %v, want unavailable", err)
	}
	again, err := h.wait("berlin").Fetch(t.Context(), id, branchline.ByteRange{Start: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := io.ReadAll(again); err != nil {
		t.Errorf("over the new link: %v", err)
	}
	t.Logf("fetched %v after the path shrank", time.Since(began).Round(time.Millisecond))
	if link.Code(wire.Code_CODE_STALLED) != link.CodeStalled {
		t.Error("the code of a stalled link is another in the wire format")
	}
}

// TestHubRestarts shows that an edge that is sending hears at once that a hub died and came back: by a
// reset that only the same hub can send. (To the small packets of an idle link QUIC sends no resets.)
func TestHubRestarts(t *testing.T) {
	dir := t.TempDir()
	var cable link.Cuttable
	h := startHubAt(t, dir, "127.0.0.1:0", cable.ListenPacket)
	addr := h.addr()
	src := newSource()
	feed := src.Feed(testStream)
	feed.Begin(1000)
	u := h.startEdge("berlin", src)
	for range h.wait("berlin").Live(t.Context(), testStream) {
		cable.Cut() // a hub that dies says nothing
		feed.Append(true, 5000)
		break
	}
	h.stop()
	again := startHubAt(t, dir, addr, nil)
	began := time.Now()
	again.wait("berlin")
	if took := time.Since(began); took > link.IdleTimeout/2 {
		t.Errorf("the edge was back after %v", took)
	}
	await(t, u, isUp)
}

func TestNewerLinkReplacesOlder(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	first := dial(t, h, node)
	if _, err := greet(t.Context(), first, "", nil); err != nil {
		t.Fatal(err)
	}
	old := h.wait("berlin")
	if key := old.Key(); key == nil || !key.Equal(node.Key().Public()) {
		t.Errorf("the site's key is %x", key)
	}
	second := dial(t, h, node)
	if _, err := greet(t.Context(), second, "", nil); err != nil {
		t.Fatal(err)
	}
	_, err := first.AcceptStream(t.Context())
	if err := fromLink(err); !errors.Is(err, ErrReplaced) {
		t.Errorf("the older link ended with %v, want that it was replaced", err)
	}
	<-h.ended
	if now := h.wait("berlin"); now == old {
		t.Error("the older link is still the site's")
	}
	if got, ok := h.peers.Remote("berlin"); !ok || got == old {
		t.Errorf("the hub's source of the site is %v, %v", got, ok)
	}
	if l := h.peers.Links(); len(l) != 1 || l[0].Site != "berlin" || l[0].Stats.RTT <= 0 {
		t.Errorf("links are %+v", l)
	}
}

// dial connects node to the hub, without greeting it.
func dial(t *testing.T, h *hub, node *identity.Node) link.Conn {
	t.Helper()
	conf, err := node.TLS()
	if err != nil {
		t.Fatal(err)
	}
	c, err := link.Dial(t.Context(), h.addr(), link.Options{TLS: conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(0, "") })
	return c
}

// TestRefused shows that everybody who is not let in hears why.
func TestRefused(t *testing.T) {
	h, other := startHub(t), startHub(t)
	enrolled := func(at *hub, site branchline.SiteID) *identity.Node {
		n := newNode(t)
		if err := Enrol(t.Context(), n, at.token(site), nil); err != nil {
			t.Fatal(err)
		}
		return n
	}
	foreign, revoked := enrolled(other, "berlin"), enrolled(h, "munich")
	if err := h.authority.Revoke("munich"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		node *identity.Node
		want error
		text string
	}{
		// The edge finds out first that the hub is not its own.
		"another authority": {foreign, identity.ErrForeign, "another authority"},
		"revoked":           {revoked, identity.ErrRevoked, "revoked"},
		"not enrolled":      {newNode(t), identity.ErrNotEnrolled, "not enrolled"},
	} {
		t.Run(name, func(t *testing.T) {
			u := NewUplink(UplinkConfig{Node: c.node, Source: newSource(), Hubs: []string{h.addr()}})
			run(t, u.Run)
			s := await(t, u, isDown)
			if !errors.Is(s.Err, c.want) || !strings.Contains(s.Err.Error(), c.text) {
				t.Errorf("the edge says %v, want %v", s.Err, c.want)
			}
		})
	}
	select {
	case r := <-h.linked:
		t.Errorf("site %s was linked", r.Site())
	default:
	}
}

// TestForeignCertificate shows what the hub does with a client whose certificate is of another
// authority, and with one that has none, if the client does not mind the hub.
func TestForeignCertificate(t *testing.T) {
	h, other := startHub(t), startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, other.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	conf, err := node.TLS()
	if err != nil {
		t.Fatal(err)
	}
	conf.VerifyConnection = nil
	c, err := link.Dial(t.Context(), h.addr(), link.Options{TLS: conf})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(0, "")
	_, err = c.AcceptStream(t.Context())
	if err := fromLink(err); !errors.Is(err, identity.ErrForeign) || !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("the hub says %v, want that the certificate is foreign", err)
	}
	conf.GetClientCertificate = nil
	bare, err := link.Dial(t.Context(), h.addr(), link.Options{TLS: conf})
	if err == nil { // the hub's alert comes after the client's side of the handshake
		_, err = bare.AcceptStream(t.Context())
		bare.Close(0, "")
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestRevokedWhileLinked(t *testing.T) {
	h := startHub(t)
	u := h.startEdge("berlin", newSource())
	h.wait("berlin")
	began := time.Now()
	if err := h.authority.Revoke("berlin"); err != nil {
		t.Fatal(err)
	}
	<-h.ended
	if s := await(t, u, isDown); !errors.Is(s.Err, identity.ErrRevoked) {
		t.Errorf("the edge says %v, want that it was revoked", s.Err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the link ended %v after the revocation", took)
	}
}

func TestTokensOverTheLink(t *testing.T) {
	h, other := startHub(t), startHub(t)
	token := h.token("berlin")
	if err := Enrol(t.Context(), newNode(t), token, nil); err != nil {
		t.Fatal(err)
	}
	superseded := h.token("munich")
	h.token("munich")
	parsed, err := identity.ParseToken(h.token("hamburg"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := parsed
	wrong.Secret[0]++
	elsewhere := parsed
	elsewhere.Hubs = []string{other.addr()}
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"used":             {token, identity.ErrTokenUsed},
		"superseded":       {superseded, identity.ErrTokenUnknown},
		"wrong":            {wrong.String(), identity.ErrTokenUnknown},
		"of another hub":   {elsewhere.String(), identity.ErrForeign},
		"cut when pasted":  {token[:len(token)-5], branchline.ErrInvalid},
		"something else":   {"hello", branchline.ErrInvalid},
		"with a typo":      {strings.Replace(token, token[40:41], "_", 1), branchline.ErrInvalid},
		"without any hubs": {identity.Token{Site: "x"}.String(), branchline.ErrInvalid},
	} {
		node := newNode(t)
		if err := Enrol(t.Context(), node, c.token, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if node.Certificate() != nil {
			t.Errorf("%s: enrolled", name)
		}
	}
	if sites, err := other.authority.Sites(); err != nil || len(sites) != 0 {
		t.Errorf("the other hub has sites %v, %v", sites, err)
	}
}

// crowd makes so many connections that say nothing, of which the hub has to refuse one as it is busy.
func (h *hub) crowd(n int, conf *tls.Config) {
	h.Helper()
	ended := make(chan error, n)
	for range n {
		c, err := link.Dial(h.Context(), h.addr(), link.Options{TLS: conf})
		if err != nil {
			h.Fatal(err)
		}
		h.Cleanup(func() { c.Close(0, "") })
		go func() {
			_, err := c.AcceptStream(h.Context())
			ended <- err
		}()
	}
	if err := fromLink(<-ended); !errors.Is(err, branchline.ErrBusy) {
		h.Errorf("one connection too many ended with %v, want busy", err)
	}
}

// TestStrangersDisturbNobody fills the places for enrolments with connections that say nothing. Those
// from one network get few of them, and sites that are enrolled are linked all the same.
func TestStrangersDisturbNobody(t *testing.T) {
	h := startHub(t)
	site, stranger := newNode(t), newNode(t)
	if err := Enrol(t.Context(), site, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(h.token("munich"))
	if err != nil {
		t.Fatal(err)
	}
	h.crowd(maxEnrollingFrom+1, stranger.EnrolTLS(token))
	run(t, NewUplink(UplinkConfig{Node: site, Source: newSource()}).Run)
	h.wait("berlin")
}

// TestEnrolling enters from several networks. A line is addresses, each with the places it gets.
func TestEnrolling(t *testing.T) {
	for _, c := range []struct {
		addr string // with %d for a number that counts up
		want int
	}{
		{"192.0.2.1:%d", maxEnrollingFrom},
		{"[2001:db8::%x]:1000", maxEnrollingFrom}, // one /64
		{"192.0.2.%d:1000", maxEnrolling},
		{"[2001:db8:0:%x::1]:1000", maxEnrolling},
	} {
		e := newPlaces[netip.Prefix](maxEnrolling, maxEnrollingFrom)
		var leave []func()
		for i := range 2 * maxEnrolling {
			if l, ok := e.enter(link.Network(fmt.Sprintf(c.addr, i+1))); ok {
				leave = append(leave, l)
			}
		}
		if len(leave) != c.want {
			t.Errorf("%s: %d entered, want %d", c.addr, len(leave), c.want)
		}
		for _, l := range leave {
			l()
		}
		if e.all != 0 || len(e.of) != 0 {
			t.Errorf("%s: %d and %v are left", c.addr, e.all, e.of)
		}
	}
}

// TestTokenForARevokedSite gives a revoked edge a new token while its network fails: the token stays
// good for another attempt, until the hub has answered.
func TestTokenForARevokedSite(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	if err := h.authority.Revoke("berlin"); err != nil {
		t.Fatal(err)
	}
	token := h.token("berlin")
	noNetwork := errors.New("no network")
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Token: token})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i, step := range []struct {
		offline bool
		want    error
	}{
		{false, identity.ErrRevoked},
		{true, noNetwork}, // with the token
		{false, identity.ErrRevoked},
		{false, context.Canceled}, // with the token, and linked
	} {
		u.cfg.ListenPacket = nil
		if step.offline {
			u.cfg.ListenPacket = func(string) (net.PacketConn, error) { return nil, noNetwork }
		}
		if step.want == context.Canceled {
			go func() {
				<-h.linked
				cancel()
			}()
		}
		hub, err := u.once(ctx, 0)
		u.down(hub, err)
		if !errors.Is(err, step.want) {
			t.Fatalf("attempt %d: %v, want %v", i, err, step.want)
		}
	}
}

// TestRenewal moves the clocks of both sides into the time of renewal.
func TestRenewal(t *testing.T) {
	now := time.Now()
	late := clock.New(func() time.Time { return now.Add(identity.CertificateLife * 9 / 10) })
	hubDir, edgeDir := t.TempDir(), t.TempDir()
	h := startHubAt(t, hubDir, "127.0.0.1:0", nil)
	node, err := identity.OpenNode(edgeDir, clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	authority, err := identity.OpenAuthority(hubDir, late)
	if err != nil {
		t.Fatal(err)
	}
	peers, err := OpenPeers(PeersConfig{Addr: "127.0.0.1:0", Authority: authority, Linked: h.link, Clock: late})
	if err != nil {
		t.Fatal(err)
	}
	run(t, peers.Run, peers.Close)
	if node, err = identity.OpenNode(edgeDir, late); err != nil {
		t.Fatal(err)
	}
	old := node.Certificate()
	u := NewUplink(UplinkConfig{
		Node: node, Source: newSource(), Hubs: []string{peers.Addr().String()}, Clock: late,
	})
	run(t, u.Run)
	src := h.wait("berlin")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for node.Certificate().Equal(old) { // the renewal is a call on the link; others give it its time
		if _, err := src.Cameras(ctx); err != nil {
			t.Fatalf("not renewed: %v", err)
		}
	}
	if c := node.Certificate(); !c.NotAfter.After(old.NotAfter) {
		t.Errorf("the new certificate ends %v, the old one %v", c.NotAfter, old.NotAfter)
	}
	again, err := identity.OpenNode(edgeDir, late)
	if err != nil || !again.Certificate().Equal(node.Certificate()) {
		t.Errorf("after a restart the certificate is another: %v", err)
	}
}
