package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

func TestHomesConfig(t *testing.T) {
	for _, c := range []struct{ name, hubs, want string }{
		{"good", "[{name: north}, {name: south, addresses: [\"hq.example.com:7563\"]}]", ""},
		{"no name", "[{addresses: [\"a:1\"]}]", "hubs[0].name: \"\" is no name"},
		{"two labels", "[{name: a.b}]", "hubs[0].name: \"a.b\" is no name"},
		{"a path", "[{name: ../x}]", "hubs[0].name:"},
		{"twice", "[{name: a}, {name: a}]", "hubs[1].name: hub \"a\" is already in this list"},
		{"no port", "[{name: a, addresses: [b]}]", "hubs[0].addresses[0]: \"b\" is no address"},
		{"too many", "[{name: a}, {name: b}, {name: c}, {name: d}, {name: e}]", "hubs: 5 hubs, at most 4"},
		{"unknown", "[{name: a, token: b}]", "unknown field \"token\""},
	} {
		for file, config := range map[string]configuration{"edge.yaml": &edgeFile{}, "hub.yaml": &hubFile{}} {
			err := parseConfig(file, []byte("dir: /data\nhubs: "+c.hubs+"\n"), config)
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), file+":2") {
				t.Errorf("%s in %s: %v", c.name, file, err)
			}
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s in %s: %v, want %q", c.name, file, err, c.want)
			}
		}
	}
}

func TestHomesOf(t *testing.T) {
	a, err := identity.OpenAuthority(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.AddSite("berlin", []string{"127.0.0.1:7563"})
	if err != nil {
		t.Fatal(err)
	}
	two := []homeFile{{Name: "north"}, {Name: "south", Addresses: []string{"s:1"}}}
	for _, c := range []struct {
		name              string
		file              []homeFile
		tokens, addresses []string
		want              string // name, addresses and whether there is a token of each
	}{
		{"one, as ever", nil, []string{token}, []string{"h:1", "h:2"}, "[{ [h:1 h:2] true}]"},
		{"none", nil, []string{""}, nil, "[{ [] false}]"},
		{"the first", two, []string{token}, nil, "[{north [] true} {south [s:1] false}]"},
		{"by name", two, []string{"south=" + token}, []string{"south=x:1", "south=x:2"},
			"[{north [] false} {south [x:1 x:2] true}]"},
		{"no such hub", two, []string{"west=" + token}, nil, "--token: no hub \"west\""},
		{"a name without a list", nil, nil, []string{"west=x:1"}, "--hub: no hub \"west\""},
		{"no token", two, []string{"south=x"}, nil, "--token: read token"},
	} {
		homes, err := homesOf(c.file, c.tokens, c.addresses)
		if err != nil {
			if !strings.HasPrefix(err.Error(), c.want) || !errors.As(err, new(usageError)) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		type home struct {
			name  string
			hubs  []string
			token bool
		}
		var got []home
		for _, h := range homes {
			got = append(got, home{h.name, h.hubs, h.token != ""})
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	if _, err := (&hubFile{}).above([]string{token}, nil); err == nil || !strings.Contains(err.Error(), "hubs: [") {
		t.Errorf("a hub with a token and nothing above: %v", err)
	}
}

// TestHomesShare: whatever is the edge's, and not a hub's, is one for all its links; each hub counts its starts in an
// identity of its own, and the organisation's certificate is for the first.
func TestHomesShare(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		b, err := openBranch(branchConfig{
			dir: dir, homes: []home{{name: "own"}, {name: "guards"}}, log: slog.New(slog.DiscardHandler),
			organisation: &identity.Organisation{},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := b.report(); len(r.Links) != 2 || r.Links[0].Name != "own" || r.Links[1].Name != "guards" {
			t.Errorf("the report has %+v", r.Links)
		}
		if !b.uplinks[0].linked || b.uplinks[1].linked {
			t.Errorf("uplinks %+v", b.uplinks)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}
	for _, at := range []string{"identity", "identity/guards", "store"} {
		if _, err := os.Stat(filepath.Join(dir, at, "opens.json")); err != nil {
			t.Error(err)
		}
	}
}
