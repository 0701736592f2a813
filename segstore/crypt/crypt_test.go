package crypt

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testKey(n byte) Key {
	var k Key
	for i := range k.secret {
		k.secret[i] = byte(i) + n
	}
	return k
}

func segment(t testing.TB, k Key, id byte) *Segment {
	t.Helper()
	s, err := k.Segment([16]byte{id})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealAndOpen(t *testing.T) {
	plain := bytes.Repeat([]byte("picture"), 100)
	s := segment(t, testKey(1), 1)
	sealed := s.Seal(plain, 700)
	if len(sealed) != len(plain)+Overhead || Overhead != 32 || bytes.Contains(sealed, []byte("picture")) {
		t.Errorf("%d bytes of %d", len(sealed), len(plain))
	}
	if bytes.Equal(sealed, s.Seal(plain, 700)) {
		t.Error("sealed twice it is the same")
	}
	got, err := s.Open([]byte("before"), sealed, 700)
	if err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
		t.Errorf("opened %d bytes: %v", len(got), err)
	}
	for i := range sealed {
		sealed[i] ^= 1 << (i % 8)
		if _, err := s.Open(nil, sealed, 700); !errors.Is(err, ErrAltered) {
			t.Errorf("bit flipped in byte %d: %v", i, err)
		}
		sealed[i] ^= 1 << (i % 8)
	}
	for _, c := range []struct {
		name   string
		with   *Segment
		sealed []byte
		offset int64
	}{
		{"moved", s, sealed, 701},
		{"of another segment", segment(t, testKey(1), 2), sealed, 700},
		{"with another key", segment(t, testKey(2), 1), sealed, 700},
		{"cut", s, sealed[:len(sealed)-1], 700},
		{"cut in front", s, sealed[1:], 700},
		{"nothing", s, nil, 700},
		{"only its end", s, sealed[len(sealed)-Overhead+1:], 700},
	} {
		if _, err := c.with.Open(nil, c.sealed, c.offset); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzOpen opens any bytes: only what was sealed for the place opens.
func FuzzOpen(f *testing.F) {
	s := segment(f, testKey(1), 1)
	f.Add(s.Seal([]byte("plain"), 5), int64(5))
	f.Add(s.Seal(nil, 0), int64(0))
	f.Add([]byte(mark), int64(-1))
	f.Add([]byte(nil), int64(1<<62))
	f.Fuzz(func(t *testing.T, sealed []byte, offset int64) {
		if plain, err := s.Open(nil, sealed, offset); err == nil && len(plain)+Overhead != len(sealed) {
			t.Errorf("%d bytes of %d", len(plain), len(sealed))
		}
		if plain, err := s.Open(nil, s.Seal(sealed, offset), offset); err != nil || !bytes.Equal(plain, sealed) {
			t.Errorf("sealed and opened: %v", err)
		}
	})
}

func TestKeys(t *testing.T) {
	one, two := testKey(1), testKey(2)
	inHex := func(k Key) string { return hex.EncodeToString(k.secret[:]) }
	for _, c := range []struct{ name, text, want string }{
		{"raw", string(one.secret[:]), "1"},
		{"hex", inHex(one), "1"},
		{"base64", base64.StdEncoding.EncodeToString(one.secret[:]) + "\n", "1"},
		{"url base64 without padding", base64.RawURLEncoding.EncodeToString(one.secret[:]), "1"},
		{"two", "# new\n" + inHex(two) + "\r\n\n  " + inHex(one) + " # no\n", "line 4"},
		{"two", "# new\n" + inHex(two) + "\r\n\n  " + inHex(one) + "\n", "21"},
		{"empty", "\n# none\n", "there is none"},
		{"short", inHex(one)[:62], "line 1: is no key"},
		{"no random", strings.Repeat("00", 32), "the same"},
		{"too many", strings.Repeat(inHex(one)+"\n", maxKeys+1), "more than 64"},
		{"too large", strings.Repeat("#", maxKeyFile+1), "over 65536"},
		{"new", New(), "?"},
	} {
		k, err := Parse("the file", []byte(c.text))
		got := ""
		if err != nil {
			if got = err.Error(); !strings.Contains(got, c.want) || !strings.Contains(got, "the file") {
				if c.name != "no random" || !strings.Contains(got, c.want) {
					t.Errorf("%s: %v", c.name, err)
				}
			}
			continue
		}
		for _, key := range k.all {
			switch key {
			case one:
				got += "1"
			case two:
				got += "2"
			default:
				got += "?"
			}
		}
		if got != c.want {
			t.Errorf("%s: keys %q, want %q", c.name, got, c.want)
		}
	}
}

// FuzzParse reads any bytes as a file of keys.
func FuzzParse(f *testing.F) {
	f.Add([]byte(New()))
	f.Add([]byte("# old\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"))
	f.Add(bytes.Repeat([]byte("k"), keySize))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Parse("x", text)
		if err == nil && (len(k.all) == 0 || len(k.all) > maxKeys) {
			t.Errorf("%d keys", len(k.all))
		}
	})
}

func TestFind(t *testing.T) {
	one, two := testKey(1), testKey(2)
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(one.secret[:])), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Credential(filepath.Dir(path), "keys")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Find(one.ID()); got != one || err != nil {
		t.Errorf("found %v: %v", got, err)
	}
	if _, err := k.Find(two.ID()); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), two.ID().String()) {
		t.Errorf("another: %v", err)
	}
	if _, err := (*Keys)(nil).Find(one.ID()); !errors.Is(err, ErrNoKey) {
		t.Errorf("no keys: %v", err)
	}
	for _, name := range []string{"", "../keys"} {
		if _, err := Credential(filepath.Dir(path), name); err == nil {
			t.Errorf("credential %q was read", name)
		}
	}
	if _, err := Credential("", "keys"); err == nil || !strings.Contains(err.Error(), "LoadCredential") {
		t.Errorf("without systemd: %v", err)
	}
	text := fmt.Sprintf("%v %+v %#v %x", one, one, one, one)
	if strings.Contains(text, hex.EncodeToString(one.secret[:4])) || strings.Contains(text, "1, 2, 3") {
		t.Errorf("printed as %s", text)
	}
}
