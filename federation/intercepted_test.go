package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
)

// interceptor is a device on the way that ends TLS itself, at one port of UDP and TCP, and passes on to the
// hub what it has read. It keeps account of all that it sees.
type interceptor struct {
	hub    string
	conf   *tls.Config
	answer []byte // instead of a handshake, if any
	wg     sync.WaitGroup

	mu           sync.Mutex
	seen         bytes.Buffer // as it came over the wire
	plain        int          // bytes after decryption
	streams      int          // of QUIC
	certificates int          // of clients
	handshakes   int          // begun
}

// forge returns a configuration with a certificate for the hub by a CA of the interceptor's own. It has the
// hub's name in it, as such devices copy what they find.
func forge(t *testing.T) *tls.Config {
	t.Helper()
	make := func(template, parent *x509.Certificate, pub ed25519.PublicKey, by ed25519.PrivateKey) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := time.Now()
	caPub, caKey, _ := ed25519.GenerateKey(nil)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Corp Web Filter CA"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	ca = make(ca, ca, caPub, caKey)
	pub, key, _ := ed25519.GenerateKey(nil)
	leaf := make(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hub.example.com"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(time.Hour), URIs: []*url.URL{{Scheme: "branchline", Host: "hub", Path: "/"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, pub, caKey)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key}},
		NextProtos:   []string{identity.ProtocolLink, identity.ProtocolEnrol}, ClientAuth: tls.RequireAnyClientCert,
		MinVersion: tls.VersionTLS12,
	}
}

// serverHello12 is how a device answers that passes over what it does not know of a ClientHello.
func serverHello12() []byte {
	hello := append([]byte{3, 3}, make([]byte, 32)...) // version, random
	hello = append(hello, 0, 0xc0, 0x2f, 0)            // no session, cipher, no compression
	hello = append([]byte{2, 0, 0, byte(len(hello))}, hello...)
	return append([]byte{22, 3, 3, 0, byte(len(hello))}, hello...)
}

// start puts the interceptor on the way to the hub, for TCP or for QUIC, and returns its address.
func (i *interceptor) start(t *testing.T, carrier link.Carrier) string {
	t.Helper()
	i.conf = i.conf.Clone()
	i.conf.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.certificates++
		return nil
	}
	i.conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.handshakes++
		return nil, nil
	}
	if carrier == link.CarrierQUIC {
		return i.startQUIC(t)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		i.wg.Wait()
	})
	i.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			i.wg.Go(func() { i.pass(c) })
		}
	})
	return l.Addr().String()
}

// Write keeps what comes over the wire.
func (i *interceptor) Write(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen.Write(b)
}

type overheard struct {
	net.Conn
	in io.Reader
}

func (c overheard) Read(b []byte) (int, error) { return c.in.Read(b) }

// pass ends the client's TLS and begins its own to the hub.
func (i *interceptor) pass(c net.Conn) {
	defer c.Close()
	if i.answer != nil {
		io.CopyN(i, c, 5) // the header of a ClientHello's record
		c.Write(i.answer)
		i.mu.Lock()
		i.handshakes++
		i.mu.Unlock()
		io.Copy(i, c)
		return
	}
	client := tls.Server(overheard{c, io.TeeReader(c, i)}, i.conf)
	if client.Handshake() != nil {
		io.Copy(io.Discard, client)
		return
	}
	hub, err := tls.Dial("tcp", i.hub, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.ProtocolLink}})
	if err != nil {
		return
	}
	defer hub.Close()
	i.wg.Go(func() { io.Copy(client, hub) })
	buf := make([]byte, 1<<14)
	for {
		n, err := client.Read(buf)
		i.mu.Lock()
		i.plain += n
		i.mu.Unlock()
		if err != nil {
			return
		}
		hub.Write(buf[:n])
	}
}

func (i *interceptor) startQUIC(t *testing.T) string {
	t.Helper()
	l, err := quic.ListenAddr("127.0.0.1:0", i.conf, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		l.Close()
		i.wg.Wait()
	})
	i.wg.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			i.wg.Go(func() {
				if _, err := c.AcceptStream(ctx); err == nil {
					i.mu.Lock()
					defer i.mu.Unlock()
					i.streams++
				}
			})
		}
	})
	return l.Addr().String()
}

// check checks that the interceptor got nothing but a ClientHello.
func (i *interceptor) check(t *testing.T, secrets ...[]byte) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.handshakes == 0 {
		t.Error("nobody came to the interceptor: the test shows nothing")
	}
	if i.plain != 0 || i.streams != 0 || i.certificates != 0 {
		t.Errorf("the interceptor got %d bytes, %d streams, %d certificates", i.plain, i.streams, i.certificates)
	}
	for _, s := range secrets {
		if bytes.Contains(i.seen.Bytes(), s) {
			t.Errorf("the interceptor saw %q in %d bytes", s, i.seen.Len())
		}
	}
}

// TestIntercepted puts an interceptor of each sort on the way, for a link and for an enrolment. Each is
// refused before anything is sent, and the error says who it is and what to do.
func TestIntercepted(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(h.token("munich"))
	if err != nil {
		t.Fatal(err)
	}
	old, bare := forge(t), forge(t)
	old.MaxVersion, bare.NextProtos = tls.VersionTLS12, nil
	genuine := h.authority.TLS() // as if it held the hub's key: only the name of the protocol is missing
	genuine.NextProtos, genuine.ClientAuth = nil, tls.RequireAnyClientCert
	const shown = `"CN=hub.example.com", issued by "CN=Example Corp Web Filter CA"`
	for name, c := range map[string]struct {
		carrier link.Carrier
		conf    *tls.Config
		answer  []byte
		want    string
	}{
		"forged":               {link.CarrierTCP, forge(t), nil, shown},
		"forged, QUIC":         {link.CarrierQUIC, forge(t), nil, shown},
		"knows TLS 1.2 only":   {link.CarrierTCP, old, nil, "refuses the handshake"},
		"downgrades":           {link.CarrierTCP, old, serverHello12(), "does not speak TLS 1.3"},
		"no TLS at all":        {link.CarrierTCP, old, []byte("HTTP/1.1 302 Found\r\n\r\n"), "does not speak TLS 1.3"},
		"forged, without ALPN": {link.CarrierTCP, bare, nil, `issued by "CN=Example Corp Web Filter CA"`},
		"ALPN stripped":        {link.CarrierTCP, genuine, nil, "ALPN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := &interceptor{hub: h.addr(), conf: c.conf, answer: c.answer}
			addr := i.start(t, c.carrier)
			through := func(opt link.Options) link.Options {
				opt.Carriers = []link.Carrier{c.carrier}
				return opt
			}
			elsewhere := token
			elsewhere.Hubs = []string{addr}
			conf, err := node.TLS()
			if err != nil {
				t.Fatal(err)
			}
			conn, linking := dialHub(t.Context(), addr, through(link.Options{TLS: conf}))
			if linking == nil {
				conn.Close(0, "")
			}
			enrolling := enrol(t.Context(), newNode(t), elsewhere.String(), through(link.Options{}))
			for what, err := range map[string]error{"link": linking, "enrolment": enrolling} {
				if !errors.Is(err, link.ErrIntercepted) || !strings.Contains(err.Error(), c.want) ||
					!strings.Contains(err.Error(), "Ask the network people to let TCP and UDP to "+addr) {
					t.Errorf("%s: %v, want that it is intercepted, and %q", what, err, c.want)
				}
				if errors.Is(err, identity.ErrForeign) {
					t.Errorf("%s: %v counts as another hub, for which a new token would help", what, err)
				}
			}
			i.check(t, []byte("berlin"), []byte("munich"), token.Secret[:], node.Certificate().Raw)
		})
	}
}

// TestInterceptedUplink shows what the operator of an edge sees.
func TestInterceptedUplink(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	i := &interceptor{hub: h.addr(), conf: forge(t)}
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Hubs: []string{i.start(t, link.CarrierTCP)}})
	run(t, u.Run)
	if s := await(t, u, isDown); !errors.Is(s.Err, link.ErrIntercepted) {
		t.Errorf("the edge says %v, want that it is intercepted", s.Err)
	}
	i.check(t, []byte("berlin"))
}
