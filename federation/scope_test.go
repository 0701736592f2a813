package federation

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// named is a connection in memory whose peer shows a certificate.
type named struct {
	link.Conn
	leaf []byte
}

func (n named) Peer() link.Peer { return link.Peer{Leaf: n.leaf} }

// asHub returns the source as the hub that its certificate names so reaches it.
func asHub(t *testing.T, src branchline.Source, uri string) *Remote {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{u}}
	leaf, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	edge, hub := link.Pipe("berlin", "")
	serveOn(t, named{edge, leaf}, src)
	t.Cleanup(func() { hub.Close(0, "") })
	return NewRemote(hub)
}

// TestLocksAreTheirHolders shows that a hub neither replaces nor takes off nor sees the lock of another or
// of the site itself, even where names and identifiers run together.
func TestLocksAreTheirHolders(t *testing.T) {
	ctx, src := t.Context(), newSource()
	place := func(c branchline.Control, id, by string) {
		t.Helper()
		l := branchline.Lock{ID: id, By: by, Stream: testStream, Created: earliest(),
			Span: branchline.TimeRange{Start: earliest(), End: latest()}}
		if err := c.Lock(ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, c branchline.Control, want string) {
		t.Helper()
		locks, err := c.Locks(ctx)
		var got []string
		for _, l := range locks {
			got = append(got, l.ID+" by "+l.By)
		}
		if text := strings.Join(got, ", "); text != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", when, text, err, want)
		}
	}
	a, b := asHub(t, src, "branchline://hub/a"), asHub(t, src, "branchline://hub/a/b")
	place(src, "b/1", "site")
	place(b, "1", "b")
	place(a, "1", "a")
	place(a, "b/1", "a") // as "1" of a/b, were the names put together plainly
	place(a, "b~11", "a")
	want("of a", a, "1 by a, b/1 by a, b~11 by a")
	want("of a/b", b, "1 by b")
	place(a, "1", "a, again")
	for _, id := range []string{"b/1", "b~11", "../a~1b/1", "a~1b/1", ""} {
		if err := a.Unlock(ctx, id); err != nil {
			t.Errorf("unlock %q: %v", id, err)
		}
	}
	want("a's after it replaced and unlocked", a, "1 by a, again")
	want("a/b's after that", b, "1 by b")
	want("the site's", src, "a/1 by a, again, a~1b/1 by b, b/1 by site")
	long := branchline.Lock{ID: strings.Repeat("x", branchline.MaxLabel+1), Stream: testStream,
		Span: branchline.TimeRange{Start: earliest(), End: latest()}}
	if err := a.Lock(ctx, long); !errors.Is(err, branchline.ErrInvalid) {
		t.Errorf("an identifier over its limit: %v", err)
	}
}

// TestLockScopeFits shows that the longest name and identifier still make a lock that can be kept.
func TestLockScopeFits(t *testing.T) {
	src := newSource()
	l := branchline.Lock{ID: lockScope(strings.Repeat("/", branchline.MaxName)) + strings.Repeat("x", branchline.MaxLabel),
		Stream: testStream, Span: branchline.TimeRange{Start: earliest(), End: latest()}}
	if err := src.Lock(t.Context(), l); err != nil || len(l.ID) != branchline.MaxLockID {
		t.Errorf("%d bytes, %v", len(l.ID), err)
	}
}
