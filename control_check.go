package branchline

import (
	"fmt"
	"slices"
)

// Check returns an error wrapping [ErrInvalid] unless h can be placed, or [ErrTooLarge] if it has more
// spans than a hold may have.
func (h Hold) Check() error {
	if err := h.Stream.Check(); err != nil {
		return err
	}
	if len(h.Spans) > MaxHoldSpans {
		return fmt.Errorf("check hold of %d spans, at most %d: %w", len(h.Spans), MaxHoldSpans, ErrTooLarge)
	}
	same := func(a, b TimeRange) bool { return a.Start.Equal(b.Start) && a.End.Equal(b.End) }
	switch {
	case h.Holder == "" || len(h.Holder) > MaxName:
		return fmt.Errorf("check hold: holder of %d bytes, 1 to %d are possible: %w", len(h.Holder), MaxName, ErrInvalid)
	case !slices.EqualFunc(h.Spans, NewSpans(h.Spans...), same):
		return fmt.Errorf("check hold: spans are empty, touch or are out of order: %w", ErrInvalid)
	case h.Until.IsZero():
		return fmt.Errorf("check hold: a lease must end: %w", ErrInvalid)
	}
	return nil
}

// Check returns an error wrapping [ErrInvalid] unless l can be placed.
func (l Lock) Check() error {
	if err := l.Stream.Check(); err != nil {
		return err
	}
	switch {
	case l.ID == "" || len(l.ID) > MaxLockID:
		return fmt.Errorf("check lock: identifier of %d bytes, 1 to %d are possible: %w", len(l.ID), MaxLockID, ErrInvalid)
	case l.Span.Empty() || l.Span.Start.IsZero():
		return fmt.Errorf("check lock %s: it covers nothing: %w", l.ID, ErrInvalid)
	case len(l.By) > MaxName || len(l.Reason) > MaxName:
		return fmt.Errorf("check lock %s: texts of %d and %d bytes, at most %d: %w",
			l.ID, len(l.By), len(l.Reason), MaxName, ErrInvalid)
	}
	return nil
}
