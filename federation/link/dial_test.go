package link

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

// TestDialFirst dials several addresses of one hub, of which only some answer.
func TestDialFirst(t *testing.T) {
	a, err := identity.OpenAuthority(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen("127.0.0.1:0", Options{
		TLS: a.TLS(), Verify: func(tls.ConnectionState) (branchline.SiteID, *Error) { return "", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mute, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	n, err := identity.OpenNode(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.AddSite("berlin", []string{"hub:1"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Dial(gone, l.Addr().String(), Options{TLS: n.EnrolTLS(token)}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v, %v", c, err)
	}
	hub, silent := l.Addr().(*net.UDPAddr), mute.LocalAddr().(*net.UDPAddr)
	wrong := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 0}
	for name, c := range map[string]struct {
		addrs []*net.UDPAddr
		want  bool
		most  time.Duration
	}{
		"one silent":        {[]*net.UDPAddr{silent, hub}, true, 4 * dialStagger},
		"three silent":      {[]*net.UDPAddr{silent, silent, silent, hub}, true, 6 * dialStagger},
		"one that fails":    {[]*net.UDPAddr{wrong, hub}, true, dialStagger},
		"the same twice":    {[]*net.UDPAddr{hub, hub}, true, dialStagger},
		"nobody that hears": {[]*net.UDPAddr{silent, silent}, false, 4 * dialStagger},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*dialStagger)
			if c.want {
				ctx, cancel = context.WithTimeout(t.Context(), HandshakeTimeout)
			}
			defer cancel()
			began := time.Now()
			conn, err := dialFirst(ctx, c.addrs, Options{TLS: n.EnrolTLS(token)})
			if took := time.Since(began); (err == nil) != c.want || took > c.most {
				t.Errorf("%v after %v", err, took)
			}
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v, want that the time was over", err)
				}
				return
			}
			if err := conn.Close(0, ""); err != nil {
				t.Error(err)
			}
		})
	}
}
