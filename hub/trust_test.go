package hub

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// TestTrust: a site's footers are those of the keys with which it has linked, ever, also after a restart.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	open := func() (*keys, *index.DB) {
		db, err := index.Open(dir, index.Options{})
		if err != nil {
			t.Fatal(err)
		}
		k, err := openKeys(db)
		if err != nil {
			t.Fatal(err)
		}
		return k, db
	}
	key := func(n byte) ed25519.PublicKey {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = n
		return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	}
	k, db := open()
	if err := k.trust("berlin.door.main", key(1)); err != nil {
		t.Errorf("a site without certificate: %v", err)
	}
	for _, n := range []byte{1, 2, 1} {
		if err := k.learn("berlin", key(n)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for n, want := range map[byte]error{1: nil, 2: nil, 3: branchline.ErrDenied} {
			if err := k.trust("berlin.door.main", key(n)); !errors.Is(err, want) {
				t.Errorf("key %d: %v, expected %v", n, err, want)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		k, db = open()
	}
	db.Close()
}

// TestKeysAreBounded: a link tells of any number of sites behind it, and of so many the keys are kept.
func TestKeysAreBounded(t *testing.T) {
	db, err := index.Open(t.TempDir(), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	k, err := openKeys(db)
	if err != nil {
		t.Fatal(err)
	}
	key := make(ed25519.PublicKey, ed25519.PublicKeySize)
	for i := range maxKeysBelow - 1 { // as if they were stored, which takes long
		k.of[branchline.SiteID(fmt.Sprintf("region.site-%d", i))] = []ed25519.PublicKey{key}
	}
	region := vouching{n: &Node{keys: k}, site: "region"}
	for _, site := range []branchline.SiteID{"the-last", "one-more", "site-1"} {
		if err := region.learn(branchline.SiteLink{Site: site, Keys: []ed25519.PublicKey{key[1:], key}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.of) != maxKeysBelow || k.of["region.the-last"] == nil || len(k.of["region.site-1"]) != 2 {
		t.Errorf("%d sites are known", len(k.of))
	}
	for _, other := range []branchline.SiteID{"region-two.berlin", "region"} {
		if err := k.learn(other, key); err != nil || !k.known(other, key) {
			t.Errorf("%s: %v", other, err)
		}
	}
	// What could not be stored is not known, and is learned when it is told again.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.learn("lyon", key); err == nil || k.known("lyon", key) {
		t.Errorf("not stored, and known: %v", err)
	}
}

// TestTrustBelow: of a site behind a hub that hub says with which keys it signs, and nobody else's count.
func TestTrustBelow(t *testing.T) {
	db, err := index.Open(t.TempDir(), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	k, err := openKeys(db)
	if err != nil {
		t.Fatal(err)
	}
	key := func(n byte) ed25519.PublicKey {
		return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), n)).Public().(ed25519.PublicKey)
	}
	check := func(stream branchline.StreamID, signed byte, trusted bool) {
		t.Helper()
		err := k.trust(stream, key(signed))
		if (err == nil) != trusted || err != nil && !errors.Is(err, branchline.ErrDenied) {
			t.Errorf("%s signed with key %d: %v", stream, signed, err)
		}
	}
	check("region.berlin.door.main", 1, true) // nobody has shown a certificate
	learn := func(site branchline.SiteID, n byte) {
		t.Helper()
		if err := k.learn(site, key(n)); err != nil {
			t.Fatal(err)
		}
	}
	learn("region", 1)
	check("region.berlin.door.main", 2, false) // not vouched for yet
	region := vouching{n: &Node{keys: k}, site: "region"}
	told := branchline.SiteLink{Site: "berlin", Keys: []ed25519.PublicKey{key(2), key(3)}}
	if err := region.learn(told); err != nil {
		t.Fatal(err)
	}
	check("region.berlin.door.main", 2, true)
	check("region.berlin.door.main", 3, true)
	check("region.berlin.door.main", 1, false) // the hub is not the site
	check("region.lyon.door.main", 2, false)
	check("berlin.door.main", 4, true) // what a region says is of its own sites
	learn("berlin", 5)
	check("berlin.door.main", 2, false)
}
