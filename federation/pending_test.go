package federation

import (
	"testing"

	"github.com/branchline-video/branchline"
)

// TestSilentConnectionsOfASite: one site that makes connections and does not greet on them has only its own places.
func TestSilentConnectionsOfASite(t *testing.T) {
	h := startHub(t)
	quiet, site := newNode(t), newNode(t)
	for n, name := range map[branchline.SiteID]string{"berlin": h.token("berlin"), "munich": h.token("munich")} {
		node := quiet
		if n == "munich" {
			node = site
		}
		if err := Enrol(t.Context(), node, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := quiet.TLS()
	if err != nil {
		t.Fatal(err)
	}
	h.crowd(maxPendingOf+1, conf)
	run(t, NewUplink(UplinkConfig{Node: site, Source: newSource()}).Run)
	h.wait("munich")
}
