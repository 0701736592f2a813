package branchline_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
)

func TestWay(t *testing.T) {
	for camera, want := range map[branchline.CameraID]string{
		"door":                  "[]",
		"berlin.door":           "[berlin]",
		"region.berlin.door":    "[region region.berlin]",
		"hq.region.berlin.door": "[hq hq.region hq.region.berlin]",
	} {
		if got := fmt.Sprint(camera.Branch().Way()); got != want {
			t.Errorf("%s: %s, want %s", camera, got, want)
		}
	}
}

// TestChangeUnder: every name in a change gets the site in front, and the change that was given stays as it is.
func TestChangeUnder(t *testing.T) {
	all := func(prefix string) []branchline.Change {
		id := branchline.StreamID(prefix + "door.main")
		return []branchline.Change{
			{Opened: &branchline.Segment{Stream: id}},
			{Sealed: &branchline.Segment{Stream: id, Sealed: true}},
			{Removed: &branchline.Removal{Stream: id}},
			{Gap: &branchline.Gap{Stream: id}},
			{Camera: &branchline.Camera{ID: id.Camera(), Streams: []branchline.Stream{{ID: id}}}},
			{Recorded: &branchline.Recorded{Stream: id}},
			{Site: &branchline.SiteLink{Site: branchline.SiteID(prefix + "berlin"), Linked: true}},
			{At: branchline.Position{Epoch: 1, Seq: 2}},
		}
	}
	given, want := all(""), all("west.")
	for i, c := range given {
		if diff := cmp.Diff(want[i], c.Under("west")); diff != "" {
			t.Errorf("change %d (-want +got):\n%s", i, diff)
		}
	}
	if diff := cmp.Diff(all(""), given); diff != "" {
		t.Errorf("the given changes (-want +got):\n%s", diff)
	}
}
