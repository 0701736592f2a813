package federation

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
)

// caller makes live calls of the test's stream and looks at how they stand.
type caller struct {
	*testing.T
	s *server
}

func newCaller(t *testing.T) caller {
	return caller{t, &server{name: "hub", budget: openBudget(t, budget.Config{Schedule: limited(budget.Megabit)})}}
}

func (c caller) call(p Priority) (urgency, func()) {
	c.Helper()
	a := &answer{ctx: context.Background(), priority: p, out: &sender{w: io.Discard}}
	urgency, leave, err := c.s.admit(a, testStream, false)
	if err != nil {
		c.Fatal(err)
	}
	return urgency, leave
}

func (c caller) watch() {
	c.Helper()
	release, err := c.s.view(testStream)
	if err == nil {
		err = c.s.watches.put(testStream, release)
	}
	if err != nil {
		c.Fatal(err)
	}
}

func (c caller) check(what string, urgency urgency, want budget.Class, viewers int) {
	c.Helper()
	got, _ := urgency()
	if n := len(c.s.budget.State().Viewers); got != want || n != viewers {
		c.Errorf("%s: sent as %v with %d viewers, want %v with %d", what, got, n, want, viewers)
	}
}

// TestCallsOverlap asks for a live stream anew while the call before has not ended yet, as after an interruption, or
// just after it has: the stream stays watched, and its place is freed once nobody has said so anew.
func TestCallsOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(t)
		urgency, leave := c.call(PriorityLive)
		c.check("watched", urgency, budget.Live, 1)
		again, leaveAgain := c.call(PriorityLive)
		leave()
		<-time.After(2 * placeTime)
		c.check("when the older call has ended", again, budget.Live, 1)
		leaveAgain()
		c.check("when both have", again, budget.Live, 1)
		anew, leave := c.call(PriorityLive)
		<-time.After(2 * placeTime)
		c.check("called anew", anew, budget.Live, 1)
		leave()
		<-time.After(2 * placeTime)
		c.check("a while after the last", anew, budget.Planned, 0)

		// A recording that is watched for a while, and whose call ends meanwhile.
		urgency, leave = c.call(PrioritySchedule)
		c.check("recorded", urgency, budget.Planned, 0)
		c.watch()
		c.check("watched, too", urgency, budget.Live, 1)
		leave()
		urgency, leave = c.call(PrioritySchedule)
		<-time.After(2 * placeTime)
		c.check("asked for anew", urgency, budget.Live, 1)
		c.s.watches.drop(testStream)
		c.check("watched no more", urgency, budget.Planned, 0)
		leave()
		c.watch() // that comes late
		<-time.After(2 * placeTime)
		c.check("a while after what came late", urgency, budget.Planned, 0)
		if n := len(c.s.watches.streams); n != 0 {
			t.Errorf("%d streams are remembered after their calls", n)
		}
	})
}

// ranked is a stream that knows its urgency.
type ranked struct {
	link.Stream
	urgency int8
}

func (r *ranked) SetPriority(urgency int8) { r.urgency = urgency }

// TestCarriersBecomeUrgent has a stream become watched while what carries it writes nothing that would tell it so.
func TestCarriersBecomeUrgent(t *testing.T) {
	c := newCaller(t)
	_, leave := c.call(PrioritySchedule)
	lane := &ranked{}
	_, done := c.s.carry(&answer{out: &sender{w: lane}}, testStream)
	check := func(what string, want budget.Class) {
		t.Helper()
		if budget.Class(lane.urgency) != want {
			t.Errorf("%s: sent as %v, want %v", what, budget.Class(lane.urgency), want)
		}
	}
	check("recorded", budget.Planned)
	c.watch()
	check("watched", budget.Live)
	c.s.watches.drop(testStream)
	check("watched no more", budget.Planned)
	done()
	c.watch()
	check("after its end", budget.Planned)
	leave()
	c.s.watches.end()
	if n, viewers := len(c.s.watches.streams), len(c.s.budget.State().Viewers); n != 0 || viewers != 0 {
		t.Errorf("%d streams with %d viewers are remembered after the link's end", n, viewers)
	}
}

// TestCallsOfNothing calls for streams that there are not: nothing is remembered of them.
func TestCallsOfNothing(t *testing.T) {
	edge, hub := link.Pipe("berlin", "")
	s := &server{conn: edge, src: newSource(), version: version2}
	run(t, s.run, func() error { return hub.Close(0, "") })
	r := NewRemote(hub)
	for i := range 50 {
		for range r.Live(WithPriority(t.Context(), PrioritySchedule), branchline.StreamID(fmt.Sprintf("cam%d.main", i))) {
			break
		}
	}
	if err := r.Watch(t.Context(), testStream, false); err != nil {
		t.Fatal(err)
	}
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	if n := len(s.watches.streams); n > 1 { // the last call may end just now
		t.Errorf("%d streams are remembered", n)
	}
}

// TestStarvedInTheLink has a line with a short queue, where windows bind and not the budget: a recording waits in the
// link behind what is more urgent, and becomes urgent there when it is watched.
func TestStarvedInTheLink(t *testing.T) {
	c := &thinCable{rate: 6e6 / 8, delay: 40 * time.Millisecond, queue: 10}
	overThin(t, c, budget.Config{}, func(t *testing.T, r *Remote, src *sourcetest.Memory) {
		feed, id := footage(src)
		var came atomic.Int64
		recording, leave := context.WithCancel(t.Context())
		go func() {
			asked := WithPriority(recording, PrioritySchedule)
			for recording.Err() == nil { // as a hub that is told of an interruption
				for i, err := range r.Live(asked, testStream) {
					if err == nil && i.Fragment != nil {
						came.Add(1)
					}
				}
				asked = recording
				<-time.After(200 * time.Millisecond)
			}
		}()
		stop := fetching(t, r, id, PriorityRequest)
		<-time.After(20 * time.Second)
		for range 20 {
			<-time.After(time.Second / 2)
			feed.Append(true, 100_000)
		}
		before := came.Load()
		if err := r.Watch(t.Context(), testStream, true); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			feed.Append(true, 100_000)
			<-time.After(time.Second / 2)
		}
		t.Logf("%d of 20 fragments came before somebody watched, %d in the 5 s after that", before, came.Load()-before)
		if before > 10 || came.Load()-before < 8 {
			t.Errorf("%d fragments came before, %d after", before, came.Load()-before)
		}
		leave()
		stop()
	})
}
