package hub_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/hub"
)

const below = branchline.StreamID("region.berlin.door.main")

// patient is a source that lets a feed catch up: it asks again for a segment of which the suite heard from the
// site, until the hub was told of it.
type patient struct{ branchline.Source }

func (p patient) Fetch(ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange) (
	io.ReadCloser, error,
) {
	for range 50 {
		body, err := p.Source.Fetch(ctx, id, bytes)
		if !errors.Is(err, branchline.ErrNotFound) {
			return body, err
		}
		<-time.After(10 * time.Millisecond)
	}
	return p.Source.Fetch(ctx, id, bytes)
}

// join links a source to a hub as a site until the function that it returns is called.
func join(node *hub.Node, site branchline.SiteID, src branchline.Source) (cut func()) {
	below, above := link.Pipe(site, "")
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = federation.Serve(ctx, below, src) })
	work.Go(func() { node.Attach(ctx, site, federation.NewRemote(above)) })
	return func() {
		_ = above.Close(0, "cut")
		stop()
		work.Wait()
	}
}

// openHub opens a hub that serves one above it, without links of its own.
func openHub(t *testing.T) *hub.Node {
	t.Helper()
	node, err := hub.Open(hub.Config{Dir: t.TempDir(), Above: []hub.Above{{Name: "hq"}},
		Allow: hub.Allow{Hold: true, Lock: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// TestForwardsThroughTwo runs the conformance suite on a hub above a hub above a site: all five calls, the
// change feed too, are answered as the site would answer.
func TestForwardsThroughTwo(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		memory := sourcetest.NewMemory(time.Now().Add(-time.Minute),
			branchline.Camera{ID: "door", Name: "Door", Added: time.Now().UTC().Add(-time.Hour),
				Streams: []branchline.Stream{{ID: local}}})
		region, top := openHub(t), openHub(t)
		cutSite := join(region, site, memory)
		cutRegion := join(top, "region", region.Upward())
		t.Cleanup(func() {
			cutRegion()
			cutSite()
			memory.Close()
		})
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := top.Catalog().Camera(below.Camera()); err == nil {
				break
			}
			<-tick.C
		}
		return sourcetest.Fixture{Source: patient{top.Upward()}, Stream: below, Feed: memory.Feed(local)}
	})
}
