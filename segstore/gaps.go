package segstore

import (
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Gaps returns the stream's gaps that are open or end after a time, ordered by start.
func (s *Store) Gaps(stream branchline.StreamID, after time.Time) ([]branchline.Gap, error) {
	var all []branchline.Gap
	err := s.ix.View(func(tx *index.Tx) error {
		for _, v := range tx.Scan(keyLine('G', stream), nil) {
			var g branchline.Gap
			var seq uint64
			if err := decode("gap", v, sequenced(&seq, func(c *codec) { c.gap(&g) })); err != nil {
				return err
			}
			if g.Open || g.Span.End.After(after) {
				all = append(all, g)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list gaps of %s: %w", stream, err)
	}
	return all, nil
}
