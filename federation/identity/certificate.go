package identity

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// CertificateLife is how long a site's certificate is good; it is renewed long before.
	CertificateLife = 90 * 24 * time.Hour
	// authorityLife is how long the authority itself is good.
	authorityLife = 25 * 365 * 24 * time.Hour
	// clockSlack is how far the clock of an edge may be behind the hub's when it enrols.
	clockSlack = 24 * time.Hour
	// maxRequest bounds a certificate request, which holds little more than a key and a signature.
	maxRequest = 4 << 10

	authorityName = "Branchline hub authority"
	sitePrefix    = "branchline://site/"
	hubURI        = "branchline://hub/"
)

// siteURI names a site in its certificate.
func siteURI(site branchline.SiteID) *url.URL {
	return &url.URL{Scheme: "branchline", Host: "site", Path: "/" + string(site)}
}

// SiteOf returns the site that a certificate names. It says nothing about whether the certificate is
// genuine. Its error wraps [branchline.ErrInvalid].
func SiteOf(c *x509.Certificate) (branchline.SiteID, error) {
	if len(c.URIs) != 1 {
		return "", fmt.Errorf("read site of certificate: %d names in it: %w", len(c.URIs), branchline.ErrInvalid)
	}
	name, ok := strings.CutPrefix(c.URIs[0].String(), sitePrefix)
	if !ok {
		return "", fmt.Errorf("read site of certificate: %.80q is no site: %w", c.URIs[0], branchline.ErrInvalid)
	}
	site := branchline.SiteID(name)
	return site, site.Check()
}

// defaultHub names a hub whose certificate has the role alone and no name.
const defaultHub = "hub"

// HubOf returns the hub that a certificate, DER, names. It says nothing about whether the certificate is
// genuine. Its error wraps [branchline.ErrInvalid].
func HubOf(leaf []byte) (string, error) {
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return "", fmt.Errorf("read hub of certificate: %w: %w", err, branchline.ErrInvalid)
	}
	if len(c.URIs) == 0 && len(c.DNSNames) > 0 && slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return c.DNSNames[0][:min(len(c.DNSNames[0]), branchline.MaxName)], nil // the organisation's
	}
	if len(c.URIs) == 1 {
		if name, ok := strings.CutPrefix(c.URIs[0].String(), hubURI); ok && len(name) <= branchline.MaxName {
			return cmp.Or(name, defaultHub), nil
		}
	}
	return "", fmt.Errorf("read hub of certificate: it names no hub: %w", branchline.ErrInvalid)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// authorityCert returns the template of the authority's own certificate.
func authorityCert(now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: authorityName},
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true,
	}
}

// nodeCert returns the template of a certificate for the node that uri names.
func nodeCert(uri *url.URL, usage x509.ExtKeyUsage, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(CertificateLife), URIs: []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, BasicConstraintsValid: true,
	}
}

// sign makes a certificate of the template for the key, signed by the authority; with a nil parent
// it signs itself.
func sign(t, parent *x509.Certificate, pub ed25519.PublicKey, by ed25519.PrivateKey) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	t.SerialNumber = serial
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, by)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// parseRequest returns the key for which a certificate is requested, after checking that whoever
// requests it holds the key. Nothing else in the request counts.
func parseRequest(csr []byte) (ed25519.PublicKey, error) {
	if len(csr) > maxRequest {
		return nil, fmt.Errorf("read certificate request: %w", branchline.ErrTooLarge)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w: %w", err, branchline.ErrInvalid)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w: %w", err, branchline.ErrInvalid)
	}
	pub, ok := r.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("check certificate request: not an Ed25519 key: %w", branchline.ErrInvalid)
	}
	return pub, nil
}

// verify checks that leaf was issued by ca for the usage and that now lies in its time.
func verify(leaf, ca *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	// The time is checked apart, for an error that says which clock to look at.
	at := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	opt := x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}}
	if _, err := leaf.Verify(opt); err != nil {
		return fmt.Errorf("verify certificate: %w: %w", ErrForeign, err)
	}
	return inTime(leaf, now)
}

// KeyOf returns the public key of a certificate, DER; nil if there is none that a node may have.
func KeyOf(leaf []byte) ed25519.PublicKey {
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return nil
	}
	pub, _ := c.PublicKey.(ed25519.PublicKey)
	return pub
}

func fingerprint(der []byte) branchline.Hash { return sha256.Sum256(der) }
