package segstore

import (
	"fmt"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Head returns the position of the newest change in the store's feed. It never goes back while the epoch stays.
func (s *Store) Head() (at branchline.Position, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		m, err := readMeta(tx)
		at = branchline.Position{Epoch: m.epoch, Seq: m.head}
		return err
	})
	if err != nil {
		return branchline.Position{}, fmt.Errorf("look up newest change: %w", err)
	}
	return at, nil
}
