package link_test

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/link"
)

// TestWindows: connections that are not read hold no more of a hub's memory than it has for all, and give it back.
func TestWindows(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	edge, hub := pair(t, l, opt(site(t, a, "berlin")))
	_, second := pair(t, l, opt(site(t, a, other)))
	var w link.Windows
	if !w.Allow(hub, link.MaxWindows-1) || !w.Allow(second, 1) {
		t.Fatal("there is room, and it is not given")
	}
	if w.Allow(second, 1) || w.Allow(hub, 1) || w.Allow(hub, 1<<63) {
		t.Fatal("more is given than there is")
	}
	if err := edge.Close(0, ""); err != nil {
		t.Fatal(err)
	}
	for !w.Allow(second, link.MaxWindows-1) {
		if t.Context().Err() != nil {
			t.Fatal("a connection that has ended does not give back what it had")
		}
		<-time.After(time.Millisecond)
	}
	if w.Allow(second, 1) {
		t.Error("more is given than there is, after some was given back")
	}
}
