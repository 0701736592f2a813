package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSeekingWithoutSockets knocks while all interfaces are down: there is nothing to knock from, which is no answer,
// and when they are up again the hub is knocked at as ever.
func TestSeekingWithoutSockets(t *testing.T) {
	down := errors.New("network is down")
	opt := Options{ListenPacket: func(string) (net.PacketConn, error) { return nil, down }}
	for _, name := range []string{"fibre", "lte"} {
		opt.Uplinks = append(opt.Uplinks, Uplink{Local: Local{Name: name, Addr: netip.MustParseAddr("127.0.0.1")}})
	}
	o := newOutlet(0, 2, new(deafSocket))
	w := newWays(&endpoint{outlet: o}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, opt)
	if err := w.knock(t.Context()); err == nil {
		t.Error("the hub has answered knocks that were never sent")
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := &seeking{knock: func(context.Context) error {
			if time.Since(began) < 3*time.Second {
				return down
			}
			return nil
		}}
		var running sync.WaitGroup
		if err := s.seek(t.Context(), &running); err != nil {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		running.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.knock = func(context.Context) error { return down }
		if err := s.seek(ctx, &running); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		running.Wait() // it ends with the last who waits
	})
}

// deafSocket is a socket on which nothing ever comes.
type deafSocket struct{ net.PacketConn }

func (*deafSocket) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, net.ErrClosed }
func (*deafSocket) Close() error                           { return nil }
