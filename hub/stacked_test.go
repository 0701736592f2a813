package hub_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/hub/policy"
)

// stack is a world, whose hub is a region, with a hub above it.
type stack struct {
	*world

	top     *hub.Node
	stopTop func()
	cutTop  func()
}

// inStack runs a test in a world with a hub above, each hub with its own policies.
func inStack(t *testing.T, region, top []policy.Policy, test func(s *stack)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, dir: t.TempDir(), policies: region, above: []hub.Above{{Name: "hq"}},
			allow: hub.Allow{Hold: true, Lock: true}}
		w.edge = newEdge(t, t.TempDir())
		w.open()
		w.heal()
		defer w.edge.close()
		defer w.close()
		s := &stack{world: w}
		s.openTop(t.TempDir(), top)
		defer func() { s.stopTop() }()
		s.cutTop = join(s.top, "region", w.node.Upward())
		defer func() { s.cutTop() }()
		s.wait(time.Minute, "the hub above knows no camera", func() bool { return s.top.Jobs().Known(below) == nil })
		test(s)
	})
}

func (s *stack) openTop(dir string, policies []policy.Policy) {
	s.Helper()
	node, err := hub.Open(hub.Config{Dir: dir, Policies: policies})
	if err != nil {
		s.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	s.top, s.stopTop = node, func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			s.Errorf("hub above ended with %v", err)
		}
		if err := node.Close(); err != nil {
			s.Error(err)
		}
	}
}

// above returns the states that the hub above shows, with seconds since the edge began.
func (s *stack) aboveLine(from, to time.Time) string {
	s.Helper()
	spans, err := s.top.Timeline(below, branchline.TimeRange{Start: from, End: to})
	if err != nil {
		s.Fatal(err)
	}
	var words []string
	for _, p := range spans {
		words = append(words, fmt.Sprintf("%.0f-%.0f %s%s%s", p.Start.Sub(s.edge.began).Seconds(),
			p.End.Sub(s.edge.began).Seconds(), p.State, p.Reason, p.Cause))
	}
	return strings.Join(words, ", ")
}

// topHolds reports whether the hub above holds every file that the edge has sealed in the span, byte for byte.
func (s *stack) topHolds(span branchline.TimeRange) bool {
	want := s.files(s.edge, local, span)
	got := map[string]string{}
	if _, err := s.top.Store().Segments(s.Context(), below, span); err == nil {
		got = s.files(store{s.top.Store()}, below, span)
	}
	return len(want) > 0 && maps.Equal(want, got)
}

func (s *stack) request(span branchline.TimeRange) fetch.Job {
	s.Helper()
	job, err := s.top.Jobs().Create(fetch.Order{Streams: []branchline.StreamID{below}, Span: span, By: "test"})
	if err != nil {
		s.Fatal(err)
	}
	s.wait(time.Minute, "the request at the hub above has not ended", func() bool {
		job, err = s.top.Jobs().Job(job.ID)
		return err == nil && job.State.Final()
	})
	return job
}

// TestRegionLiveOnce: whoever watches and records, at the region and above it, the edge serves each stream once.
func TestRegionLiveOnce(t *testing.T) {
	inStack(t, always(), []policy.Policy{{Streams: "region.berlin.*", Kind: policy.Always}}, func(s *stack) {
		ctx, stop := context.WithCancel(s.Context())
		var viewers sync.WaitGroup
		var mu sync.Mutex
		frames := map[string]int{}
		for i := range 6 {
			node, id, name := s.top, below, fmt.Sprintf("top %d", i)
			if i%2 == 0 {
				node, id, name = s.node, stream, fmt.Sprintf("region %d", i)
			}
			viewers.Go(func() {
				for item := range node.Live(ctx, id) {
					if item.Frame != nil {
						mu.Lock()
						frames[name]++
						mu.Unlock()
					}
				}
			})
		}
		pass(60 * time.Second)
		if n := s.edge.lives.Load(); n != 1 {
			t.Errorf("the edge serves %d live streams, expected one for all", n)
		}
		stop()
		viewers.Wait()
		for name, n := range frames {
			if n < 500 {
				t.Errorf("viewer %s had %d frames in a minute of ten each second", name, n)
			}
		}
		if len(frames) != 6 {
			t.Errorf("viewers with frames: %v", frames)
		}
		span := branchline.TimeRange{Start: s.edge.began.Add(2 * time.Second), End: time.Now().Add(-15 * time.Second)}
		s.wait(30*time.Second, "the hub above does not hold the same files", func() bool { return s.topHolds(span) })
	})
}

// TestRegionRequest: footage that only the edge has comes through the region, which then need not hold it, and
// what the region has comes from there.
func TestRegionRequest(t *testing.T) {
	inStack(t, nil, nil, func(s *stack) {
		pass(45 * time.Second)
		span := branchline.TimeRange{Start: s.edge.began.Add(time.Second), End: s.edge.began.Add(35 * time.Second)}
		if job := s.request(span); job.State != fetch.Done {
			t.Fatalf("job: %+v", job)
		}
		if !s.topHolds(branchline.TimeRange{Start: span.Start.Add(10 * time.Second), End: span.End.Add(-10 * time.Second)}) {
			t.Errorf("not the files of the edge: %s", s.aboveLine(span.Start, span.End))
		}
		if got := len(s.fragments(s.node.Store(), stream, span)); got != 0 {
			t.Errorf("the region holds %d fragments", got)
		}
	})
	inStack(t, always(), nil, func(s *stack) {
		pass(45 * time.Second)
		span := branchline.TimeRange{Start: s.edge.began.Add(2 * time.Second), End: s.edge.began.Add(32 * time.Second)}
		s.wait(time.Minute, "the region does not hold it", func() bool { return s.holds(span) })
		before := s.edge.fetched.Load()
		s.cut()
		if job := s.request(span); job.State != fetch.Done {
			t.Fatalf("job while the edge is dark: %+v", job)
		}
		if s.edge.fetched.Load() != before {
			t.Error("the edge was asked")
		}
	})
}

// TestRegionDark: a request at the top for what a dark edge alone has waits, and its time line says which link
// is down; when the edge is back the request ends.
func TestRegionDark(t *testing.T) {
	inStack(t, nil, nil, func(s *stack) {
		pass(40 * time.Second)
		s.cut()
		pass(20 * time.Second)
		span := branchline.TimeRange{Start: s.edge.began.Add(12 * time.Second), End: s.edge.began.Add(28 * time.Second)}
		job, err := s.top.Jobs().Create(fetch.Order{Streams: []branchline.StreamID{below}, Span: span, By: "test"})
		if err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if job, _ = s.top.Jobs().Job(job.ID); job.State.Final() {
			t.Fatalf("job while the edge is dark: %+v", job)
		}
		site, err := s.top.Catalog().Site("region.berlin")
		if err != nil || site.Linked || site.Cameras != 1 || s.since(site.Since) != "40" {
			t.Errorf("the site behind the region: %+v, %v", site, err)
		}
		if at, err := s.top.Peer("region.berlin"); err != nil || at.State != members.LinkDown || at.By != "region" {
			t.Errorf("the site behind the region stands as %+v, %v", at, err)
		}
		if region, err := s.top.Catalog().Site("region"); err != nil || !region.Linked {
			t.Errorf("the region: %+v, %v", region, err)
		}
		if got := s.aboveLine(s.edge.began.Add(41*time.Second), time.Now()); got != "41-70 gaplink down" {
			t.Errorf("time line %s", got)
		}
		s.heal()
		s.wait(time.Minute, "the request does not end", func() bool {
			job, _ = s.top.Jobs().Job(job.ID)
			return job.State == fetch.Done
		})
		if site, err = s.top.Catalog().Site("region.berlin"); err != nil || !site.Linked {
			t.Errorf("the site behind the region: %+v, %v", site, err)
		}
		outages, err := s.top.Catalog().Outages("region.berlin", s.all())
		if err != nil || len(outages) != 1 || s.since(outages[0].Span.Start) != "40" {
			t.Errorf("outages %v, %v", outages, err)
		}
		// And the region's own link.
		s.cutTop()
		pass(10 * time.Second)
		if site, err = s.top.Catalog().Site("region.berlin"); err != nil || site.Linked {
			t.Errorf("behind a dark region: %+v, %v", site, err)
		}
		if at, err := s.top.Peer("region.berlin"); err != nil || at.State != members.LinkDown ||
			!strings.HasPrefix(at.Reason, "region, by which") {
			t.Errorf("behind a dark region it stands as %+v, %v", at, err)
		}
		s.cutTop = join(s.top, "region", s.node.Upward())
		pass(5 * time.Second)
		if site, err = s.top.Catalog().Site("region.berlin"); err != nil || !site.Linked {
			t.Errorf("behind the region that is back: %+v, %v", site, err)
		}
		if at, err := s.top.Peer("region.berlin"); err != nil || at.State != members.Online {
			t.Errorf("behind the region that is back it stands as %+v, %v", at, err)
		}
	})
}

// TestRegionBackfill: at the top a policy of backfill brings what was recorded while either link was down.
func TestRegionBackfill(t *testing.T) {
	inStack(t, nil, []policy.Policy{{Streams: "region.*", Kind: policy.Backfill}}, func(s *stack) {
		pass(30 * time.Second)
		s.cut()
		pass(time.Minute)
		s.heal()
		pass(time.Minute)
		s.cutTop()
		pass(time.Minute)
		s.cutTop = join(s.top, "region", s.node.Upward())
		for _, from := range []time.Duration{30, 150} {
			start := s.edge.began.Add(from * time.Second)
			span := branchline.TimeRange{Start: start.Add(time.Second), End: start.Add(59 * time.Second)}
			s.wait(2*time.Minute, "an outage is not backfilled", func() bool { return s.topHolds(span) })
		}
	})
}

// TestRegionRestart: a region that starts anew, or a hub above that does, goes on where the feed was; one that
// has never followed gets the sum.
func TestRegionRestart(t *testing.T) {
	inStack(t, nil, nil, func(s *stack) {
		pass(30 * time.Second)
		s.cutTop()
		s.stopAndOpen(nil)
		pass(30 * time.Second)
		line := func() string { return s.aboveLine(s.edge.began.Add(time.Second), s.edge.began.Add(55*time.Second)) }
		s.cutTop = join(s.top, "region", s.node.Upward())
		s.wait(10*time.Second, "what happened meanwhile is not told", func() bool { return line() == "1-55 edge" })
		s.cutTop()
		s.stopTop()
		s.openTop(t.TempDir(), nil)
		s.cutTop = join(s.top, "region", s.node.Upward())
		s.wait(10*time.Second, "a new hub above does not know it", func() bool { return line() == "1-55 edge" })
	})
}

// TestRegionHolds: what the hub above wants the region makes the edge spare, and what it wants no more, not.
func TestRegionHolds(t *testing.T) {
	inStack(t, nil, backfillOf("region.*"), func(s *stack) {
		s.wait(30*time.Second, "the edge was asked to hold nothing", func() bool { return len(s.edge.holds()) > 0 })
		h, now := s.lastHold(), time.Now()
		if !h.Spans.Covers(branchline.TimeRange{Start: now, End: now.Add(policy.LeaseLife - time.Hour)}) {
			t.Errorf("held %v until %v", h.Spans, h.Until)
		}
	})
}

func backfillOf(streams string) []policy.Policy {
	return []policy.Policy{{Streams: streams, Kind: policy.Backfill}}
}

// TestRegionLocks: an evidence lock at the top is one at the region and at the edge, until it is taken off.
func TestRegionLocks(t *testing.T) {
	inStack(t, nil, nil, func(s *stack) {
		pass(20 * time.Second)
		span := branchline.TimeRange{Start: s.edge.began.Add(2 * time.Second), End: s.edge.began.Add(12 * time.Second)}
		lock, err := s.top.Locks().Create(s.Context(), evidence.Order{
			Streams: []branchline.StreamID{below}, Span: span, By: "chief", Reason: "robbery"})
		if err != nil {
			t.Fatal(err)
		}
		state := func() evidence.State {
			l, err := s.top.Locks().Lock(lock.ID)
			if err != nil {
				return evidence.Gone
			}
			at, _ := l.Edge()
			return at
		}
		s.wait(20*time.Second, "not placed", func() bool { return state() == evidence.Placed })
		there, err := s.edge.Locks(s.Context())
		if err != nil || len(there) != 1 || there[0].Stream != local || there[0].Reason != "robbery" {
			t.Errorf("the edge has %+v, %v", there, err)
		}
		if here := s.node.Locks().Locks(); len(here) != 1 || here[0].By != "chief" {
			t.Errorf("the region has %+v", here)
		}
		if err := s.top.Locks().Remove(s.Context(), lock.ID); err != nil {
			t.Fatal(err)
		}
		s.wait(20*time.Second, "not taken off", func() bool {
			there, err := s.edge.Locks(s.Context())
			return err == nil && len(there) == 0 && len(s.node.Locks().Locks()) == 0 && state() == evidence.Gone
		})
	})
}
