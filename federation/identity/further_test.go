package identity

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestFurther: towards each hub a node has a certificate of its own, and one key for all.
func TestFurther(t *testing.T) {
	w, dir := newWatch(), t.TempDir()
	a, b := openAuthority(t, t.TempDir(), w), openAuthority(t, t.TempDir(), w)
	n := openNode(t, dir, w)
	if err := enrol(a, n, addSite(t, a, "berlin")); err != nil {
		t.Fatal(err)
	}
	south, err := n.Further("south", w.clock())
	if err != nil {
		t.Fatal(err)
	}
	if south.Site() != "" {
		t.Errorf("enrolled as %s before it was", south.Site())
	}
	if err := enrol(b, south, addSite(t, b, "branch-7")); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, dir, w)
	if south, err = n.Further("south", w.clock()); err != nil {
		t.Fatal(err)
	}
	if n.Site() != "berlin" || south.Site() != "branch-7" || !n.Key().Equal(south.Key()) {
		t.Errorf("%s and %s, keys equal: %v", n.Site(), south.Site(), n.Key().Equal(south.Key()))
	}
	if site, err := a.Verify(south.Certificate().Raw); !errors.Is(err, ErrForeign) {
		t.Errorf("one hub takes the certificate of the other as %s: %v", site, err)
	}
	if err := os.Remove(filepath.Join(dir, "node.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "node.crt")); err != nil {
		t.Fatal(err)
	}
	if _, err = openNode(t, dir, w).Further("south", w.clock()); !errors.Is(err, branchline.ErrInvalid) {
		t.Errorf("with a new key: %v", err)
	}
}

// TestFirstHub: the node's own certificate stays that of the hub which was first once.
func TestFirstHub(t *testing.T) {
	w, dir := newWatch(), t.TempDir()
	for _, names := range [][]string{{"north", "south"}, {"south", "north"}, {"south"}} {
		if first, err := openNode(t, dir, w).FirstHub(names); err != nil || first != "north" {
			t.Errorf("of %v %s is first, %v", names, first, err)
		}
	}
	if first, err := openNode(t, t.TempDir(), w).FirstHub(nil); err == nil {
		t.Errorf("of none %s is first", first)
	}
}
