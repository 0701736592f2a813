package hub_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/hub"
)

// forwarding is a hub that holds nothing, seen as the site behind it. Its change feed would tell of
// what it holds; the suite wants to hear of what the site records.
type forwarding struct {
	*hub.Node
	site branchline.Source
}

func (f forwarding) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return f.site.Changes(ctx, after)
}

// Fetch asks until the hub was told of the segment, too, of which the suite heard from the site.
func (f forwarding) Fetch(
	ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange,
) (io.ReadCloser, error) {
	for range 20 {
		body, err := f.Node.Fetch(ctx, id, bytes)
		if !errors.Is(err, branchline.ErrNotFound) {
			return body, err
		}
		<-time.After(10 * time.Millisecond)
	}
	return f.Node.Fetch(ctx, id, bytes)
}

// TestForwards runs the conformance suite on a hub between two links: what is asked of it for footage
// that it does not hold is answered as the site would answer.
func TestForwards(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		memory := sourcetest.NewMemory(time.Now().Add(-time.Minute),
			branchline.Camera{ID: "door", Name: "Door", Added: time.Now().UTC().Add(-time.Hour),
				Streams: []branchline.Stream{{ID: local}}})
		node, err := hub.Open(hub.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		atSite, atHub := link.Pipe(site, "")
		served, attached := make(chan struct{}), make(chan struct{})
		go func() { defer close(served); _ = federation.Serve(ctx, atSite, memory) }()
		go func() { defer close(attached); node.Attach(ctx, site, federation.NewRemote(atHub)) }()
		t.Cleanup(func() {
			stop()
			_ = atHub.Close(0, "")
			<-served
			<-attached
			if err := node.Close(); err != nil {
				t.Error(err)
			}
			memory.Close()
		})
		until := time.NewTicker(5 * time.Millisecond)
		defer until.Stop()
		for {
			if _, err := node.Catalog().Camera("berlin.door"); err == nil {
				break
			}
			<-until.C
		}
		return sourcetest.Fixture{Source: forwarding{node, memory}, Stream: stream, Feed: memory.Feed(local)}
	})
}
