package identity

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// The protocols that two nodes may speak, as offered in the TLS handshake (ALPN).
const (
	ProtocolLink  = "branchline/1"
	ProtocolEnrol = "branchline-enrol/1"
	ProtocolTest  = "branchline-test/1"
	ProtocolJoin  = "branchline-join/1" // for one more connection of a link
)

// MaxSites bounds the sites of one hub.
const MaxSites = 20_000

// Authority is a hub's certificate authority and its list of sites, in one directory. Methods may be
// called concurrently, and by several processes. It needs no closing.
type Authority struct {
	dir   string
	clock clock.Clock
	org   *organisation // instead of an authority of its own; nil for none

	mu     sync.Mutex
	ca     *ca                             // as last read
	server *tls.Certificate                // made again when half its life is over
	sites  []record                        // as last read; replaced, never changed
	read   os.FileInfo                     // of the file that sites was read from
	known  map[branchline.SiteID]sighting  // who was last let in
	doubts map[branchline.SiteID]time.Time // when somebody came who may not be the site's only node
}

// OpenAuthority opens the authority in dir, and creates both if there is none.
func OpenAuthority(dir string, clk clock.Clock) (_ *Authority, err error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := os.MkdirAll(filepath.Join(dir, seenDir), dirMode); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	a := newAuthority(dir, clk)
	if a.ca, err = loadCA(dir, clk.Now()); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	_, err = a.list()
	return a, err
}

func newAuthority(dir string, clk clock.Clock) *Authority {
	return &Authority{
		dir: dir, clock: clk, known: make(map[branchline.SiteID]sighting), doubts: make(map[branchline.SiteID]time.Time),
	}
}

// AddSite admits a site, or lets a known one enrol anew, and returns the token's text, which cannot
// be had again. Earlier tokens of the site are worthless from now on; a certificate that it has is
// good until the new token is used.
func (a *Authority) AddSite(site branchline.SiteID, hubs []string) (string, error) {
	if err := site.Check(); err != nil {
		return "", fmt.Errorf("add site: %w", err)
	}
	if len(hubs) == 0 || len(hubs) > MaxHubs {
		return "", fmt.Errorf("add site %s: 1 to %d addresses of the hub are needed: %w", site, MaxHubs,
			branchline.ErrInvalid)
	}
	if a.org != nil {
		return "", fmt.Errorf("add site %s: %w", site, errOrganisation)
	}
	c, err := a.present()
	if err != nil {
		return "", fmt.Errorf("add site %s: %w", site, err)
	}
	token := newToken(site, hubs, fingerprint(c.cert.Raw))
	now := a.clock.Now()
	err = a.edit(func(sites []record) ([]record, error) {
		i, known := find(sites, site)
		if !known {
			if len(sites) >= MaxSites {
				return nil, fmt.Errorf("more than %d sites: %w", MaxSites, branchline.ErrTooLarge)
			}
			sites = slices.Insert(sites, i, record{Name: site, Added: now})
		}
		sites[i].TokenHash = hashOf(token.Secret[:])
		sites[i].TokenUntil, sites[i].TokenUsed = now.Add(TokenLife), time.Time{}
		return sites, nil
	})
	if err != nil {
		return "", fmt.Errorf("add site %s: %w", site, err)
	}
	return token.String(), nil
}

// Revoke makes the site's certificates and tokens worthless. Links of the site end within seconds.
func (a *Authority) Revoke(site branchline.SiteID) error {
	err := a.edit(func(sites []record) ([]record, error) {
		i, known := find(sites, site)
		if !known {
			return nil, branchline.ErrNotFound
		}
		sites[i].Revoked, sites[i].TokenHash = a.clock.Now(), nil
		return sites, nil
	})
	if err != nil {
		return fmt.Errorf("revoke site %s: %w", site, err)
	}
	return nil
}

// Sites lists all sites, sorted by name.
func (a *Authority) Sites() ([]Site, error) {
	records, err := a.list()
	if err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	sites := make([]Site, 0, len(records))
	for _, r := range records {
		sites = append(sites, r.site())
	}
	return sites, nil
}

// Certificate is what an edge gets, DER.
type Certificate struct {
	Leaf, Authority []byte
	Former          []FormerAuthority // whose certificates are good as well
}

// FormerAuthority is one that another has taken the place of.
type FormerAuthority struct {
	Certificate []byte // DER
	Until       time.Time
}

// Enrol turns the secret of a token and a certificate request into a certificate for the site of the
// token. Of those who come with one token the first gets it, and gets it again for the same key while
// the token lives, as an answer may be lost. The errors are [ErrTokenUnknown], [ErrTokenUsed],
// [ErrTokenExpired], and those that wrap [branchline.ErrInvalid] for a bad request.
func (a *Authority) Enrol(secret, csr []byte) (Certificate, error) {
	pub, err := parseRequest(csr)
	if err != nil {
		return Certificate{}, fmt.Errorf("enrol site: %w", err)
	}
	var c Certificate
	hash, now := hashOf(secret), a.clock.Now()
	hasToken := func(r record) bool { return bytes.Equal(r.TokenHash, hash) }
	// Who only guesses does not get as far as the file and its lock.
	if sites, err := a.list(); err != nil || !slices.ContainsFunc(sites, hasToken) {
		return Certificate{}, fmt.Errorf("enrol site: %w", cmp.Or(err, ErrTokenUnknown))
	}
	err = a.edit(func(sites []record) ([]record, error) {
		i := slices.IndexFunc(sites, hasToken)
		if i < 0 {
			return nil, ErrTokenUnknown
		}
		r := &sites[i]
		if !r.TokenUsed.IsZero() && !bytes.Equal(r.Key, hashOf(pub)) {
			return nil, ErrTokenUsed
		}
		if now.After(r.TokenUntil) {
			return nil, ErrTokenExpired
		}
		r.Key, r.TokenUsed, r.Enrolled, r.Revoked = hashOf(pub), now, now, time.Time{}
		r.Waiting, r.Quarantine = nil, nil
		c, err = a.issue(r, pub)
		return sites, err
	})
	if err != nil {
		return Certificate{}, fmt.Errorf("enrol site: %w", err)
	}
	return c, nil
}

// Renew makes a fresh certificate for the key that the site enrolled with.
func (a *Authority) Renew(site branchline.SiteID, csr []byte) (Certificate, error) {
	pub, err := parseRequest(csr)
	if err != nil {
		return Certificate{}, fmt.Errorf("renew certificate of site %s: %w", site, err)
	}
	var c Certificate
	err = a.edit(func(sites []record) ([]record, error) {
		i, known := find(sites, site)
		if !known || !sites[i].good(pub) {
			return nil, ErrRevoked
		}
		c, err = a.issue(&sites[i], pub)
		return sites, err
	})
	if err != nil {
		return Certificate{}, fmt.Errorf("renew certificate of site %s: %w", site, err)
	}
	return c, nil
}

// issue makes a certificate for the site's key, of the present authority and the present generation.
func (a *Authority) issue(r *record, pub ed25519.PublicKey) (Certificate, error) {
	if a.org != nil {
		return Certificate{}, errOrganisation
	}
	c, err := a.present()
	if err != nil {
		return Certificate{}, err
	}
	t := nodeCert(siteURI(r.Name), x509.ExtKeyUsageClientAuth, a.clock.Now())
	t.Subject.SerialNumber = generationText(r.Generation)
	leaf, err := sign(t, c.cert, pub, c.key)
	if err != nil {
		return Certificate{}, err
	}
	r.Until, r.Issuer = leaf.NotAfter, fingerprint(c.cert.Raw)
	return c.handed(leaf.Raw), nil
}

// Verify returns the site whose certificate leaf is, DER, if it is good at this moment. Whether its node may
// link is for [Authority.Greet]. The chain is what the peer showed beside it, of use only where the authority is
// the organisation's. The errors are [ErrForeign], [ErrRevoked], [ErrExpired] and [ErrEarly].
func (a *Authority) Verify(leaf []byte, chain ...[]byte) (branchline.SiteID, error) {
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return "", fmt.Errorf("verify certificate: %w: %w", ErrForeign, err)
	}
	if a.org != nil {
		return a.verifyOrganisation(c, chain)
	}
	by, err := a.present()
	if err != nil {
		return "", fmt.Errorf("verify certificate: %w", err)
	}
	if _, err := by.verify(c, a.clock.Now()); err != nil {
		return "", err
	}
	site, _, err := a.admitted(c)
	return site, err
}

// admitted returns the site that a genuine certificate names, with its entry, if it is one for the site's key.
func (a *Authority) admitted(c *x509.Certificate) (branchline.SiteID, record, error) {
	site, err := SiteOf(c)
	if err != nil {
		return "", record{}, fmt.Errorf("verify certificate: %w: %w", ErrForeign, err)
	}
	sites, err := a.list()
	if err != nil {
		return "", record{}, fmt.Errorf("verify certificate of site %s: %w", site, err)
	}
	pub, ok := c.PublicKey.(ed25519.PublicKey)
	i, known := find(sites, site)
	if !known || !ok || !sites[i].good(pub) {
		return "", record{}, fmt.Errorf("site %s: %w", site, ErrRevoked)
	}
	return site, sites[i], nil
}

// TLS returns the hub's side of the handshake for both protocols. Clients of the link
// must hold the key of some certificate; whether that certificate is good is for [Authority.Verify].
func (a *Authority) TLS() *tls.Config {
	side := func(auth tls.ClientAuthType, protocols ...string) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols, ClientAuth: auth,
			SessionTicketsDisabled: true, // every connection shows its certificate
			GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.serverCert() },
		}
	}
	links := side(tls.RequireAnyClientCert, ProtocolLink, ProtocolJoin)
	enrols := side(tls.NoClientCert, ProtocolEnrol)
	tests := side(tls.RequireAnyClientCert, ProtocolTest)
	both := side(tls.RequireAnyClientCert, ProtocolLink, ProtocolJoin)
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, ProtocolEnrol) {
			return enrols, nil
		}
		if slices.Contains(hello.SupportedProtos, ProtocolTest) {
			return tests, nil
		}
		return links, nil
	}
	return both
}

// serverCert returns the hub's own certificate. Its key lives in memory only.
func (a *Authority) serverCert() (*tls.Certificate, error) {
	if a.org != nil {
		return a.org.serverCert()
	}
	c, err := a.present()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock.Now()
	if a.server != nil && now.Before(a.server.Leaf.NotAfter.Add(-CertificateLife/2)) &&
		now.After(a.server.Leaf.NotBefore) {
		return a.server, nil
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make the hub's key: %w", err)
	}
	uri := &url.URL{Scheme: "branchline", Host: "hub", Path: "/"}
	leaf, err := sign(nodeCert(uri, x509.ExtKeyUsageServerAuth, now), c.cert, pub, c.key)
	if err != nil {
		return nil, fmt.Errorf("make the hub's certificate: %w", err)
	}
	own := &tls.Certificate{Certificate: c.chain(leaf.Raw), PrivateKey: key, Leaf: leaf}
	if a.ca == c { // else another one has read of a change meanwhile
		a.server = own
	}
	return own, nil
}

// ResetKey returns a secret that stays the same over restarts, for the QUIC listener. A new authority has
// another one from the next start on; with the organisation's it is of a file of the hub's own.
func (a *Authority) ResetKey() [32]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.org != nil {
		return a.org.reset
	}
	return sha256.Sum256(append([]byte("branchline stateless reset "), a.ca.key.Seed()...))
}
