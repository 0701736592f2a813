package branchline

import (
	"context"
	"time"
)

// Control is what a centre may ask of a node that has recordings, beyond reading them. The node's own
// permissions decide; it wraps [ErrDenied] where they say no. Other errors are those of [Hold.Check] and
// [Lock.Check], [ErrNotFound] for a stream that the node does not have, and [ErrTooLarge] for a lock
// over [MaxLocks]. Methods may be called concurrently.
type Control interface {
	// Hold places a holder's lease on footage that it means to fetch, in place of the one that it had
	// on that stream; one without spans releases that. It is durable on return.
	Hold(ctx context.Context, h Hold) error
	// Lock places an evidence lock, in place of one with the same identifier. It is durable on return.
	// Over a link each holder has identifiers of its own: it reaches and sees no locks but its own.
	Lock(ctx context.Context, l Lock) error
	// Unlock takes a lock off. Nothing happens if there is none with the identifier.
	Unlock(ctx context.Context, id string) error
	// Locks lists the locks, the oldest first.
	Locks(ctx context.Context) ([]Lock, error)
}

// Hold is a lease that a hub places on a stream's footage at the edge. Retention spares what it
// covers while it can, and what was recorded after Known, of which the holder cannot have heard. Spans
// may reach into the future. Whoever releases sets Until to the present and Known far ahead, so that
// nothing waits for it any more, however the node keeps it.
type Hold struct {
	Holder string // the hub's name, as in its certificate
	Stream StreamID
	Spans  Spans     // wanted by the holder and not held there; at most MaxHoldSpans
	Known  time.Time // what was recorded before was considered by the holder
	Until  time.Time // the lease ends
}

// MaxHoldSpans bounds the spans of one hold: a month of an outage an hour.
const MaxHoldSpans = 1000

// Lock is an evidence lock: nothing that it covers is removed before its end, whatever retention says.
type Lock struct {
	ID      string // made by who places it, up to MaxLockID bytes; over a link up to MaxLabel
	Stream  StreamID
	Span    TimeRange
	Until   time.Time // zero: until it is taken off
	By      string    // who placed it, for people
	Reason  string    // for people; up to MaxName bytes
	Created time.Time
}

// Active reports whether the lock holds at the given time.
func (l Lock) Active(now time.Time) bool { return l.Until.IsZero() || now.Before(l.Until) }

// MaxLockID bounds a lock's identifier where it is kept: there that of a hub's lock begins with the hub's
// name, of which each byte may be escaped.
const MaxLockID = 2*MaxName + 1 + MaxLabel

// MaxLocks bounds the locks of a node.
const MaxLocks = 10_000
