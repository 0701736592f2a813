package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/branchline-video/branchline"
)

var _ branchline.Source = (*Node)(nil)

// Cameras implements [branchline.Source]: the cameras of all sites, linked or not.
func (n *Node) Cameras(context.Context) ([]branchline.Camera, error) { return n.catalog.Cameras() }

// Changes implements [branchline.Source]: what happens to the recordings that the hub holds.
func (n *Node) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return n.store.Changes(ctx, after)
}

// Segments implements [branchline.Source]. While the site is dark only what is held is listed.
func (n *Node) Segments(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	here, err := n.store.Segments(ctx, stream, span)
	unknown := errors.Is(err, branchline.ErrNotFound)
	if err != nil && !unknown {
		return nil, err
	}
	there, err := n.segmentsThere(ctx, stream, span)
	switch {
	case err == nil:
		return union(here, there), nil
	case errors.Is(err, branchline.ErrUnavailable) && ctx.Err() == nil:
		if unknown {
			_, err := n.catalog.Camera(stream.Camera())
			return nil, err
		}
		return here, nil
	case errors.Is(err, branchline.ErrNotFound) && !unknown:
		return here, nil
	}
	return nil, err
}

// segmentsThere lists what the stream's site has. It wraps ErrUnavailable while that is dark.
func (n *Node) segmentsThere(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	site := stream.Site()
	local, ok := stream.Within(site)
	src, _ := n.link(site)
	if src == nil || !ok {
		return nil, fmt.Errorf("site %s is not linked: %w", site, branchline.ErrUnavailable)
	}
	there, err := src.Segments(ctx, local, span)
	if err != nil {
		return nil, err
	}
	for i := range there {
		there[i].Stream = stream
	}
	n.origins.add(site, there)
	return there, nil
}

// union returns all segments of both lists once, by start: what is held as a whole as the hub has it,
// and otherwise as the site has it, which is more.
func union(here, there []branchline.Segment) []branchline.Segment {
	all := slices.Clone(there)
	at := make(map[branchline.SegmentID]int, len(there))
	for i, seg := range there {
		at[seg.ID] = i
	}
	for _, seg := range here {
		i, both := at[seg.ID]
		switch {
		case !both:
			all = append(all, seg)
		case seg.Sealed:
			all[i] = seg
		}
	}
	slices.SortStableFunc(all, func(a, b branchline.Segment) int {
		if c := a.Span.Start.Compare(b.Span.Start); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	return all[:min(len(all), branchline.MaxSegments)]
}

// Fetch implements [branchline.Source]. A range that is held comes from the hub's disk, any other from
// the segment's site: the one at which it was listed lately, or else whichever linked site has it,
// which takes asking them one by one.
func (n *Node) Fetch(
	ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange,
) (io.ReadCloser, error) {
	site, listed := n.origins.of(id)
	src, _ := n.link(site)
	if bytes.End == 0 && listed && src != nil {
		return src.Fetch(ctx, id, bytes) // what is held in part would wait here for the rest
	}
	body, err := n.store.Fetch(ctx, id, bytes)
	switch {
	case err == nil || errors.Is(err, branchline.ErrBusy):
		return body, err
	case !listed && errors.Is(err, branchline.ErrNotFound):
		return n.search(ctx, id, bytes)
	case !listed:
		return nil, err
	case src == nil:
		return nil, fmt.Errorf("fetch segment %s: site %s is not linked: %w", id, site, branchline.ErrUnavailable)
	}
	return src.Fetch(ctx, id, bytes)
}

// search fetches from the first linked site that knows the segment.
func (n *Node) search(
	ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange,
) (io.ReadCloser, error) {
	n.mu.Lock()
	links := maps.Clone(n.links)
	n.mu.Unlock()
	for _, site := range slices.Sorted(maps.Keys(links)) {
		body, err := links[site].Fetch(ctx, id, bytes)
		if errors.Is(err, branchline.ErrNotFound) {
			continue
		}
		return body, err
	}
	return nil, fmt.Errorf("fetch segment %s: %w", id, branchline.ErrNotFound)
}

// maxOrigins bounds the segments of one generation of origins: a day of a hundred streams.
const maxOrigins = 150_000

// origins remembers at which site segments are that were listed lately: at least the last maxOrigins.
type origins struct {
	mu       sync.Mutex
	now, old map[branchline.SegmentID]branchline.SiteID
}

func (o *origins) add(site branchline.SiteID, segs []branchline.Segment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.now == nil || len(o.now) >= maxOrigins {
		o.now, o.old = make(map[branchline.SegmentID]branchline.SiteID), o.now
	}
	for _, seg := range segs {
		o.now[seg.ID] = site
	}
}

func (o *origins) of(id branchline.SegmentID) (branchline.SiteID, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if site, ok := o.now[id]; ok {
		return site, true
	}
	site, ok := o.old[id]
	return site, ok
}
