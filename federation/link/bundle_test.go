package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
)

const other = "munich"

// listenFor opens a listener of bundles, and returns what dials it as each of the sites.
func listenFor(t testing.TB, listen func(string) (net.PacketConn, error), protocols ...string) (
	*link.Listener, func(*identity.Node) link.Options, *identity.Authority,
) {
	t.Helper()
	a, _ := enrolled(t)
	conf := a.TLS()
	if len(protocols) > 0 { // an older hub's
		conf.NextProtos, conf.ClientAuth = protocols, tls.RequireAnyClientCert
		now, err := conf.GetConfigForClient(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		conf.GetCertificate, conf.GetConfigForClient = now.GetCertificate, nil
	}
	l, err := link.Listen("127.0.0.1:0", link.Options{
		TLS: conf, ListenPacket: listen, Join: identity.ProtocolJoin, Single: identity.ProtocolEnrol,
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
	return l, func(n *identity.Node) link.Options {
		conf, err := n.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return link.Options{TLS: conf, Join: identity.ProtocolJoin, ListenPacket: listen, Bulk: true}
	}, a
}

// pair dials the listener and returns both ends.
func pair(t testing.TB, l *link.Listener, opt link.Options) (edge, hub link.Conn) {
	t.Helper()
	edge, err := link.Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { edge.Close(0, "") })
	if hub, err = l.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close(0, "") })
	return edge, hub
}

func bundlePair(t *testing.T) (edge, hub link.Conn) {
	l, opt, a := listenFor(t, nil)
	edge, hub = pair(t, l, opt(site(t, a, "berlin")))
	for number := range uint32(3) {
		if _, err := link.Join(t.Context(), edge, number+1); err != nil {
			t.Fatal(err)
		}
	}
	return edge, hub
}

// until waits until both ends have so many connections.
func until(t *testing.T, n int, ends ...link.Conn) {
	t.Helper()
	for _, c := range ends {
		for c.Stats().Connections != n {
			if t.Context().Err() != nil {
				t.Fatalf("%d connections, want %d", c.Stats().Connections, n)
			}
			<-time.After(time.Millisecond)
		}
	}
}

func TestBundleTakesStreams(t *testing.T) {
	edge, hub := bundlePair(t)
	until(t, 4, edge, hub)
	if s := edge.Stats(); s.Handshakes != 4 || s.RTT <= 0 || s.CongestionWindow < 4*1200 {
		t.Errorf("the figures of four connections are %+v", s)
	}
	var all sync.WaitGroup
	for range 40 {
		out, in := open(t, hub, edge, link.KindFetch)
		all.Go(func() {
			in.Write(bytes.Repeat([]byte{'x'}, 100_000))
			in.Close()
		})
		all.Go(func() {
			if got, err := io.ReadAll(out); len(got) != 100_000 || err != nil {
				t.Errorf("%d bytes came, %v", len(got), err)
			}
			out.Reset(9)
		})
	}
	all.Wait()
	if err := edge.Close(9, "enough"); err != nil {
		t.Fatal(err)
	}
	_, err := hub.AcceptStream(t.Context())
	var e *link.Error
	if !errors.As(err, &e) || e.Code != 9 || e.Reason != "enough" || !e.Remote {
		t.Errorf("the hub hears %v", err)
	}
}

// TestBundleLosesOne kills one connection of a bundle in the middle of transfers: those on it fail,
// all others go on, and those that failed go on at their offset over another connection.
func TestBundleLosesOne(t *testing.T) {
	edge, hub := bundlePair(t)
	until(t, 4, edge, hub)
	const size = 4 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	killed, half := make(chan struct{}), make(chan struct{}, 64)
	// The edge gives what comes after the offset that it is asked for, the second half when one is dead.
	go func() {
		for {
			s, err := edge.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				var head [4]byte
				if _, err := io.ReadFull(s, head[:]); err == nil {
					from := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
					s.Write(data[from:max(from, size/2)])
					half <- struct{}{}
					<-killed
					s.Write(data[max(from, size/2):])
				}
				s.Close()
			}()
		}
	}()
	var all sync.WaitGroup
	failed := make(chan error, 64)
	for range 8 {
		all.Go(func() {
			var got []byte
			for len(got) < size {
				s, err := hub.OpenStream(t.Context(), link.KindFetch)
				if err != nil {
					t.Error(err)
					return
				}
				s.Write([]byte{byte(len(got) >> 16), byte(len(got) >> 8), byte(len(got))})
				for piece := make([]byte, 1<<16); err == nil; {
					var n int
					n, err = s.Read(piece)
					got = append(got, piece[:n]...)
				}
				if s.Reset(9); !errors.Is(err, io.EOF) {
					failed <- err
				}
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%d bytes came, or others than were sent", len(got))
			}
		})
	}
	for range 8 {
		<-half
	}
	if err := link.Busiest(edge).Close(link.CodeLeft, "killed"); err != nil {
		t.Fatal(err)
	}
	close(killed)
	all.Wait()
	if n := len(failed); n == 0 || n == 8 {
		t.Errorf("%d of 8 streams had to go on elsewhere, want those of one of four connections", n)
	}
	until(t, 3, edge, hub)
}

// TestBundleEndsWithItsLast: when the last connection is gone the bundle is, for the same reason.
func TestBundleEndsWithItsLast(t *testing.T) {
	var cable link.Cuttable
	l, opt, a := listenFor(t, cable.ListenPacket)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	if _, err := link.Join(t.Context(), edge, 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cable.Cut()
	for name, c := range map[string]link.Conn{"edge": edge, "hub": hub} {
		if _, err := c.AcceptStream(t.Context()); !errors.Is(err, link.ErrSilent) {
			t.Errorf("%s: %v, want silence", name, err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("noticed after %v", took)
	}
	if _, err := hub.OpenStream(t.Context(), link.KindControl); !errors.Is(err, link.ErrSilent) {
		t.Errorf("a stream was opened: %v", err)
	}
}

// TestBundleGivesUp: a connection that is given up takes no new streams and ends after its last.
func TestBundleGivesUp(t *testing.T) {
	edge, hub := bundlePair(t)
	until(t, 4, edge, hub)
	var out, in [4]link.Stream
	for i := range out { // one on each
		out[i], in[i] = open(t, hub, edge, link.KindFetch)
	}
	for range 3 {
		link.Give(edge)
		for i := range out {
			in[i].Write([]byte("on"))
			if _, err := io.ReadFull(out[i], make([]byte, 2)); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		}
		n := edge.Stats().Connections
		for i := range out {
			in[i].Close()
			io.ReadAll(out[i])
			out[i].Reset(9)
			in[i].Reset(9)
		}
		until(t, n-1, edge, hub)
		for i := range out {
			out[i], in[i] = open(t, hub, edge, link.KindFetch)
		}
	}
}

// TestForeignJoin: only the site that founded a bundle, with the certificate with which it did, may join it.
func TestForeignJoin(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	berlin := site(t, a, "berlin")
	first, hub := pair(t, l, opt(berlin))
	strange, _ := pair(t, l, opt(site(t, a, other)))
	denied := func(who string, err error) {
		t.Helper()
		var e *link.Error
		if !errors.As(err, &e) || e.Code != 4 || !e.Remote {
			t.Errorf("%s hears %v, want that it is refused", who, err)
		}
	}
	denied("another site", link.JoinAs(t.Context(), strange, first))
	second, _ := pair(t, l, opt(berlin))
	if err := second.Close(0, ""); err != nil {
		t.Fatal(err)
	}
	gone, _ := pair(t, l, opt(berlin))
	denied("who wants into a bundle that is over", link.JoinAs(t.Context(), gone, second))
	if n := hub.Stats().Connections; n != 1 {
		t.Errorf("the bundle has %d connections", n)
	}
	if _, err := link.Join(t.Context(), first, 1); err != nil {
		t.Errorf("its own site: %v", err)
	}
}

// TestJoinAfterRenewal: a link goes on growing after its certificate was renewed.
func TestJoinAfterRenewal(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	berlin := site(t, a, "berlin")
	first, hub := pair(t, l, opt(berlin))
	csr, err := berlin.Request()
	if err != nil {
		t.Fatal(err)
	}
	conf, err := berlin.TLS()
	if err != nil {
		t.Fatal(err)
	}
	before := berlin.Certificate()
	c, err := a.Renew("berlin", csr)
	if err == nil {
		err = berlin.Renewed(c)
	}
	if err != nil || berlin.Certificate().Equal(before) {
		t.Fatalf("the certificate is not another: %v", err)
	}
	if shown, err := conf.GetClientCertificate(nil); err != nil || !shown.Leaf.Equal(berlin.Certificate()) {
		t.Errorf("the next connection shows the old certificate: %v", err)
	}
	if _, err := link.Join(t.Context(), first, 1); err != nil {
		t.Error(err)
	}
	if n := hub.Stats().Connections; n != 2 {
		t.Errorf("the bundle has %d connections", n)
	}
}

// TestFullBundle: a peer gets no more connections than a bundle has.
func TestFullBundle(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	for i := range uint32(link.MaxConnections - 1) {
		if _, err := link.Join(t.Context(), edge, i+1); err != nil {
			t.Fatal(err)
		}
	}
	var e *link.Error
	if err := link.JoinAs(t.Context(), edge, edge); !errors.As(err, &e) || e.Code != 7 {
		t.Errorf("one connection more: %v", err)
	}
	if n := hub.Stats().Connections; n != link.MaxConnections {
		t.Errorf("%d connections", n)
	}
}

// TestOldHub: a hub that knows nothing of bundles says so in the handshake, and the link stays as it is.
func TestOldHub(t *testing.T) {
	l, opt, a := listenFor(t, nil, identity.ProtocolLink)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	if _, err := link.Join(t.Context(), edge, 1); !errors.Is(err, link.ErrAlone) {
		t.Errorf("joining a bundle that the hub does not know: %v", err)
	}
	open(t, hub, edge, link.KindFetch)
}

// TestBundleGrows: over a path that loses packets at random the edge makes more connections by itself, and
// when nothing more is sent it has one again.
func TestBundleGrows(t *testing.T) {
	cable := link.Cuttable{Seed: 1}
	l, opt, a := listenFor(t, cable.ListenPacket)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	cable.Lose(0.02)
	var senders sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		out, in := open(t, hub, edge, link.KindFetch)
		go io.Copy(io.Discard, out)
		senders.Go(func() {
			for piece := make([]byte, 64<<10); ; {
				select {
				case <-stop:
					in.Close()
					out.Reset(9)
					return
				default:
					if _, err := in.Write(piece); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for edge.Stats().Connections < 2 {
		<-time.After(10 * time.Millisecond)
	}
	close(stop)
	senders.Wait()
	cable.Lose(0)
	until(t, 1, edge, hub)
}

func bundleOfOne(t *testing.T) (edge, hub link.Conn) {
	l, opt, a := listenFor(t, nil)
	return pair(t, l, opt(site(t, a, "berlin")))
}

// BenchmarkJoin is what one more connection of a bundle costs: its handshake, on both sides, and the memory
// that it keeps while nothing goes over it.
func BenchmarkJoin(b *testing.B) {
	l, opt, a := listenFor(b, nil)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	kept, joined := uint64(0), uint64(0)
	for b.Loop() {
		b.StopTimer()
		edge, hub := pair(b, l, opt(site(b, a, "berlin")))
		before := heap()
		b.StartTimer()
		for i := range uint32(link.MaxConnections - 1) {
			if _, err := link.Join(b.Context(), edge, i+1); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if now := heap(); now > before {
			kept += now - before
		}
		joined += link.MaxConnections - 1
		edge.Close(0, "")
		hub.Close(0, "")
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(joined), "us/join")
	b.ReportMetric(float64(kept)/float64(joined)/2, "B/end")
}
