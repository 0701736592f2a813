package access

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/branchline-video/branchline"
)

// The cost of a hash: the second choice of RFC 9106, section 4, for where 2 GiB a login is too much.
const (
	hashTime    = 3
	hashMemory  = 64 << 10 // KiB
	hashThreads = 4
	saltSize    = 16
	keySize     = 32
)

const (
	maxHashes  = 2  // computed at once: 128 MiB, which a hub on a small machine can spare
	maxWaiting = 32 // logins that wait for their turn; at some 0.2 s a hash the last one waits 3 s
)

// hasher computes and verifies password hashes, a bounded number at once.
type hasher struct {
	waiting chan struct{}
	running chan struct{}
	dummy   string // verified where there is no user, so that this takes as long as a wrong password
}

func newHasher() hasher {
	return hasher{
		waiting: make(chan struct{}, maxWaiting),
		running: make(chan struct{}, maxHashes),
		dummy:   encode(make([]byte, saltSize), make([]byte, keySize)),
	}
}

// hash returns the salted hash of the password in the PHC string format. It wraps
// branchline.ErrBusy when too many others wait, and returns ctx's error if that ends first.
func (h hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	key, err := h.derive(ctx, password, salt)
	if err != nil {
		return "", err
	}
	return encode(salt, key), nil
}

// verify reports whether encoded is the hash of the password; an empty one never is. Errors are as of
// hash.
func (h hasher) verify(ctx context.Context, password, encoded string) (bool, error) {
	known := encoded != ""
	if !known {
		encoded = h.dummy
	}
	salt, want, err := decode(encoded)
	if err != nil {
		return false, err
	}
	got, err := h.derive(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

func (h hasher) derive(ctx context.Context, password string, salt []byte) ([]byte, error) {
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return nil, fmt.Errorf("hash password: %d others wait: %w", maxWaiting, branchline.ErrBusy)
	}
	select {
	case h.running <- struct{}{}:
		defer func() { <-h.running }()
	case <-ctx.Done():
		return nil, fmt.Errorf("hash password: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashThreads, keySize), nil
}

func encode(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return hashHead() + b64.EncodeToString(salt) + "$" + b64.EncodeToString(key)
}

// hashHead is what every stored hash begins with. A release that changes the cost must go on reading this.
func hashHead() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, hashMemory, hashTime, hashThreads)
}

func decode(encoded string) (salt, key []byte, err error) {
	rest, ok := strings.CutPrefix(encoded, hashHead())
	first, second, both := strings.Cut(rest, "$")
	if !ok || !both {
		return nil, nil, fmt.Errorf("decode password hash: it does not have the form %sSALT$KEY", hashHead())
	}
	if salt, err = base64.RawStdEncoding.DecodeString(first); err != nil {
		return nil, nil, fmt.Errorf("decode password hash: %w", err)
	}
	if key, err = base64.RawStdEncoding.DecodeString(second); err != nil {
		return nil, nil, fmt.Errorf("decode password hash: %w", err)
	}
	return salt, key, nil
}
