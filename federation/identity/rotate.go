package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// DefaultOverlap is how long certificates of a former authority stay good: the life of one, within which
	// each edge that is linked now and then has renewed.
	DefaultOverlap = CertificateLife
	// MaxOverlap bounds what an operator may ask for.
	MaxOverlap = 5 * 365 * 24 * time.Hour
	// maxFormer bounds the former authorities that are remembered, as the hub shows a bridge for each in every
	// handshake. An edge that was off for so many changes has to enrol anew.
	maxFormer = 4

	caFile     = "authority.pem" // key and certificate together, so that both change at once
	formerFile = "former.json"
)

// former is an authority that another has taken the place of. Its key is gone.
type former struct {
	Certificate []byte    `json:"certificate"`      // DER
	Bridge      []byte    `json:"bridge,omitempty"` // the key of its successor, signed by it, DER; the hub's only
	Until       time.Time `json:"until"`            // its certificates are good no longer

	cert *x509.Certificate // Certificate, parsed
}

// ca is an authority's own key and certificate, and those before it, the newest first. It never changes.
type ca struct {
	key    ed25519.PrivateKey
	cert   *x509.Certificate
	former []former
	read   []os.FileInfo // of the files that it was read from
}

func (c *ca) public() ed25519.PublicKey { return c.key.Public().(ed25519.PublicKey) }

// handed returns what goes to an edge with a certificate.
func (c *ca) handed(leaf []byte) Certificate {
	got := Certificate{Leaf: leaf, Authority: c.cert.Raw}
	for _, f := range c.former {
		got.Former = append(got.Former, FormerAuthority{Certificate: f.Certificate, Until: f.Until})
	}
	return got
}

// chain returns what the hub shows with its own certificate: who knows only a former authority, from a token
// or because it was off all the time, finds the way to the present one over the bridges.
func (c *ca) chain(leaf []byte) [][]byte {
	chain := [][]byte{leaf, c.cert.Raw}
	for _, f := range c.former {
		chain = append(chain, f.Bridge, f.Certificate)
	}
	return chain
}

// verify checks that one of the authorities issued the leaf, and that both are good at the time. The last result
// says whether it was the present authority.
func (c *ca) verify(leaf *x509.Certificate, now time.Time) (present bool, err error) {
	err = verify(leaf, c.cert, x509.ExtKeyUsageClientAuth, now)
	if !errors.Is(err, ErrForeign) {
		return true, err
	}
	for _, f := range c.former {
		formerly := verify(leaf, f.cert, x509.ExtKeyUsageClientAuth, now)
		switch {
		case errors.Is(formerly, ErrForeign):
			continue
		case formerly == nil && !now.Before(f.Until):
			return false, fmt.Errorf("%w: the authority that issued it ended on %s", ErrExpired,
				f.Until.UTC().Format("2006-01-02 15:04 MST"))
		}
		return false, formerly
	}
	return false, err
}

// successors returns trusted and those authorities of the chain that a trusted one has signed, directly or over
// others. What a path of X.509 would say of lengths does not count: each step is one authority naming the next.
func successors(trusted, chain []*x509.Certificate) []*x509.Certificate {
	chain = chain[:min(len(chain), 2+2*maxFormer)]
	all := slices.Clone(trusted)
	for i := 0; i < len(all); i++ {
		for _, c := range chain {
			known := slices.ContainsFunc(all, func(o *x509.Certificate) bool { return bytes.Equal(o.Raw, c.Raw) })
			if c.IsCA && !known && c.CheckSignatureFrom(all[i]) == nil {
				all = append(all, c)
			}
		}
	}
	return all
}

// loadCA reads the directory's authority, and makes one if there is none.
func loadCA(dir string, now time.Time) (*ca, error) {
	c := &ca{read: caFiles(dir)}
	data, err := readFile(dir, caFile)
	switch {
	case err == nil:
		err = c.parse(data)
	case errors.Is(err, fs.ErrNotExist):
		err = c.loadFirst(dir, now)
	}
	if err != nil {
		return nil, err
	}
	if !c.public().Equal(c.cert.PublicKey) {
		return nil, fmt.Errorf("key and certificate in %s do not belong together: %w", dir, branchline.ErrInvalid)
	}
	if c.former, err = readFormer(dir); err != nil {
		return nil, err
	}
	// A change that a crash has cut short has listed the present one already.
	c.former = slices.DeleteFunc(c.former, func(f former) bool { return bytes.Equal(f.Certificate, c.cert.Raw) })
	return c, nil
}

// loadFirst reads the first authority of a directory, which has two files, or makes it.
func (c *ca) loadFirst(dir string, now time.Time) (err error) {
	if c.key, err = loadKey(dir, "authority.key"); err != nil {
		return err
	}
	c.cert, err = readCert(dir, "authority.crt")
	if errors.Is(err, fs.ErrNotExist) {
		if c.cert, err = sign(authorityCert(now), nil, c.public(), c.key); err == nil {
			err = writeCert(dir, "authority.crt", c.cert.Raw)
		}
	}
	return err
}

func (c *ca) parse(data []byte) error {
	for len(data) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		switch block.Type {
		case pemKey:
			any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return fmt.Errorf("read %s: %w", caFile, err)
			}
			c.key, _ = any.(ed25519.PrivateKey)
		case pemCert:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("read %s: %w", caFile, err)
			}
			c.cert = cert
		}
	}
	if c.key == nil || c.cert == nil {
		return fmt.Errorf("read %s: it needs an Ed25519 key and a certificate: %w", caFile, branchline.ErrInvalid)
	}
	return nil
}

func readFormer(dir string) ([]former, error) {
	data, err := readFile(dir, formerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []former
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read %s: %w", formerFile, err)
	}
	for i := range all {
		if all[i].cert, err = x509.ParseCertificate(all[i].Certificate); err != nil {
			return nil, fmt.Errorf("read %s: %w", formerFile, err)
		}
	}
	return all, nil
}

func writeFormer(dir string, all []former) error {
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(dir, formerFile, data)
}

// caFiles returns what shows that an authority was changed by another process.
func caFiles(dir string) []os.FileInfo {
	var all []os.FileInfo
	for _, name := range []string{caFile, formerFile} {
		info, _ := os.Stat(filepath.Join(dir, name))
		all = append(all, info)
	}
	return all
}

func sameFiles(a, b []os.FileInfo) bool {
	return slices.EqualFunc(a, b, func(a, b os.FileInfo) bool {
		return a == nil && b == nil ||
			a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
	})
}

// Organisation reports whether certificates are of the organisation's authority.
func (a *Authority) Organisation() bool { return a.org != nil }

// AuthorityState tells of an authority and of those before it.
type AuthorityState struct {
	Fingerprint   branchline.Hash // SHA-256 of the certificate
	From, Until   time.Time
	Former        []FormerState // the newest first
	Certificate   []byte        // DER
	Organisation  bool          // it is the organisation's: nothing is enrolled, renewed and changed here
	Problem       string        // why files of the organisation's that have changed are not used; empty for none
	Sites, Behind int           // sites with a certificate, and those whose newest one is of a former authority
}

// FormerState tells of a former authority.
type FormerState struct {
	Fingerprint branchline.Hash
	Until       time.Time // its certificates are good until then
}

// State tells how the authority stands.
func (a *Authority) State() (AuthorityState, error) {
	sites, err := a.list()
	if err != nil {
		return AuthorityState{}, fmt.Errorf("tell of authority: %w", err)
	}
	if a.org != nil {
		return a.org.state(len(sites))
	}
	c, err := a.present()
	if err != nil {
		return AuthorityState{}, fmt.Errorf("tell of authority: %w", err)
	}
	s := AuthorityState{
		Fingerprint: fingerprint(c.cert.Raw), From: c.cert.NotBefore, Until: c.cert.NotAfter, Certificate: c.cert.Raw,
	}
	for _, f := range c.former {
		s.Former = append(s.Former, FormerState{Fingerprint: fingerprint(f.Certificate), Until: f.Until})
	}
	for _, r := range sites {
		if r.Enrolled.IsZero() || !r.Revoked.IsZero() {
			continue
		}
		s.Sites++
		if len(c.former) > 0 && r.Issuer != s.Fingerprint {
			s.Behind++
		}
	}
	return s, nil
}

// Rotate makes a new authority, durably, and forgets the key of the present one. Certificates of the present
// one are good for as long as overlap says; sites that are linked are asked at once to renew. Who was off for
// all of the overlap comes back by [Authority.Return].
func (a *Authority) Rotate(overlap time.Duration) (err error) {
	switch {
	case a.org != nil:
		return fmt.Errorf("change authority: %w", errOrganisation)
	case overlap < 0 || overlap > MaxOverlap:
		return fmt.Errorf("change authority: an overlap of %v is not within 0 and %v: %w", overlap, MaxOverlap,
			branchline.ErrInvalid)
	}
	unlock, err := lock(a.dir)
	if err != nil {
		return fmt.Errorf("change authority: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, err := loadCA(a.dir, a.clock.Now())
	if err == nil {
		err = a.rotate(old, overlap)
	}
	if err != nil {
		return fmt.Errorf("change authority: %w", err)
	}
	return nil
}

func (a *Authority) rotate(old *ca, overlap time.Duration) error {
	now := a.clock.Now()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	cert, err := sign(authorityCert(now), nil, pub, key)
	if err != nil {
		return err
	}
	bridge, err := sign(authorityCert(now), old.cert, pub, old.key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	all := append([]former{{Certificate: old.cert.Raw, Bridge: bridge.Raw, Until: now.Add(overlap)}}, old.former...)
	if err := writeFormer(a.dir, all[:min(len(all), maxFormer)]); err != nil {
		return err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: cert.Raw})...)
	if err := writeFile(a.dir, caFile, text); err != nil { // from here on it is the authority
		return err
	}
	if err := os.Remove(filepath.Join(a.dir, "authority.key")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// present returns the authority as it stands in its files, which another process may have changed.
func (a *Authority) present() (*ca, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ca != nil && sameFiles(a.ca.read, caFiles(a.dir)) {
		return a.ca, nil
	}
	c, err := loadCA(a.dir, a.clock.Now())
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	a.ca, a.server = c, nil
	return c, nil
}
