package federation

import (
	"context"
	"fmt"
	"strings"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

var _ branchline.Control = (*Remote)(nil)

// Hold is [branchline.Control.Hold]. The holder is whom this node's certificate names to the peer,
// whatever h says.
func (r *Remote) Hold(ctx context.Context, h branchline.Hold) error {
	if err := r.command(ctx, &wire.Request{Call: &wire.Request_Hold{Hold: encodeHold(h)}}); err != nil {
		return fmt.Errorf("hold %s: %w", h.Stream, err)
	}
	return nil
}

// Lock is [branchline.Control.Lock].
func (r *Remote) Lock(ctx context.Context, l branchline.Lock) error {
	req := &wire.Request{Call: &wire.Request_Lock{Lock: &wire.LockRequest{Lock: encodeLock(l)}}}
	if err := r.command(ctx, req); err != nil {
		return fmt.Errorf("lock %s: %w", l.Stream, err)
	}
	return nil
}

// Unlock is [branchline.Control.Unlock].
func (r *Remote) Unlock(ctx context.Context, id string) error {
	req := &wire.Request{Call: &wire.Request_Unlock{Unlock: &wire.UnlockRequest{Id: id}}}
	if err := r.command(ctx, req); err != nil {
		return fmt.Errorf("unlock %.40q: %w", id, err)
	}
	return nil
}

// Locks is [branchline.Control.Locks].
func (r *Remote) Locks(ctx context.Context) ([]branchline.Lock, error) {
	req := &wire.Request{Call: &wire.Request_Locks{Locks: &wire.LocksRequest{}}}
	list, err := collect(ctx, r.conn, req, branchline.MaxLocks, func(a *wire.Answer) (branchline.Lock, error) {
		return decodeLock(a.GetLock())
	})
	if err != nil {
		return nil, fmt.Errorf("list locks: %w", err)
	}
	return list, nil
}

// command asks for something to be done. An answer says that it is.
func (r *Remote) command(ctx context.Context, req *wire.Request) error {
	if err := ctx.Err(); err != nil {
		return err // over a fast link it might still be done
	}
	c, err := ask(ctx, r.conn, link.KindControl, req)
	if err != nil {
		return err
	}
	defer c.close()
	a, err := c.one()
	if err == nil && a.GetDone() == nil {
		err = invalid("answer to a command")
	}
	return err
}

// control answers what only a hub may ask, on a control stream.
func (s *server) control(a *answer, req *wire.Request) error {
	holder, err := holderOf(s.conn.Peer())
	if err != nil {
		return err
	}
	if s.name != "" {
		holder = namedHub + s.name
	}
	node, ok := s.src.(branchline.Control)
	if !ok {
		return fmt.Errorf("this node takes no holds and locks: %w", branchline.ErrDenied)
	}
	switch call := req.GetCall().(type) {
	case *wire.Request_Hold:
		h, err := decodeHold(call.Hold, holder)
		if err == nil {
			err = node.Hold(a.ctx, h)
		}
		return a.done(err)
	case *wire.Request_Lock:
		l, err := decodeLock(call.Lock.GetLock())
		if err == nil {
			l.ID = lockScope(holder) + l.ID
			err = node.Lock(a.ctx, l)
		}
		return a.done(err)
	case *wire.Request_Unlock:
		return a.done(node.Unlock(a.ctx, lockScope(holder)+call.Unlock.GetId()))
	}
	list, err := node.Locks(a.ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		var own bool
		if l.ID, own = strings.CutPrefix(l.ID, lockScope(holder)); !own {
			continue
		}
		if err := a.send(&wire.Answer{Body: &wire.Answer_Lock{Lock: encodeLock(l)}}); err != nil {
			return err
		}
	}
	return nil
}

// isControl reports whether a request is one for control.
func isControl(req *wire.Request) bool {
	switch req.GetCall().(type) {
	case *wire.Request_Hold, *wire.Request_Lock, *wire.Request_Unlock, *wire.Request_Locks:
		return true
	}
	return false
}

func (a *answer) done(err error) error {
	if err != nil {
		return err
	}
	return a.send(&wire.Answer{Body: &wire.Answer_Done{Done: &wire.DoneAnswer{}}})
}

// memoryHub is the hub at the other end of a connection in memory, which has no certificates.
const memoryHub = "hub"

// namedHub begins what a hub is known by if this node has a name for it: no certificate counts that has such a
// name, so whatever another hub calls itself it is not taken for this one.
const namedHub = "hub "

// holderOf returns the hub that the peer's certificate names. Whoever is no hub may not control.
func holderOf(p link.Peer) (string, error) {
	if p.Site != "" {
		return "", fmt.Errorf("site %s is no hub: %w", p.Site, branchline.ErrDenied)
	}
	if p.Leaf == nil && p.Protocol == "" {
		return memoryHub, nil
	}
	name, err := identity.HubOf(p.Leaf)
	if err != nil {
		return "", fmt.Errorf("%w: %w", branchline.ErrDenied, err)
	}
	if strings.HasPrefix(name, namedHub) {
		return "", fmt.Errorf("hub %.80q has a name that only this node gives: %w", name, branchline.ErrDenied)
	}
	return name, nil
}

// lockScope returns what a holder's locks begin with at the node, so that no holder reaches those of another
// or of the site itself. The name is escaped as in a JSON pointer, so that no scope is the beginning of another.
func lockScope(holder string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(holder) + "/"
}

func encodeHold(h branchline.Hold) *wire.HoldRequest {
	w := &wire.HoldRequest{Stream: string(h.Stream), KnownNs: encodeTime(h.Known), UntilNs: encodeTime(h.Until)}
	for _, span := range h.Spans {
		w.Spans = append(w.Spans, encodeRange(span))
	}
	return w
}

func decodeHold(w *wire.HoldRequest, holder string) (branchline.Hold, error) {
	h := branchline.Hold{
		Holder: holder, Stream: branchline.StreamID(w.GetStream()),
		Known: decodeTime(w.GetKnownNs()), Until: decodeTime(w.GetUntilNs()),
	}
	for _, span := range w.GetSpans() {
		h.Spans = append(h.Spans, decodeRange(span))
	}
	return h, h.Check()
}

func encodeLock(l branchline.Lock) *wire.Lock {
	return &wire.Lock{
		Id: l.ID, Stream: string(l.Stream), Span: encodeRange(l.Span), UntilNs: encodeTime(l.Until),
		By: l.By, Reason: l.Reason, CreatedNs: encodeTime(l.Created),
	}
}

func decodeLock(w *wire.Lock) (branchline.Lock, error) {
	l := branchline.Lock{
		ID: w.GetId(), Stream: branchline.StreamID(w.GetStream()), Span: decodeRange(w.GetSpan()),
		Until: decodeTime(w.GetUntilNs()), By: w.GetBy(), Reason: w.GetReason(), Created: decodeTime(w.GetCreatedNs()),
	}
	if len(l.ID) > branchline.MaxLabel {
		return l, fmt.Errorf("lock with an identifier of %d bytes, at most %d: %w", len(l.ID), branchline.MaxLabel,
			branchline.ErrInvalid)
	}
	return l, l.Check()
}
