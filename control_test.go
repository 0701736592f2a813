package branchline_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// long is a text over every limit.
func long() string { return strings.Repeat("x", branchline.MaxName+1) }

func TestHoldCheck(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	good := func() branchline.Hold {
		return branchline.Hold{Holder: "hub", Stream: "gate.main", Known: at(50), Until: at(100),
			Spans: branchline.Spans{{at(1), at(2)}, {at(3), at(4)}}}
	}
	many := make(branchline.Spans, branchline.MaxHoldSpans+1)
	for i := range many {
		many[i] = branchline.TimeRange{at(2 * i), at(2*i + 1)}
	}
	for name, c := range map[string]struct {
		change func(*branchline.Hold)
		want   error
	}{
		"good":                  {func(*branchline.Hold) {}, nil},
		"a release":             {func(h *branchline.Hold) { h.Spans = nil }, nil},
		"as many spans as may":  {func(h *branchline.Hold) { h.Spans = many[1:] }, nil},
		"one span too many":     {func(h *branchline.Hold) { h.Spans = many }, branchline.ErrTooLarge},
		"no holder":             {func(h *branchline.Hold) { h.Holder = "" }, branchline.ErrInvalid},
		"no stream":             {func(h *branchline.Hold) { h.Stream = "gate" }, branchline.ErrInvalid},
		"no end":                {func(h *branchline.Hold) { h.Until = time.Time{} }, branchline.ErrInvalid},
		"an empty span":         {func(h *branchline.Hold) { h.Spans[1].End = at(3) }, branchline.ErrInvalid},
		"spans that touch":      {func(h *branchline.Hold) { h.Spans[0].End = at(3) }, branchline.ErrInvalid},
		"spans the wrong way":   {func(h *branchline.Hold) { slices.Reverse(h.Spans) }, branchline.ErrInvalid},
		"a holder without end":  {func(h *branchline.Hold) { h.Holder = long() }, branchline.ErrInvalid},
		"spans in another zone": {func(h *branchline.Hold) { h.Spans[0].Start = at(1).In(time.FixedZone("", 9)) }, nil},
	} {
		h := good()
		c.change(&h)
		if err := h.Check(); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestLockCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*branchline.Lock)
		want   error
	}{
		"good":          {func(*branchline.Lock) {}, nil},
		"no identifier": {func(l *branchline.Lock) { l.ID = "" }, branchline.ErrInvalid},
		"a long identifier": {func(l *branchline.Lock) { l.ID = strings.Repeat("x", branchline.MaxLockID+1) },
			branchline.ErrInvalid},
		"no stream":            {func(l *branchline.Lock) { l.Stream = "" }, branchline.ErrInvalid},
		"an empty span":        {func(l *branchline.Lock) { l.Span.End = l.Span.Start }, branchline.ErrInvalid},
		"no beginning":         {func(l *branchline.Lock) { l.Span.Start = time.Time{} }, branchline.ErrInvalid},
		"a reason without end": {func(l *branchline.Lock) { l.Reason = long() }, branchline.ErrInvalid},
		"a name without end":   {func(l *branchline.Lock) { l.By = long() }, branchline.ErrInvalid},
	} {
		l := branchline.Lock{ID: "1", Stream: "gate.main", Span: branchline.TimeRange{time.Unix(1, 0), time.Unix(2, 0)}}
		c.change(&l)
		if err := l.Check(); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
