package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// TokenLife is how long a token can be used.
	TokenLife = 24 * time.Hour
	// MaxHubs bounds the addresses in a token.
	MaxHubs = 8

	tokenPrefix = "branchline-1-"
	// maxToken bounds a token's text: MaxHubs host names of the greatest length, with room to spare.
	maxToken = 8 << 10
	sumSize  = 4
)

// Token is what an edge needs to enrol: which hub, how to know it, and the secret.
type Token struct {
	Site   branchline.SiteID `json:"site"` // for people; the hub decides by the secret
	Hubs   []string          `json:"hubs"` // host:port
	CA     branchline.Hash   `json:"-"`    // SHA-256 of the authority's certificate
	Secret [32]byte          `json:"-"`
}

// tokenText is the form of a token inside its text.
type tokenText struct {
	Token
	CA     []byte `json:"ca"`
	Secret []byte `json:"secret"`
}

func newToken(site branchline.SiteID, hubs []string, ca branchline.Hash) Token {
	t := Token{Site: site, Hubs: hubs, CA: ca}
	rand.Read(t.Secret[:])
	return t
}

// String returns the text that is handed to the edge's operator: one word, with a checksum.
func (t Token) String() string {
	b, err := json.Marshal(tokenText{t, t.CA[:], t.Secret[:]})
	if err != nil {
		panic(err) // strings and bytes always marshal
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(sum[:sumSize:sumSize], b...))
}

// ParseToken reads what String writes; white space around it does not matter. Its error wraps
// [branchline.ErrInvalid].
func ParseToken(text string) (Token, error) {
	word, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok || len(word) > maxToken {
		return Token{}, fmt.Errorf("read token: it begins with %q: %w", tokenPrefix, branchline.ErrInvalid)
	}
	b, err := base64.RawURLEncoding.DecodeString(word)
	if err != nil || len(b) < sumSize {
		return Token{}, fmt.Errorf("read token: part of it is missing: %w", branchline.ErrInvalid)
	}
	sum := sha256.Sum256(b[sumSize:])
	if string(sum[:sumSize]) != string(b[:sumSize]) {
		return Token{}, fmt.Errorf("read token: part of it is missing or changed: %w", branchline.ErrInvalid)
	}
	var t tokenText
	if err := json.Unmarshal(b[sumSize:], &t); err != nil {
		return Token{}, fmt.Errorf("read token: %w: %w", err, branchline.ErrInvalid)
	}
	if len(t.CA) != len(t.Token.CA) || len(t.Secret) != len(t.Token.Secret) || len(t.Hubs) > MaxHubs {
		return Token{}, fmt.Errorf("read token: a field has the wrong length: %w", branchline.ErrInvalid)
	}
	copy(t.Token.CA[:], t.CA)
	copy(t.Token.Secret[:], t.Secret)
	return t.Token, nil
}
