package e2e

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay carries UDP packets between edges and a hub as a NAT would, and can be cut: then it takes
// packets and drops them, which is what a dead line looks like.
type relay struct {
	front *net.UDPConn
	hub   *net.UDPAddr
	cut   atomic.Bool
	wg    sync.WaitGroup

	mu    sync.Mutex
	backs map[string]*net.UDPConn // by the edge's address
}

func newRelay(t *testing.T, hub string) *relay {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", hub)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{front: front, hub: to, backs: map[string]*net.UDPConn{}}
	r.wg.Add(1)
	go r.forward()
	t.Cleanup(r.close)
	return r
}

func (r *relay) address() string { return r.front.LocalAddr().String() }

func (r *relay) close() {
	r.front.Close()
	r.mu.Lock()
	for _, b := range r.backs {
		b.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *relay) forward() {
	defer r.wg.Done()
	buf := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDP(buf)
		if err != nil {
			return
		}
		if b := r.back(from); b != nil && !r.cut.Load() {
			b.Write(buf[:n])
		}
	}
}

// back returns the socket that speaks to the hub for one edge, and starts its way back.
func (r *relay) back(edge *net.UDPAddr) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.backs[edge.String()]; b != nil {
		return b
	}
	b, err := net.DialUDP("udp", nil, r.hub)
	if err != nil {
		return nil
	}
	r.backs[edge.String()] = b
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		buf := make([]byte, 65536)
		for {
			n, err := b.Read(buf)
			if opErr, ok := err.(net.Error); err != nil && (!ok || !opErr.Timeout()) {
				if r.closed(b) {
					return
				}
				continue // a connection refused while the hub restarts
			}
			if !r.cut.Load() {
				r.front.WriteToUDP(buf[:n], edge)
			}
		}
	}()
	return b
}

// closed reports whether the socket was closed, as opposed to an ICMP error that it passed on.
func (r *relay) closed(b *net.UDPConn) bool { return b.SetReadDeadline(time.Time{}) != nil }
