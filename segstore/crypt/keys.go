package crypt

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	keySize = 32
	// maxKeys bounds the keys of a file: a new one each month for five years.
	maxKeys = 64
	// maxKeyFile bounds a file of keys, in bytes, with room for comments.
	maxKeyFile = 64 << 10
	idContext  = "branchline store key\x00"
)

// ErrNoKey: the key that is needed was not given.
var ErrNoKey = errors.New("key is missing")

// ID identifies a key without telling anything of it.
type ID [16]byte

// String returns it in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Key is a key of a store.
type Key struct{ secret [keySize]byte }

// ID returns the key's identifier: the first 16 bytes of the SHA-256 of a context and the key.
func (k Key) ID() (id ID) {
	sum := sha256.Sum256(append([]byte(idContext), k.secret[:]...))
	copy(id[:], sum[:])
	return id
}

// String keeps the key out of logs.
func (k Key) String() string { return "key " + k.ID().String() }

// Format keeps the key out of logs with any verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// Keys are those of a store: the first one seals, and all of them open. Nil has none.
type Keys struct {
	from string
	all  []Key
}

// New returns a new key as a line of a key file.
func New() string {
	var secret [keySize]byte
	rand.Read(secret[:]) // which never fails
	return hex.EncodeToString(secret[:]) + "\n"
}

// Load reads the keys of a file: 32 bytes as they are, or a line of text for each key, in hex or base64;
// lines that are empty or begin with # do not count.
func Load(path string) (*Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return Parse(path, text)
}

// Credential reads the keys of a systemd credential, as Load does; dir is $CREDENTIALS_DIRECTORY.
func Credential(dir, name string) (*Keys, error) {
	if dir == "" {
		return nil, fmt.Errorf("credential %q: no CREDENTIALS_DIRECTORY: is it in the unit, as LoadCredential=%s:…?",
			name, name)
	}
	if name != filepath.Base(name) {
		return nil, fmt.Errorf("credential %q: is no name", name)
	}
	return Load(filepath.Join(dir, name))
}

// Parse reads keys as Load does; from says in errors where they are from.
func Parse(from string, text []byte) (*Keys, error) {
	k := &Keys{from: from}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("read keys of %s: over %d bytes", from, maxKeyFile)
	}
	if len(text) == keySize {
		return k, k.add(text)
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		word := strings.TrimSpace(string(line))
		if word == "" || word[0] == '#' {
			continue
		}
		secret, err := decode(word)
		if err == nil {
			err = k.add(secret)
		}
		if err != nil {
			return nil, fmt.Errorf("read keys of %s: line %d: %w", from, n, err)
		}
	}
	if len(k.all) == 0 {
		return nil, fmt.Errorf("read keys of %s: there is none", from)
	}
	return k, nil
}

// decode never repeats what it is given.
func decode(word string) ([]byte, error) {
	if b, err := hex.DecodeString(word); err == nil && len(b) == keySize {
		return b, nil
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding,
		base64.RawURLEncoding} {
		if b, err := e.DecodeString(word); err == nil && len(b) == keySize {
			return b, nil
		}
	}
	return nil, errors.New("is no key: write 32 bytes in hex or base64")
}

func (k *Keys) add(secret []byte) error {
	if len(k.all) == maxKeys {
		return fmt.Errorf("more than %d keys", maxKeys)
	}
	if bytes.Count(secret, secret[:1]) == keySize {
		return errors.New("all bytes of the key are the same")
	}
	k.all = append(k.all, Key{secret: [keySize]byte(secret)})
	return nil
}

// First returns the key that seals. There is one unless k is nil.
func (k *Keys) First() (Key, bool) {
	if k == nil || len(k.all) == 0 {
		return Key{}, false
	}
	return k.all[0], true
}

// Find returns the key with an identifier. It wraps [ErrNoKey], and says which one is missing where.
func (k *Keys) Find(id ID) (Key, error) {
	if k == nil {
		return Key{}, fmt.Errorf("encrypted with key %v, and no keys were given: %w", id, ErrNoKey)
	}
	for _, key := range k.all {
		if key.ID() == id {
			return key, nil
		}
	}
	return Key{}, fmt.Errorf("encrypted with key %v, which is not in %s: %w", id, k.from, ErrNoKey)
}
