package hub

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/segstore/index"
)

const (
	tableKeys = "hub/keys/" // site: its keys, the oldest first
	// maxKeys bounds the keys of one site, and maxKeysBelow the sites behind one link of which keys are known.
	maxKeys      = branchline.MaxKeys
	maxKeysBelow = catalog.MaxBelow
)

// keys remembers with which keys each site has linked. A site signs its segments with the key of its
// certificate, so a footer is its own if one of them has signed it.
type keys struct {
	db *index.DB

	mu sync.Mutex
	of map[branchline.SiteID][]ed25519.PublicKey
}

func openKeys(db *index.DB) (*keys, error) {
	k := &keys{db: db, of: make(map[branchline.SiteID][]ed25519.PublicKey)}
	err := db.View(func(tx *index.Tx) error {
		for key, value := range tx.Scan([]byte(tableKeys), nil) {
			var list []ed25519.PublicKey
			if err := json.Unmarshal(value, &list); err != nil {
				return fmt.Errorf("parse %q: %w", key, err)
			}
			k.of[branchline.SiteID(key[len(tableKeys):])] = list
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load keys of sites: %w", err)
	}
	return k, nil
}

// learn adds the key with which a site has linked, durably. For one site it is called by one at a time. Those of
// one site too many behind a link are left out, as the catalog leaves out what they have.
func (k *keys) learn(site branchline.SiteID, key ed25519.PublicKey) error {
	if k.known(site, key) || len(key) == 0 || k.full(site) {
		return nil
	}
	list := append(k.list(site), slices.Clone(key))
	list = list[max(0, len(list)-maxKeys):]
	value, err := json.Marshal(list)
	if err == nil {
		err = k.db.Update(func(tx *index.Tx) error { return tx.Set([]byte(tableKeys+string(site)), value) })
	}
	if err != nil {
		return fmt.Errorf("store key of %s: %w", site, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of[site] = list
	return nil
}

// full reports whether a site that is not known is one too many behind its link.
func (k *keys) full(site branchline.SiteID) bool {
	way := site.Way()
	if len(way) == 1 {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of[site] != nil {
		return false
	}
	n := 0
	for other := range k.of {
		if strings.HasPrefix(string(other), string(way[0])+".") {
			n++
		}
	}
	return n >= maxKeysBelow
}

func (k *keys) known(site branchline.SiteID, key ed25519.PublicKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.of[site], func(o ed25519.PublicKey) bool { return bytes.Equal(o, key) })
}

// list returns the keys of a site, the oldest first.
func (k *keys) list(site branchline.SiteID) []ed25519.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.of[site])
}

// trust refuses footers that the stream's site has not signed. Of a site behind another hub that hub says which
// keys it has. A site that never showed a certificate, because it was attached in this process, may sign
// with any key, and those behind it too.
func (k *keys) trust(stream branchline.StreamID, key ed25519.PublicKey) error {
	site, any := stream.Camera().Branch(), true
	k.mu.Lock()
	for _, on := range site.Way() {
		any = any && len(k.of[on]) == 0
	}
	k.mu.Unlock()
	if any || k.known(site, key) {
		return nil
	}
	return fmt.Errorf("signed with key %x, which is none of site %s: %w", []byte(key), site, branchline.ErrDenied)
}

// revoked reports whether the site's certificates were withdrawn. A site attached directly never is.
func (n *Node) revoked(site branchline.SiteID) (bool, error) {
	sites, err := n.authority.Sites()
	return slices.ContainsFunc(sites, func(s identity.Site) bool {
		return s.Name == site && !s.Revoked.IsZero()
	}), err
}
