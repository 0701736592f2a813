package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enrolled returns an authority and a node of its site berlin.
func enrolled(t testing.TB) (*identity.Authority, *identity.Node) {
	t.Helper()
	a, err := identity.OpenAuthority(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	return a, site(t, a, "berlin")
}

// site returns a node that is one of the authority's sites.
func site(t testing.TB, a *identity.Authority, name branchline.SiteID) *identity.Node {
	t.Helper()
	n, err := identity.OpenNode(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.AddSite(name, []string{"hub:1"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Enrol(token.Secret[:], csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Enrolled(token, c); err != nil {
		t.Fatal(err)
	}
	return n
}

// listen opens a listener, and dial options that it accepts.
func listen(t testing.TB, listen func(string) (net.PacketConn, error)) (*link.Listener, link.Options) {
	t.Helper()
	a, n := enrolled(t)
	l, err := link.Listen("127.0.0.1:0", link.Options{
		TLS: a.TLS(), ListenPacket: listen,
		Verify: func(s tls.ConnectionState) (branchline.SiteID, *link.Error) {
			site, err := a.Verify(s.PeerCertificates[0].Raw)
			if err != nil {
				return "", &link.Error{Code: 42, Reason: err.Error()}
			}
			return site, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conf, err := n.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return l, link.Options{TLS: conf}
}

func quicPair(t *testing.T) (edge, hub link.Conn) { return pairOver(t, link.CarrierQUIC) }
func tcpPair(t *testing.T) (edge, hub link.Conn)  { return pairOver(t, link.CarrierTCP) }

func pairOver(t *testing.T, carrier link.Carrier) (edge, hub link.Conn) {
	t.Helper()
	l, opt := listen(t, nil)
	opt.Carriers = []link.Carrier{carrier}
	edge, err := link.Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	hub, err = l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e, h := edge.Peer().Carrier, hub.Peer().Carrier; e != carrier || h != carrier {
		t.Errorf("carried by %q and %q, want %q", e, h, carrier)
	}
	return edge, hub
}

func pipePair(*testing.T) (edge, hub link.Conn) { return link.Pipe("berlin", "") }

// both runs the test over QUIC, over TCP and in memory: a Pipe is only good if it does the same.
func both(t *testing.T, test func(t *testing.T, edge, hub link.Conn)) {
	for name, pair := range map[string]func(*testing.T) (edge, hub link.Conn){
		"quic": quicPair, "tcp": tcpPair, "bundle": bundleOfOne, "memory": pipePair,
	} {
		t.Run(name, func(t *testing.T) {
			edge, hub := pair(t)
			defer edge.Close(0, "")
			defer hub.Close(0, "")
			test(t, edge, hub)
		})
	}
}

// open opens a stream at a and accepts it at b; one byte has gone over it.
func open(t *testing.T, a, b link.Conn, kind link.Kind) (at, bt link.Stream) {
	t.Helper()
	return openAs(t.Context(), t, a, b, kind)
}

func openAs(ctx context.Context, t *testing.T, a, b link.Conn, kind link.Kind) (at, bt link.Stream) {
	t.Helper()
	at, err := a.OpenStream(ctx, kind)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := at.Write([]byte{'.'}); n != 1 || err != nil {
		t.Fatalf("wrote %d bytes, %v", n, err)
	}
	if bt, err = b.AcceptStream(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := link.ReadKind(bt)
	if _, more := io.ReadFull(bt, make([]byte, 1)); err != nil || more != nil || got != kind {
		t.Fatalf("accepted a stream of %s, %v, want %s", got, err, kind)
	}
	return at, bt
}

func TestStreams(t *testing.T) {
	both(t, func(t *testing.T, edge, hub link.Conn) {
		if p := hub.Peer(); p.Site != "berlin" || p.Addr == "" {
			t.Errorf("the hub's peer is %+v", p)
		}
		if p := edge.Peer(); p.Site != "" {
			t.Errorf("the edge's peer is %+v", p)
		}
		out, in := open(t, hub, edge, link.KindLive)
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // more than any window
		sent := make(chan error)
		go func() {
			_, err := in.Write(big)
			sent <- errors.Join(err, in.Close())
		}()
		got, err := io.ReadAll(out)
		if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%d of %d bytes came, %v", len(got), len(big), err)
		}
		if _, err := out.Write([]byte("more")); err != nil {
			t.Errorf("the other direction is closed too: %v", err)
		}
	})
}

func wantReset(t *testing.T, who string, err error, remote bool) {
	t.Helper()
	var e *link.Error
	if !errors.As(err, &e) || e.Code != 7 || e.Remote != remote || e.Conn {
		t.Errorf("%s sees %v, want a reset with code 7, by the peer: %v", who, err, remote)
	}
}

func TestReset(t *testing.T) {
	both(t, func(t *testing.T, edge, hub link.Conn) {
		out, in := open(t, hub, edge, link.KindFetch)
		blocked := make(chan error)
		go func() {
			var err error
			for err == nil {
				_, err = in.Write(make([]byte, 1<<16))
			}
			blocked <- err
		}()
		out.Reset(7)
		wantReset(t, "the writer at the other side", <-blocked, true)
		_, err := in.Read(make([]byte, 1))
		wantReset(t, "the reader at the other side", err, true)
		_, err = out.Read(make([]byte, 1))
		wantReset(t, "the reader here", err, false)
		_, err = out.Write(make([]byte, 1))
		wantReset(t, "the writer here", err, false)
	})
}

// TestResetAfterClose shows that what was written before Close arrives all the same.
func TestResetAfterClose(t *testing.T) {
	both(t, func(t *testing.T, edge, hub link.Conn) {
		out, in := open(t, hub, edge, link.KindControl)
		if _, err := in.Write([]byte("the answer")); err != nil {
			t.Fatal(err)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		in.Reset(7)
		if got, err := io.ReadAll(out); string(got) != "the answer" || err != nil {
			t.Errorf("%q arrived, %v", got, err)
		}
	})
}

func TestClose(t *testing.T) {
	both(t, func(t *testing.T, edge, hub link.Conn) {
		out, _ := open(t, hub, edge, link.KindControl)
		read := make(chan error)
		go func() {
			_, err := out.Read(make([]byte, 1))
			read <- err
		}()
		if err := edge.Close(9, strings.Repeat("why ", 200)); err != nil {
			t.Fatal(err)
		}
		_, accept := hub.AcceptStream(t.Context())
		for what, err := range map[string]error{"read": <-read, "accept": accept} {
			var e *link.Error
			if !errors.As(err, &e) || e.Code != 9 || !e.Remote || !e.Conn || len(e.Reason) != link.MaxReason {
				t.Errorf("%s: %v, want the peer's closing with its reason", what, err)
			}
		}
		if _, err := hub.OpenStream(t.Context(), link.KindControl); err == nil {
			t.Error("a stream was opened on a closed connection")
		}
		if err := edge.Close(10, "again"); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

func TestContexts(t *testing.T) {
	both(t, func(t *testing.T, edge, hub link.Conn) {
		ctx, cancel := context.WithCancel(t.Context())
		accepted := make(chan error)
		go func() {
			_, err := edge.AcceptStream(ctx)
			accepted <- err
		}()
		cancel()
		if err := <-accepted; !errors.Is(err, context.Canceled) {
			t.Errorf("accept: %v", err)
		}
		for range link.MaxStreams {
			s, err := hub.OpenStream(t.Context(), link.KindLive)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := hub.OpenStream(ctx, link.KindLive); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one stream more than the limit: %v", err)
		}
	})
}

// TestCuttable shows that a cut cable is noticed by both sides in time, and is as if it had never been
// if it heals before.
func TestCuttable(t *testing.T) {
	for _, carrier := range []link.Carrier{link.CarrierQUIC, link.CarrierTCP} {
		t.Run(string(carrier), func(t *testing.T) { testCuttable(t, carrier) })
	}
}

func testCuttable(t *testing.T, carrier link.Carrier) {
	var cable link.Cuttable
	l, opt := listen(t, nil)
	opt.ListenPacket, opt.DialStream, opt.Carriers = cable.ListenPacket, cable.DialStream, []link.Carrier{carrier}
	edge, err := link.Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close(0, "")
	hub, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, in := open(t, hub, edge, link.KindLive)
	cable.Cut()
	if _, err := in.Write([]byte("held up")); err != nil {
		t.Fatal(err)
	}
	cable.Heal()
	if _, err := io.ReadFull(out, make([]byte, len("held up"))); err != nil {
		t.Errorf("after a short cut: %v", err)
	}
	began := time.Now()
	cable.Cut()
	for name, c := range map[string]link.Conn{"edge": edge, "hub": hub} {
		if _, err := c.AcceptStream(t.Context()); !errors.Is(err, link.ErrSilent) {
			t.Errorf("%s: %v, want silence", name, err)
		}
	}
	if took := time.Since(began); took < link.IdleTimeout/2 || took > 5*time.Second {
		t.Errorf("noticed after %v", took)
	}
}

// TestNarrow shrinks the path after large packets have gone over it. Keep-alives pass, and yet the
// connection ends in time; without a watchdog it would stand still for most of a minute.
func TestNarrow(t *testing.T) {
	var cable link.Cuttable
	l, opt := listen(t, nil)
	opt.ListenPacket = cable.ListenPacket
	edge, err := link.Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close(0, "")
	hub, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, in := open(t, hub, edge, link.KindFetch)
	go io.Copy(io.Discard, out)
	for range 200 { // path MTU discovery makes them larger
		if _, err := in.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	before := edge.Stats()
	if average := before.Sent / before.PacketsSent; average < 1250 {
		t.Fatalf("packets had %d bytes in the mean: the test shows nothing", average)
	}
	cable.Narrow(1250)
	began := time.Now()
	for err == nil {
		_, err = in.Write(make([]byte, 64<<10))
	}
	t.Logf("%v after %v", err, time.Since(began))
	if took := time.Since(began); !errors.Is(err, link.ErrStalled) || took > link.StallTimeout+2*time.Second {
		t.Errorf("%v after %v, want that it stalled", err, took)
	}
	if _, err := hub.AcceptStream(t.Context()); !errors.Is(err, link.ErrStalled) {
		t.Errorf("the other side hears %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	_, opt := listen(t, nil)
	for addr, want := range map[string]string{
		"":               "missing port",
		"127.0.0.1":      "missing port",
		"127.0.0.1:nope": "unknown port",
	} {
		if _, err := link.Dial(t.Context(), addr, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("dial %q: %v, want %q", addr, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := link.Dial(ctx, "127.0.0.1:1", opt); err == nil {
		t.Error("connected to nobody")
	}
}

// BenchmarkStream is the raw rate of one stream over loopback.
func BenchmarkStream(b *testing.B) {
	for _, carrier := range []link.Carrier{link.CarrierQUIC, link.CarrierTCP} {
		b.Run(string(carrier), func(b *testing.B) { benchmarkStream(b, carrier) })
	}
}

func benchmarkStream(b *testing.B, carrier link.Carrier) {
	l, opt := listen(b, nil)
	opt.Carriers = []link.Carrier{carrier}
	edge, err := link.Dial(b.Context(), l.Addr().String(), opt)
	if err != nil {
		b.Fatal(err)
	}
	defer edge.Close(0, "")
	hub, err := l.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	s, err := edge.OpenStream(b.Context(), link.KindFetch)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		r, err := hub.AcceptStream(b.Context())
		if err == nil {
			io.Copy(io.Discard, r)
		}
	}()
	piece := make([]byte, 64<<10)
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		if _, err := s.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
}
