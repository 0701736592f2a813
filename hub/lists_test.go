package hub_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/fetch"
)

// TestHeldIsNotAskedFor: a site is not asked to list what the hub holds sealed, and is for the rest.
func TestHeldIsNotAskedFor(t *testing.T) {
	inWorld(t, always(), func(w *world) {
		pass(3*segmentLength + 5*time.Second)
		inside := branchline.TimeRange{Start: w.edge.began.Add(time.Second), End: w.edge.began.Add(28 * time.Second)}
		w.wait(5*time.Second, "not sealed", func() bool { return w.sameFiles(inside) })
		for _, c := range []struct {
			name  string
			span  branchline.TimeRange
			asked int32
		}{
			{"sealed", inside, 0},
			{"from before", branchline.TimeRange{Start: w.all().Start, End: inside.End}, 1},
			{"to the present", branchline.TimeRange{Start: inside.Start, End: time.Now()}, 1},
		} {
			before := w.edge.lists.Load()
			segs, err := w.node.Segments(w.Context(), stream, c.span)
			if err != nil || len(segs) < 3 || w.edge.lists.Load() != before+c.asked {
				t.Errorf("%s: %d segments, asked %d times, %v", c.name, len(segs), w.edge.lists.Load()-before, err)
			}
		}
		segs, _ := w.node.Store().Segments(w.Context(), stream, inside)
		if err := w.node.Store().Remove(segs[1].ID, branchline.CauseExpired); err != nil {
			t.Fatal(err)
		}
		if segs, err := w.node.Segments(w.Context(), stream, inside); err != nil || len(segs) != 3 {
			t.Errorf("with a hole at the hub: %d segments, %v", len(segs), err)
		}
	})
}

// TestManyLists: viewers wait their turn where a site takes no more calls at once.
func TestManyLists(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(15 * time.Second)
		w.edge.pondering.Store(int64(time.Second))
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(5 * time.Second)}
		var viewers sync.WaitGroup
		for range 200 {
			viewers.Go(func() {
				if segs, err := w.node.Segments(w.Context(), stream, span); err != nil || len(segs) == 0 {
					t.Errorf("%d segments, %v", len(segs), err)
				}
			})
		}
		viewers.Wait()
	})
}

// TestRevokedSite: an order for what only a revoked site has is refused, not kept waiting.
func TestRevokedSite(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		if _, err := w.node.Authority().AddSite(site, []string{"127.0.0.1:7443"}); err != nil {
			t.Fatal(err)
		}
		pass(15 * time.Second)
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(5 * time.Second)}
		id := w.order(span).ID
		w.wait(5*time.Second, "the job does not end", func() bool { return w.job(id).State == fetch.Done })
		w.cut()
		if err := w.node.Authority().Revoke(site); err != nil {
			t.Fatal(err)
		}
		if job := w.order(span); job.State != fetch.Done {
			t.Errorf("what is held: %s", job.State)
		}
		span.End = span.End.Add(5 * time.Second)
		_, err := w.node.Jobs().Create(fetch.Order{Streams: []branchline.StreamID{stream}, Span: span})
		if !errors.Is(err, branchline.ErrDenied) || !strings.Contains(err.Error(), "site berlin is revoked") {
			t.Errorf("what is not held: %v", err)
		}
	})
}
