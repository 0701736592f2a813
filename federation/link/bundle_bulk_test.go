package link_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/link"
)

const (
	near, far = time.Millisecond / 2, 5 * time.Millisecond
	much      = 100e6 // bytes a second
)

// bulkPair returns a bundle with a connection for bulk.
func bulkPair(t *testing.T) (edge, hub link.Conn, look *link.Bulk) {
	t.Helper()
	l, opt, a := listenFor(t, nil)
	edge, hub = pair(t, l, opt(site(t, a, "berlin")))
	look = link.WatchBulk(edge)
	look.See(time.Now(), near, much)
	until(t, 2, edge, hub)
	return edge, hub, look
}

// TestBulkOverTCP: where the path is short and much is sent, fetches go over TCP, from either side, and nothing else
// does.
func TestBulkOverTCP(t *testing.T) {
	edge, hub, _ := bulkPair(t)
	link.Favour(edge, link.CarrierTCP)
	for kind, want := range map[link.Kind]link.Carrier{
		link.KindFetch: link.CarrierTCP, link.KindLive: link.CarrierQUIC, link.KindControl: link.CarrierQUIC,
		link.KindChanges: link.CarrierQUIC, link.KindGossip: link.CarrierQUIC,
	} {
		for range 3 {
			out, in := open(t, hub, edge, kind)
			back, _ := open(t, edge, hub, kind)
			if link.CarrierOf(out) != want || link.CarrierOf(in) != want || link.CarrierOf(back) != want {
				t.Errorf("%s goes over %s, %s, want %s", kind, link.CarrierOf(out), link.CarrierOf(back), want)
			}
		}
	}
	if err := edge.(link.Packets).SendPacket([]byte("p")); err != nil {
		t.Fatal(err)
	}
	if p, err := hub.(link.Packets).ReceivePacket(t.Context()); string(p) != "p" {
		t.Errorf("packet %q, %v", p, err)
	}
}

// TestBulkStaysWhereItIsOfNoUse: no connection over TCP on a long path, for little, or where only QUIC may be.
func TestBulkStaysWhereItIsOfNoUse(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	look := link.WatchBulk(edge)
	look.See(time.Now(), far, much)
	look.See(time.Now(), near, 1e6)
	look.See(time.Now(), 0, much)
	if edge.Stats().Handshakes != 1 || hub.Stats().Handshakes != 1 {
		t.Errorf("%d connections were made", edge.Stats().Handshakes-1)
	}
	look.See(time.Now(), near, much)
	look.See(time.Now(), near, much)
	until(t, 2, edge, hub)
	if n := edge.Stats().Handshakes; n != 2 {
		t.Errorf("%d connections were made, want one", n-1)
	}
}

// TestBulkIsGivenUp: when little is sent for a while, or the path is long, what is under way ends well and the
// connection goes.
func TestBulkIsGivenUp(t *testing.T) {
	for name, see := range map[string]func(*link.Bulk){
		"idle": func(b *link.Bulk) {
			b.See(time.Now().Add(5*time.Second), near, 0) // not yet
			b.See(time.Now().Add(11*time.Second), near, 0)
		},
		"far": func(b *link.Bulk) { b.See(time.Now(), far, much) },
	} {
		t.Run(name, func(t *testing.T) {
			edge, hub, look := bulkPair(t)
			out, in := open(t, hub, edge, link.KindFetch)
			see(look)
			if later, _ := open(t, edge, hub, link.KindFetch); link.CarrierOf(later) != link.CarrierQUIC {
				t.Errorf("a new fetch goes over %s", link.CarrierOf(later))
			}
			if _, err := in.Write([]byte("rest")); err != nil {
				t.Error(err)
			}
			_ = in.Close()
			_ = out.Close()
			if got, err := io.ReadAll(out); string(got) != "rest" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := io.ReadAll(in); err != nil {
				t.Error(err)
			}
			until(t, 1, edge, hub)
		})
	}
}

// TestBulkLost: without the connection for bulk the others go on and take the fetches; without the others it ends.
func TestBulkLost(t *testing.T) {
	edge, hub, _ := bulkPair(t)
	live, _ := open(t, edge, hub, link.KindLive)
	link.Lose(hub, link.CarrierTCP)
	until(t, 1, edge, hub)
	if out, _ := open(t, hub, edge, link.KindFetch); link.CarrierOf(out) != link.CarrierQUIC {
		t.Errorf("a fetch goes over %s", link.CarrierOf(out))
	}
	if _, err := live.Write([]byte("x")); err != nil {
		t.Errorf("live: %v", err)
	}

	edge, hub, _ = bulkPair(t)
	link.Lose(hub, link.CarrierQUIC)
	for _, c := range []link.Conn{edge, hub} {
		if _, err := c.AcceptStream(t.Context()); err == nil || t.Context().Err() != nil {
			t.Errorf("without a connection over QUIC: %v", err)
		}
	}
}

// TestBulkOfOne: a hub takes one such connection of a bundle, and no more.
func TestBulkOfOne(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	looks := []*link.Bulk{link.WatchBulk(edge), link.WatchBulk(edge), link.WatchBulk(edge)}
	var all sync.WaitGroup
	for _, look := range looks {
		all.Go(func() { look.See(time.Now(), near, much) })
	}
	all.Wait()
	until(t, 2, edge, hub)
}

// TestBulkOfAnother: another site's connection over TCP does not get in, with whatever ticket.
func TestBulkOfAnother(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	foreign, _ := pair(t, l, opt(site(t, a, other)))
	if err := link.JoinBulkAs(context.Background(), foreign, edge); err == nil {
		t.Error("it joined")
	}
	if n := hub.Stats().Handshakes; n != 1 {
		t.Errorf("the bundle has had %d connections", n)
	}
	if err := link.JoinBulkAs(context.Background(), edge, edge); err != nil {
		t.Errorf("its own: %v", err) // so that the test can tell
	}
}
