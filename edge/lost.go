package edge

import (
	"context"
	"io"

	"github.com/branchline-video/branchline"
)

// Lost lists the segments that the node's disk has damaged and that have not come back.
func (n *Node) Lost() ([]branchline.SegmentID, error) {
	lost, err := n.store.Lost()
	if err != nil {
		return nil, err
	}
	ids := make([]branchline.SegmentID, len(lost))
	for i, r := range lost {
		ids[i] = r.ID
	}
	return ids, nil
}

// Restore takes back a lost segment, of which body is the file. Only what this node has signed is taken.
func (n *Node) Restore(ctx context.Context, id branchline.SegmentID, body io.Reader) error {
	return n.store.Restore(ctx, id, body)
}
