package hub

import (
	"crypto/ed25519"
	"errors"
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
