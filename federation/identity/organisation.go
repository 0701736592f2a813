package identity

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// The fields of an organisation's certificate that may name a site.
const (
	FieldURI        = "uri"
	FieldDNS        = "dns"
	FieldCommonName = "cn"
)

// maxIntermediates bounds the intermediate authorities that a hub remembers from handshakes.
const maxIntermediates = 64

// Organisation says where the files are by which a node is known to an organisation's own authority. They are
// PEM, and read again when they have changed.
type Organisation struct {
	Certificate string // the node's own, then those of intermediate authorities
	Key         string
	Authorities string // who issues certificates to the other side
	Name        NameRule
}

// NameRule says how a certificate names a site: a field of it, without prefix and suffix. The zero rule is
// what this project's own certificates have.
type NameRule struct{ Field, Prefix, Suffix string }

// Check returns an error wrapping [branchline.ErrInvalid] for a rule that cannot be followed.
func (r NameRule) Check() error {
	if r.Field != "" && !slices.Contains([]string{FieldURI, FieldDNS, FieldCommonName}, r.Field) {
		return fmt.Errorf("%.40q is none of %s, %s, %s: %w", r.Field, FieldURI, FieldDNS, FieldCommonName,
			branchline.ErrInvalid)
	}
	return nil
}

// site returns the only site that the certificate names by the rule.
func (r NameRule) site(c *x509.Certificate) (branchline.SiteID, error) {
	if r == (NameRule{}) {
		r.Prefix = sitePrefix
	}
	var names, found []string
	switch cmp.Or(r.Field, FieldURI) {
	case FieldURI:
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
	case FieldDNS:
		names = c.DNSNames
	case FieldCommonName:
		names = []string{c.Subject.CommonName}
	}
	for _, name := range names {
		rest, begins := strings.CutPrefix(name, r.Prefix)
		rest, ends := strings.CutSuffix(rest, r.Suffix)
		if begins && ends {
			found = append(found, rest)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("read site of certificate: %d names by the rule among %.200q: %w", len(found), names,
			branchline.ErrInvalid)
	}
	site := branchline.SiteID(found[0])
	return site, site.Check()
}

// organisation keeps what is in an organisation's files.
type organisation struct {
	files Organisation
	clock clock.Clock
	reset [32]byte // at a hub, a secret for [Authority.ResetKey]

	mu            sync.Mutex
	read          []os.FileInfo // of the files that the rest was read from
	pair          *tls.Certificate
	authorities   []*x509.Certificate
	intermediates map[branchline.Hash]*x509.Certificate // which good certificates came with
	problem       error                                 // why files that have changed were not taken
}

func newOrganisation(files Organisation, clk clock.Clock) *organisation {
	return &organisation{files: files, clock: clk, intermediates: make(map[branchline.Hash]*x509.Certificate)}
}

// OpenOrganisation opens the list of sites in dir of a hub whose certificates are the organisation's. A site is
// admitted by its certificate; nothing is enrolled. Files that cannot be read are an error now; later, when they
// have changed, what was read before stays in use and [Authority.State] tells.
func OpenOrganisation(dir string, files Organisation, clk clock.Clock) (*Authority, error) {
	if err := os.MkdirAll(filepath.Join(dir, seenDir), dirMode); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	a := newAuthority(dir, clk)
	a.org = newOrganisation(files, clk)
	secret, err := loadKey(dir, "hub.key")
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	a.org.reset = sha256.Sum256(append([]byte("branchline stateless reset "), secret.Seed()...))
	if err := a.org.load(); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	_, err = a.list()
	return a, err
}

// load reads the files if they are others than before.
func (o *organisation) load() error {
	var infos []os.FileInfo
	for _, name := range []string{o.files.Certificate, o.files.Key, o.files.Authorities} {
		info, err := os.Stat(name)
		if err != nil {
			return o.failed(err)
		}
		infos = append(infos, info)
	}
	o.mu.Lock()
	same := sameFiles(o.read, infos)
	o.mu.Unlock()
	if same {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(o.files.Certificate, o.files.Key)
	if err != nil {
		return o.failed(fmt.Errorf("read %s and %s: %w", o.files.Certificate, o.files.Key, err))
	}
	authorities, err := readBundle(o.files.Authorities)
	if err != nil {
		return o.failed(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read, o.pair, o.authorities, o.problem = infos, &pair, authorities, nil
	return nil
}

// failed notes the error, and returns it if there is nothing from before to go on with.
func (o *organisation) failed(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problem = err
	if o.pair != nil {
		return nil
	}
	return err
}

func readBundle(name string) ([]*x509.Certificate, error) {
	data, err := readFile(filepath.Dir(name), filepath.Base(name))
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	var all []*x509.Certificate
	for len(data) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != pemCert {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read %s: no certificate in it: %w", name, branchline.ErrInvalid)
	}
	return all, nil
}

// own returns the node's certificate as it is now.
func (o *organisation) own() (*tls.Certificate, error) {
	if err := o.load(); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pair, nil
}

func (o *organisation) serverCert() (*tls.Certificate, error) { return o.own() }

// verify checks that one of the authorities issued the leaf, perhaps over intermediate ones, and that now lies
// in its time.
func (o *organisation) verify(leaf *x509.Certificate, chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	if err := o.load(); err != nil {
		return err
	}
	now := o.clock.Now()
	if err := inTime(leaf, now); err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	o.mu.Lock()
	for _, c := range o.authorities {
		roots.AddCert(c)
	}
	for _, c := range o.intermediates {
		between.AddCert(c)
	}
	o.mu.Unlock()
	for _, c := range chain {
		between.AddCert(c)
	}
	opt := x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage}}
	paths, err := leaf.Verify(opt)
	if err != nil {
		return fmt.Errorf("verify certificate: %w: %w", ErrForeign, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range paths[0][1 : len(paths[0])-1] {
		if len(o.intermediates) < maxIntermediates {
			o.intermediates[fingerprint(c.Raw)] = c
		}
	}
	return nil
}

func (a *Authority) verifyOrganisation(c *x509.Certificate, chain [][]byte) (branchline.SiteID, error) {
	var between []*x509.Certificate
	for _, der := range chain[:min(len(chain), maxIntermediates)] {
		i, err := x509.ParseCertificate(der)
		if err != nil {
			return "", fmt.Errorf("verify certificate: %w: %w", ErrForeign, err)
		}
		between = append(between, i)
	}
	if err := a.org.verify(c, between, x509.ExtKeyUsageClientAuth); err != nil {
		return "", err
	}
	site, err := a.org.files.Name.site(c)
	if err != nil {
		return "", fmt.Errorf("verify certificate: %w: %w", ErrForeign, err)
	}
	sites, err := a.list()
	if err != nil {
		return "", fmt.Errorf("verify certificate of site %s: %w", site, err)
	}
	if i, known := find(sites, site); known && !sites[i].Revoked.IsZero() {
		return "", fmt.Errorf("site %s: %w", site, ErrRevoked)
	}
	return site, nil
}

// organisationEntry returns the entry of a site with a verified certificate, and makes it, durably, when the site
// comes for the first time or with another certificate.
func (a *Authority) organisationEntry(c *x509.Certificate) (branchline.SiteID, record, error) {
	site, err := a.org.files.Name.site(c)
	if err != nil {
		return "", record{}, fmt.Errorf("read certificate: %w: %w", ErrForeign, err)
	}
	sites, err := a.list()
	if err != nil {
		return "", record{}, err
	}
	shown := hashOf(c.Raw)
	if i, known := find(sites, site); known && string(sites[i].Shown) == string(shown) {
		return site, sites[i], nil
	}
	var r record
	err = a.edit(func(sites []record) ([]record, error) {
		i, known := find(sites, site)
		if !known {
			if len(sites) >= MaxSites {
				return nil, fmt.Errorf("more than %d sites: %w", MaxSites, branchline.ErrTooLarge)
			}
			sites = slices.Insert(sites, i, record{Name: site, Added: a.clock.Now(), Enrolled: a.clock.Now()})
		}
		sites[i].Shown, sites[i].Until = shown, c.NotAfter
		r = sites[i]
		return sites, nil
	})
	return site, r, err
}

func (o *organisation) state(sites int) (AuthorityState, error) {
	pair, err := o.own()
	if err != nil {
		return AuthorityState{}, fmt.Errorf("tell of authority: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := AuthorityState{
		Fingerprint: fingerprint(pair.Leaf.Raw), From: pair.Leaf.NotBefore, Until: pair.Leaf.NotAfter,
		Certificate: pair.Leaf.Raw, Organisation: true, Sites: sites,
	}
	if o.problem != nil {
		s.Problem = o.problem.Error()
	}
	return s, nil
}

// inTime checks that now lies in the certificate's time.
func inTime(c *x509.Certificate, now time.Time) error {
	const form = "2006-01-02 15:04 MST"
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%w: it is valid from %s, here it is %s", ErrEarly,
			c.NotBefore.UTC().Format(form), now.UTC().Format(form))
	case now.After(c.NotAfter):
		return fmt.Errorf("%w: it is valid until %s, here it is %s", ErrExpired,
			c.NotAfter.UTC().Format(form), now.UTC().Format(form))
	}
	return nil
}

// UseOrganisation makes the node show the organisation's certificate instead of one of a hub. It is called
// before the node is used. The files are read when they are needed, and when they have changed; what is wrong with
// them is told by [Node.TLS], so that a branch records whatever is in them.
func (n *Node) UseOrganisation(files Organisation) { n.org = newOrganisation(files, n.clock) }

// Organisation reports whether the node's certificate is of the organisation's authority.
func (n *Node) Organisation() bool { return n.org != nil }

// organisationSite returns the site that the organisation's certificate names, empty if it cannot be read.
func (o *organisation) site() branchline.SiteID {
	pair, err := o.own()
	if err != nil {
		return ""
	}
	site, err := o.files.Name.site(pair.Leaf)
	if err != nil {
		return ""
	}
	return site
}

// tls returns an edge's side of a link's handshake. The hub's certificate has to be one of the authorities' and
// has to name the hub: by this project's URI, or by the host that was dialled, which the caller sets as the
// configuration's ServerName.
func (o *organisation) tls(protocol string) (*tls.Config, error) {
	pair, err := o.own()
	if err != nil {
		return nil, fmt.Errorf("read the organisation's certificate: %w", err)
	}
	t := clientTLS(protocol, nil)
	t.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return ErrForeign
		}
		leaf := s.PeerCertificates[0]
		if err := o.verify(leaf, s.PeerCertificates[1:], x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		if len(leaf.URIs) == 1 && strings.HasPrefix(leaf.URIs[0].String(), hubURI) {
			return nil
		}
		if err := leaf.VerifyHostname(s.ServerName); err != nil || s.ServerName == "" {
			return fmt.Errorf("the certificate names no hub and not the host that was dialled: %w",
				errors.Join(ErrForeign, err))
		}
		return nil
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	return t, nil
}
