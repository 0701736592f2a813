package federation

import (
	"context"
	"io"
	"testing"

	"github.com/branchline-video/branchline/federation/budget"
)

// TestCallsOverlap asks for a live stream anew while the call before has not ended yet, as after an interruption:
// the end of the older one leaves the stream watched, and that of the newer one frees its place.
func TestCallsOverlap(t *testing.T) {
	s := &server{name: "hub", budget: openBudget(t, budget.Config{Schedule: limited(budget.Megabit)})}
	call := func(p Priority) (urgency, func()) {
		t.Helper()
		a := &answer{ctx: context.Background(), priority: p, out: &sender{w: io.Discard}}
		urgency, leave, err := s.admit(a, testStream, false)
		if err != nil {
			t.Fatal(err)
		}
		return urgency, leave
	}
	check := func(what string, urgency urgency, want budget.Class, viewers int) {
		t.Helper()
		got, _ := urgency()
		if n := len(s.budget.State().Viewers); got != want || n != viewers {
			t.Errorf("%s: sent as %v with %d viewers, want %v with %d", what, got, n, want, viewers)
		}
	}
	urgency, leave := call(PriorityLive)
	check("watched", urgency, budget.Live, 1)
	again, leaveAgain := call(PriorityLive)
	leave()
	check("when the older call has ended", again, budget.Live, 1)
	leaveAgain()
	check("when both have", again, budget.Planned, 0)

	// A recording that is watched for a while, and whose call ends meanwhile.
	urgency, leave = call(PrioritySchedule)
	check("recorded", urgency, budget.Planned, 0)
	release, err := s.view(testStream)
	if err == nil {
		err = s.watches.put(testStream, release)
	}
	if err != nil {
		t.Fatal(err)
	}
	check("watched, too", urgency, budget.Live, 1)
	leave()
	urgency, leave = call(PrioritySchedule)
	check("recorded anew", urgency, budget.Planned, 0)
	leave()
}
