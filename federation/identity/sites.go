package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
)

// Site is an entry of the authority's list. Zero times mean that it has not happened.
type Site struct {
	Name       branchline.SiteID
	Added      time.Time
	TokenUntil time.Time // of a token that is still to be used
	Enrolled   time.Time
	Until      time.Time // end of its newest certificate
	Revoked    time.Time
	Waiting    *Waiting    // it was off past the end of its certificate; nil if not
	Quarantine *Quarantine // more than one node has its identity; nil if not
}

// record is a site as it stands in the file.
type record struct {
	Name       branchline.SiteID `json:"name"`
	Added      time.Time         `json:"added"`
	TokenHash  []byte            `json:"token_hash,omitempty"` // SHA-256; the secret has 256 random bits
	TokenUntil time.Time         `json:"token_until,omitzero"`
	TokenUsed  time.Time         `json:"token_used,omitzero"`
	Key        []byte            `json:"key,omitempty"` // SHA-256 of the site's public key
	Enrolled   time.Time         `json:"enrolled,omitzero"`
	Until      time.Time         `json:"until,omitzero"`
	Revoked    time.Time         `json:"revoked,omitzero"`
	Issuer     branchline.Hash   `json:"issuer,omitzero"` // of its newest certificate
	// Generation counts how often a node was approved out of quarantine: certificates with a smaller one are of
	// the nodes that were not.
	Generation int         `json:"generation,omitempty"`
	Barred     []byte      `json:"barred,omitempty"` // SHA-256 of the organisation's certificate that those nodes have
	Shown      []byte      `json:"shown,omitempty"`  // SHA-256 of the organisation's certificate that was last shown
	Waiting    *waiting    `json:"waiting,omitempty"`
	Quarantine *quarantine `json:"quarantine,omitempty"`
}

func (r record) site() Site {
	s := Site{Name: r.Name, Added: r.Added, Enrolled: r.Enrolled, Until: r.Until, Revoked: r.Revoked}
	if len(r.TokenHash) > 0 && r.TokenUsed.IsZero() {
		s.TokenUntil = r.TokenUntil
	}
	if r.Waiting != nil {
		s.Waiting = r.Waiting.told()
	}
	if r.Quarantine != nil {
		s.Quarantine = r.Quarantine.told()
	}
	return s
}

// good reports whether certificates for the key are good.
func (r record) good(pub ed25519.PublicKey) bool {
	return r.Revoked.IsZero() && len(r.Key) > 0 && bytes.Equal(r.Key, hashOf(pub))
}

func hashOf(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func find(sites []record, name branchline.SiteID) (int, bool) {
	return slices.BinarySearchFunc(sites, name, func(r record, name branchline.SiteID) int {
		return strings.Compare(string(r.Name), string(name))
	})
}

const sitesFile = "sites.json"

// list returns the sites as they stand in the file, sorted by name, not to be changed.
func (a *Authority) list() ([]record, error) {
	info, err := os.Stat(filepath.Join(a.dir, sitesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.read != nil && os.SameFile(a.read, info) && a.read.ModTime().Equal(info.ModTime()) {
		return a.sites, nil
	}
	// The file may be replaced between the look and the reading; then it is read once more next time.
	a.sites, err = readSites(a.dir)
	a.read = info
	if err != nil {
		a.read = nil
	}
	return a.sites, err
}

func readSites(dir string) ([]record, error) {
	data, err := readFile(dir, sitesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	var sites []record
	if err := json.Unmarshal(data, &sites); err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	return sites, nil
}

// edit replaces the list by what change makes of it. It is durable when edit returns nil; when change
// returns an error nothing happens.
func (a *Authority) edit(change func([]record) ([]record, error)) (err error) {
	unlock, err := lock(a.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	sites, err := readSites(a.dir)
	if err != nil {
		return err
	}
	sites, err = change(sites)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(sites, "", "\t")
	if err != nil {
		return fmt.Errorf("write sites: %w", err)
	}
	return writeFile(a.dir, sitesFile, data)
}
