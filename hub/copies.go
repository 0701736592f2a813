package hub

import (
	"context"
	"fmt"
	"io"

	"github.com/branchline-video/branchline"
)

// copyFor gives a site back a segment of its own that the hub holds as a whole. It wraps
// [branchline.ErrNotFound] for every other, so that no site learns what another has.
func (n *Node) copyFor(ctx context.Context, site branchline.SiteID, id branchline.SegmentID,
	bytes branchline.ByteRange) (io.ReadCloser, error) {
	seg, err := n.store.Segment(id)
	if err != nil || !seg.Sealed || seg.Stream.Site() != site {
		return nil, fmt.Errorf("give back segment %v to %s: %w", id, site, branchline.ErrNotFound)
	}
	return n.store.Fetch(ctx, id, bytes)
}
