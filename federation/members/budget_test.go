package members

import (
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudget prints what gossip costs a site's link, in virtual time, at SITES (60) sites; make soak takes 500:
// all packets and streams of gossip in both directions, with 58 bytes for the headers of a QUIC datagram, UDP
// and IP on each packet.
func TestBudget(t *testing.T) {
	const (
		span     = 3 * time.Minute
		overhead = 58
		budget   = 1000.0 // bit/s
	)
	sites := fromEnv(t, "SITES", 60)
	synctest.Test(t, func(t *testing.T) {
		all := names(sites)
		hub := newCentre(t, "a", all...)
		var edges []*site
		for i, name := range all {
			edges = append(edges, newSite(t, name, uint64(i), 0, hub))
		}
		// Each tells each of those that came: at 500 sites that takes some minutes, and tens of kilobits a second.
		pause(2*time.Minute + time.Duration(sites)*time.Second)
		if n := hub.m.Alive(); n != sites+1 {
			t.Errorf("hub sees %d members alive, want %d", n, sites+1)
		}
		before := hub.m.Stats()
		pause(span)
		after := hub.m.Stats()
		bytes := float64(after.SentBytes + after.ReceivedBytes - before.SentBytes - before.ReceivedBytes)
		packets := float64(after.Sent + after.Received - before.Sent - before.Received)
		perSite := (bytes + packets*overhead) * 8 / span.Seconds() / float64(sites)
		t.Logf("gossip at %d sites: %.0f bit/s a site and link, both directions, %.0f of it payload, %.2f packets/s",
			sites, perSite, bytes*8/span.Seconds()/float64(sites), packets/span.Seconds()/float64(sites))
		if perSite > budget {
			t.Errorf("gossip takes %.0f bit/s of each site's link, at most %.0f", perSite, budget)
		}
		if d := after.Dropped - before.Dropped + after.Refused - before.Refused; d > 0 {
			t.Errorf("%d packets were dropped or refused", d)
		}
		for _, s := range edges {
			go func() { s.stop() }()
		}
		for _, s := range edges {
			s.close(t)
		}
		hub.close()
	})
}

// fromEnv returns the number in an environment variable, or otherwise the one given.
func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
