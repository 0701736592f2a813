package link_test

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/link"
)

// TestWindows: connections that are not read hold no more of a hub's memory than it has for a site, whatever their
// number, take nothing from other sites, and give it back.
func TestWindows(t *testing.T) {
	l, opt, a := listenFor(t, nil)
	berlin := opt(site(t, a, "berlin"))
	edge, hub := pair(t, l, berlin)
	_, again := pair(t, l, berlin)
	_, others := pair(t, l, opt(site(t, a, other)))
	var w link.Windows
	if !w.Allow(hub, link.MaxWindowsOf-1) || !w.Allow(again, 1) {
		t.Fatal("there is room, and it is not given")
	}
	if w.Allow(again, 1) || w.Allow(hub, 1) || w.Allow(hub, 1<<63) {
		t.Fatal("more is given than there is for a site")
	}
	if !w.Allow(others, link.MaxWindowsOf) || w.Allow(others, 1) {
		t.Error("a site does not get its own")
	}
	if err := edge.Close(0, ""); err != nil {
		t.Fatal(err)
	}
	for !w.Allow(again, link.MaxWindowsOf-1) {
		if t.Context().Err() != nil {
			t.Fatal("a connection that has ended does not give back what it had")
		}
		<-time.After(time.Millisecond)
	}
	if w.Allow(again, 1) {
		t.Error("more is given than there is, after some was given back")
	}
}
