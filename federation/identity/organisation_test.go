package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// party is somebody with a certificate of an organisation.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
	over []*party // who issued it, the nearest first
}

// newKey makes one of the kinds that organisations use.
func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate of the template; by nil signs itself.
func issue(t *testing.T, kind string, template x509.Certificate, by *party) *party {
	t.Helper()
	p := &party{key: newKey(t, kind)}
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	parent, signer := &template, p.key
	if by != nil {
		parent, signer = by.cert, by.key
		p.over = append([]*party{by}, by.over...)
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, p.key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *watch) authority(t *testing.T, kind, name string, by *party) *party {
	return issue(t, kind, x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, by)
}

func (w *watch) leaf(t *testing.T, kind string, usage x509.ExtKeyUsage, by *party, names ...any) *party {
	template := x509.Certificate{
		NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(100 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, n := range names {
		switch n := n.(type) {
		case *url.URL:
			template.URIs = append(template.URIs, n)
		case pkix.Name:
			template.Subject = n
		case string:
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	return issue(t, kind, template, by)
}

// write puts certificate, intermediates and key in files of the directory.
func (p *party) write(t *testing.T, dir string) (certificate, key string) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: p.cert.Raw})
	for _, o := range p.over {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: o.cert.Raw})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "own.crt"), filepath.Join(dir, "own.key")
	put(t, key, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
	put(t, certificate, text)
	return certificate, key
}

// put replaces a file as renewal tools do.
func put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func bundle(t *testing.T, dir string, of ...*party) string {
	t.Helper()
	var text []byte
	for _, p := range of {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: p.cert.Raw})...)
	}
	name := filepath.Join(dir, "bundle.pem")
	put(t, name, text)
	return name
}

func (p *party) chain() (all [][]byte) {
	for _, o := range p.over {
		all = append(all, o.cert.Raw)
	}
	return all
}

// TestOrganisation admits sites by certificates of the organisation's, of several kinds of key and over an
// intermediate authority, and shakes hands with its files on both sides.
func TestOrganisation(t *testing.T) {
	for _, kind := range []string{"ecdsa", "rsa", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			w := newWatch()
			root := w.authority(t, kind, "root", nil)
			between := w.authority(t, kind, "between", root)
			hub := w.leaf(t, kind, x509.ExtKeyUsageServerAuth, between, "hub.example")
			edge := w.leaf(t, kind, x509.ExtKeyUsageClientAuth, between, siteURI("berlin"))
			hubDir, edgeDir := t.TempDir(), t.TempDir()
			files := Organisation{Authorities: bundle(t, hubDir, root)}
			files.Certificate, files.Key = hub.write(t, hubDir)
			a, err := OpenOrganisation(t.TempDir(), files, w.clock())
			if err != nil {
				t.Fatal(err)
			}
			node := openNode(t, t.TempDir(), w)
			own := Organisation{Authorities: bundle(t, edgeDir, root)}
			own.Certificate, own.Key = edge.write(t, edgeDir)
			node.UseOrganisation(own)
			if node.Site() != "berlin" || !node.RenewAt().IsZero() {
				t.Errorf("the node is %q, to renew at %v", node.Site(), node.RenewAt())
			}
			shown := handshake(t, a, node, "hub.example", nil)
			site, err := a.Verify(shown.PeerCertificates[0].Raw, shown.PeerCertificates[1].Raw)
			if site != "berlin" || err != nil {
				t.Errorf("the site is %q, %v", site, err)
			}
			if _, err := a.Verify(edge.cert.Raw); err != nil {
				t.Errorf("again, without the intermediate one: %v", err)
			}
			handshake(t, a, node, "other.example", ErrForeign)
			for range 2 {
				if err := a.Greet(Greeting{Leaf: edge.cert.Raw, Life: Life{Instance: 1, Opens: 1}}); err != nil {
					t.Errorf("greeting: %v", err)
				}
			}
			if sites, err := a.Sites(); err != nil || len(sites) != 1 || !sites[0].Until.Equal(edge.cert.NotAfter) {
				t.Errorf("sites %+v, %v", sites, err)
			}
		})
	}
}

// handshake connects node to hub in memory and returns what the hub saw.
func handshake(t *testing.T, a *Authority, n *Node, host string, want error) (seen tls.ConnectionState) {
	t.Helper()
	conf, err := n.TLS()
	if err != nil {
		t.Fatal(err)
	}
	conf.ServerName = host
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	server := tls.Server(right, a.TLS())
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	err = tls.Client(left, conf).Handshake()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("handshake with %s: %v, want %v", host, err, want)
	}
	if want != nil {
		left.Close()
		<-done
		return seen
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return server.ConnectionState()
}

// TestOrganisationRefuses goes through certificates that do not let in.
func TestOrganisationRefuses(t *testing.T) {
	w := newWatch()
	root, other := w.authority(t, "ecdsa", "root", nil), w.authority(t, "ecdsa", "other", nil)
	dir := t.TempDir()
	files := Organisation{Authorities: bundle(t, dir, root)}
	files.Certificate, files.Key = w.leaf(t, "ecdsa", x509.ExtKeyUsageServerAuth, root, "hub.example").write(t, dir)
	a, err := OpenOrganisation(t.TempDir(), files, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	berlin := w.leaf(t, "ecdsa", x509.ExtKeyUsageClientAuth, root, siteURI("berlin"))
	check := func(what string, p *party, want error) {
		t.Helper()
		if _, err := a.Verify(p.cert.Raw, p.chain()...); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("good", berlin, nil)
	check("of another authority", w.leaf(t, "ecdsa", x509.ExtKeyUsageClientAuth, other, siteURI("berlin")), ErrForeign)
	check("a server's", w.leaf(t, "ecdsa", x509.ExtKeyUsageServerAuth, root, siteURI("berlin")), ErrForeign)
	check("of no site", w.leaf(t, "ecdsa", x509.ExtKeyUsageClientAuth, root, "berlin.example"), ErrForeign)
	check("of two sites", w.leaf(t, "ecdsa", x509.ExtKeyUsageClientAuth, root, siteURI("a"), siteURI("b")), ErrForeign)
	if _, err := a.AddSite("munich", []string{"hub:1"}); !errors.Is(err, branchline.ErrDenied) {
		t.Errorf("a token: %v", err)
	}
	if err := a.Greet(Greeting{Leaf: berlin.cert.Raw}); err != nil {
		t.Fatal(err)
	}
	if err := a.Revoke("berlin"); err != nil {
		t.Fatal(err)
	}
	check("revoked", berlin, ErrRevoked)
	if err := a.Approve("berlin", 0); err != nil {
		t.Fatal(err)
	}
	check("let in again", berlin, nil)
	w.add(101 * time.Hour)
	check("expired", berlin, ErrExpired)
	w.add(-200 * time.Hour)
	check("early", berlin, ErrEarly)
}

// TestOrganisationFilesChange renews the files under a running hub: new certificates are shown, trust is added
// and withdrawn, and files that are broken change nothing but are told.
func TestOrganisationFilesChange(t *testing.T) {
	w := newWatch()
	root, other := w.authority(t, "ecdsa", "root", nil), w.authority(t, "ecdsa", "other", nil)
	dir := t.TempDir()
	files := Organisation{Authorities: bundle(t, dir, root)}
	files.Certificate, files.Key = w.leaf(t, "ecdsa", x509.ExtKeyUsageServerAuth, root, "hub.example").write(t, dir)
	a, err := OpenOrganisation(t.TempDir(), files, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	berlin := w.leaf(t, "ecdsa", x509.ExtKeyUsageClientAuth, root, siteURI("berlin"))
	munich := w.leaf(t, "ecdsa", x509.ExtKeyUsageClientAuth, other, siteURI("munich"))
	next := w.leaf(t, "ecdsa", x509.ExtKeyUsageServerAuth, root, "hub.example")
	next.write(t, dir)
	if pair, err := a.serverCert(); err != nil || !pair.Leaf.Equal(next.cert) {
		t.Errorf("after renewal another certificate is shown: %v", err)
	}
	if _, err := a.Verify(munich.cert.Raw); !errors.Is(err, ErrForeign) {
		t.Errorf("before its authority is trusted: %v", err)
	}
	bundle(t, dir, root, other)
	if _, err := a.Verify(munich.cert.Raw); err != nil {
		t.Errorf("after its authority is trusted: %v", err)
	}
	put(t, files.Certificate, []byte("half a file"))
	if _, err := a.Verify(berlin.cert.Raw); err != nil {
		t.Errorf("with a broken file: %v", err)
	}
	if state, err := a.State(); err != nil || state.Problem == "" || !state.Organisation {
		t.Errorf("a broken file is not told: %+v, %v", state, err)
	}
	next.write(t, dir)
	bundle(t, dir, other)
	if _, err := a.Verify(berlin.cert.Raw); !errors.Is(err, ErrForeign) {
		t.Errorf("after its authority is no longer trusted: %v", err)
	}
	if state, err := a.State(); err != nil || state.Problem != "" {
		t.Errorf("the broken file is still told: %+v, %v", state, err)
	}
}

// TestNameRule reads sites from certificates by rules.
func TestNameRule(t *testing.T) {
	uri := &url.URL{Scheme: "spiffe", Host: "corp", Path: "/video/berlin"}
	for _, c := range []struct {
		rule NameRule
		cert x509.Certificate
		want branchline.SiteID
	}{
		{NameRule{}, x509.Certificate{URIs: []*url.URL{siteURI("berlin")}}, "berlin"},
		{NameRule{Prefix: "spiffe://corp/video/"}, x509.Certificate{URIs: []*url.URL{uri}}, "berlin"},
		{NameRule{Field: FieldDNS, Suffix: ".edge.corp"}, x509.Certificate{DNSNames: []string{"x.corp", "berlin.edge.corp"}},
			"berlin"},
		{NameRule{Field: FieldCommonName, Prefix: "edge-"}, x509.Certificate{Subject: pkix.Name{CommonName: "edge-berlin"}},
			"berlin"},
		{NameRule{Field: FieldCommonName}, x509.Certificate{Subject: pkix.Name{CommonName: "Edge of Berlin"}}, ""},
		{NameRule{Field: FieldDNS, Suffix: ".corp"}, x509.Certificate{DNSNames: []string{"a.corp", "b.corp"}}, ""},
		{NameRule{Field: FieldURI}, x509.Certificate{URIs: []*url.URL{siteURI("berlin")}}, ""},
		{NameRule{}, x509.Certificate{}, ""},
	} {
		site, err := c.rule.site(&c.cert)
		if site != c.want && (c.want != "" || err == nil) || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v, want %q", c.rule, site, err, c.want)
		}
	}
	if err := (NameRule{Field: "email"}).Check(); !errors.Is(err, branchline.ErrInvalid) {
		t.Errorf("a field that does not exist: %v", err)
	}
}
