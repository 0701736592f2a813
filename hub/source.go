package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

var _ branchline.Source = (*Node)(nil)

// Cameras implements [branchline.Source]: the cameras of all sites, linked or not.
func (n *Node) Cameras(context.Context) ([]branchline.Camera, error) { return n.catalog.Cameras() }

// Changes implements [branchline.Source]: what happens to the recordings that the hub holds.
func (n *Node) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return n.store.Changes(ctx, after)
}

// Segments implements [branchline.Source]. While the site is dark only what is held is listed, and if
// everything is held the site is not asked.
func (n *Node) Segments(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	here, err := n.store.Segments(ctx, stream, span)
	unknown := errors.Is(err, branchline.ErrNotFound)
	if err != nil && !unknown {
		return nil, err
	}
	if whole(here, span) {
		return here, nil
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

// whole reports whether a list is sealed segments of one run, one after the other, from the beginning of
// the span to its end or that of a page: there is nothing between them.
func whole(list []branchline.Segment, span branchline.TimeRange) bool {
	for i, seg := range list {
		if !seg.Sealed || i > 0 && (seg.Run != list[i-1].Run || seg.Number != list[i-1].Number+1) {
			return false
		}
	}
	n := len(list)
	return n > 0 && !list[0].Span.Start.After(span.Start) &&
		(n == branchline.MaxSegments || !list[n-1].Span.End.Before(span.End))
}

// listsAtOnce bounds the lists that viewers ask of one site at the same time; the others wait. It leaves
// half of the calls that a site takes to the hub's own work.
const listsAtOnce = 32

// patient is a linked site that is never asked for more than it takes.
type patient struct {
	branchline.Source
	asking chan struct{} // holds a token for each list
}

func (p *patient) Segments(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	select {
	case p.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.asking }()
	return p.Source.Segments(ctx, stream, span)
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
	own := there[:0]
	for _, seg := range there {
		if seg.Stream = stream; n.origins.add(seg) {
			own = append(own, seg)
		}
	}
	if strange := len(there) - len(own); strange > 0 {
		n.log.Warn("a site lists segments of another", "site", site, "stream", stream, "segments", strange)
	}
	return own, nil
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

// Fetch implements [branchline.Source], for segments that are held, or that this node lately listed or
// told of; it asks no other site than the stream's own. What is held comes from the hub's disk and only
// the rest from there.
func (n *Node) Fetch(
	ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange,
) (io.ReadCloser, error) {
	seg, listed := n.origins.of(id)
	if !listed {
		return n.store.Fetch(ctx, id, bytes)
	}
	if bytes.End == 0 && seg.Sealed {
		bytes.End = seg.Size
	}
	src, _ := n.link(seg.Stream.Site())
	ctx = playback(ctx, seg.Stream)
	if bytes.End != 0 || src == nil {
		body, err := n.store.Fetch(ctx, id, bytes)
		switch {
		case err == nil || errors.Is(err, branchline.ErrBusy):
			return body, err
		case src == nil:
			return nil, fmt.Errorf("fetch segment %s: site %s is not linked: %w", id, seg.Stream.Site(),
				branchline.ErrUnavailable)
		case errors.Is(err, branchline.ErrNotFound) || errors.Is(err, branchline.ErrGone):
			return src.Fetch(ctx, id, bytes) // nothing of it is here
		}
	}
	here, err := n.store.Segments(ctx, seg.Stream, seg.Span)
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		return nil, err
	}
	i := slices.IndexFunc(here, func(s branchline.Segment) bool { return s.ID == id })
	switch {
	case i < 0:
		return src.Fetch(ctx, id, bytes)
	case here[i].Sealed:
		return n.store.Fetch(ctx, id, bytes)
	}
	return splice(ctx, n.store, src, id, pieces(here[i], bytes))
}

// maxOrigins bounds the segments of one generation of origins: a day of a hundred streams.
const maxOrigins = 150_000

// origins remembers the segments that were listed or told of lately, at least the last maxOrigins, and
// so at which site they are.
type origins struct {
	mu       sync.Mutex
	now, old map[branchline.SegmentID]branchline.Segment
}

// add takes in a segment under the hub's name of its stream. It refuses one that is known as of another
// stream: identifiers are random, so whoever comes second has it from the first.
func (o *origins) add(seg branchline.Segment) bool {
	seg.Fragments = nil
	if !seg.Sealed { // it may grow to any length
		seg.Span.End = seg.Span.Start.Add(segstore.MaxSpan)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.now[seg.ID]
	if !ok {
		known, ok = o.old[seg.ID]
	}
	if ok && known.Stream != seg.Stream {
		return false
	}
	if o.now == nil || len(o.now) >= maxOrigins {
		o.now, o.old = make(map[branchline.SegmentID]branchline.Segment), o.now
	}
	o.now[seg.ID] = seg
	return true
}

func (o *origins) of(id branchline.SegmentID) (branchline.Segment, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if seg, ok := o.now[id]; ok {
		return seg, true
	}
	seg, ok := o.old[id]
	return seg, ok
}
