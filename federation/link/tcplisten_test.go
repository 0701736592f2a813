package link

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

// openHub returns a listener and the options of one who enrols there by TCP.
func openHub(t *testing.T) (*Listener, Options) {
	t.Helper()
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
	t.Cleanup(func() { l.Close() })
	if l.TCP() != nil {
		t.Fatal(l.TCP())
	}
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
	return l, Options{TLS: n.EnrolTLS(token), Carriers: []Carrier{CarrierTCP}}
}

// TestHalfOpen connects as often as one network may without a word: those keep their places for a while and
// no longer, one more is turned away, and others get in afterwards.
func TestHalfOpen(t *testing.T) {
	l, opt := openHub(t)
	began := time.Now()
	ended := make(chan int, maxHandshakesFrom+1)
	for i := range maxHandshakesFrom + 1 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			ended <- i // before it had begun
			continue
		}
		defer c.Close()
		go func() {
			io.Copy(io.Discard, c)
			ended <- i
		}()
	}
	if last := <-ended; last != maxHandshakesFrom || time.Since(began) > HandshakeTimeout/2 {
		t.Errorf("connection %d ended first, after %v", last, time.Since(began))
	}
	for range maxHandshakesFrom {
		<-ended
	}
	if took := time.Since(began); took < HandshakeTimeout || took > 2*HandshakeTimeout {
		t.Errorf("silent connections were given up after %v", took)
	}
	c, err := Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	c.Close(0, "")
}

// TestTooManyHandshakes takes all places, from many networks.
func TestTooManyHandshakes(t *testing.T) {
	l, _ := openHub(t)
	var leaving []func()
	for i := range 2 * maxHandshakes {
		addr := &net.TCPAddr{IP: net.IPv4(192, 0, byte(i>>8), byte(i)), Port: 1}
		if leave, ok := l.tcp.enter(addr); ok {
			leaving = append(leaving, leave)
		}
	}
	if len(leaving) != maxHandshakes {
		t.Errorf("%d handshakes at once, want %d", len(leaving), maxHandshakes)
	}
	for _, leave := range leaving {
		leave()
	}
	if l.tcp.shake != 0 || len(l.tcp.from) != 0 {
		t.Errorf("%d places and %v are left", l.tcp.shake, l.tcp.from)
	}
}

// TestNoTCPPort takes the TCP port away: the listener says so and works by UDP.
func TestNoTCPPort(t *testing.T) {
	l, opt := openHub(t)
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	again, err := Listen(addr, Options{
		TLS: opt.TLS, Verify: func(tls.ConnectionState) (branchline.SiteID, *Error) { return "", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.TCP() == nil || !strings.Contains(again.TCP().Error(), "in use") {
		t.Errorf("why there is no TCP: %v", again.TCP())
	}
}

// TestNoProtocol connects without the protocol's name, as TLS 1.3 alone would let.
func TestNoProtocol(t *testing.T) {
	l, opt := openHub(t)
	conf := opt.TLS.Clone()
	conf.NextProtos = nil
	c, err := tls.Dial("tcp", l.Addr().String(), conf)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil {
		t.Error("a connection without a protocol was accepted")
	}
}

// TestCarriers looks at what is tried, in which order.
func TestCarriers(t *testing.T) {
	var cable Cuttable
	for _, c := range []struct {
		opt  Options
		want []Carrier
	}{
		{Options{}, []Carrier{CarrierQUIC, CarrierTCP}},
		{Options{ListenPacket: cable.ListenPacket}, []Carrier{CarrierQUIC}},
		{Options{ListenPacket: cable.ListenPacket, DialStream: cable.DialStream}, []Carrier{CarrierQUIC, CarrierTCP}},
		{Options{Carriers: []Carrier{CarrierTCP}}, []Carrier{CarrierTCP}},
	} {
		if got := c.opt.carriers(); !slices.Equal(got, c.want) {
			t.Errorf("%v, want %v", got, c.want)
		}
	}
}

// TestLocal dials from an address of this machine, from one that reaches nobody, and from interfaces.
func TestLocal(t *testing.T) {
	l, opt := openHub(t)
	for text, c := range map[string]struct {
		local Local
		ok    bool
		want  string
	}{
		"loopback":          {Local{Addr: mustAddr(t, "127.0.0.9")}, true, "127.0.0.9:"},
		"the other family":  {Local{Addr: mustAddr(t, "::1")}, false, "can be reached from ::1"},
		"no address of it":  {Local{Addr: mustAddr(t, "192.0.2.1")}, false, "cannot assign"},
		"no such interface": {Local{Device: "nosuch0"}, false, "nosuch0"},
	} {
		for _, carrier := range []Carrier{CarrierQUIC, CarrierTCP} {
			t.Run(text+" "+string(carrier), func(t *testing.T) {
				opt.Local, opt.Carriers = c.local, []Carrier{carrier}
				conn, err := Dial(t.Context(), l.Addr().String(), opt)
				if (err == nil) != c.ok {
					t.Fatalf("dial: %v", err)
				}
				if err != nil {
					if !strings.Contains(err.Error(), c.want) {
						t.Errorf("%v, want %q", err, c.want)
					}
					return
				}
				defer conn.Close(0, "")
				hub, err := l.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if addr := hub.Peer().Addr; !strings.HasPrefix(addr, c.want) {
					t.Errorf("the hub sees %s, want %s", addr, c.want)
				}
			})
		}
	}
}

// TestDownThenOther shows that a carrier that fails at once does not keep the next waiting.
func TestDownThenOther(t *testing.T) {
	l, opt := openHub(t)
	opt.Carriers = nil
	opt.DialStream = Local{}.dialStream
	opt.ListenPacket = func(string) (net.PacketConn, error) { return nil, errors.New("no UDP here") }
	began := time.Now()
	c, err := Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(0, "")
	if took := time.Since(began); took > carrierStagger || c.Peer().Carrier != CarrierTCP {
		t.Errorf("connected by %s after %v", c.Peer().Carrier, took)
	}
}

func mustAddr(t *testing.T, text string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
