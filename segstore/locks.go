package segstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Locks and holds stand in the index, for whoever decides what is removed, and in the journal, so that
// they outlive the index.

// maxHolds bounds the holds of a store, each of up to [branchline.MaxHoldSpans] spans: two hubs that hold
// the streams of 256 cameras. Together they take 16 MB at most, a third of the journal.
const maxHolds = 1024

func (c *codec) lock(l *branchline.Lock) {
	text(c, &l.ID, branchline.MaxLockID)
	text(c, &l.Stream, branchline.MaxID)
	c.span(&l.Span)
	c.instant(&l.Until)
	text(c, &l.By, branchline.MaxName)
	text(c, &l.Reason, branchline.MaxName)
	c.instant(&l.Created)
}

func (c *codec) hold(h *branchline.Hold) {
	text(c, &h.Holder, branchline.MaxID)
	text(c, &h.Stream, branchline.MaxID)
	c.spans(&h.Spans, branchline.MaxHoldSpans)
	c.instant(&h.Known)
	c.instant(&h.Until)
}

// spans moves a set of at most limit spans.
func (c *codec) spans(p *branchline.Spans, limit int) {
	n := len(*p)
	number(c, &n, 2)
	if n > limit {
		c.fail("too many spans")
		return
	}
	if c.reading && n > 0 {
		*p = make(branchline.Spans, n)
	}
	for i := range *p {
		c.span(&(*p)[i])
	}
}

func keyLock(id string) []byte { return append([]byte("L"), id...) }

// keyHold returns the place of a holder's hold; without a holder the prefix of all of the stream.
func keyHold(stream branchline.StreamID, holder string) []byte {
	return append(keyLine('H', stream), holder...)
}

// Lock places an evidence lock, in place of one with the same identifier: from its return on, which is
// after it is durable, retention removes nothing that it touches until it ends. What it covers need not
// be here yet. It wraps [branchline.ErrInvalid] for a malformed lock or one that has ended, and
// [branchline.ErrTooLarge] over [branchline.MaxLocks].
func (s *Store) Lock(ctx context.Context, l branchline.Lock) error {
	if l.Created.IsZero() {
		l.Created = s.clock.Now()
	}
	for _, t := range []*time.Time{&l.Span.Start, &l.Span.End, &l.Until, &l.Created} {
		*t = t.UTC().Round(0)
	}
	if err := s.checkLock(l); err != nil {
		return fmt.Errorf("lock %.40q: %w", l.ID, err)
	}
	value, err := encode(func(c *codec) { c.lock(&l) })
	if err == nil {
		err = s.claimOne(ctx, claim{kindLock, keyLock(l.ID), value}, branchline.MaxLocks)
	}
	if err != nil {
		return fmt.Errorf("lock %q: %w", l.ID, err)
	}
	return nil
}

func (s *Store) checkLock(l branchline.Lock) error {
	if err := l.Check(); err != nil {
		return err
	}
	if !onLine(l.Span.Start, l.Span.End, l.Created) || !l.Until.IsZero() && !onLine(l.Until) {
		return fmt.Errorf("span %v to %v until %v: %w", l.Span.Start, l.Span.End, l.Until, branchline.ErrInvalid)
	}
	if !l.Active(s.clock.Now()) {
		return fmt.Errorf("it has ended at %v: %w", l.Until, branchline.ErrInvalid)
	}
	return nil
}

// onLine reports whether times have a place on the time line.
func onLine(times ...time.Time) bool {
	line := always()
	return !slices.ContainsFunc(times, func(t time.Time) bool { return t.Before(line.Start) || t.After(line.End) })
}

// Unlock takes a lock off, durably. Nothing happens if there is none with the identifier.
func (s *Store) Unlock(ctx context.Context, id string) error {
	if len(id) > branchline.MaxLockID {
		return nil
	}
	if err := s.claimOne(ctx, claim{kindUnlock, keyLock(id), []byte(id)}, 0); err != nil {
		return fmt.Errorf("unlock %q: %w", id, err)
	}
	return nil
}

// Locks lists the locks that have not ended, the oldest first.
func (s *Store) Locks(ctx context.Context) ([]branchline.Lock, error) {
	var all []branchline.Lock
	err := s.ix.View(func(tx *index.Tx) (err error) {
		all, err = readLocks(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list locks: %w", err)
	}
	now := s.clock.Now()
	all = slices.DeleteFunc(all, func(l branchline.Lock) bool { return !l.Active(now) })
	slices.SortStableFunc(all, func(a, b branchline.Lock) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// Hold places a holder's hold on a stream, in place of the one that it had there; durable on return. One
// that has ended takes the holder's hold off. It wraps [branchline.ErrInvalid] for a malformed one and
// [branchline.ErrTooLarge] over [branchline.MaxHoldSpans] spans or maxHolds holds.
func (s *Store) Hold(ctx context.Context, h branchline.Hold) error {
	if err := h.Stream.Check(); err != nil {
		return err
	}
	h.Spans = branchline.NewSpans(h.Spans...)
	for i := range h.Spans {
		r := &h.Spans[i]
		r.Start, r.End = r.Start.UTC().Round(0), r.End.UTC().Round(0)
		if !onLine(r.Start, r.End) {
			return fmt.Errorf("hold %s: span %v to %v: %w", h.Stream, r.Start, r.End, branchline.ErrInvalid)
		}
	}
	h.Known, h.Until = h.Known.UTC().Round(0), h.Until.UTC().Round(0)
	switch {
	case h.Holder == "" || len(h.Holder) > branchline.MaxID,
		!h.Known.IsZero() && !onLine(h.Known), !h.Until.IsZero() && !onLine(h.Until):
		return fmt.Errorf("hold %s for %.80q: %w", h.Stream, h.Holder, branchline.ErrInvalid)
	case len(h.Spans) > branchline.MaxHoldSpans:
		return fmt.Errorf("hold %s: %d spans, at most %d: %w", h.Stream, len(h.Spans), branchline.MaxHoldSpans,
			branchline.ErrTooLarge)
	}
	most := maxHolds
	if !s.clock.Now().Before(h.Until) {
		h.Until, most = time.Time{}, 0
	}
	value, err := encode(func(c *codec) { c.hold(&h) })
	if err == nil {
		err = s.claimOne(ctx, claim{kindHold, keyHold(h.Stream, h.Holder), value}, most)
	}
	if err != nil {
		return fmt.Errorf("hold %s for %s: %w", h.Stream, h.Holder, err)
	}
	return nil
}

// Holds lists the holds, by stream and holder: also those that have ended, for as long as they still tell
// what is not yet retrieved.
func (s *Store) Holds(ctx context.Context) ([]branchline.Hold, error) {
	var all []branchline.Hold
	err := s.ix.View(func(tx *index.Tx) (err error) {
		all, err = readHolds(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list holds: %w", err)
	}
	return all, nil
}
