package edge

import (
	"context"
	"fmt"
	"slices"

	"github.com/branchline-video/branchline"
)

var _ branchline.Control = (*Node)(nil)

// Allow says what the site lets its hub do beyond looking and fetching. The zero Allow is nothing.
type Allow struct {
	Hold bool // keep footage from retention, for a while, until it has been fetched
	Lock bool // place and take off evidence locks
}

// Hold implements [branchline.Control], as far as the site allows it. Releasing is always allowed.
func (n *Node) Hold(ctx context.Context, h branchline.Hold) error {
	if len(h.Spans) > 0 {
		if err := allowed(n.cfg.Allow.Hold, "hold"); err != nil {
			return fmt.Errorf("hold %s: %w", h.Stream, err)
		}
	}
	if err := n.controllable(ctx, h.Stream, h.Check()); err != nil {
		return fmt.Errorf("hold %s: %w", h.Stream, err)
	}
	return n.store.Hold(ctx, h)
}

// Lock implements [branchline.Control], as far as the site allows it.
func (n *Node) Lock(ctx context.Context, l branchline.Lock) error {
	if err := allowed(n.cfg.Allow.Lock, "lock"); err != nil {
		return fmt.Errorf("lock %s: %w", l.Stream, err)
	}
	if err := n.controllable(ctx, l.Stream, l.Check()); err != nil {
		return fmt.Errorf("lock %s: %w", l.Stream, err)
	}
	if err := n.store.Lock(ctx, l); err != nil {
		return err
	}
	n.cfg.Logger.Info("evidence lock placed", "lock", l.ID, "stream", l.Stream, "from", l.Span.Start,
		"to", l.Span.End, "until", l.Until, "by", l.By, "reason", l.Reason)
	return nil
}

// Unlock implements [branchline.Control], as far as the site allows it.
func (n *Node) Unlock(ctx context.Context, id string) error {
	if err := allowed(n.cfg.Allow.Lock, "lock"); err != nil {
		return fmt.Errorf("unlock %.40q: %w", id, err)
	}
	if err := n.store.Unlock(ctx, id); err != nil {
		return err
	}
	n.cfg.Logger.Info("evidence lock taken off", "lock", id)
	return nil
}

// Locks implements [branchline.Control].
func (n *Node) Locks(ctx context.Context) ([]branchline.Lock, error) { return n.store.Locks(ctx) }

// allowed returns nothing, or the site's refusal with the key by which its administrator changes that.
func allowed(yes bool, key string) error {
	if yes {
		return nil
	}
	return fmt.Errorf("the site does not allow it (allow.%s in its configuration): %w", key, branchline.ErrDenied)
}

// controllable checks what was asked and that the node has the stream, recording or from earlier days; so
// a hub can place no more holds than there are streams.
func (n *Node) controllable(ctx context.Context, stream branchline.StreamID, wrong error) error {
	if wrong != nil {
		return wrong
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	cameras, err := n.store.Cameras(ctx)
	if err != nil {
		return err
	}
	named := func(s branchline.Stream) bool { return s.ID == stream }
	if !slices.ContainsFunc(cameras, func(c branchline.Camera) bool { return slices.ContainsFunc(c.Streams, named) }) {
		return fmt.Errorf("look up stream: %w", branchline.ErrNotFound)
	}
	return nil
}
