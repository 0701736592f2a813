package segstore

import (
	"fmt"

	"github.com/branchline-video/branchline"
)

// Thin is not there yet; it wraps [branchline.ErrUnavailable].
func (s *Store) Thin(id branchline.SegmentID) error {
	return fmt.Errorf("thin segment %v: %w", id, branchline.ErrUnavailable)
}
