package federation

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
)

// TestExpiredComesBackByTCP has an edge whose certificate ended while it was off, in a network that lets no UDP
// through: it asks the hub to have it back over TCP.
func TestExpiredComesBackByTCP(t *testing.T) {
	var mu sync.Mutex
	var ahead time.Duration
	clk := later(&mu, &ahead)
	h := startHubBy(t, clk)
	node := openIn(t, t.TempDir(), clk)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	ahead = identity.CertificateLife + 24*time.Hour
	mu.Unlock()
	udp := new(link.Cuttable)
	udp.Cut()
	u := NewUplink(UplinkConfig{
		Node: node, Source: newSource(), Clock: clk, ListenPacket: udp.ListenPacket,
		DialStream: func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
	})
	run(t, u.Run)
	for s := range u.States(t.Context()) {
		if errors.Is(s.Err, identity.ErrWaiting) {
			break
		}
	}
	if sites, err := h.authority.Sites(); err != nil || sites[0].Waiting == nil {
		t.Errorf("the hub says %+v, %v", sites, err)
	}
}
