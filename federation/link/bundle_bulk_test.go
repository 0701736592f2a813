package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/link"
)

const (
	near, far = time.Millisecond / 2, 30 * time.Millisecond
	much      = 100e6 // bytes a second
)

// bulkPair returns a bundle with a connection for bulk.
func bulkPair(t *testing.T, change ...func(*link.Options)) (edge, hub link.Conn, look *link.Bulk) {
	t.Helper()
	l, opt, a := listenFor(t, nil)
	o := opt(site(t, a, "berlin"))
	for _, f := range change {
		f(&o)
	}
	edge, hub = pair(t, l, o)
	look = link.WatchBulk(edge)
	look.See(time.Now(), near, much)
	until(t, 2, edge, hub)
	return edge, hub, look
}

func openBulk(t *testing.T, a, b link.Conn) (at, bt link.Stream) {
	t.Helper()
	return openAs(link.WithBulk(t.Context()), t, a, b, link.KindFetch)
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
			out, in := openAs(link.WithBulk(t.Context()), t, hub, edge, kind)
			back, _ := openAs(link.WithBulk(t.Context()), t, edge, hub, kind)
			if link.CarrierOf(out) != want || link.CarrierOf(in) != want || link.CarrierOf(back) != want {
				t.Errorf("%s goes over %s, %s, want %s", kind, link.CarrierOf(out), link.CarrierOf(back), want)
			}
		}
	}
	if out, _ := open(t, hub, edge, link.KindFetch); link.CarrierOf(out) != link.CarrierQUIC {
		t.Error("a fetch that does not go on elsewhere goes over TCP")
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
			out, in := openBulk(t, hub, edge)
			see(look)
			if later, _ := openBulk(t, edge, hub); link.CarrierOf(later) != link.CarrierQUIC {
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
	link.Leaving(edge, link.CarrierQUIC)
	for _, kind := range []link.Kind{link.KindLive, link.KindControl, link.KindChanges, link.KindGossip} {
		if s, _ := open(t, edge, hub, kind); link.CarrierOf(s) != link.CarrierQUIC {
			t.Errorf("%s goes over %s while the other is about to go", kind, link.CarrierOf(s))
		}
	}
	if err := edge.(link.Packets).SendPacket([]byte("p")); err != nil {
		t.Error(err)
	}
	link.Lose(hub, link.CarrierTCP)
	until(t, 1, edge, hub)
	if out, _ := openBulk(t, hub, edge); link.CarrierOf(out) != link.CarrierQUIC {
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
	edge, hub, _ := bulkPair(t)
	var e *link.Error
	if err := link.JoinBulkAs(t.Context(), edge, edge); !errors.As(err, &e) || !e.Remote {
		t.Errorf("a second one: %v", err)
	}
	if n := hub.Stats().Handshakes; n != 2 {
		t.Errorf("the bundle has had %d connections", n)
	}
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

// TestBulkByItself: the bundle's own watch sees that much is sent, in fetches, and that the path is short.
func TestBulkByItself(t *testing.T) {
	for name, change := range map[string]func(*link.Options){
		"both":              func(*link.Options) {},
		"back from tcp":     func(o *link.Options) { o.Carriers = []link.Carrier{link.CarrierQUIC} },
		"not wanted":        func(o *link.Options) { o.Bulk = false },
		"tcp is not served": func(o *link.Options) { o.DialStream = noStream },
	} {
		t.Run(name, func(t *testing.T) {
			l, opt, a := listenFor(t, nil)
			o := opt(site(t, a, "berlin"))
			change(&o)
			edge, hub := pair(t, l, o)
			var sent atomic.Int64
			go func() {
				for {
					s, err := edge.AcceptStream(context.Background())
					if err != nil {
						return
					}
					go func() {
						piece := make([]byte, 1<<20)
						for err == nil {
							var n int
							n, err = s.Write(piece)
							sent.Add(int64(n))
						}
					}()
				}
			}()
			s, err := hub.OpenStream(link.WithBulk(t.Context()), link.KindFetch)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, s) }()
			for most := int64(256 << 20); !edge.Stats().Bulk && sent.Load() < most && t.Context().Err() == nil; {
				<-time.After(time.Millisecond)
			}
			if got, want := edge.Stats().Bulk, name == "both" || name == "back from tcp"; got != want {
				t.Errorf("after %d MB fetches go over TCP: %v, want %v", sent.Load()>>20, got, want)
			}
		})
	}
}

func noStream(context.Context, string) (net.Conn, error) { return nil, errors.New("not now") }

// TestBulkThatDies: after a connection that was taken away the next is made after a pause, which grows.
func TestBulkThatDies(t *testing.T) {
	edge, hub, look := bulkPair(t)
	now := time.Now()
	made := uint64(2)
	for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
		link.Lose(hub, link.CarrierTCP)
		until(t, 1, edge, hub)
		for _, after := range []time.Duration{0, pause / 2, pause - time.Second} {
			if look.See(now.Add(after), near, much); edge.Stats().Handshakes != made {
				t.Fatalf("made again within %v, want after %v", after, pause)
			}
		}
		now = now.Add(pause)
		look.See(now, near, much)
		if made++; edge.Stats().Handshakes != made {
			t.Fatalf("not made again after %v", pause)
		}
		until(t, 2, edge, hub)
	}
	look.See(now.Add(2*time.Minute), near, much) // it lives
	now = now.Add(3 * time.Minute)
	link.Lose(hub, link.CarrierTCP)
	until(t, 1, edge, hub)
	look.See(now, near, much)
	if look.See(now.Add(5*time.Second), near, much); edge.Stats().Handshakes != made+1 {
		t.Error("one that has lived for long is not made again after the first pause")
	}
}

// TestBulkThatIsSlow: one that brings less than half of what there was before, though there is more to send, is given
// up, and comes again after a pause; one that has no more to send is not.
func TestBulkThatIsSlow(t *testing.T) {
	var stuck atomic.Pointer[chan struct{}]
	edge, hub, look := bulkPair(t, func(o *link.Options) { o.DialStream = slowedDial(&stuck) })
	for range 10 {
		look.See(time.Now(), near, much/10)
	}
	out, in := openBulk(t, hub, edge)
	if link.CarrierOf(in) != link.CarrierTCP {
		t.Fatal("given up without having been slow")
	}
	gate := make(chan struct{})
	stuck.Store(&gate)
	written := make(chan error, 1)
	go func() {
		_, err := in.Write(make([]byte, 200_000))
		written <- errors.Join(err, in.Close())
	}()
	for link.CarrierOf(in) == link.CarrierTCP && !link.Waiting(edge) {
		<-time.After(time.Millisecond)
	}
	for range 3 {
		look.See(time.Now(), near, much/3)
	}
	if s, _ := open(t, edge, hub, link.KindLive); link.CarrierOf(s) != link.CarrierQUIC {
		t.Error("live goes over TCP")
	}
	if link.GivenUp(edge) {
		t.Error("given up at once")
	}
	look.See(time.Now(), near, much/3)
	if !link.GivenUp(edge) {
		t.Error("kept although it is slow")
	}
	stuck.Store(nil)
	close(gate)
	_ = out.Close()
	got, err := io.ReadAll(out)
	if len(got) != 200_000 || err != nil || <-written != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, _ = io.ReadAll(in)
	until(t, 1, edge, hub)
	look.See(time.Now(), near, much)
	if n := edge.Stats().Handshakes; n != 2 {
		t.Errorf("made again at once")
	}
}

// TestBulkThatIsDark: where nothing passes over TCP any more the sides end the connection within seconds, also when it
// was about to go, and what was on it goes on over QUIC.
func TestBulkThatIsDark(t *testing.T) {
	t.Run("in use", func(t *testing.T) { bulkThatIsDark(t, false) })
	t.Run("about to go", func(t *testing.T) { bulkThatIsDark(t, true) })
}

func bulkThatIsDark(t *testing.T, leaving bool) {
	var stuck atomic.Pointer[chan struct{}]
	edge, hub, look := bulkPair(t, func(o *link.Options) { o.DialStream = slowedDial(&stuck) })
	out, _ := openBulk(t, hub, edge)
	live, _ := open(t, edge, hub, link.KindLive)
	if leaving {
		look.See(time.Now(), far, much)
		for !link.GivenUp(hub) && t.Context().Err() == nil {
			<-time.After(time.Millisecond)
		}
	}
	gate := make(chan struct{})
	stuck.Store(&gate)
	until(t, 1, edge, hub)
	_, err := out.Read(make([]byte, 1))
	if err == nil || errors.Is(err, link.ErrSilent) && err.Error() != link.ErrSilent.Error() {
		t.Errorf("the fetch ends only with the connection's own time without an answer: %v", err)
	}
	if out, _ := openBulk(t, hub, edge); link.CarrierOf(out) != link.CarrierQUIC {
		t.Errorf("a fetch goes over %s", link.CarrierOf(out))
	}
	if _, err := live.Write([]byte("x")); err != nil {
		t.Errorf("live: %v", err)
	}
}

// slowed is a connection on which nothing passes while it is stuck.
type slowed struct {
	net.Conn
	stuck  *atomic.Pointer[chan struct{}]
	closed chan struct{}
	once   *sync.Once
}

func slowedDial(stuck *atomic.Pointer[chan struct{}]) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		return slowed{c, stuck, make(chan struct{}), new(sync.Once)}, err
	}
}

func (s slowed) wait() {
	if gate := s.stuck.Load(); gate != nil {
		select {
		case <-*gate:
		case <-s.closed:
		}
	}
}

func (s slowed) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.wait()
	return n, err
}

func (s slowed) Write(b []byte) (int, error) {
	s.wait()
	return s.Conn.Write(b)
}

func (s slowed) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}
