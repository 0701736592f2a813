package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// TestJudge tells of nodes that greet after one another. A node is "instance@opens", with "epoch:seq" of its feed
// after it; "followed" is how far the hub has read; "linked" that the first one's link is up.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, seen, now, followed string
		linked                    bool
		want                      string
	}{
		{"the first ever", "0@0", "5@1 7:0", "0:0", false, ""},
		{"an old peer", "5@1", "0@0", "7:10", false, ""},
		{"a peer that was old", "0@0", "5@1 7:20", "7:10", false, ""},
		{"the network changed", "5@3", "5@3 7:20", "7:20", false, ""},
		{"its second connection", "5@3", "5@3 7:20", "7:20", true, ""},
		{"a second link, while the first brings more", "5@3", "5@3 7:20", "7:21", true, ""},
		{"a restart", "5@3", "6@4 7:20", "7:20", false, ""},
		{"a crash, its link still up", "5@3", "6@4 7:20", "7:20", true, ""},
		{"many restarts in the dark", "5@3", "6@40 7:20", "7:20", false, ""},
		{"a new store", "5@3", "6@4 8:1", "7:20", false, ""},
		{"a start that was not counted", "5@3", "6@0 7:20", "7:20", false, ""},
		{"after one that was not counted", "5@0", "6@4 7:20", "7:20", false, ""},
		{"a hub from a backup", "5@1", "6@9 7:90", "7:20", false, ""},
		{"a hub that follows anew", "5@3", "6@4 7:20", "0:0", false, ""},
		{"two boxes from one image", "5@3", "6@3 7:20", "7:20", true, CauseDuplicate},
		{"the box that restarted less", "6@9", "5@3 7:20", "7:20", true, CauseDuplicate},
		{"a snapshot, of another start", "5@9", "6@4 7:20", "7:20", false, CauseRolledBack},
		{"a snapshot, of the same start", "5@3", "6@4 7:12", "7:20", false, CauseRolledBack},
		{"a snapshot with its memory", "5@3", "5@3 7:12", "7:20", false, CauseRolledBack},
	} {
		s := func(text string) (s sighting) {
			fmt.Sscanf(text, "%d@%d %d:%d", &s.Instance, &s.Opens, &s.Epoch, &s.Seq)
			return s
		}
		g := Greeting{Linked: c.linked}
		fmt.Sscanf(c.followed, "%d:%d", &g.Followed.Epoch, &g.Followed.Seq)
		now := s(c.now)
		now.At = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if got := judge(s(c.seen), now, g); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// stage is a hub with an enrolled site, whose node may exist twice.
type stage struct {
	*testing.T
	w    *watch
	a    *Authority
	dir  string
	node *Node
}

func newStage(t *testing.T) *stage {
	s := &stage{T: t, w: newWatch(), dir: t.TempDir()}
	s.a = openAuthority(t, s.dir, s.w)
	s.node = openNode(t, t.TempDir(), s.w)
	if err := enrol(s.a, s.node, addSite(t, s.a, "berlin")); err != nil {
		t.Fatal(err)
	}
	return s
}

// greet lets the node greet as the instance, over a connection made at this moment.
func (s *stage) greet(leaf []byte, instance, opens uint64, linked bool) error {
	s.w.add(time.Second)
	return s.a.Greet(Greeting{
		Leaf: leaf, Life: Life{Instance: instance, Opens: opens}, Addr: fmt.Sprintf("192.0.2.%d:1", instance),
		Since: s.w.now, Linked: linked,
	})
}

func (s *stage) site() Site {
	s.Helper()
	sites, err := s.a.Sites()
	if err != nil || len(sites) != 1 {
		s.Fatal(sites, err)
	}
	return sites[0]
}

func (s *stage) want(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (s *stage) renew() {
	s.Helper()
	csr, err := s.node.Request()
	if err != nil {
		s.Fatal(err)
	}
	c, err := s.a.Renew("berlin", csr)
	if err != nil {
		s.Fatal(err)
	}
	if err := s.node.Renewed(c); err != nil {
		s.Fatal(err)
	}
}

// copied has two nodes come with one identity, as instances 1 and 2, and returns their certificate, which is in
// quarantine.
func (s *stage) copied() []byte {
	leaf := s.node.Certificate().Raw
	s.want("the first", s.greet(leaf, 1, 5, false), nil)
	s.want("its copy", s.greet(leaf, 2, 5, true), branchline.ErrBusy)
	s.want("the copy again", s.greet(leaf, 2, 5, true), ErrQuarantined)
	return leaf
}

// TestClone lets two nodes come with one identity, has the second one approved, and shows that the first is
// refused for good while the approved one restarts and renews as it likes.
func TestClone(t *testing.T) {
	s := newStage(t)
	shared := s.copied()
	s.want("the first's link", s.a.Good(shared, 1), ErrQuarantined)
	s.w.add(seenAgain)
	s.want("the first again", s.greet(shared, 1, 5, false), ErrQuarantined)
	s.a = openAuthority(t, s.dir, s.w) // it is on disk
	q := s.site().Quarantine
	if q == nil || q.Cause != CauseDuplicate || len(q.Nodes) != 2 || q.Nodes[0].Addr != "192.0.2.1:1" ||
		q.Nodes[1].Addr != "192.0.2.2:1" {
		t.Fatalf("quarantine is %+v", q)
	}
	s.want("the copy, still there", s.greet(shared, 2, 5, false), ErrQuarantined)
	s.want("approve nobody in particular", s.a.Approve("berlin", 0), branchline.ErrInvalid)
	s.want("approve one that was never there", s.a.Approve("berlin", 9), branchline.ErrNotFound)
	s.want("approve", s.a.Approve("berlin", 2), nil)
	if q := s.site().Quarantine; q == nil || q.Approved.IsZero() {
		t.Errorf("after approving, quarantine is %+v", q)
	}
	s.want("the first after that", s.greet(shared, 1, 5, false), ErrSuperseded)
	s.want("the approved one", s.greet(shared, 2, 5, false), nil)
	s.want("the approved one's link", s.a.Good(shared, 2), nil)
	s.want("a link of the first", s.a.Good(shared, 1), ErrSuperseded)
	if !s.a.Due(shared) {
		t.Error("the approved node is not to renew")
	}
	s.renew()
	own := s.node.Certificate().Raw
	if s.a.Due(own) {
		t.Error("the approved node is to renew again")
	}
	s.want("the approved one, restarted", s.greet(own, 3, 6, false), nil)
	s.want("the first, restarted often", s.greet(shared, 4, 99, false), ErrSuperseded)
	if s.site().Quarantine != nil {
		t.Error("still quarantined")
	}
	csr, err := s.node.Request()
	if err != nil {
		t.Fatal(err)
	}
	s.w.add(CertificateLife + time.Hour)
	_, err = s.a.Return(Returning{Leaf: shared, CSR: csr})
	s.want("the first, expired", err, ErrSuperseded)
}

// TestRollback puts an old state back: one node is there, and approving it needs no instance.
func TestRollback(t *testing.T) {
	s := newStage(t)
	leaf := s.node.Certificate().Raw
	s.want("the node", s.greet(leaf, 1, 9, false), nil)
	s.w.add(time.Hour)
	s.want("an old state", s.greet(leaf, 2, 4, false), branchline.ErrBusy)
	s.want("again", s.greet(leaf, 2, 4, false), ErrQuarantined)
	if q := s.site().Quarantine; q == nil || q.Cause != CauseRolledBack {
		t.Fatalf("quarantine is %+v", q)
	}
	s.want("approve", s.a.Approve("berlin", 0), nil)
	s.want("approved", s.greet(leaf, 2, 4, false), nil)
	s.renew()
	s.want("restarted", s.greet(s.node.Certificate().Raw, 3, 5, false), nil)
}

// TestLateGreeting lets a greeting arrive when its process is gone: nothing comes after it, so nothing happens.
func TestLateGreeting(t *testing.T) {
	s := newStage(t)
	leaf := s.node.Certificate().Raw
	s.want("a node", s.greet(leaf, 1, 5, false), nil)
	s.want("restarted", s.greet(leaf, 2, 6, false), nil)
	before := s.w.now
	s.want("late", s.greet(leaf, 1, 5, true), branchline.ErrBusy)
	late := Greeting{Leaf: leaf, Life: Life{Instance: 1, Opens: 5}, Since: before}
	s.want("over a connection from before", s.a.Greet(late), branchline.ErrBusy)
	s.want("the node", s.greet(leaf, 2, 6, false), nil)
	s.w.add(doubtLife + time.Second)
	s.want("late, much later", s.greet(leaf, 1, 5, true), branchline.ErrBusy)
}

// TestReturn goes through the ways back of an edge that was off past its certificate's end.
func TestReturn(t *testing.T) {
	s := newStage(t)
	old := s.node.Certificate()
	csr, err := s.node.Request()
	if err != nil {
		t.Fatal(err)
	}
	back := func() (Certificate, error) {
		return s.a.Return(Returning{Leaf: old.Raw, CSR: csr, Addr: "192.0.2.1:5", Software: "branchline 1"})
	}
	s.want("approve a site that does not wait", s.a.Approve("berlin", 0), branchline.ErrInvalid)
	s.want("refuse it", s.a.Refuse("berlin"), branchline.ErrInvalid)
	s.w.add(CertificateLife + 30*24*time.Hour)
	if !s.node.Expired() {
		t.Error("the node takes its certificate for good")
	}
	_, err = back()
	s.want("come", err, ErrWaiting)
	stranger, err := openNode(t, t.TempDir(), s.w).Request()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.a.Return(Returning{Leaf: old.Raw, CSR: stranger})
	s.want("without the key", err, ErrForeign)
	w := s.site().Waiting
	if w == nil || w.Addr != "192.0.2.1:5" || !w.Expired.Equal(old.NotAfter) || !w.Since.Equal(s.w.now) {
		t.Fatalf("waiting is %+v", w)
	}
	s.want("refuse", s.a.Refuse("berlin"), nil)
	_, err = back()
	s.want("come after that", err, ErrRefused)
	s.want("approve", s.a.Approve("berlin", 0), nil)
	s.w.add(approvalLife + time.Minute)
	_, err = back()
	s.want("come too late", err, ErrWaiting)
	s.want("approve", s.a.Approve("berlin", 0), nil)
	c, err := back()
	s.want("come in time", err, nil)
	s.want("store", s.node.Renewed(c), nil)
	_, err = s.a.Verify(s.node.Certificate().Raw)
	s.want("the new certificate", err, nil)
	if s.site().Waiting != nil {
		t.Error("still waiting")
	}
	s.want("revoke", s.a.Revoke("berlin"), nil)
	_, err = back()
	s.want("come when revoked", err, ErrRevoked)
}

// TestRotate changes the authority: old certificates, tokens and nodes go on, and who was off for all of it
// comes back by approval, even over two changes.
func TestRotate(t *testing.T) {
	s := newStage(t)
	token := addSite(t, s.a, "munich")
	sleeper := openNode(t, t.TempDir(), s.w)
	if err := enrol(s.a, sleeper, addSite(t, s.a, "sleepy")); err != nil {
		t.Fatal(err)
	}
	other := openAuthority(t, s.dir, s.w) // of another process
	first := s.a.ca.cert
	s.w.add(time.Hour)
	s.want("rotate", s.a.Rotate(30*24*time.Hour), nil)
	s.want("an overlap below zero", s.a.Rotate(-1), branchline.ErrInvalid)
	hub := func(n *Node) error {
		t.Helper()
		server, err := s.a.serverCert()
		if err != nil {
			t.Fatal(err)
		}
		return verifyHubOf(n.trusted(s.w.now), parseAll(t, server.Certificate), s.w.now)
	}
	s.want("the hub, to a node from before", hub(s.node), nil)
	_, err := other.Verify(s.node.Certificate().Raw)
	s.want("an old certificate", err, nil)
	if !other.Due(s.node.Certificate().Raw) {
		t.Error("a node with an old certificate is not to renew")
	}
	late := openNode(t, t.TempDir(), s.w)
	s.want("a token from before", enrol(s.a, late, token), nil)
	s.renew()
	if s.a.Due(s.node.Certificate().Raw) || s.node.authority.Equal(first) || len(s.node.former) != 1 {
		t.Errorf("after renewal the node trusts %v and %d others", s.node.authority.Equal(first), len(s.node.former))
	}
	if state, err := s.a.State(); err != nil || state.Sites != 3 || state.Behind != 1 || len(state.Former) != 1 {
		t.Errorf("state %+v, %v", state, err)
	}
	again := openNode(t, s.node.dir, s.w)
	s.want("the hub, to the node restarted", hub(again), nil)
	s.w.add(31 * 24 * time.Hour)
	_, err = s.a.Verify(sleeper.Certificate().Raw)
	s.want("an old certificate after the overlap", err, ErrExpired)
	if err == nil || !strings.Contains(err.Error(), "authority that issued it ended") {
		t.Errorf("it says %v", err)
	}
	_, err = s.a.Verify(s.node.Certificate().Raw)
	s.want("a new certificate after the overlap", err, nil)
	s.want("rotate again", s.a.Rotate(0), nil)
	s.a = openAuthority(t, s.dir, s.w)
	s.want("the hub, to a node from before both", hub(sleeper), nil)
	csr, err := sleeper.Request()
	if err != nil {
		t.Fatal(err)
	}
	r := Returning{Leaf: sleeper.Certificate().Raw, CSR: csr}
	_, err = s.a.Return(r)
	s.want("come back", err, ErrWaiting)
	s.want("approve", s.a.Approve("sleepy", 0), nil)
	c, err := s.a.Return(r)
	s.want("come back approved", err, nil)
	s.want("store", sleeper.Renewed(c), nil)
	stranger := openAuthority(t, t.TempDir(), s.w)
	server, err := stranger.serverCert()
	if err != nil {
		t.Fatal(err)
	}
	s.want("another hub", verifyHubOf(sleeper.trusted(s.w.now), parseAll(t, server.Certificate), s.w.now), ErrForeign)
}

// TestCutRotation lets a change of the authority end after its first step, as a crash would.
func TestCutRotation(t *testing.T) {
	s := newStage(t)
	if err := writeFormer(s.dir, []former{{Certificate: s.a.ca.cert.Raw, Until: s.w.now}}); err != nil {
		t.Fatal(err)
	}
	s.a = openAuthority(t, s.dir, s.w)
	_, err := s.a.Verify(s.node.Certificate().Raw)
	s.want("a certificate of the present authority", err, nil)
	s.want("rotate", s.a.Rotate(time.Hour), nil)
	_, err = s.a.Verify(s.node.Certificate().Raw)
	s.want("after the change", err, nil)
}

// TestCountOpen starts a node several times, loses one of its two directories in between, and counts on.
func TestCountOpen(t *testing.T) {
	w, mine, store := newWatch(), t.TempDir(), t.TempDir()
	want := uint64(0)
	start := func(mine, store string) {
		t.Helper()
		n := openNode(t, mine, w)
		if n.Life().Opens != 0 || n.Life().Instance == 0 {
			t.Errorf("before it is counted: %+v", n.Life())
		}
		if err := n.CountOpen(store); err != nil {
			t.Fatal(err)
		}
		if want++; n.Life().Opens != want {
			t.Errorf("start %d counted as %d", want, n.Life().Opens)
		}
	}
	start(mine, store)
	start(mine, store)
	store = t.TempDir()
	start(mine, store)
	mine = t.TempDir()
	start(mine, store)
	n := openNode(t, mine, w)
	if err := n.CountOpen(t.TempDir() + "/nowhere"); err == nil || n.Life().Opens != 0 {
		t.Errorf("a start that cannot be counted: %v, told as %d", err, n.Life().Opens)
	}
}

func parseAll(t *testing.T, chain [][]byte) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}
