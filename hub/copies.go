package hub

import (
	"context"
	"fmt"
	"io"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
)

// copyFor gives a site back a segment of its own that the hub holds as a whole. It wraps
// [branchline.ErrNotFound] for every other, and [federation.ErrOthers] for one of another site, which is not told
// to the site: no site learns what another has.
func (n *Node) copyFor(ctx context.Context, site branchline.SiteID, id branchline.SegmentID,
	bytes branchline.ByteRange) (io.ReadCloser, error) {
	seg, err := n.store.Segment(id)
	if err == nil && seg.Stream.Site() != site {
		return nil, fmt.Errorf("give back segment %v to %s: %w", id, site, federation.ErrOthers)
	}
	if err != nil || !seg.Sealed {
		return nil, fmt.Errorf("give back segment %v to %s: %w", id, site, branchline.ErrNotFound)
	}
	return n.store.Fetch(ctx, id, bytes)
}
