package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// Node is an edge's key and, once it has enrolled, its certificate. Methods may be called
// concurrently. It needs no closing.
type Node struct {
	dir      string
	clock    clock.Clock
	key      ed25519.PrivateKey
	instance uint64
	org      *organisation // nil unless the certificate is of the organisation's authority

	mu        sync.Mutex
	opens     uint64            // how often it was started; 0: not counted
	cert      *x509.Certificate // nil until enrolled; set together with what follows
	authority *x509.Certificate
	former    []former // whose hubs are trusted as well, until their end
	site      branchline.SiteID
	hubs      []string
	renewAt   time.Time
}

// OpenNode opens the node's identity in dir, and makes its key if there is none.
func OpenNode(dir string, clk clock.Clock) (*Node, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	key, err := loadKey(dir, "node.key")
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	n := &Node{dir: dir, clock: clk, key: key, instance: mathrand.Uint64() | 1}
	cert, err := readCert(dir, "node.crt")
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	authority, err := readCert(dir, "authority.crt")
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	data, err := readFile(dir, "hubs.json")
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	var hubs []string
	if err := json.Unmarshal(data, &hubs); err != nil {
		return nil, fmt.Errorf("open identity: read hubs: %w", err)
	}
	before, err := readFormer(dir)
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	if err := n.adopt(cert, authority, before, hubs); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	return n, nil
}

// adopt makes the certificate the node's own.
func (n *Node) adopt(cert, authority *x509.Certificate, before []former, hubs []string) error {
	site, err := SiteOf(cert)
	if err != nil {
		return err
	}
	if pub, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(n.key.Public()) {
		return fmt.Errorf("the certificate is for another key: %w", branchline.ErrInvalid)
	}
	issued := cert.NotBefore.Add(clockSlack)
	life := cert.NotAfter.Sub(issued)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cert, n.authority, n.former, n.site, n.hubs = cert, authority, before, site, hubs
	n.renewAt = issued.Add(time.Duration((0.5 + 0.3*mathrand.Float64()) * float64(life)))
	return nil
}

// Key returns the node's private key, which also signs its segments.
func (n *Node) Key() ed25519.PrivateKey { return n.key }

// Site returns the node's name, empty until it has enrolled.
func (n *Node) Site() branchline.SiteID {
	if n.org != nil {
		return n.org.site()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.site
}

// Certificate returns the node's certificate, nil until it has enrolled.
func (n *Node) Certificate() *x509.Certificate {
	if n.org != nil {
		if pair, err := n.org.own(); err == nil {
			return pair.Leaf
		}
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cert
}

// Hubs returns the addresses that came with the token.
func (n *Node) Hubs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.hubs)
}

// RenewAt returns when the certificate is to be renewed: at a random point between 50 and 80 % of its
// life, so that the sites of a hub do not come all at once. Zero until the node has enrolled, and if its
// certificate is the organisation's.
func (n *Node) RenewAt() time.Time {
	if n.org != nil {
		return time.Time{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.renewAt
}

// Request returns a certificate request for the node's key, DER.
func (n *Node) Request() ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, n.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}

// Enrolled stores what the hub gave for the token, durably, and makes it the node's identity. A hub whose
// authority has changed since the token was made names the token's as a former one.
func (n *Node) Enrolled(t Token, c Certificate) error {
	known := slices.ContainsFunc(c.Former, func(f FormerAuthority) bool { return fingerprint(f.Certificate) == t.CA })
	if fingerprint(c.Authority) != t.CA && !known {
		return fmt.Errorf("store certificate: %w", ErrForeign)
	}
	cert, authority, err := n.parse(c)
	if err != nil {
		return fmt.Errorf("store certificate: %w", err)
	}
	if err := n.store(c, cert, authority, t.Hubs); err != nil {
		return fmt.Errorf("store certificate: %w", err)
	}
	return nil
}

// store makes the certificate the node's own, durably. The certificate's file comes last: a node that has one
// has the rest.
func (n *Node) store(c Certificate, cert, authority *x509.Certificate, hubs []string) error {
	var before []former
	for _, f := range c.Former[:min(len(c.Former), maxFormer)] {
		parsed, err := x509.ParseCertificate(f.Certificate)
		if err != nil {
			return fmt.Errorf("read former authority: %w: %w", err, branchline.ErrInvalid)
		}
		before = append(before, former{Certificate: f.Certificate, Until: f.Until, cert: parsed})
	}
	text, err := json.Marshal(hubs)
	if err != nil {
		return err
	}
	if err := writeFile(n.dir, "hubs.json", text); err != nil {
		return err
	}
	if err := writeFormer(n.dir, before); err != nil {
		return err
	}
	if err := writeCert(n.dir, "authority.crt", c.Authority); err != nil {
		return err
	}
	if err := writeCert(n.dir, "node.crt", c.Leaf); err != nil {
		return err
	}
	return n.adopt(cert, authority, before, hubs)
}

// Renewed stores a fresh certificate for the same site, durably, and uses it from now on. It must have come over
// a connection to a hub that has proved to be the node's own, for with it the hub says which authority is to be
// trusted from now on.
func (n *Node) Renewed(c Certificate) error {
	cert, authority, err := n.parse(c)
	if err != nil {
		return fmt.Errorf("store renewed certificate: %w", err)
	}
	site, err := SiteOf(cert)
	if err != nil {
		return fmt.Errorf("store renewed certificate: %w", err)
	}
	if mine := n.Site(); site != mine {
		return fmt.Errorf("store renewed certificate: it is for site %s: %w", site, branchline.ErrInvalid)
	}
	if err := n.store(c, cert, authority, n.Hubs()); err != nil {
		return fmt.Errorf("store renewed certificate: %w", err)
	}
	return nil
}

// trusted returns the authorities whose hubs are the node's own. The caller holds the lock.
func (n *Node) trusted(now time.Time) []*x509.Certificate {
	all := []*x509.Certificate{n.authority}
	for _, f := range n.former {
		if now.Before(f.Until) {
			all = append(all, f.cert)
		}
	}
	return all
}

func (n *Node) parse(c Certificate) (cert, authority *x509.Certificate, err error) {
	if cert, err = x509.ParseCertificate(c.Leaf); err != nil {
		return nil, nil, err
	}
	if authority, err = x509.ParseCertificate(c.Authority); err != nil {
		return nil, nil, err
	}
	if pub, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(n.key.Public()) {
		return nil, nil, fmt.Errorf("the certificate is for another key: %w", branchline.ErrInvalid)
	}
	return cert, authority, verify(cert, authority, x509.ExtKeyUsageClientAuth, n.clock.Now())
}

// TLS returns the edge's side of a link's handshake: with its certificate, and only with a hub of its
// authority. It wraps [ErrNotEnrolled] for a node without one.
//
// Each handshake shows the certificate that the node has at that time and trusts the authorities of that time: a link
// goes on making connections with it long after the first one.
func (n *Node) TLS() (*tls.Config, error) { return n.tls(ProtocolLink) }

// TestTLS is TLS for a connection that measures the path to the hub, beside a link.
func (n *Node) TestTLS() (*tls.Config, error) { return n.tls(ProtocolTest) }

func (n *Node) tls(protocol string) (*tls.Config, error) {
	if n.org != nil {
		return n.org.tls(protocol)
	}
	if n.Certificate() == nil {
		return nil, ErrNotEnrolled
	}
	t := clientTLS(protocol, func(chain []*x509.Certificate) error {
		now := n.clock.Now()
		n.mu.Lock()
		trusted := n.trusted(now)
		n.mu.Unlock()
		return verifyHubOf(trusted, chain, now)
	})
	// Whatever authorities the hub asks for: it says itself why it refuses a certificate.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert := n.Certificate()
		return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: n.key, Leaf: cert}, nil
	}
	return t, nil
}

// EnrolTLS returns the edge's side of the handshake for enrolling with the token: nothing of the
// token is sent before the hub has proved to be the one that made it.
func (n *Node) EnrolTLS(t Token) *tls.Config {
	return clientTLS(ProtocolEnrol, func(chain []*x509.Certificate) error {
		for _, c := range chain {
			if fingerprint(c.Raw) == t.CA {
				return verifyHubOf([]*x509.Certificate{c}, chain, n.clock.Now())
			}
		}
		return fmt.Errorf("this is not the hub that made the token, or something on the way intercepts "+
			"the connection: %w", ErrForeign)
	})
}

// clientTLS leaves names out of the verification: hubs are known by their authority, and may have any
// address.
func clientTLS(protocol string, check func(chain []*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, InsecureSkipVerify: true,
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrForeign
			}
			return check(s.PeerCertificates)
		},
	}
}

func verifyHub(leaf, authority *x509.Certificate, now time.Time) error {
	if len(leaf.URIs) != 1 || !strings.HasPrefix(leaf.URIs[0].String(), hubURI) {
		return fmt.Errorf("not a hub's certificate: %w", ErrForeign)
	}
	return verify(leaf, authority, x509.ExtKeyUsageServerAuth, now)
}
