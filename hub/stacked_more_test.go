package hub_test

import (
	"errors"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	edgenode "github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
)

// TestRegionRemoval: what the branch deletes and the region has is still there for the hub above, and is fetched;
// when the region deletes it too it is gone.
func TestRegionRemoval(t *testing.T) {
	inStack(t, always(), nil, func(s *stack) {
		pass(50 * time.Second)
		segs, err := s.edge.Store.Segments(t.Context(), local, s.all())
		if err != nil || len(segs) < 4 {
			t.Fatalf("%d segments, %v", len(segs), err)
		}
		gone := segs[2]
		s.wait(time.Minute, "the region does not hold it", func() bool { return s.holds(gone.Span) })
		line := func() string { return s.aboveLine(gone.Span.Start, gone.Span.End) }
		before := line()
		if err := s.edge.Remove(gone.ID, branchline.CauseExpired); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if got := line(); got != before {
			t.Errorf("the branch deleted it, the region has it: %s, before %s", got, before)
		}
		if err := s.node.Store().Remove(gone.ID, branchline.CauseRemovedEarly); err != nil {
			t.Fatal(err)
		}
		s.wait(10*time.Second, "the hub above does not hear of it", func() bool {
			spans, err := s.top.Timeline(below, gone.Span)
			return err == nil && len(spans) == 1 && spans[0].State == catalog.Missing
		})
	})
	inStack(t, always(), nil, func(s *stack) {
		pass(50 * time.Second)
		segs, err := s.edge.Store.Segments(t.Context(), local, s.all())
		if err != nil || len(segs) < 4 {
			t.Fatalf("%d segments, %v", len(segs), err)
		}
		gone := segs[2]
		s.wait(time.Minute, "the region does not hold it", func() bool { return s.holds(gone.Span) })
		if err := s.edge.Remove(gone.ID, branchline.CauseExpired); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if job := s.request(gone.Span); job.State != fetch.Done {
			t.Errorf("job %+v", job)
		}
	})
}

// TestRegionRefusedLock: a site that takes no locks says so to the hub above, in its words, and the region keeps none
// for it.
func TestRegionRefusedLock(t *testing.T) {
	region, top := openHub(t), openHub(t)
	p := newPair(t, edgenode.Allow{Hold: true})
	cutSite := join(region, site, p.edge)
	defer cutSite()
	cutRegion := join(top, "region", region.Upward())
	defer cutRegion()
	p.wait("the hub above does not know the camera", func() bool { return top.Jobs().Known(below) == nil })
	now := time.Now()
	lock, err := top.Locks().Create(t.Context(), evidence.Order{
		Streams: []branchline.StreamID{below}, By: "chief", Reason: "robbery",
		Span: branchline.TimeRange{Start: now.Add(-time.Minute), End: now},
	})
	p.check(err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		<-tick.C
		if lock, err = top.Locks().Lock(lock.ID); err != nil {
			t.Fatal(err)
		}
		if state, _ := lock.Edge(); state == evidence.Refused {
			break
		}
	}
	state, cause := lock.Edge()
	if state != evidence.Refused || cause == "" {
		t.Errorf("the lock is %s: %s", state, cause)
	}
	t.Log(cause)
	p.wait("the region keeps the lock", func() bool { return len(region.Locks().Locks()) == 0 })
}

// TestRegionAllowsNothing: without its administrator's leave a region takes no holds and locks, and lets go of any.
func TestRegionAllowsNothing(t *testing.T) {
	node, err := hub.Open(hub.Config{Dir: t.TempDir(), Above: []hub.Above{{Name: "hq"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	up := node.Upward().(branchline.Control)
	now := time.Now()
	span := branchline.TimeRange{Start: now.Add(-time.Minute), End: now}
	hold := branchline.Hold{Holder: "hub hq", Stream: stream, Spans: branchline.Spans{span}, Until: now.Add(time.Hour)}
	for what, err := range map[string]error{
		"hold": up.Hold(t.Context(), hold), "unlock": up.Unlock(t.Context(), "1"),
		"lock": up.Lock(t.Context(), branchline.Lock{ID: "1", Stream: stream, Span: span}),
	} {
		if !errors.Is(err, branchline.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	hold.Spans = nil
	if err := up.Hold(t.Context(), hold); errors.Is(err, branchline.ErrDenied) {
		t.Errorf("release: %v", err)
	}
}
