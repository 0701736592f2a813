package evidence

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/branchline-video/branchline"
)

// causeRevoked is the cause of a part whose site will never be told.
const causeRevoked = "the site is revoked"

// Create places a lock. It is durable and holds here when Create returns, and at the site as soon as that
// is told. It wraps [branchline.ErrInvalid] for a wrong order, [branchline.ErrNotFound] for an unknown
// stream, and [branchline.ErrTooLarge] while there are [MaxLocks].
func (k *Locks) Create(ctx context.Context, o Order) (Lock, error) {
	l, err := k.create(ctx, o)
	if err != nil {
		return Lock{}, fmt.Errorf("lock as evidence: %w", err)
	}
	k.rouse(l.Site())
	k.tell(l.ID)
	return k.Lock(l.ID)
}

func (k *Locks) create(ctx context.Context, o Order) (*Lock, error) {
	now := k.opt.Clock.Now()
	if err := o.check(now); err != nil {
		return nil, err
	}
	if err := k.forget(); err != nil {
		return nil, err
	}
	l := &Lock{ID: branchline.NewSegmentID(now).String(), Order: o, Created: now}
	l.Streams = slices.Clone(o.Streams)
	for i, s := range l.Streams {
		if err := k.opt.Known(s); err != nil {
			return nil, err
		}
		l.Parts = append(l.Parts, Part{Stream: s, Number: i, Edge: Pending})
	}
	revoked, err := k.opt.Revoked(l.Site())
	if err != nil {
		return nil, err
	}
	for i := range l.Parts {
		if revoked {
			l.Parts[i].Edge, l.Parts[i].Cause = Refused, causeRevoked
		}
	}
	return l, k.enter(ctx, l)
}

// enter takes a new lock in, all of it or nothing.
func (k *Locks) enter(ctx context.Context, l *Lock) error {
	k.mu.Lock()
	if len(k.locks) >= MaxLocks {
		k.mu.Unlock()
		return fmt.Errorf("there are %d locks: %w", MaxLocks, branchline.ErrTooLarge)
	}
	k.locks[l.ID] = l
	k.mu.Unlock()
	err := k.save(l.ID)
	for i := 0; err == nil && i < len(l.Parts); i++ {
		if err = k.opt.Store.Lock(ctx, l.lock(i)); err == nil {
			k.change(l.ID, i, func(p *Part) { p.Here = true })
		}
	}
	if err != nil {
		return errors.Join(err, k.drop(context.WithoutCancel(ctx), l.ID))
	}
	return nil
}

// drop forgets a lock, after taking it off here.
func (k *Locks) drop(ctx context.Context, id string) error {
	l, err := k.Lock(id)
	if err != nil {
		return err
	}
	for i := range l.Parts {
		if err := k.opt.Store.Unlock(ctx, l.partID(i)); err != nil {
			return err
		}
	}
	k.mu.Lock()
	delete(k.locks, id)
	k.mu.Unlock()
	if err := k.save(id); err != nil {
		return err
	}
	k.opt.Changed(l)
	return nil
}

// change changes a part of a lock, if the lock is still there.
func (k *Locks) change(id string, part int, f func(*Part)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.locks[id]; l != nil {
		f(&l.Parts[part])
	}
}

// SetJob notes which retrieval brings the footage of a lock over.
func (k *Locks) SetJob(id, job string) error {
	k.mu.Lock()
	if l := k.locks[id]; l != nil {
		l.Job = job
	}
	k.mu.Unlock()
	return k.save(id)
}

// Remove takes a lock off: here at once, and at the site as soon as that is told. On one that was taken
// off already it does nothing. It wraps [branchline.ErrNotFound] if there is none with the identifier.
func (k *Locks) Remove(ctx context.Context, id string) error {
	if err := k.remove(ctx, id); err != nil {
		return fmt.Errorf("unlock evidence: %w", err)
	}
	return nil
}

func (k *Locks) remove(ctx context.Context, id string) error {
	l, err := k.Lock(id)
	if err != nil || l.Removed {
		return err
	}
	revoked, err := k.opt.Revoked(l.Site())
	if err != nil {
		return err
	}
	if gone, _ := l.Edge(); revoked || gone == Gone {
		return k.drop(ctx, id)
	}
	k.mu.Lock()
	if kept := k.locks[id]; kept != nil {
		kept.Removed = true
		for i := range kept.Parts { // whatever is known of it: a site may have it and not have said so
			if p := &kept.Parts[i]; p.Edge != Gone {
				p.Edge, p.Cause = Pending, ""
			}
		}
	}
	k.mu.Unlock()
	if err := k.save(id); err != nil {
		return err
	}
	for i := range l.Parts {
		if err := k.opt.Store.Unlock(ctx, l.partID(i)); err != nil {
			return err
		}
		k.change(id, i, func(p *Part) { p.Here = false })
	}
	k.rouse(l.Site())
	k.tell(id)
	return nil
}

// forget drops the locks that have ended long ago.
func (k *Locks) forget() error {
	now := k.opt.Clock.Now()
	for _, l := range k.Locks() {
		if l.Ended(now.Add(-KeepEnded)) {
			if err := k.drop(context.Background(), l.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
