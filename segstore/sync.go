package segstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
)

// Sync waits until everything that was put into these segments before the call is on stable storage,
// and that it is held is, too: a crash after Sync loses none of it. It wraps [branchline.ErrNotFound]
// for a segment that was not begun, [branchline.ErrGone] for a removed one, and
// [branchline.ErrUnavailable] when the disk failed, after which the segment is given up. It may return
// before its time when ctx ends.
func (s *Store) Sync(ctx context.Context, ids ...branchline.SegmentID) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxSyncs)
	for _, id := range ids {
		group.Go(func() error {
			if err := s.syncOne(ctx, id); err != nil {
				return fmt.Errorf("sync segment: %w", err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Store) syncOne(ctx context.Context, id branchline.SegmentID) error {
	if p := s.partial(id); p != nil {
		if err := p.takeOr(ctx); err != nil {
			return fmt.Errorf("segment %v: %w", id, err)
		}
		s.syncPartial(p)
		p.mu.Lock()
		done := p.state == sealed || p.state == removed // the index knows which, and what of it
		err := p.usable()
		p.mu.Unlock()
		p.give()
		if !done {
			return err
		}
	}
	seg, err := s.lookup(id)
	if err == nil && !seg.Sealed && s.signer != nil { // at a replica it is on disk alone, and durable
		err = fmt.Errorf("segment %v is just being begun: %w", id, branchline.ErrUnavailable)
	}
	return err
}

// syncPartial syncs p and logs if that ends its life. The caller holds turn.
func (s *Store) syncPartial(p *partial) {
	if err := p.sync(); err != nil {
		s.log.Error("disk failed: the segment is given up", "segment", p.id, "stream", p.stream, "cause", err)
	}
}

// keepSynced syncs all that grows on the volume, over and over until the store closes.
func (s *Store) keepSynced(v *volume) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.syncVolume(v)
		case <-s.closing:
			return
		}
	}
}

// syncAll syncs every file that has something unsynced.
func (s *Store) syncAll() {
	for _, v := range s.volumes {
		s.syncVolume(v)
	}
}

// syncVolume syncs every file of the volume that has something unsynced, so that the file system joins
// them to few commits.
func (s *Store) syncVolume(v *volume) {
	defer v.sync()()
	s.mu.Lock()
	all := s.list()
	s.mu.Unlock()
	var group sync.WaitGroup
	slots := make(chan struct{}, maxSyncs)
	for _, p := range all {
		if !p.on(v) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			p.take()
			defer p.give()
			s.syncPartial(p)
		})
	}
	group.Wait()
}

// on reports whether the partial takes fragments on the volume.
func (p *partial) on(v *volume) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state != unborn && p.vol == v
}
