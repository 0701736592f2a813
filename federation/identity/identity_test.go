package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// watch is a clock that a test sets.
type watch struct {
	mu  sync.Mutex
	now time.Time
}

func newWatch() *watch { return &watch{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (w *watch) clock() clock.Clock {
	return clock.New(func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.now
	})
}

func (w *watch) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func openAuthority(t *testing.T, dir string, w *watch) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func openNode(t *testing.T, dir string, w *watch) *Node {
	t.Helper()
	n, err := OpenNode(dir, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func addSite(t *testing.T, a *Authority, site branchline.SiteID) Token {
	t.Helper()
	text, err := a.AddSite(site, []string{"hub.example:7563"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// enrol does what the two sides do, without a network.
func enrol(a *Authority, n *Node, token Token) error {
	csr, err := n.Request()
	if err != nil {
		return err
	}
	c, err := a.Enrol(token.Secret[:], csr)
	if err != nil {
		return err
	}
	return n.Enrolled(token, c)
}

func TestEnrolAndReopen(t *testing.T) {
	w, hubDir, edgeDir := newWatch(), t.TempDir(), t.TempDir()
	a := openAuthority(t, hubDir, w)
	n := openNode(t, edgeDir, w)
	if n.Site() != "" || n.Certificate() != nil || len(n.Key()) != ed25519.PrivateKeySize {
		t.Errorf("a new node is %q with certificate %v", n.Site(), n.Certificate())
	}
	if _, err := n.TLS(); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("a new node's side of a link: %v", err)
	}
	if err := enrol(a, n, addSite(t, a, "berlin")); err != nil {
		t.Fatal(err)
	}
	a, again := openAuthority(t, hubDir, w), openNode(t, edgeDir, w)
	if again.Site() != "berlin" || !again.Key().Equal(n.Key()) || !again.Certificate().Equal(n.Certificate()) ||
		len(again.Hubs()) != 1 {
		t.Errorf("after a restart the node is %q with hubs %v", again.Site(), again.Hubs())
	}
	if site, err := a.Verify(again.Certificate().Raw); site != "berlin" || err != nil {
		t.Errorf("the certificate is of %q, %v", site, err)
	}
	if uris := again.Certificate().URIs; len(uris) != 1 || uris[0].String() != "branchline://site/berlin" {
		t.Errorf("the certificate names %v", uris)
	}
	for _, dir := range []string{hubDir, edgeDir} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestTokenRaced lets a hundred nodes come with one token, half of them through another process's
// view of the directory.
func TestTokenRaced(t *testing.T) {
	const nodes = 100
	w, dir := newWatch(), t.TempDir()
	a, b := openAuthority(t, dir, w), openAuthority(t, dir, w)
	token := addSite(t, a, "berlin")
	var all []*Node
	for range nodes {
		all = append(all, openNode(t, t.TempDir(), w))
	}
	results := make(chan error, nodes)
	start := make(chan struct{})
	for i, n := range all {
		at := []*Authority{a, b}[i%2]
		go func() {
			<-start
			results <- enrol(at, n, token)
		}()
	}
	close(start)
	won := 0
	for range nodes {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, ErrTokenUsed):
			t.Errorf("a loser is told %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d nodes won", won)
	}
	good := 0
	for _, n := range all {
		if c := n.Certificate(); c != nil {
			if _, err := a.Verify(c.Raw); err == nil {
				good++
			}
		}
	}
	if good != 1 {
		t.Errorf("%d nodes hold a good certificate", good)
	}
}

// TestTokens goes through the life of a token, each case from a fresh start.
func TestTokens(t *testing.T) {
	type scene struct {
		a     *Authority
		w     *watch
		token Token
		node  *Node
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		before func(*scene)
		want   error
	}{
		"fresh":              {func(*scene) {}, nil},
		"in its last minute": {func(s *scene) { s.w.add(TokenLife - time.Minute) }, nil},
		"expired":            {func(s *scene) { s.w.add(TokenLife + time.Minute) }, ErrTokenExpired},
		"wrong":              {func(s *scene) { s.token.Secret[7]++ }, ErrTokenUnknown},
		"used by another": {func(s *scene) {
			must(enrol(s.a, openNode(t, t.TempDir(), s.w), s.token))
		}, ErrTokenUsed},
		"answer lost, again": {func(s *scene) { must(enrol(s.a, s.node, s.token)) }, nil},
		"superseded":         {func(s *scene) { addSite(t, s.a, "berlin") }, ErrTokenUnknown},
		"of a revoked site":  {func(s *scene) { must(s.a.Revoke("berlin")) }, ErrTokenUnknown},
		"revoked, then new one": {func(s *scene) {
			must(s.a.Revoke("berlin"))
			s.token = addSite(t, s.a, "berlin")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scene{w: newWatch()}
			s.a = openAuthority(t, t.TempDir(), s.w)
			s.token, s.node = addSite(t, s.a, "berlin"), openNode(t, t.TempDir(), s.w)
			c.before(s)
			if err := enrol(s.a, s.node, s.token); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	w := newWatch()
	a, other := openAuthority(t, t.TempDir(), w), openAuthority(t, t.TempDir(), w)
	n := openNode(t, t.TempDir(), w)
	if err := enrol(a, n, addSite(t, a, "berlin")); err != nil {
		t.Fatal(err)
	}
	leaf := n.Certificate().Raw
	check := func(name string, a *Authority, leaf []byte, want error) {
		t.Helper()
		if _, err := a.Verify(leaf); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	check("good", a, leaf, nil)
	check("at another hub", other, leaf, ErrForeign)
	check("the authority's own", a, a.ca.cert.Raw, ErrForeign)
	server, err := a.serverCert()
	if err != nil {
		t.Fatal(err)
	}
	check("the hub's own", a, server.Leaf.Raw, ErrForeign)
	swapped, err := sign(nodeCert(siteURI("berlin"), x509.ExtKeyUsageServerAuth, w.now), a.ca.cert,
		n.Key().Public().(ed25519.PublicKey), a.ca.key)
	if err != nil {
		t.Fatal(err)
	}
	check("a server's that names a site", a, swapped.Raw, ErrForeign)
	check("garbage", a, []byte("garbage"), ErrForeign)
	w.add(-25 * time.Hour)
	check("by a clock that is behind", a, leaf, ErrEarly)
	w.add(25*time.Hour + CertificateLife + time.Minute)
	check("too late", a, leaf, ErrExpired)
	w.add(-CertificateLife)
	if err := enrol(a, openNode(t, t.TempDir(), w), addSite(t, a, "berlin")); err != nil {
		t.Fatal(err)
	}
	check("of hardware that was replaced", a, leaf, ErrRevoked)
	if err := verifyHub(n.Certificate(), a.ca.cert, w.now); !errors.Is(err, ErrForeign) {
		t.Errorf("a site's certificate as a hub's: %v", err)
	}
	if err := verifyHub(server.Leaf, a.ca.cert, w.now.Add(-48*time.Hour)); !errors.Is(err, ErrEarly) {
		t.Errorf("the hub's by a clock that is behind: %v", err)
	}
}

func TestRenew(t *testing.T) {
	w := newWatch()
	a := openAuthority(t, t.TempDir(), w)
	n := openNode(t, t.TempDir(), w)
	if err := enrol(a, n, addSite(t, a, "berlin")); err != nil {
		t.Fatal(err)
	}
	if at := n.RenewAt().Sub(w.now); at < CertificateLife/2 || at > CertificateLife*8/10 {
		t.Errorf("to be renewed after %v of %v", at, CertificateLife)
	}
	w.add(CertificateLife * 2 / 3)
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Renew("berlin", csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Renewed(c); err != nil {
		t.Fatal(err)
	}
	w.add(CertificateLife * 2 / 3)
	if _, err := a.Verify(n.Certificate().Raw); err != nil {
		t.Errorf("the renewed certificate: %v", err)
	}
	stranger, err := openNode(t, t.TempDir(), w).Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Renew("berlin", stranger); !errors.Is(err, ErrRevoked) {
		t.Errorf("a certificate for another key: %v", err)
	}
	if err := a.Revoke("berlin"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Renew("berlin", csr); !errors.Is(err, ErrRevoked) {
		t.Errorf("a certificate for a revoked site: %v", err)
	}
}

func TestSites(t *testing.T) {
	w := newWatch()
	a := openAuthority(t, t.TempDir(), w)
	addSite(t, a, "munich")
	token := addSite(t, a, "berlin")
	if err := enrol(a, openNode(t, t.TempDir(), w), token); err != nil {
		t.Fatal(err)
	}
	sites, err := a.Sites()
	if err != nil || len(sites) != 2 || sites[0].Name != "berlin" || sites[1].Name != "munich" {
		t.Fatalf("sites are %+v, %v", sites, err)
	}
	if s := sites[0]; !s.TokenUntil.IsZero() || !s.Enrolled.Equal(w.now) || !s.Until.After(w.now) {
		t.Errorf("the enrolled site is %+v", s)
	}
	if s := sites[1]; !s.TokenUntil.Equal(w.now.Add(TokenLife)) || !s.Enrolled.IsZero() {
		t.Errorf("the waiting site is %+v", s)
	}
	for name, c := range map[branchline.SiteID]error{
		"Berlin": branchline.ErrInvalid, "": branchline.ErrInvalid, "a/b": branchline.ErrInvalid,
	} {
		if _, err := a.AddSite(name, []string{"hub:1"}); !errors.Is(err, c) {
			t.Errorf("site %q: %v", name, err)
		}
	}
	if err := a.Revoke("nowhere"); !errors.Is(err, branchline.ErrNotFound) {
		t.Errorf("revoke a site that is not there: %v", err)
	}
}

// TestDamagedFiles opens identities of which a file was lost or changed.
func TestDamagedFiles(t *testing.T) {
	w, dir := newWatch(), t.TempDir()
	a := openAuthority(t, t.TempDir(), w)
	if err := enrol(a, openNode(t, dir, w), addSite(t, a, "berlin")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"node.key": []byte("no key"), "node.crt": []byte("no certificate"), "hubs.json": []byte("{"),
		"authority.crt": bytes.Repeat([]byte{0}, 100),
	} {
		good, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenNode(dir, w.clock()); err == nil {
			t.Errorf("opened with a damaged %s", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openNode(t, dir, w)
}

// FuzzParseToken reads any text: an error, or a token that is written the same again.
func FuzzParseToken(f *testing.F) {
	f.Add(newToken("berlin", []string{"hub:7563"}, branchline.Hash{1}).String())
	f.Add(tokenPrefix + "AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(token.String())
		if err != nil || again.Secret != token.Secret || again.CA != token.CA {
			t.Errorf("%+v is read again as %+v, %v", token, again, err)
		}
	})
}

// TestGuessedTokens shows that whoever has no token holds nobody up: the answer needs no lock.
func TestGuessedTokens(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenAuthority(dir, clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := OpenNode(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := a.Enrol(make([]byte, 32), csr)
		answered <- err
	}()
	select {
	case err := <-answered:
		if !errors.Is(err, ErrTokenUnknown) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("no answer while the list is locked")
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

// FuzzRequest takes any bytes for a certificate request.
func FuzzRequest(f *testing.F) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, b []byte) {
		if pub, err := parseRequest(b); (pub == nil) == (err == nil) {
			t.Errorf("key %v and error %v", pub, err)
		}
	})
}
