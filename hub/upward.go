package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/hub/evidence"
)

var (
	_ branchline.Source  = upward{}
	_ branchline.Control = upward{}
)

// upward is the hub as those above see it: all that its sites have, wherever it is.
type upward struct{ n *Node }

// Upward returns the source that this hub serves to those above it, which is a [branchline.Control] too. It
// differs from the hub as its own source in what its feed tells, and in that a list is never short because a
// site is dark. Its feed is empty unless the configuration has hubs above.
func (n *Node) Upward() branchline.Source { return upward{n} }

// Cameras implements [branchline.Source].
func (u upward) Cameras(ctx context.Context) ([]branchline.Camera, error) { return u.n.Cameras(ctx) }

// Changes implements [branchline.Source]: what all sites have, and what this hub holds of what they no longer
// have.
func (u upward) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	if u.n.onward == nil {
		return func(yield func(branchline.Change, error) bool) {
			yield(branchline.Change{}, fmt.Errorf("this hub has no feed for others: %w", branchline.ErrDenied))
		}
	}
	return u.n.onward.Changes(ctx, after)
}

// Segments implements [branchline.Source]. While the site is dark it wraps [branchline.ErrUnavailable] if
// that has something in the range that is not held here.
func (u upward) Segments(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	if src, _ := u.n.link(stream.Site()); src == nil {
		there, err := u.n.catalog.Available(stream, span)
		if err != nil {
			return nil, err
		}
		held, err := u.n.store.Held(stream, span)
		if err != nil && !errors.Is(err, branchline.ErrNotFound) {
			return nil, err
		}
		if len(there.Minus(branchline.NewSpans(held...))) > 0 {
			return nil, fmt.Errorf("not all of it is held here, and site %s is not linked: %w", stream.Site(),
				branchline.ErrUnavailable)
		}
	}
	return u.n.Segments(ctx, stream, span)
}

// Fetch implements [branchline.Source].
func (u upward) Fetch(ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange) (
	io.ReadCloser, error,
) {
	return u.n.Fetch(ctx, id, bytes)
}

// Live implements [branchline.Source].
func (u upward) Live(ctx context.Context, stream branchline.StreamID) iter.Seq2[branchline.Item, error] {
	if federation.Recording(ctx) {
		return u.n.recorded(ctx, stream)
	}
	return u.n.Live(ctx, stream)
}

// View makes the stream one that is watched here, until release, as somebody above watches what is read with Live
// for recording. If the site refuses that it stays as urgent as a recording.
func (u upward) View(stream branchline.StreamID) (release func(), err error) {
	key := feedKey{stream: stream}
	_, cancel := context.WithCancelCause(u.n.life)
	f, err := u.n.join(key, &cancel)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return func() {
		u.n.leave(key, f, &cancel)
		cancel(nil)
	}, nil
}

// Hold implements [branchline.Control]: it is kept here, spares what this hub holds, and is part of the hold
// that this hub has at the site, as far as that allows it.
func (u upward) Hold(ctx context.Context, h branchline.Hold) error {
	if len(h.Spans) > 0 { // releasing is always allowed
		if err := allowed(u.n.cfg.Allow.Hold, "hold"); err != nil {
			return err
		}
	}
	if err := h.Check(); err != nil {
		return err
	}
	if err := u.n.fetcher.Known(h.Stream); err != nil {
		return err
	}
	return u.n.store.Hold(ctx, h)
}

const (
	// lockAnswer is how long a lock waits for the site behind this hub; what takes longer is told later.
	lockAnswer = 5 * time.Second
	lockLook   = 50 * time.Millisecond
)

// Lock implements [branchline.Control]: it is an evidence lock of this hub, which its site is told of as of any
// other. What a linked site refuses is not locked.
func (u upward) Lock(ctx context.Context, l branchline.Lock) error {
	if err := allowed(u.n.cfg.Allow.Lock, "lock"); err != nil {
		return err
	}
	if err := l.Check(); err != nil {
		return err
	}
	if err := u.Unlock(ctx, l.ID); err != nil {
		return err
	}
	made, err := u.n.locks.Create(ctx, evidence.Order{
		Streams: []branchline.StreamID{l.Stream}, Span: l.Span, Until: l.Until, By: l.By, Reason: l.Reason, For: l.ID,
	})
	if err != nil {
		return err
	}
	state, cause := u.answer(ctx, made.ID)
	if state != evidence.Refused {
		return nil
	}
	err = fmt.Errorf("the site of %s refuses: %s: %w", l.Stream, cause, branchline.ErrDenied)
	return errors.Join(err, u.n.locks.Remove(ctx, made.ID))
}

// answer waits a while for what the site makes of a lock.
func (u upward) answer(ctx context.Context, id string) (evidence.State, string) {
	ctx, cancel := context.WithTimeout(ctx, lockAnswer)
	defer cancel()
	tick := time.NewTicker(lockLook)
	defer tick.Stop()
	for {
		l, err := u.n.locks.Lock(id)
		if err != nil {
			return evidence.Gone, ""
		}
		src, _ := u.n.link(l.Site())
		if state, cause := l.Edge(); state != evidence.Pending || src == nil {
			return state, cause
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return evidence.Pending, ""
		}
	}
}

// Unlock implements [branchline.Control].
func (u upward) Unlock(ctx context.Context, id string) error {
	if err := allowed(u.n.cfg.Allow.Lock, "lock"); err != nil {
		return err
	}
	for _, l := range u.n.locks.Locks() {
		if l.For == id && !l.Removed {
			if err := u.n.locks.Remove(ctx, l.ID); err != nil && !errors.Is(err, branchline.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// Locks implements [branchline.Control]: the locks that came from above.
func (u upward) Locks(context.Context) ([]branchline.Lock, error) {
	var all []branchline.Lock
	now := u.n.cfg.Clock.Now()
	list := u.n.locks.Locks()
	for i := len(list) - 1; i >= 0; i-- { // the oldest first
		if l := list[i]; l.For != "" && !l.Removed && !l.Ended(now) {
			all = append(all, branchline.Lock{
				ID: l.For, Stream: l.Streams[0], Span: l.Span, Until: l.Until, By: l.By, Reason: l.Reason,
				Created: l.Created,
			})
		}
	}
	return all, nil
}
