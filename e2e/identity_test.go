package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// standing is what `branchline site list --json` tells of a site.
type standing struct {
	ID, State  string
	Quarantine *struct {
		Cause string
		Nodes []struct {
			Instance, Address string
			Opens             int
		}
	}
}

func (w *world) standing() standing {
	w.t.Helper()
	out, errs, code := command(w.t, "site", "list", "--config", w.hubYAML, "--json")
	var all []standing
	if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil || len(all) != 1 {
		w.t.Fatalf("site list: exit %d: %s%s", code, out, errs)
	}
	return all[0]
}

func (w *world) state() string {
	w.t.Helper()
	return w.standing().State
}

func (w *world) order(args ...string) string {
	w.t.Helper()
	out, errs, code := command(w.t, append(args, "--config", w.hubYAML)...)
	if code != 0 {
		w.t.Fatalf("%v: exit %d: %s%s", args, code, out, errs)
	}
	return out
}

// TestIdentityOfProcesses takes a real edge through kill and restart, which raise no alarm, through a second box
// from the same disk image, a change of the authority, and revocation.
func TestIdentityOfProcesses(t *testing.T) {
	w := newWorld(t, options{policies: "  []\n", cameras: []string{"door"}, segment: 5 * time.Second})
	linked := func() bool { return w.state() == "up" }
	until(t, 20*time.Second, "linked", linked)
	for range 2 {
		w.edge.kill()
		w.startEdge()
		until(t, 20*time.Second, "linked after it was killed", linked)
	}
	w.edge.stop()
	image := filepath.Join(w.dir, "copy")
	if err := os.CopyFS(image, os.DirFS(w.edgeDir)); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(w.edgeCfg)
	if err != nil {
		t.Fatal(err)
	}
	copied := write(t, w.dir, "copy.yaml", strings.Replace(string(config), w.edgeDir, image, 1))
	w.startEdge()
	until(t, 20*time.Second, "linked before the copy", linked)
	second := start(t, "copy", "edge", "--config", copied, "--json")
	var ready struct{ Cameras int }
	second.ready(t, &ready)
	took := until(t, 30*time.Second, "quarantined", func() bool { return w.state() == "quarantined" })
	t.Logf("two boxes from one image: quarantined after %v", took.Round(100*time.Millisecond))
	w.chooseNode(t, second)
	second.stop()
	until(t, 20*time.Second, "linked with one box", linked)

	w.order("authority", "rotate", "--overlap", "1h")
	until(t, 20*time.Second, "no site is behind", func() bool {
		return strings.Contains(w.order("authority", "show", "--json"), `"behind": 0`) ||
			strings.Contains(w.order("authority", "show", "--json"), `"behind":0`)
	})
	if !linked() {
		t.Error("the change of the authority cut the link")
	}
	w.edge.stop()
	w.startEdge()
	until(t, 20*time.Second, "linked under the new authority", linked)
	w.order("site", "revoke", site)
	took = until(t, 10*time.Second, "the revoked edge is cut off", func() bool {
		return strings.Contains(w.edge.ring.String(), "was revoked or replaced")
	})
	t.Logf("revoked: the link ended after %v", took.Round(100*time.Millisecond))
}

// chooseNode lets the first box go on and sees the second one refused.
func (w *world) chooseNode(t *testing.T, second *process) {
	t.Helper()
	q := w.standing().Quarantine
	if q == nil || q.Cause != "duplicate" || len(q.Nodes) != 2 || q.Nodes[0].Address == "" || q.Nodes[1].Address == "" {
		t.Fatalf("quarantine is %+v", q)
	}
	text := w.order("site", "list")
	if !strings.Contains(text, q.Nodes[0].Instance) || !strings.Contains(text, "site approve "+site) {
		t.Errorf("the list says\n%s", text)
	}
	until(t, 30*time.Second, "both boxes say why", func() bool {
		return strings.Contains(w.edge.ring.String(), "quarantined") && strings.Contains(second.ring.String(), "quarantined")
	})
	first := q.Nodes[1].Instance // the other one came later
	w.order("site", "approve", site, "--instance", first)
	until(t, 30*time.Second, "the first box is back", func() bool { return w.state() == "up" })
	until(t, 30*time.Second, "the second box is told", func() bool {
		return strings.Contains(second.ring.String(), "another node goes on as this site")
	})
}
