package sourcetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
)

// ControlFixture is a node under test that can be controlled.
type ControlFixture struct {
	Control branchline.Control
	Stream  branchline.StreamID // one that the node has
	// Holds returns what was placed on the stream, as the node keeps it; nil where that cannot be seen.
	Holds func(branchline.StreamID) []branchline.Hold
}

// RunControl checks that the nodes which open makes keep the contract of [branchline.Control].
func RunControl(t *testing.T, open func(t *testing.T) ControlFixture) {
	for _, c := range []struct {
		name string
		run  func(*control)
	}{
		{"locks are kept as they are, the oldest first", (*control).locks},
		{"a lock takes the place of one with its name", (*control).replaces},
		{"unlock", (*control).unlock},
		{"wrong locks", (*control).wrongLocks},
		{"holds", (*control).holds},
		{"wrong holds", (*control).wrongHolds},
		{"calls end with their context", (*control).cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(&control{t, open(t), ctx})
		})
	}
}

// control is one test on one fixture.
type control struct {
	*testing.T
	ControlFixture
	ctx context.Context
}

// second returns a moment of a time line that is still to come, so that no lock and no hold has ended.
func second(n int) time.Time { return time.Date(2100, 1, 1, 0, 0, n, 0, time.UTC) }

// lock returns a lock of the n-th second.
func (c *control) lock(n int) branchline.Lock {
	return branchline.Lock{
		ID: fmt.Sprintf("lock-%d", n), Stream: c.Stream, Span: branchline.TimeRange{Start: second(n), End: second(n + 1)},
		Until: second(1000 + n), By: "Erika, Leitstelle", Reason: "Vorgang 12/34", Created: second(n),
	}
}

func (c *control) place(locks ...branchline.Lock) {
	c.Helper()
	for _, l := range locks {
		if err := c.Control.Lock(c.ctx, l); err != nil {
			c.Fatal(err)
		}
	}
}

func (c *control) want(locks ...branchline.Lock) {
	c.Helper()
	got, err := c.Control.Locks(c.ctx)
	if err != nil {
		c.Fatal(err)
	}
	if len(got) == 0 && len(locks) == 0 {
		return
	}
	if diff := gocmp.Diff(locks, got); diff != "" {
		c.Errorf("locks (-want +got):\n%s", diff)
	}
}

func (c *control) locks() {
	c.want()
	whole := branchline.Lock{ID: "for ever", Stream: c.Stream, Span: always(), Created: second(7)}
	whole.Span.Start = whole.Span.Start.UTC()
	c.place(c.lock(3), c.lock(1), whole, c.lock(2))
	c.want(c.lock(1), c.lock(2), c.lock(3), whole)
}

func (c *control) replaces() {
	longer := c.lock(1)
	longer.Until, longer.Span.End = time.Time{}, second(60)
	c.place(c.lock(1), c.lock(2), longer)
	c.want(longer, c.lock(2))
}

func (c *control) unlock() {
	c.place(c.lock(1), c.lock(2))
	for _, id := range []string{"lock-1", "lock-1", "never was", ""} {
		if err := c.Control.Unlock(c.ctx, id); err != nil {
			c.Errorf("unlock %q: %v", id, err)
		}
	}
	c.want(c.lock(2))
}

func (c *control) wrongLocks() {
	for name, l := range map[string]struct {
		change func(*branchline.Lock)
		want   error
	}{
		"no name":           {func(l *branchline.Lock) { l.ID = "" }, branchline.ErrInvalid},
		"a long reason":     {func(l *branchline.Lock) { l.Reason = strings.Repeat("x", 201) }, branchline.ErrInvalid},
		"nothing covered":   {func(l *branchline.Lock) { l.Span.End = l.Span.Start }, branchline.ErrInvalid},
		"no stream":         {func(l *branchline.Lock) { l.Stream = "../../etc" }, branchline.ErrInvalid},
		"an unknown stream": {func(l *branchline.Lock) { l.Stream = "nowhere.main" }, branchline.ErrNotFound},
	} {
		wrong := c.lock(1)
		l.change(&wrong)
		if err := c.Control.Lock(c.ctx, wrong); !errors.Is(err, l.want) {
			c.Errorf("%s: %v, want %v", name, err, l.want)
		}
	}
	c.want()
}

// hold returns a hold on so many spans.
func (c *control) hold(spans int) branchline.Hold {
	h := branchline.Hold{Holder: "hub", Stream: c.Stream, Known: second(5000), Until: second(10_000)}
	for n := range spans {
		h.Spans = append(h.Spans, branchline.TimeRange{Start: second(2 * n), End: second(2*n + 1)})
	}
	return h
}

func (c *control) holds() {
	for _, spans := range []int{1, branchline.MaxHoldSpans, 3, 0, 2} {
		h := c.hold(spans)
		if err := c.Control.Hold(c.ctx, h); err != nil {
			c.Fatalf("hold of %d spans: %v", spans, err)
		}
		if c.Holds == nil {
			continue
		}
		if diff := gocmp.Diff([]branchline.Hold{h}, c.Holds(c.Stream)); diff != "" && spans > 0 {
			c.Errorf("%d spans (-want +got):\n%s", spans, diff)
		}
	}
}

func (c *control) wrongHolds() {
	for name, h := range map[string]struct {
		change func(*branchline.Hold)
		want   error
	}{
		"too many spans":    {func(h *branchline.Hold) { *h = c.hold(branchline.MaxHoldSpans + 1) }, branchline.ErrTooLarge},
		"spans backwards":   {func(h *branchline.Hold) { slices.Reverse(h.Spans) }, branchline.ErrInvalid},
		"a lease for ever":  {func(h *branchline.Hold) { h.Until = time.Time{} }, branchline.ErrInvalid},
		"no stream":         {func(h *branchline.Hold) { h.Stream = "" }, branchline.ErrInvalid},
		"an unknown stream": {func(h *branchline.Hold) { h.Stream = "nowhere.main" }, branchline.ErrNotFound},
	} {
		wrong := c.hold(2)
		h.change(&wrong)
		if err := c.Control.Hold(c.ctx, wrong); !errors.Is(err, h.want) {
			c.Errorf("%s: %v, want %v", name, err, h.want)
		}
	}
}

func (c *control) cancelled() {
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	for name, err := range map[string]error{
		"hold": c.Control.Hold(ctx, c.hold(1)), "lock": c.Control.Lock(ctx, c.lock(1)),
	} {
		if !errors.Is(err, context.Canceled) {
			c.Errorf("%s: %v, want %v", name, err, context.Canceled)
		}
	}
	c.want()
}

var _ branchline.Control = (*Memory)(nil)

// controls are the holds and locks of a Memory.
type controls struct {
	holds []branchline.Hold
	locks []branchline.Lock
}

// Hold is [branchline.Control.Hold].
func (m *Memory) Hold(ctx context.Context, h branchline.Hold) error {
	return m.control(ctx, h.Check(), h.Stream, func() error {
		same := func(o branchline.Hold) bool { return o.Holder == h.Holder && o.Stream == h.Stream }
		m.controls.holds = append(slices.DeleteFunc(m.controls.holds, same), h)
		return nil
	})
}

// Holds returns the holds that were placed on a stream, releases too.
func (m *Memory) Holds(stream branchline.StreamID) []branchline.Hold {
	m.mu.Lock()
	defer m.mu.Unlock()
	var holds []branchline.Hold
	for _, h := range m.controls.holds {
		if h.Stream == stream {
			holds = append(holds, h)
		}
	}
	return holds
}

// Lock is [branchline.Control.Lock].
func (m *Memory) Lock(ctx context.Context, l branchline.Lock) error {
	return m.control(ctx, l.Check(), l.Stream, func() error {
		same := func(o branchline.Lock) bool { return o.ID == l.ID }
		locks := slices.DeleteFunc(slices.Clone(m.controls.locks), same)
		if len(locks) >= branchline.MaxLocks {
			return fmt.Errorf("there are %d locks: %w", len(locks), branchline.ErrTooLarge)
		}
		locks = append(locks, l)
		m.controls.locks = locks
		return nil
	})
}

// Unlock is [branchline.Control.Unlock].
func (m *Memory) Unlock(ctx context.Context, id string) error {
	return m.control(ctx, nil, "", func() error {
		same := func(o branchline.Lock) bool { return o.ID == id }
		m.controls.locks = slices.DeleteFunc(m.controls.locks, same)
		return nil
	})
}

// control changes what was asked of the source, unless that is wrong.
func (m *Memory) control(ctx context.Context, wrong error, stream branchline.StreamID, f func() error) error {
	if err := cmp.Or(wrong, ctx.Err()); err != nil {
		return err
	}
	var err error
	m.update(func() {
		switch {
		case m.closed != nil:
			err = m.closed
		case stream != "" && m.streams[stream] == nil:
			err = fmt.Errorf("look up stream %s: %w", stream, branchline.ErrNotFound)
		default:
			err = f()
		}
	})
	return err
}

// Locks is [branchline.Control.Locks].
func (m *Memory) Locks(ctx context.Context) ([]branchline.Lock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.closed, ctx.Err()); err != nil {
		return nil, err
	}
	locks := slices.Clone(m.controls.locks)
	slices.SortFunc(locks, func(a, b branchline.Lock) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return locks, nil
}
