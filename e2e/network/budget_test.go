package network_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline/e2e/network"
)

// refused is what a viewer is told instead of pictures.
type refused struct {
	Type, Cause string
	Refusal     *struct {
		Budget, Used, Need int64
		Viewers            int
		Instead            []struct {
			Stream    string
			KeyFrames bool
			Need      int64
		}
	}
}

// watching is what a viewer got.
type watching struct {
	network.Seen
	refusal refused
}

// watch looks at a live stream for so long, or until it is refused.
func (s *site) watch(stream string, during time.Duration) (w watching) {
	var err error
	w.Seen, err = s.See(s.t.Context(), stream, during, func(words []byte) bool {
		if err := json.Unmarshal(words, &w.refusal); err != nil {
			s.t.Error(err)
		}
		return w.refusal.Refusal != nil
	})
	if err != nil {
		s.t.Error(err)
	}
	return w
}

// calls asks the site for its uplink's budget, which is a control call over the link, again and again, and
// returns how long that took each time, sorted.
func (s *site) calls(ctx context.Context) (took []time.Duration) {
	for ctx.Err() == nil {
		began := time.Now()
		if err := s.Call("GET", "/api/v1/sites/"+network.Site+"/uplink", nil, &struct{}{}); err != nil {
			s.t.Error(err)
			return took
		}
		took = append(took, time.Since(began))
		s.passes(100 * time.Millisecond)
	}
	slices.Sort(took)
	return took
}

// fullest returns the most bits a second that left the branch in any second, and in all of the time.
func (s *site) fullest(during time.Duration) (second, all float64) {
	const look = 100 * time.Millisecond
	sent := func() float64 { return float64(s.link.Stats(network.Branch).Bytes) * 8 }
	tick := time.NewTicker(look)
	defer tick.Stop()
	began, at := time.Now(), []float64{sent()}
	times := []time.Time{began}
	for time.Since(began) < during {
		<-tick.C
		at, times = append(at, sent()), append(times, time.Now())
		if from := len(at) - 1 - int(time.Second/look); from >= 0 {
			second = max(second, (at[len(at)-1]-at[from])/times[len(at)-1].Sub(times[from]).Seconds())
		}
	}
	return second, (at[len(at)-1] - at[0]) / time.Since(began).Seconds()
}

func share(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// TestUplinkBudget has a line of 8 Mbit/s of which the edge may use 3, a viewer, and much to fetch: what leaves the
// branch is never more than the budget allows, control and live do not feel the backfill, and a second
// viewer is refused in numbers and takes the sub-stream.
func TestUplinkBudget(t *testing.T) {
	all(t)
	const budget, roundTrip = 3_000_000, 80 * time.Millisecond
	s := newSiteOf(t, network.Plan{
		Link: "rate=8mbit delay=40ms", Cameras: 4, Kbits: 500, Sub: true, Segment: 5 * time.Second, Policies: backfill,
		Edge: "budget:\n  zone: UTC\n  schedule:\n    - {days: mon-sun, hours: 0-24, rate: 3mbit}\n",
	})
	s.linked(20 * time.Second)
	stream := func(i int, name string) string { return network.Site + "." + network.Camera(i) + "." + name }
	s.passes(12 * time.Second) // the rates of the streams are known
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	idle := s.calls(ctx)
	cancel()
	alone := s.watch(stream(0, "main"), 10*time.Second)

	s.link.Cut(true)
	s.passes(40 * time.Second)
	s.link.Cut(false)
	s.linked(20 * time.Second)
	before := s.bytes("fetched")
	more := func() bool { return s.bytes("fetched") > before }
	took, err := network.Until(t.Context(), 100*time.Millisecond, time.Minute, more)
	if err != nil {
		t.Fatalf("no backfill: %v", err)
	}
	t.Logf("the first fragment is fetched %.1f s after the link is up", took.Seconds())
	var work sync.WaitGroup
	var beside, full, instead watching
	var busy []time.Duration
	ctx, cancel = context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	fetched := s.bytes("fetched")
	work.Go(func() {
		beside = s.watch(stream(0, "main"), 20*time.Second)
		full = s.watch(stream(0, "main"), 20*time.Second)
	})
	work.Go(func() { busy = s.calls(ctx) })
	work.Go(func() {
		s.passes(22 * time.Second)
		second := s.watch(stream(1, "main"), 5*time.Second)
		checkRefused(t, second.refusal, stream(1, "sub"), budget)
		instead = s.watch(stream(1, "sub"), 15*time.Second)
	})
	second, mean := s.fullest(40 * time.Second)
	work.Wait()

	t.Logf("budget 3 Mbit/s of a line of 8: %.3f Mbit/s left the branch, at most %.3f in any second (at most %.2f); "+
		"%.1f MB of it were fetched", mean/1e6, second/1e6, 1.05*budget/1e6, (s.bytes("fetched")-fetched)/1e6)
	if second > 1.05*budget || mean < 0.9*budget {
		t.Errorf("%.3f Mbit/s left the branch, %.3f in the fullest second", mean/1e6, second/1e6)
	}
	if fetched == s.bytes("fetched") {
		t.Error("nothing was fetched beside the viewers")
	}
	limit(t, "control calls beside the backfill, p95", share(busy, 95), 2*share(idle, 50))
	limit(t, fmt.Sprintf("live beside the backfill, p95, alone %.2f s", share(alone.Late, 95).Seconds()),
		share(beside.Late, 95), share(alone.Late, 95)+roundTrip)
	t.Logf("with the second viewer live takes 9 tenths of the budget: p95 of the first one's frames is %.2f s",
		share(full.Late, 95).Seconds())
	for who, w := range map[string]watching{"alone": alone, "beside": beside, "two": full, "sub": instead} {
		if len(w.Late) < 70 {
			t.Errorf("%s: %d frames came", who, len(w.Late))
		}
	}
}

// TestLiveBesideRetrieval looks at a camera, and away while much is asked for that is more urgent than a stream that
// nobody watches, and comes back before the hub has given the stream up: pictures go on at once and as if nothing were
// fetched.
func TestLiveBesideRetrieval(t *testing.T) {
	const cameras, kbits = 8, 1000
	s := newSiteOf(t, network.Plan{
		Link: "rate=6mbit delay=40ms", Cameras: cameras, Kbits: kbits, Segment: 5 * time.Second,
	})
	s.linked(20 * time.Second)
	began := time.Now()
	s.passes(10 * time.Second)
	first := network.Site + "." + network.Camera(0) + ".main"
	alone := s.watch(first, 6*time.Second)
	var streams []string
	for i := range cameras {
		streams = append(streams, network.Site+"."+network.Camera(i)+".main")
	}
	order := map[string]any{"streams": streams, "from": began.UTC(), "to": time.Now().UTC()}
	if err := s.Call("POST", "/api/v1/retrievals", order, nil); err != nil {
		t.Fatal(err)
	}
	s.passes(3 * time.Second)
	fetched := s.bytes("fetched")
	beside := s.watch(first, 9*time.Second)
	rate := (s.bytes("fetched") - fetched) * 8 / 1e6 / 9
	idle := share(alone.Late, 95)
	limit(t, fmt.Sprintf("live beside %.1f Mbit/s that are fetched, p95, alone %.2f s", rate, idle.Seconds()),
		share(beside.Late, 95), idle+150*time.Millisecond)
	if rate < 2 {
		t.Errorf("only %.1f Mbit/s were fetched meanwhile", rate)
	}
	limit(t, fmt.Sprintf("first picture made after that, alone %.2f s", alone.First.Seconds()), beside.First,
		alone.First+time.Second)
	for who, w := range map[string]watching{"alone": alone, "beside": beside} {
		if len(w.Late) < 60 {
			t.Errorf("%s: %d frames came", who, len(w.Late))
		}
	}
}

// checkRefused checks that the viewer is told why, in numbers, and what would fit.
func checkRefused(t *testing.T, r refused, sub string, budget int64) {
	t.Helper()
	if r.Refusal == nil {
		t.Error("a second viewer was let in")
		return
	}
	t.Logf("the second viewer is told: %s", r.Cause)
	at := slices.IndexFunc(r.Refusal.Instead, func(o struct {
		Stream    string
		KeyFrames bool
		Need      int64
	}) bool {
		return o.Stream == sub && !o.KeyFrames
	})
	if r.Refusal.Budget != budget || r.Refusal.Viewers != 1 || r.Refusal.Need < 400_000 || at < 0 {
		t.Errorf("refused with %+v", *r.Refusal)
	}
}
