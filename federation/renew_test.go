package federation

import (
	"errors"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
)

// TestNoRenewalInQuarantine: a node that was quarantined just now, and whose link is about to end for that, gets no
// certificate over it any more.
func TestNoRenewalInQuarantine(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Token: h.token("berlin")})
	run(t, u.Run)
	h.wait("berlin")
	await(t, u, func(s UplinkState) bool { return s.Up })
	u.mu.Lock()
	conn := u.conn
	u.mu.Unlock()
	copied := func() error {
		return h.authority.Greet(identity.Greeting{Leaf: node.Certificate().Raw, Since: time.Now(), Linked: true,
			Life: identity.Life{Instance: 1, Opens: 1}})
	}
	first := h.authority.Greet(identity.Greeting{Leaf: node.Certificate().Raw, Since: time.Now(), Linked: true,
		Life: identity.Life{Instance: node.Life().Instance, Opens: 1}})
	if first != nil {
		t.Fatal(first)
	}
	if err := copied(); !errors.Is(err, branchline.ErrBusy) {
		t.Fatal(err)
	}
	if err := copied(); !errors.Is(err, identity.ErrQuarantined) {
		t.Fatal(err)
	}
	before := node.Certificate()
	if err := u.renew(t.Context(), conn); !errors.Is(err, identity.ErrQuarantined) {
		t.Errorf("renewed in quarantine: %v", err)
	}
	if !before.Equal(node.Certificate()) {
		t.Error("it has a new certificate")
	}
}
