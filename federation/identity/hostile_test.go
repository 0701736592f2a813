package identity

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// TestTokenOfAQuarantine: two nodes from one disk image have the token and the key that it was used for. It gets
// neither of them out of quarantine, nor the one that was not approved back in.
func TestTokenOfAQuarantine(t *testing.T) {
	s := newStage(t)
	token := addSite(t, s.a, "berlin")
	if err := enrol(s.a, s.node, token); err != nil {
		t.Fatal(err)
	}
	if err := enrol(s.a, s.node, token); err != nil {
		t.Fatalf("the same node again, as when an answer was lost: %v", err)
	}
	shared := s.node.Certificate().Raw
	s.want("the first", s.greet(shared, 1, 5, false), nil)
	s.want("its copy", s.greet(shared, 2, 5, true), branchline.ErrBusy)
	s.want("the copy again", s.greet(shared, 2, 5, true), ErrQuarantined)
	s.want("the token in quarantine", enrol(s.a, s.node, token), ErrTokenUnknown)
	s.want("approve", s.a.Approve("berlin", 1), nil)
	s.want("the token of the one that was not approved", enrol(s.a, s.node, token), ErrTokenUnknown)
	s.want("that one", s.greet(shared, 2, 5, false), ErrSuperseded)
	s.want("a new token", enrol(s.a, s.node, addSite(t, s.a, "berlin")), nil)
}

// TestSilentNode: a node that does not tell which it is takes no link from one that does, and is let in where
// nobody is.
func TestSilentNode(t *testing.T) {
	s := newStage(t)
	leaf := s.node.Certificate().Raw
	s.want("of an older version", s.greet(leaf, 0, 0, true), nil)
	s.want("the node", s.greet(leaf, 1, 5, false), nil)
	for range 3 {
		s.want("one that hides", s.greet(leaf, 0, 0, true), branchline.ErrBusy)
	}
	s.want("the node's next link", s.greet(leaf, 1, 5, true), nil)
	s.want("an older version, when the link is gone", s.greet(leaf, 0, 0, false), nil)
}

// TestQuarantineIsWrittenSeldom: whoever has a quarantined identity may come as often as it likes, from a new port
// each time and as a new node each time, and the list is not written each time.
func TestQuarantineIsWrittenSeldom(t *testing.T) {
	s := newStage(t)
	leaf := s.copied()
	writes := func(instance func(i int) uint64) (n int) {
		before := s.a.read
		for i := range 100 {
			s.w.add(time.Second / 50)
			err := s.a.Greet(Greeting{Leaf: leaf, Life: Life{Instance: instance(i), Opens: 5},
				Addr: fmt.Sprintf("192.0.2.2:%d", 1000+i), Since: s.w.now})
			s.want("in quarantine", err, ErrQuarantined)
			if _, err := s.a.list(); err != nil {
				t.Fatal(err)
			}
			if s.a.read != before {
				n, before = n+1, s.a.read
			}
		}
		return n
	}
	if n := writes(func(int) uint64 { return 2 }); n > 1 {
		t.Errorf("written %d times in 2 s for one node from many ports", n)
	}
	if n := writes(func(i int) uint64 { return uint64(100 + i) }); n > 3 {
		t.Errorf("written %d times in 2 s for a hundred nodes", n)
	}
}

// TestQuarantineIsReadSeldom: as long as there is nothing to write down of a quarantined node that comes again, the
// list is not locked for it either, which others need.
func TestQuarantineIsReadSeldom(t *testing.T) {
	s := newStage(t)
	leaf := s.copied()
	unlock, err := lock(s.a.dir)
	if err != nil {
		t.Fatal(err)
	}
	greeted := make(chan error)
	go func() { greeted <- s.greet(leaf, 2, 5, true) }()
	select {
	case err := <-greeted:
		s.want("while the list is locked", err, ErrQuarantined)
	case <-time.After(10 * time.Second):
		t.Error("a quarantined node waits for the lock of the list")
		defer func() { <-greeted }()
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

// TestWaitingIsWrittenSeldom does the same with one that waits for approval.
func TestWaitingIsWrittenSeldom(t *testing.T) {
	s := newStage(t)
	csr, err := s.node.Request()
	if err != nil {
		t.Fatal(err)
	}
	s.w.add(CertificateLife + time.Hour)
	for i := range 10 {
		_, err := s.a.Return(Returning{Leaf: s.node.Certificate().Raw, CSR: csr, Addr: fmt.Sprintf("192.0.2.2:%d", i)})
		if !errors.Is(err, ErrWaiting) {
			t.Fatal(err)
		}
		if w := s.site().Waiting; w == nil || w.Addr != "192.0.2.2:0" {
			t.Fatalf("written again: %+v", w)
		}
		s.w.add(time.Second)
	}
}

// TestResetKeyOfAnOrganisation: a hub with an organisation's authority has a secret of its own as well, the same
// over restarts: without it nobody hears at once that a path is back, and two hubs had one name in the gossip.
func TestResetKeyOfAnOrganisation(t *testing.T) {
	w := newWatch()
	root := w.authority(t, "ecdsa", "root", nil)
	hub := w.leaf(t, "ecdsa", 1, root, "hub.example")
	dir := t.TempDir()
	certificate, key := hub.write(t, dir)
	files := Organisation{Certificate: certificate, Key: key, Authorities: certificate}
	var got [][32]byte
	one, two := t.TempDir(), t.TempDir()
	for _, at := range []string{one, one, two} {
		a, err := OpenOrganisation(at, files, w.clock())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.ResetKey())
	}
	if got[0] == [32]byte{} || got[0] != got[1] || got[0] == got[2] {
		t.Errorf("the keys are %x", got)
	}
}
