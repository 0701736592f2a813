package budget_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
)

// slowRates are rates of which the asking takes so long that somebody else comes meanwhile.
type slowRates struct {
	rates
	meanwhile func()
}

func (r *slowRates) BitRate(s branchline.StreamID) (all, keys budget.Rate) {
	if f := r.meanwhile; f != nil && s == "gate.main" {
		r.meanwhile = nil
		f()
	}
	return r.rates.BitRate(s)
}

// TestTwoAtOnce has two viewers ask at the same moment for what fits once.
func TestTwoAtOnce(t *testing.T) {
	streams := &slowRates{rates: rates{
		"gate.main": {200_000, 0}, "yard.main": {1_500_000, 0}, "door.main": {1_500_000, 0},
	}}
	b := open(t, budget.Config{Schedule: always(budget.Limit{Rate: 2 * budget.Megabit}), Streams: streams})
	admit := func(stream branchline.StreamID) error {
		_, err := b.Admit(budget.Asked{Hub: "hub", Stream: stream})
		return err
	}
	if err := admit("gate.main"); err != nil {
		t.Fatal(err)
	}
	var first error
	streams.meanwhile = func() { first = admit("yard.main") }
	second := admit("door.main")
	var r *budget.Refusal
	if first != nil || !errors.As(second, &r) || r.Used != 1_700_000 || r.Viewers != 2 {
		t.Errorf("the one: %v, the other: %v", first, second)
	}
}

// TestOneHubTakesNotAll has one hub watch as much as it may. Another is let in all the same, until all places are
// taken.
func TestOneHubTakesNotAll(t *testing.T) {
	b := open(t, budget.Config{Schedule: always(budget.Limit{Rate: budget.Megabit})})
	watch := func(hub string) (n int, leave func()) {
		for {
			stream := branchline.StreamID(fmt.Sprintf("cam-%d.main", n))
			out, err := b.Admit(budget.Asked{Hub: hub, Stream: stream, Playback: true})
			if err != nil {
				if !errors.Is(err, branchline.ErrBusy) {
					t.Fatal(err)
				}
				return n, leave
			}
			n, leave = n+1, out
		}
	}
	one, leave := watch("one")
	two, _ := watch("two")
	if one != 1024 || two != 1024 {
		t.Errorf("one has %d places, the other %d", one, two)
	}
	if three, _ := watch("three"); three != 0 {
		t.Errorf("a third has %d", three)
	}
	leave()
	if three, _ := watch("three"); three != 1 {
		t.Errorf("when one has left a third has %d", three)
	}
}
