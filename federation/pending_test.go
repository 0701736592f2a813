package federation

import (
	"errors"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
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
	ended := make(chan error, maxPendingOf+1)
	for range maxPendingOf + 1 {
		c, err := link.Dial(t.Context(), h.addr(), link.Options{TLS: conf})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(0, "") })
		go func() {
			_, err := c.AcceptStream(t.Context())
			ended <- err
		}()
	}
	if err := fromLink(<-ended); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("one connection too many ended with %v, want busy", err)
	}
	run(t, NewUplink(UplinkConfig{Node: site, Source: newSource()}).Run)
	h.wait("munich")
}
