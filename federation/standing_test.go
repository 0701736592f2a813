package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

// from opens sockets at an address of loopback's, so that many edges of one machine count as many networks.
func from(ip string) func(string) (net.PacketConn, error) {
	return func(string) (net.PacketConn, error) { return net.ListenPacket("udp", ip+":0") }
}

// TestTokenRacedOverSockets lets a hundred nodes enrol with one token at once, over their own sockets and at two
// hubs on one directory, as an administrator's second process would open it. A busy hub is asked again.
func TestTokenRacedOverSockets(t *testing.T) {
	const nodes = 100
	dir := t.TempDir()
	one := startHubAt(t, dir, "127.0.0.1:0", nil)
	two := startHubAt(t, dir, "127.0.0.1:0", nil)
	token, err := identity.ParseToken(one.token("berlin"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*identity.Node
	for range nodes {
		all = append(all, newNode(t))
	}
	start, results := make(chan struct{}), make([]error, nodes)
	var racing sync.WaitGroup
	for i, n := range all {
		mine := token
		mine.Hubs = []string{[]*hub{one, two}[i%2].addr()}
		racing.Go(func() {
			<-start
			for {
				results[i] = Enrol(t.Context(), n, mine.String(), from(fmt.Sprintf("127.1.%d.1", i)))
				if !errors.Is(results[i], branchline.ErrBusy) {
					return
				}
			}
		})
	}
	close(start)
	racing.Wait()
	won := 0
	for i, err := range results {
		if err == nil {
			won++
			if _, err := two.authority.Verify(all[i].Certificate().Raw); err != nil {
				t.Errorf("the winner's certificate: %v", err)
			}
		} else if !errors.Is(err, identity.ErrTokenUsed) || all[i].Certificate() != nil {
			t.Errorf("a loser is told %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d won", won, nodes)
	}
}

// TestKeyStaysAtTheEdge looks for the node's private key in what it sends to enrol, to renew, to come back and to
// link, and at who may read its file.
func TestKeyStaysAtTheEdge(t *testing.T) {
	h := startHub(t)
	dir := t.TempDir()
	node := openIn(t, dir, clock.Clock{})
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	hello, err := proto.Marshal(NewUplink(UplinkConfig{Node: node}).hello())
	if err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string][]byte{"request": csr, "hello": hello, "certificate": node.Certificate().Raw} {
		if bytes.Contains(sent, node.Key().Seed()) {
			t.Errorf("the key is in the %s", name)
		}
	}
	info, err := os.Stat(dir + "/node.key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
}

func openIn(t *testing.T, dir string, clk clock.Clock) *identity.Node {
	t.Helper()
	n, err := identity.OpenNode(dir, clk)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// started returns the node of the directory as one that was started, like the process of an edge.
func started(t *testing.T, dir string) *identity.Node {
	t.Helper()
	n := openIn(t, dir, clock.Clock{})
	if err := n.CountOpen(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return n
}

func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// attempt makes one attempt to link, as Run does, and returns its error, nil if the link came up.
func attempt(t *testing.T, h *hub, u *Uplink) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		hub, err := u.once(ctx, 0)
		u.down(hub, err)
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-h.linked:
		cancel()
		<-ended
		<-h.ended
		return nil
	}
}

// TestTwoBoxes starts two boxes from one disk image: both links end within 30 s and are refused, with both
// addresses told; the approved one comes back and renews, the other is refused for good.
func TestTwoBoxes(t *testing.T) {
	h := startHub(t)
	image := t.TempDir()
	if err := Enrol(t.Context(), openIn(t, image, clock.Clock{}), h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	box := func(ip string) (*Uplink, *identity.Node) {
		n := started(t, copyDir(t, image))
		return NewUplink(UplinkConfig{Node: n, Source: newSource(), Hubs: []string{h.addr()}, ListenPacket: from(ip)}), n
	}
	a, _ := box("127.2.0.1")
	b, second := box("127.2.0.2")
	stopA := run(t, a.Run)
	h.wait("berlin")
	began := time.Now()
	stopB := run(t, b.Run)
	quarantined := func(s UplinkState) bool { return errors.Is(s.Err, identity.ErrQuarantined) }
	await(t, a, quarantined)
	await(t, b, quarantined)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("quarantined after %v", took.Round(time.Millisecond))
	}
	stopA()
	stopB()
	<-h.ended
	sites, err := h.authority.Sites()
	if err != nil || sites[0].Quarantine == nil {
		t.Fatal(sites, err)
	}
	told := fmt.Sprint(sites[0].Quarantine.Nodes)
	if !strings.Contains(told, "127.2.0.1:") || !strings.Contains(told, "127.2.0.2:") {
		t.Errorf("the nodes are %s", told)
	}
	if err := h.authority.Approve("berlin", second.Life().Instance); err != nil {
		t.Fatal(err)
	}
	if err := attempt(t, h, a); !errors.Is(err, identity.ErrSuperseded) {
		t.Errorf("the first box: %v", err)
	}
	shared := second.Certificate()
	run(t, b.Run)
	src := h.wait("berlin")
	renewed(t, src, func() bool { return !second.Certificate().Equal(shared) })
	again, _ := box("127.2.0.3") // the image once more, started more often
	if err := attempt(t, h, again); !errors.Is(err, identity.ErrSuperseded) {
		t.Errorf("the image once more: %v", err)
	}
	if !b.State().Up {
		t.Errorf("the approved box is %+v", b.State())
	}
}

// renewed waits for something at the edge that a renewal on its link brings, calling on the link meanwhile.
func renewed(t *testing.T, src *Remote, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for !done() {
		if _, err := src.Cameras(ctx); err != nil {
			t.Fatalf("the link while it renews: %v", err)
		}
	}
}

// TestNoFalseAlarm lets a site do what sites do: be restarted, be killed, change its address, get a new store
// and come while its old link is up.
func TestNoFalseAlarm(t *testing.T) {
	h := startHub(t)
	dir, store := t.TempDir(), t.TempDir()
	if err := Enrol(t.Context(), openIn(t, dir, clock.Clock{}), h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	at := branchline.Position{Epoch: 7, Seq: 1000}
	h.peers.cfg.Followed = func(branchline.SiteID) (branchline.Position, error) { return at, nil }
	start := func(ip string) *Uplink {
		n := openIn(t, dir, clock.Clock{})
		if err := n.CountOpen(store); err != nil {
			t.Fatal(err)
		}
		return NewUplink(UplinkConfig{
			Node: n, Source: newSource(), Hubs: []string{h.addr()}, ListenPacket: from(ip),
			Feed: func() (branchline.Position, error) { return at, nil },
		})
	}
	check := func(what string, err error) {
		t.Helper()
		sites, listed := h.authority.Sites()
		if err != nil || listed != nil || sites[0].Quarantine != nil {
			t.Errorf("%s: %v, %+v", what, err, sites)
		}
	}
	first := start("127.3.0.1")
	check("the first time", attempt(t, h, first))
	check("again", attempt(t, h, first))
	check("restarted", attempt(t, h, start("127.3.0.1")))
	moved := start("127.3.0.2")
	check("at another address", attempt(t, h, moved))
	at.Epoch, at.Seq, store = 8, 1, t.TempDir()
	check("with a new store", attempt(t, h, start("127.3.0.2")))
	held := start("127.3.0.2")
	stop := run(t, held.Run)
	h.wait("berlin")
	killed := start("127.3.0.2") // whose predecessor's link is up still
	run(t, killed.Run)
	h.wait("berlin")
	stop()
	check("killed", nil)
	await(t, killed, isUp)
}

// later returns a clock that is ahead by what the pointer says.
func later(mu *sync.Mutex, ahead *time.Duration) clock.Clock {
	return clock.New(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(*ahead)
	})
}

// TestExpiredComesBack switches an edge on again after its certificate and its authority have ended: it waits,
// says so, gets nothing, and is linked after the operator approved.
func TestExpiredComesBack(t *testing.T) {
	var mu sync.Mutex
	var ahead time.Duration
	clk := later(&mu, &ahead)
	authority, err := identity.OpenAuthority(t.TempDir(), clk)
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{TB: t, authority: authority, linked: make(chan *Remote, 10), ended: make(chan branchline.SiteID, 10)}
	told := make(chan branchline.SiteID, 100)
	h.peers, err = OpenPeers(PeersConfig{Addr: "127.0.0.1:0", Authority: authority, Linked: h.link, Clock: clk,
		Standing: func(site branchline.SiteID) { told <- site }})
	if err != nil {
		t.Fatal(err)
	}
	run(t, h.peers.Run, h.peers.Close)
	node := openIn(t, t.TempDir(), clk)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	ahead = identity.CertificateLife + 24*time.Hour
	mu.Unlock()
	if err := authority.Rotate(0); err != nil {
		t.Fatal(err)
	}
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Clock: clk, Software: "test edge"})
	if err := attempt(t, h, u); !errors.Is(err, identity.ErrWaiting) {
		t.Fatalf("the edge is told %v", err)
	}
	if site := <-told; site != "berlin" {
		t.Errorf("told of %s", site)
	}
	if s := u.State(); !errors.Is(s.Err, identity.ErrWaiting) || !strings.Contains(s.Err.Error(), "approve") {
		t.Errorf("the edge says %v", s.Err)
	}
	sites, err := authority.Sites()
	if w := sites[0].Waiting; err != nil || w == nil || !strings.HasPrefix(w.Addr, "127.0.0.1:") ||
		w.Software != "test edge" || !w.Expired.Equal(node.Certificate().NotAfter) {
		t.Errorf("the hub says %+v, %v", w, err)
	}
	if err := attempt(t, h, u); !errors.Is(err, identity.ErrWaiting) {
		t.Errorf("again: %v", err)
	}
	if err := authority.Approve("berlin", 0); err != nil {
		t.Fatal(err)
	}
	if err := attempt(t, h, u); err != nil {
		t.Errorf("approved: %v", err)
	}
}

// TestRotationOverTheLink changes the authority while an edge is linked: without a cut the edge gets a certificate
// of the new one, with which it comes after the old one has ended.
func TestRotationOverTheLink(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Token: h.token("berlin")})
	stop := run(t, u.Run)
	src := h.wait("berlin")
	old := node.Certificate()
	if err := h.authority.Rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	renewed(t, src, func() bool { return !node.Certificate().Equal(old) })
	if len(h.ended) > 0 || !u.State().Up {
		t.Error("the link was cut")
	}
	if err := h.authority.Rotate(0); err != nil { // at once nothing counts that was not renewed
		t.Fatal(err)
	}
	now := node.Certificate()
	stop()
	if err := attempt(t, h, u); !errors.Is(err, identity.ErrWaiting) && !errors.Is(err, identity.ErrExpired) {
		t.Errorf("after an authority without overlap: %v", err)
	}
	if now.Equal(old) {
		t.Error("nothing was renewed")
	}
}

// startHubBy is startHub with a clock of the test's.
func startHubBy(t *testing.T, clk clock.Clock) *hub {
	t.Helper()
	authority, err := identity.OpenAuthority(t.TempDir(), clk)
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{TB: t, authority: authority, linked: make(chan *Remote, 10), ended: make(chan branchline.SiteID, 10)}
	h.peers, err = OpenPeers(PeersConfig{Addr: "127.0.0.1:0", Authority: authority, Linked: h.link, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	run(t, h.peers.Run, h.peers.Close)
	return h
}

// TestLinkOutlivesItsCertificate lets a link live past the end of the certificate with which it was made.
func TestLinkOutlivesItsCertificate(t *testing.T) {
	var mu sync.Mutex
	var ahead time.Duration
	clk := later(&mu, &ahead)
	h := startHubBy(t, clk)
	node := openIn(t, t.TempDir(), clk)
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Token: h.token("berlin"), Clock: clk})
	run(t, u.Run)
	src := h.wait("berlin")
	first := node.Certificate()
	step := func(to float64) {
		mu.Lock()
		defer mu.Unlock()
		ahead = time.Duration(to * float64(identity.CertificateLife))
	}
	step(0.9) // beyond what the edge's own timer, which looks once a minute, would let pass
	renewed(t, src, func() bool { return !node.Certificate().Equal(first) })
	step(1.1)
	looked := time.Now()
	renewed(t, src, func() bool { return time.Since(looked) > 2*verifyEvery })
	if len(h.ended) > 0 || !u.State().Up {
		t.Errorf("the link ended with its first certificate: %+v", u.State())
	}
}
