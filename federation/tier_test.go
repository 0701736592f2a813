package federation

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/branchline-video/branchline/federation/link"
)

// tierOf makes a hub with a name of one letter.
func tierOf(name string) *Tier { return NewTier(HubID{ID: [16]byte{name[0]}, Name: name}) }

// waysOf reads ways such as "a b, a c": a is under b, and under c.
func waysOf(text string) []Way {
	var ways []Way
	for _, w := range strings.Split(text, ",") {
		var way Way
		for _, name := range strings.Fields(w) {
			way = append(way, HubID{ID: [16]byte{name[0]}, Name: name})
		}
		if len(way) > 0 {
			ways = append(ways, way)
		}
	}
	return ways
}

// TestTier: what a hub hears when it dials another, as that one knows its own ways up, and what both say of it.
func TestTier(t *testing.T) {
	for _, c := range []struct {
		name, self, peer string
		above            string // the ways up from the peer
		dialler, other   string // how the errors begin; empty: linked
	}{
		{"two tiers", "a", "b", "b", "", ""},
		{"three tiers", "a", "b", "b c", "", ""},
		{"itself", "a", "a", "a", "hub a dials itself", "hub a dials itself"},
		{"under one another", "a", "b", "b a", "a under b under a: hubs in a loop", "a under b under a: hubs in a loop"},
		{"further up", "a", "b", "b c a", "a under b under c under a: hubs in a loop",
			"a under b under c under a: hubs in a loop"},
		{"on one of two ways", "a", "b", "b c, b a", "a under b under a", "a under b under a"},
		{"too deep", "a", "b", "b c d", "a under b under c under d: hubs in a loop: more than 3",
			"a under b under c under d: hubs in a loop: more than 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := tierOf(c.self), tierOf(c.peer)
			for _, w := range waysOf(c.above) {
				if len(w) > 1 {
					b.above[w[1].Name] = append(b.above[w[1].Name], w[1:])
				}
			}
			dialler, other := a.enter("b", b.Ways()), b.admit(a.hello())
			for side, err := range map[string]error{c.dialler: dialler, c.other: other} {
				if (err == nil) != (side == "") ||
					err != nil && (!errors.Is(err, ErrLoop) || !strings.HasPrefix(err.Error(), side)) {
					t.Errorf("%v, expected %q", err, side)
				}
			}
			if ways := a.Ways(); dialler == nil && (len(ways) != len(waysOf(c.above)) || ways[0].String() == "a") {
				t.Errorf("ways up: %v", ways)
			}
			if ways := a.Ways(); dialler != nil && (len(ways) != 1 || ways[0].String() != "a") {
				t.Errorf("ways up without a link: %v", ways)
			}
		})
	}
}

// TestLoopRefused: the greeting ends a link that would close a loop, and both ends hear why.
func TestLoopRefused(t *testing.T) {
	a, b := tierOf("a"), tierOf("b")
	if err := b.enter("a", a.Ways()); err != nil {
		t.Fatal(err)
	}
	below, above := link.Pipe("region", "")
	defer below.Close(0, "")
	heard := make(chan error, 1)
	go func() {
		_, err := welcome(t.Context(), above, "", b)
		heard <- err
	}()
	_, err := greet(t.Context(), below, "", a)
	for side, err := range map[string]error{"dialler": err, "other": <-heard} {
		if !errors.Is(err, ErrLoop) || !strings.Contains(err.Error(), "a under b under a") {
			t.Errorf("%s: %v", side, err)
		}
	}
}

// TestAbove: a hub asks the one above how things stand there.
func TestAbove(t *testing.T) {
	b := tierOf("b")
	if err := b.enter("c", waysOf("c")); err != nil {
		t.Fatal(err)
	}
	below, top := link.Pipe("region", "")
	defer below.Close(0, "")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); _ = (&server{conn: top, tier: b}).run(ctx) }()
	ways, err := above(ctx, below)
	if err != nil || len(ways) != 1 || ways[0].String() != "b under c" {
		t.Errorf("%v, %v", ways, err)
	}
	stop()
	<-done
}

// TestEachAboveTheOther: two hubs that are configured so and link at the same moment find out, and then neither lets
// the other in, whichever comes first.
func TestEachAboveTheOther(t *testing.T) {
	a, b := tierOf("a"), tierOf("b")
	seenByA, seenByB := b.Ways(), a.Ways()
	if err := errors.Join(a.enter("b", seenByA), b.enter("a", seenByB)); err != nil {
		t.Fatal(err)
	}
	if err := a.enter("b", b.Ways()); !errors.Is(err, ErrLoop) {
		t.Errorf("a finds %v", err)
	}
	for who, err := range map[string]error{"a": a.admit(b.hello()), "b": b.admit(a.hello())} {
		if !errors.Is(err, ErrLoop) {
			t.Errorf("%s lets the other in: %v", who, err)
		}
	}
}
