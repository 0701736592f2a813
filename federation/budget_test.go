package federation

import (
	"context"
	"errors"
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

func openBudget(t testing.TB, cfg budget.Config) *budget.Budget {
	t.Helper()
	b, err := budget.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func limited(rate budget.Rate) budget.Schedule {
	return budget.NewSchedule(nil, []budget.Rule{{
		Days: [7]bool{true, true, true, true, true, true, true}, To: 24, Limit: budget.Limit{Rate: rate}}})
}

// overThin runs f in virtual time with an edge that is linked to a hub by QUIC over a thin cable.
func overThin(t *testing.T, c *thinCable, cfg budget.Config, f func(t *testing.T, r *Remote, src *sourcetest.Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		afterStart()
		h := startHubAt(t, t.TempDir(), "127.0.0.1:0", c.listen(false))
		src := newSource()
		u := NewUplink(UplinkConfig{
			Node: newNode(t), Source: src, Token: h.token("berlin"), ListenPacket: c.listen(true),
			Budget: openBudget(t, cfg),
		})
		stop := run(t, u.Run)
		f(t, h.wait("berlin"), src)
		stop()
		h.stop()
		synctest.Wait()
		<-time.After(time.Minute) // what quic-go has still set goes off
	})
}

// reading fetches the segment again and again until ctx ends, and counts.
func reading(ctx context.Context, r *Remote, id branchline.SegmentID, got *atomic.Int64) {
	for ctx.Err() == nil {
		body, err := r.Fetch(ctx, id, branchline.ByteRange{})
		if err != nil {
			return
		}
		b := make([]byte, 4<<10)
		for err == nil {
			var n int
			n, err = body.Read(b)
			got.Add(int64(n))
		}
		body.Close()
	}
}

// footage publishes a segment that is large enough to be fetched for a while, and goes on with the next one.
func footage(src *sourcetest.Memory) (sourcetest.Feed, branchline.SegmentID) {
	feed := src.Feed(testStream)
	id := feed.Begin(8 << 20)
	feed.Seal()
	feed.Begin(10_000)
	return feed, id
}

// fetching fetches the segment several times at once, again and again until stop is called.
func fetching(t *testing.T, r *Remote, id branchline.SegmentID, p Priority) (stop func()) {
	ctx, stop := context.WithCancel(WithPriority(t.Context(), p))
	for range 8 {
		go reading(ctx, r, id, new(atomic.Int64))
	}
	return stop
}

// arrivals follows the test's stream live until ctx ends, and tells when each fragment has come.
func arrivals(ctx context.Context, r *Remote) <-chan time.Time {
	at := make(chan time.Time, 1000)
	go func() {
		for i, err := range r.Live(ctx, testStream) {
			if err == nil && i.Fragment != nil {
				at <- time.Now()
			}
		}
	}()
	return at
}

// TestBulkKeepsTheRoundTripShort saturates 20 Mbit/s of 80 ms, with a queue of a second, with backfill: control's
// round trips stay within twice the idle one, and the line is used.
func TestBulkKeepsTheRoundTripShort(t *testing.T) {
	c := &thinCable{rate: 20e6 / 8, delay: 40 * time.Millisecond, queue: 2000}
	overThin(t, c, budget.Config{}, func(t *testing.T, r *Remote, src *sourcetest.Memory) {
		feed := src.Feed(testStream)
		id := feed.Begin(8 << 20)
		feed.Seal()
		var got atomic.Int64
		ctx, stop := context.WithCancel(WithPriority(t.Context(), PriorityBackfill))
		for range 4 {
			go reading(ctx, r, id, &got)
		}
		<-time.After(10 * time.Second)
		began, since, longest := got.Load(), time.Now(), c.longest()
		t.Logf("while it starts the queue is at most %v", longest)
		var worst time.Duration
		for range 100 {
			asked := time.Now()
			if _, err := r.Cameras(t.Context()); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(asked))
			<-time.After(200 * time.Millisecond)
		}
		used := float64(got.Load()-began) / (time.Since(since).Seconds() * c.rate)
		stop()
		t.Logf("used %.2f of the line, the longest call %v, the longest queue %v, lost %d", used, worst, c.longest(), c.lost)
		if worst > 160*time.Millisecond {
			t.Errorf("a call took %v of 80 ms idle", worst)
		}
		if used < 0.85 { // with the headers it is some 5 % more
			t.Errorf("bulk got %.2f of the line", used)
		}
	})
}

// TestRequestOvertakesBackfill asks for something while backfill uses up the budget: from then until it has
// come, no more of the backfill comes than what was under way.
func TestRequestOvertakesBackfill(t *testing.T) {
	c := &thinCable{rate: 20e6 / 8, delay: 20 * time.Millisecond, queue: 2000}
	overThin(t, c, budget.Config{Schedule: limited(2 * budget.Megabit)},
		func(t *testing.T, r *Remote, src *sourcetest.Memory) {
			feed := src.Feed(testStream)
			id := feed.Begin(8 << 20)
			feed.Seal()
			var bulk atomic.Int64
			ctx, stop := context.WithCancel(WithPriority(t.Context(), PriorityBackfill))
			for range 8 {
				go reading(ctx, r, id, &bulk)
			}
			<-time.After(5 * time.Second)
			body, err := r.Fetch(t.Context(), id, branchline.ByteRange{End: 500_000})
			if err != nil {
				t.Fatal(err)
			}
			before, asked := bulk.Load(), time.Now()
			n, err := io.Copy(io.Discard, body)
			took := time.Since(asked)
			if body.Close(); err != nil || n != 500_000 {
				t.Fatalf("%d bytes: %v", n, err)
			}
			// Eight streams may each have a chunk under way, and a round trip's worth.
			if got := bulk.Load() - before; got > 8*2500+20_000 {
				t.Errorf("%d bytes of backfill came meanwhile, in %v", got, took)
			}
			if took > 2200*time.Millisecond { // 2 s at 2 Mbit/s
				t.Errorf("the request took %v", took)
			}
			stop()
		})
}

// TestLiveBesideBackfill watches 2 Mbit/s of pictures over a line of 20 that backfill fills.
func TestLiveBesideBackfill(t *testing.T) {
	c := &thinCable{rate: 20e6 / 8, delay: 40 * time.Millisecond, queue: 2000}
	overThin(t, c, budget.Config{}, func(t *testing.T, r *Remote, src *sourcetest.Memory) {
		feed, id := footage(src)
		stop := fetching(t, r, id, PriorityBackfill)
		watching, leave := context.WithCancel(t.Context())
		items := arrivals(watching, r)
		<-items
		<-time.After(5 * time.Second)
		var worst time.Duration
		for range 100 {
			made := time.Now()
			feed.Append(true, 50_000)
			worst = max(worst, (<-items).Sub(made))
			<-time.After(200 * time.Millisecond)
		}
		t.Logf("a fragment of 50 kB took at most %v", worst)
		// 40 ms of way, 20 ms of line, and the queue that is allowed.
		if worst > 60*time.Millisecond+80*time.Millisecond {
			t.Errorf("a fragment took %v", worst)
		}
		leave()
		stop()
	})
}

// TestWatchedMeanwhile has somebody begin to watch what is recorded while all that the line takes is asked for with
// more urgency: what has waited goes on, as urgent as it is by then.
func TestWatchedMeanwhile(t *testing.T) {
	const fragments, size = 5, 50_000
	c := &thinCable{rate: 6e6 / 8, delay: 40 * time.Millisecond, queue: 2000}
	overThin(t, c, budget.Config{}, func(t *testing.T, r *Remote, src *sourcetest.Memory) {
		feed, id := footage(src)
		recording, leave := context.WithCancel(WithPriority(t.Context(), PrioritySchedule))
		items := arrivals(recording, r)
		<-items
		stop := fetching(t, r, id, PriorityRequest)
		<-time.After(3 * time.Second)
		for range fragments {
			<-time.After(time.Second / 2)
			feed.Append(true, size)
		}
		stuck := len(items)
		if err := r.Watch(t.Context(), testStream, true); err != nil {
			t.Fatal(err)
		}
		watched := time.Now()
		limit := time.After(20 * time.Second)
		for range fragments - stuck {
			select {
			case <-items:
			case <-limit:
			}
		}
		took := time.Since(watched)
		t.Logf("%d of %d fragments came before somebody watched, the others %v after that", stuck, fragments, took)
		if stuck == fragments || took > time.Second/2 { // 250 kB are 0.33 s of this line
			t.Errorf("%d of %d fragments came before, the others after %v", stuck, fragments, took)
		}
		leave()
		stop()
	})
}

// TestTornMessage has the budget forbid everything in the middle of a message: nothing is put into it that the hub
// would take for its rest.
func TestTornMessage(t *testing.T) {
	for _, keyFrames := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			now := time.Now().UTC()
			next := now.Truncate(time.Hour).Add(time.Hour)
			<-time.After(next.Add(-2 * time.Second).Sub(now)) // a message of 1 MB takes 8 s
			every := [7]bool{true, true, true, true, true, true, true}
			src := newSource()
			src.Feed(testStream).Begin(1 << 20)
			edge, hub := link.Pipe("berlin", "")
			s := &server{conn: edge, src: src, version: version2, budget: openBudget(t, budget.Config{
				Schedule: budget.NewSchedule(nil, []budget.Rule{
					{Days: every, From: next.Hour(), To: next.Hour() + 1, Limit: budget.Limit{Rate: budget.Nothing}},
					{Days: every, To: 24, Limit: budget.Limit{Rate: budget.Megabit}},
				})})}
			stop := run(t, s.run)
			ctx := t.Context()
			if keyFrames {
				ctx = WithKeyFrames(ctx)
			}
			var last error
			for _, err := range NewRemote(hub).Live(ctx, testStream) {
				last = err
			}
			var refusal *budget.Refusal
			if last == nil || errors.Is(last, io.ErrUnexpectedEOF) || errors.As(last, &refusal) {
				t.Errorf("key frames %v: %v", keyFrames, last)
			}
			hub.Close(0, "")
			stop()
		})
	}
}

// fixedRates is what the test's streams take.
type fixedRates struct{}

func (fixedRates) BitRate(s branchline.StreamID) (all, keys budget.Rate) {
	if s == testStream {
		return 4_100_000, 300_000
	}
	return 400_000, 40_000
}

func (fixedRates) Beside(branchline.StreamID) []branchline.StreamID {
	return []branchline.StreamID{"entrance.sub"}
}

// refusalOf watches until the first item or error, and returns the refusal if that was one.
func refusalOf(ctx context.Context, t *testing.T, r *Remote, stream branchline.StreamID) *budget.Refusal {
	t.Helper()
	for _, err := range r.Live(ctx, stream) {
		var refusal *budget.Refusal
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		return refusal
	}
	t.Fatal("nothing came")
	return nil
}

func TestRefusalCrossesWithItsNumbers(t *testing.T) {
	synctest.Test(t, refusalCrosses)
}

func refusalCrosses(t *testing.T) {
	src := newSource()
	feed := src.Feed(testStream)
	id := feed.Begin(1000)
	feed.Append(true, 1000)
	b := openBudget(t, budget.Config{Schedule: limited(2 * budget.Megabit), Streams: fixedRates{}})
	edge, hub := link.Pipe("berlin", "")
	run(t, func(ctx context.Context) error { return (&server{conn: edge, src: src, budget: b}).run(ctx) },
		func() error { return hub.Close(0, "") })
	r := NewRemote(hub)
	refusal := refusalOf(t.Context(), t, r, testStream)
	if refusal == nil || refusal.Budget != 2*budget.Megabit || refusal.Need != 4_100_000 || len(refusal.Instead) != 3 ||
		refusal.Instead[0] != (budget.Alternative{Stream: "entrance.sub", Need: 400_000}) {
		t.Fatalf("refused with %+v", refusal)
	}
	playing := WithPlayback(t.Context(), testStream)
	if _, err := r.Fetch(playing, id, branchline.ByteRange{End: 10}); !errors.As(err, &refusal) {
		t.Errorf("playback: %v", err)
	}
	nothing := WithPlayback(t.Context(), "entrance.sub")
	_, err := r.Fetch(nothing, branchline.SegmentID{9}, branchline.ByteRange{})
	if !errors.Is(err, branchline.ErrNotFound) {
		t.Errorf("playback of what does not exist: %v", err)
	}
	synctest.Wait()
	if s := b.State(); len(s.Viewers) != 0 {
		t.Errorf("playback of nothing has a place: %v", s.Viewers)
	}
	if body, err := r.Fetch(t.Context(), id, branchline.ByteRange{End: 10}); err != nil {
		t.Errorf("what nobody watches: %v", err)
	} else {
		body.Close()
	}
	if refusal := refusalOf(WithKeyFrames(t.Context()), t, r, testStream); refusal != nil {
		t.Errorf("key frames only: %v", refusal)
	}
	synctest.Wait() // the edge hears on that call's stream, and on no other, that its viewer has left

	// What is recorded is not refused, and goes on when somebody may not watch it.
	recording := WithPriority(t.Context(), PrioritySchedule)
	if refusal := refusalOf(recording, t, r, testStream); refusal != nil {
		t.Errorf("recording: %v", refusal)
	}
	if err := r.Watch(t.Context(), testStream, true); !errors.As(err, &refusal) || !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("watching what is recorded: %v", err)
	}
	if err := r.Watch(t.Context(), "entrance.sub", true); err != nil {
		t.Errorf("watching a thin one: %v", err)
	}
	if s, err := r.Uplink(t.Context()); err != nil || s.Viewers != 1 || s.Used != 400_000 || s.Rate != 2*budget.Megabit {
		t.Errorf("the uplink has %+v: %v", s, err)
	}
	if err := r.Watch(t.Context(), "entrance.sub", false); err != nil {
		t.Error(err)
	}
	if s := b.State(); len(s.Viewers) != 0 {
		t.Errorf("still watching: %+v", s.Viewers)
	}
}

func TestKeyFramesOnly(t *testing.T) {
	src := newSource()
	feed := src.Feed(testStream)
	feed.Begin(1000)
	edge, hub := link.Pipe("berlin", "")
	serveOn(t, edge, src)
	defer hub.Close(0, "")
	r := NewRemote(hub)
	frames := 0
	for i, err := range r.Live(WithKeyFrames(t.Context()), testStream) {
		if err != nil {
			t.Fatal(err)
		}
		if i.Fragment != nil || i.Seal != nil || i.Frame != nil && !i.Frame.Key {
			t.Fatalf("got %+v", i)
		}
		if i.Frame == nil {
			continue
		}
		if frames++; frames == 3 {
			break
		}
		feed.Append(false, 1000)
		feed.Append(true, 1000)
	}
}

func sampleRefusal() error {
	return &budget.Refusal{
		Budget: 2_000_000, Until: time.Unix(1_800_000_000, 0).UTC(), Zone: "UTC", Used: 1, Viewers: 2, Need: 3, Spent: true,
		Instead: []budget.Alternative{{Stream: "entrance.sub", KeyFrames: true, Need: 4}},
	}
}

// TestRefusalsOfStrangers: what a peer says in a refusal does no harm to whoever shows it.
func TestRefusalsOfStrangers(t *testing.T) {
	good := encodeRefusal(sampleRefusal())
	if got := decodeRefusal(good); got == nil || got.Error() != sampleRefusal().Error() {
		t.Errorf("got %v", got)
	}
	zone := encodeRefusal(sampleRefusal())
	zone.Zone = "../../etc/passwd"
	if got := decodeRefusal(zone); got == nil || got.Zone != "UTC" {
		t.Errorf("of no zone: %+v", got)
	}
	stream := encodeRefusal(sampleRefusal())
	stream.Instead[0].Stream = "<b>"
	many := encodeRefusal(sampleRefusal())
	for range maxInstead {
		many.Instead = append(many.Instead, many.Instead[0])
	}
	if decodeRefusal(stream) != nil || decodeRefusal(many) != nil {
		t.Error("what makes no sense is shown")
	}
}
