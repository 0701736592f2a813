package segstore

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// PENDING: this file keeps holds and locks in the index, and nothing spares what they cover. It stands in
// for the store's own, which is made elsewhere at the same time, and goes when that is merged.

const (
	pendingHold = "pending/hold/" // holder 0 stream: branchline.Hold
	pendingLock = "pending/lock/" // identifier: branchline.Lock
)

// Hold is [branchline.Control.Hold].
func (s *Store) Hold(_ context.Context, h branchline.Hold) error {
	return s.pend(pendingHold+h.Holder+"\x00"+string(h.Stream), h)
}

// Lock is [branchline.Control.Lock].
func (s *Store) Lock(ctx context.Context, l branchline.Lock) error {
	locks, err := s.Locks(ctx)
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(locks, func(o branchline.Lock) bool { return o.ID == l.ID })
	if !known && len(locks) >= branchline.MaxLocks {
		return fmt.Errorf("there are %d locks: %w", len(locks), branchline.ErrTooLarge)
	}
	return s.pend(pendingLock+l.ID, l)
}

func (s *Store) pend(key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.ix.Update(func(tx *index.Tx) error { return tx.Set([]byte(key), value) })
}

// Unlock is [branchline.Control.Unlock].
func (s *Store) Unlock(_ context.Context, id string) error {
	return s.ix.Update(func(tx *index.Tx) error { return tx.Delete([]byte(pendingLock + id)) })
}

// Locks is [branchline.Control.Locks].
func (s *Store) Locks(context.Context) ([]branchline.Lock, error) {
	var locks []branchline.Lock
	err := s.ix.View(func(tx *index.Tx) error {
		for _, value := range tx.Scan([]byte(pendingLock), nil) {
			var l branchline.Lock
			if err := json.Unmarshal(value, &l); err != nil {
				return err
			}
			locks = append(locks, l)
		}
		return nil
	})
	slices.SortFunc(locks, func(a, b branchline.Lock) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return locks, err
}
