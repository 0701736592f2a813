package segstore

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// changesBatch is how many changes are read from the index at a time; no view of the index stays
// open while a follower works on them.
const changesBatch = 256

// bell wakes everyone who waits, as often as it rings.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// heard returns a channel that the next ring closes.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// Changes yields what happened after a position, first the past, then the present, until ctx ends or
// an error is yielded, which is the last thing yielded. A change that a later one superseded before
// it was reached (a segment opened and since sealed, a gap that has ended) is left out, so the past is
// the newest state of everything, in the order in which it became so. It yields [branchline.ErrGone]
// for a position of another epoch or beyond the newest change, or if removals after it are no longer
// remembered, and [branchline.ErrUnavailable] once the store is closed.
func (s *Store) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return func(yield func(branchline.Change, error) bool) {
		f := follower{at: after}
		for {
			heard := s.feed.heard()
			batch, err := s.next(&f)
			if err != nil {
				yield(branchline.Change{}, fmt.Errorf("follow changes: %w", err))
				return
			}
			for _, ch := range batch {
				if ctx.Err() != nil || !yield(ch, nil) {
					return
				}
			}
			if len(batch) > 0 {
				continue
			}
			select {
			case <-heard:
			case <-ctx.Done():
				return
			case <-s.closing:
				yield(branchline.Change{}, fmt.Errorf("follow changes: store closed: %w", branchline.ErrUnavailable))
				return
			}
		}
	}
}

// follower is where a reader of the feed is.
type follower struct {
	at branchline.Position
	// base is the newest change when the reader began from zero. Up to there it reads a state that
	// is complete by itself, so only removals after it must not have been forgotten.
	base    uint64
	started bool
}

// next returns the changes after f's position, at most changesBatch, and moves f past them.
func (s *Store) next(f *follower) ([]branchline.Change, error) {
	var batch []branchline.Change
	err := s.ix.View(func(tx *index.Tx) error {
		m, err := readMeta(tx)
		if err != nil {
			return err
		}
		if !f.started {
			f.started = true
			if f.at == (branchline.Position{}) {
				f.at.Epoch, f.base = m.epoch, m.head
			}
		}
		if f.at.Epoch != m.epoch || f.at.Seq > m.head || max(f.at.Seq, f.base) < m.floor {
			return fmt.Errorf("position %v: %w", f.at, branchline.ErrGone)
		}
		for k, v := range tx.Scan([]byte("C"), keyChange(f.at.Seq+1)) {
			if f.at.Seq, err = keySequence(k); err != nil {
				return err
			}
			ch, err := readChange(tx, v)
			if err != nil {
				return err
			}
			ch.At = f.at
			if batch = append(batch, ch); len(batch) == changesBatch {
				break
			}
		}
		return nil
	})
	return batch, err
}
