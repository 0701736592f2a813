package catalog_test

import (
	"fmt"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
)

// TestCutWhileReadingAnew: what was known stays until the new feed's past has been read, and nothing
// of it after.
func TestCutWhileReadingAnew(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	f.follow(&feed{changes: changes("camera; seal a 0-60; gap 60-70 disk failed; open b 70")})
	before := f.dump()
	anew := &feed{changes: changes("camera; seal c 80-85; seal d 85-90"), epoch: 8}
	part := *anew
	part.changes = part.changes[:2]
	for range 2 {
		f.follow(&part) // is cut before it is quiet
		if got := f.dump(); got != before {
			t.Errorf("cut: %s, before: %s", got, before)
		}
		if _, err := f.catalog.Camera("berlin.door"); err != nil {
			t.Error(err)
		}
		f.crash()
		f.check(f.catalog.LinkUp(site, at(0)))
		before = f.dump()
	}
	f.notices = nil
	anew.patient = true
	f.follow(anew)
	if got := f.dump(); got != "80-90" {
		t.Errorf("read: %s", got)
	}
	if last := anew.after[0]; last.Epoch != 8 || last.Seq != 2 {
		t.Errorf("the second link read on from %v", last)
	}
	cameras, err := f.catalog.Cameras()
	if err != nil || len(cameras) != 1 || len(f.notices) < 2 {
		t.Errorf("%d cameras, %v, told %v", len(cameras), err, f.notices)
	}
}

// TestAnotherEpochOnceMore: the two generations take turns.
func TestAnotherEpochOnceMore(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	for n := range 4 {
		from := float64(10 * n)
		text := fmt.Sprintf("camera; seal a %g-%g", from, from+5)
		f.follow(&feed{changes: changes(text), epoch: uint64(7 + n), patient: n > 0})
		if got, want := f.dump(), fmt.Sprintf("%g-%g", from, from+5); got != want {
			t.Errorf("epoch %d: %s, expected %s", n, got, want)
		}
	}
}

// TestLimits: a site has so many cameras, their streams are their own, and there are no others.
func TestLimits(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	src := &feed{}
	add := func(c branchline.Change) {
		c.At.Seq = uint64(len(src.changes) + 1)
		src.changes = append(src.changes, c)
	}
	camera := func(id branchline.CameraID, streams ...branchline.StreamID) {
		cam := branchline.Camera{ID: id}
		for _, s := range streams {
			cam.Streams = append(cam.Streams, branchline.Stream{ID: s})
		}
		add(branchline.Change{Camera: &cam})
	}
	camera("greedy", "door.main")
	many := make([]branchline.StreamID, catalog.MaxStreams+1)
	for i := range many {
		many[i] = branchline.StreamID(fmt.Sprintf("many.s%d", i))
	}
	camera("many", many...)
	add(branchline.Change{Sealed: &branchline.Segment{Stream: "nobody.main", Span: span(0, 10), Sealed: true}})
	add(branchline.Change{Opened: &branchline.Segment{Stream: "nobody.main", Span: span(10, 10)}})
	add(branchline.Change{Gap: &branchline.Gap{Stream: "nobody.main", Span: span(20, 30)}})
	for i := range catalog.MaxCameras + 5 {
		id := branchline.CameraID(fmt.Sprintf("c%d", i))
		camera(id, branchline.StreamID(id)+".main")
	}
	camera("c7", "c7.main", "c7.sub") // known ones may change
	f.follow(src)
	cameras, err := f.catalog.Cameras()
	f.check(err)
	if len(cameras) != catalog.MaxCameras {
		t.Errorf("%d cameras", len(cameras))
	}
	for _, cam := range cameras {
		if cam.ID == "berlin.greedy" || cam.ID == "berlin.many" || cam.ID == "berlin.c7" && len(cam.Streams) != 2 {
			t.Errorf("camera %s with %d streams", cam.ID, len(cam.Streams))
		}
	}
	facts, err := f.catalog.Facts("berlin.nobody.main", span(-1000, 1000))
	if err != nil || len(facts.Available)+len(facts.Gaps) > 0 {
		t.Errorf("of a stream that no camera has: %+v, %v", facts, err)
	}
	for _, n := range f.notices {
		if n.Camera == "berlin.nobody" {
			t.Errorf("told of %+v", n)
		}
	}
}

// TestCameraToldLate: the feed tells of a camera where it changed last, which may be after its
// recordings.
func TestCameraToldLate(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	src := &feed{changes: changes("seal a 0-60; camera; seal b 60-70")}
	src.cameras = []branchline.Camera{*src.changes[1].Camera}
	f.follow(src)
	if got := f.dump(); got != "0-70" {
		t.Error(got)
	}
}
