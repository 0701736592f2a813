package budget_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/internal/clock"
)

// always is a schedule with one limit.
func always(l budget.Limit) budget.Schedule {
	return budget.NewSchedule(time.UTC, []budget.Rule{{Days: days("all"), To: 24, Limit: l}})
}

func open(t *testing.T, cfg budget.Config) *budget.Budget {
	t.Helper()
	b, err := budget.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// line is a link over a line with a queue in front of it, on the clock of the test.
type line struct {
	rate float64 // bytes a second
	idle time.Duration
	tax  float64 // bytes sent for each byte that passed

	mu          sync.Mutex
	queue, sent float64
	at          time.Time
	worst       time.Duration // round trip time
	past        []time.Duration
	pastAt      []time.Time
}

func (l *line) send(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flow()
	l.queue += float64(n) * l.tax
	l.sent += float64(n) * l.tax
	rtt := l.idle + time.Duration(l.queue/l.rate*float64(time.Second))
	l.past, l.pastAt = append(l.past, rtt), append(l.pastAt, l.at.Add(rtt))
	l.worst = max(l.worst, rtt)
}

// longest returns the longest round trip since it was last asked for.
func (l *line) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	worst := l.worst
	l.worst = 0
	return worst
}

// become has the line take another rate from now on, in bits a second.
func (l *line) become(rate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flow()
	l.rate = rate / 8
}

// average returns at what rate is sent in the time from now on, in bits a second.
func (l *line) average(while time.Duration) float64 {
	before := l.sample().Sent
	wait(while)
	return float64(l.sample().Sent-before) * 8 / while.Seconds()
}

// full reports whether so much is under way that a connection would wait.
func (l *line) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flow()
	return l.queue > l.rate
}

func (l *line) flow() {
	now := clock.Clock{}.Now()
	if !l.at.IsZero() {
		l.queue = max(l.queue-l.rate*now.Sub(l.at).Seconds(), 0)
	}
	l.at = now
}

func (l *line) sample() budget.Sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flow()
	for len(l.past) > 1 && l.pastAt[1].Before(l.at) {
		l.past, l.pastAt = l.past[1:], l.pastAt[1:]
	}
	rtt := l.idle
	if len(l.past) > 0 && !l.pastAt[0].After(l.at) {
		rtt = l.past[0]
	}
	return budget.Sample{RTT: rtt, Sent: uint64(l.sent)}
}

// pass waits for as long as the class takes.
func pass(ctx context.Context, b *budget.Budget, class budget.Class, n int) error {
	_, err := b.Wait(ctx, class, n, nil)
	return err
}

// passing sends without end in the class until ctx ends, and counts.
func passing(ctx context.Context, b *budget.Budget, l *line, class budget.Class, sent *atomic.Int64) {
	for {
		n := b.Chunk()
		if pass(ctx, b, class, n) != nil {
			return
		}
		l.send(n)
		sent.Add(int64(n))
		for l.full() && ctx.Err() == nil {
			wait(time.Millisecond)
		}
	}
}

// world runs f in virtual time with a budget over a line, and ends what it starts.
func world(t *testing.T, cfg budget.Config, l *line, f func(ctx context.Context, b *budget.Budget)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, cfg)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		detach := b.Attach(l.sample)
		f(ctx, b)
		stop()
		<-done
		wait(time.Minute) // for whoever waits without the context
		detach()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

func wait(d time.Duration) { <-time.After(d) }

func TestTheScheduleBindsAllThatIsSent(t *testing.T) {
	for _, class := range []budget.Class{budget.Live, budget.Request, budget.Backfill} {
		l := &line{rate: 50e6 / 8, idle: 30 * time.Millisecond, tax: 1.06}
		world(t, budget.Config{Schedule: always(budget.Limit{Rate: 2 * budget.Megabit})}, l,
			func(ctx context.Context, b *budget.Budget) {
				var sent atomic.Int64
				for range 4 {
					go passing(ctx, b, l, class, &sent)
				}
				wait(5 * time.Second)
				if got := l.average(20 * time.Second); got > 2.02e6 || got < 1.9e6 {
					t.Errorf("%v: %.2f Mbit/s went over the network, allowed are 2", class, got/1e6)
				}
			})
	}
}

func TestNothingUrgentWaitsBehindBulk(t *testing.T) {
	order := []budget.Class{budget.Live, budget.Request, budget.Event, budget.Planned, budget.Backfill}
	for i, class := range order[:len(order)-1] {
		l := &line{rate: 50e6 / 8, idle: 30 * time.Millisecond, tax: 1}
		world(t, budget.Config{Schedule: always(budget.Limit{Rate: budget.Megabit})}, l,
			func(ctx context.Context, b *budget.Budget) {
				var bulk, sent atomic.Int64
				for range 10 {
					for _, less := range order[i+1:] {
						go passing(ctx, b, l, less, &bulk)
					}
				}
				wait(3 * time.Second)
				synctest.Wait()
				before, began := bulk.Load(), clock.Clock{}.Now()
				urgent, end := context.WithCancel(ctx)
				go passing(urgent, b, l, class, &sent)
				wait(2 * time.Second)
				end()
				synctest.Wait()
				if got := bulk.Load() - before; got > int64(b.Chunk()) {
					t.Errorf("%v: %d bytes of less urgent passed in %v", class, got, clock.Clock{}.Now().Sub(began))
				}
				if got := sent.Load() * 8 / 2; got < 900_000 {
					t.Errorf("%v: got %d bit/s of 1 Mbit/s", class, got)
				}
			})
	}
}

func TestBulkYieldsAndFillsTheLine(t *testing.T) {
	l := &line{rate: 20e6 / 8, idle: 80 * time.Millisecond, tax: 1.03}
	world(t, budget.Config{}, l, func(ctx context.Context, b *budget.Budget) {
		var sent, live atomic.Int64
		for range 8 {
			go passing(ctx, b, l, budget.Backfill, &sent)
		}
		wait(10 * time.Second)
		l.longest()
		used := l.average(30*time.Second) / (8 * l.rate)
		go func() { // 4 Mbit/s of pictures
			for pass(ctx, b, budget.Live, 20_000) == nil {
				l.send(20_000)
				live.Add(20_000)
				wait(40 * time.Millisecond)
			}
		}()
		wait(30 * time.Second)
		worst := l.longest()
		t.Logf("used %.3f, round trip at most %v", used, worst)
		if used < 0.9 || worst > 2*l.idle {
			t.Errorf("used %.3f of the line, round trip at most %v", used, worst)
		}
		if got := live.Load(); got < 29*500_000 {
			t.Errorf("live got %d bytes in 30 s of 4 Mbit/s", got)
		}
		if c := b.State().Capacity; c < 19*budget.Megabit || c > 22*budget.Megabit {
			t.Errorf("measured %v of 20", c)
		}
	})
}

func TestShareOfWhatWasMeasuredLasts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uplink.json")
	l := &line{rate: 10e6 / 8, idle: 40 * time.Millisecond, tax: 1}
	world(t, budget.Config{Path: path}, l, func(ctx context.Context, b *budget.Budget) {
		var sent atomic.Int64
		go passing(ctx, b, l, budget.Backfill, &sent)
		wait(20 * time.Second)
	})
	world(t, budget.Config{Path: path, Schedule: always(budget.Limit{Percent: 30})}, &line{rate: 1, idle: 1},
		func(_ context.Context, b *budget.Budget) {
			if r := b.State().Rate; r < 28*budget.Megabit/10 || r > 33*budget.Megabit/10 {
				t.Errorf("30 %% of 10 Mbit/s is %v", r)
			}
		})
}

func TestQuota(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uplink.json")
	quota := budget.Quota{Bytes: 1_000_000, Day: 2} // the clock of the test begins on the 1st
	l := &line{rate: 50e6 / 8, idle: 10 * time.Millisecond, tax: 1}
	var refusal *budget.Refusal
	world(t, budget.Config{Path: path, Quota: quota}, l, func(ctx context.Context, b *budget.Budget) {
		var sent atomic.Int64
		passing(ctx, b, l, budget.Backfill, &sent) // ends when it is refused
		if got := b.State(); !got.Spent || got.Used != sent.Load() || got.Used < quota.Bytes {
			t.Errorf("after %d bytes: %+v", sent.Load(), got)
		}
		if err := pass(ctx, b, budget.Planned, 1); !errors.As(err, &refusal) || !refusal.Spent ||
			!errors.Is(err, branchline.ErrBusy) {
			t.Errorf("bulk over the quota: %v", err)
		}
		for _, class := range []budget.Class{budget.Live, budget.Request} {
			if err := pass(ctx, b, class, 1); err != nil {
				t.Errorf("%v: %v", class, err)
			}
		}
	})
	// It outlives the process, and ends with the month.
	world(t, budget.Config{Path: path, Quota: quota}, l, func(ctx context.Context, b *budget.Budget) {
		if err := pass(ctx, b, budget.Backfill, 1); !errors.As(err, &refusal) {
			t.Errorf("after a restart: %v", err)
		}
		wait(b.State().Ends.Sub(clock.Clock{}.Now()) + 2*time.Second)
		if err := pass(ctx, b, budget.Backfill, 1); err != nil {
			t.Errorf("in the next month: %v", err)
		}
	})
	slow := quota
	slow.Then.Rate = 64_000
	none := quota
	none.Then.Rate = budget.Nothing
	for _, c := range []struct {
		quota budget.Quota
		rate  budget.Rate
		live  bool
	}{{slow, 64_000, true}, {none, budget.Nothing, false}} {
		c.quota.Bytes = 1
		world(t, budget.Config{Quota: c.quota}, &line{rate: 1e6, idle: time.Millisecond, sent: 10},
			func(ctx context.Context, b *budget.Budget) {
				wait(2 * time.Second)
				if got := b.State().Rate; got != c.rate {
					t.Errorf("then %v: %v", c.rate, got)
				}
				if err := pass(ctx, b, budget.Live, 1); (err == nil) != c.live {
					t.Errorf("then %v: live %v", c.rate, err)
				}
			})
	}
}

// A process that is killed has counted too much, never too little.
func TestQuotaOfAProcessThatIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uplink.json")
	cfg := budget.Config{Path: path, Quota: budget.Quota{Bytes: 1_000_000_000}}
	l := &line{rate: 8e6 / 8, idle: 10 * time.Millisecond, tax: 1}
	var at atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		b := open(t, cfg)
		ctx, kill := context.WithCancel(t.Context())
		go b.Run(ctx)
		b.Attach(l.sample)
		var sent atomic.Int64
		go passing(ctx, b, l, budget.Backfill, &sent)
		wait(33*time.Second + 300*time.Millisecond)
		at.Store(b.State().Used)
		kill()
	})
	synctest.Test(t, func(t *testing.T) {
		b := open(t, cfg)
		if got := b.State().Used; got < at.Load() || got > at.Load()+20_000_000 {
			t.Errorf("counted %d, after it was killed %d", at.Load(), got)
		}
	})
}

// rates are streams with what they take, whole and key frames.
type rates map[branchline.StreamID][2]budget.Rate

func (r rates) BitRate(s branchline.StreamID) (all, keys budget.Rate) { return r[s][0], r[s][1] }

func (r rates) Beside(s branchline.StreamID) []branchline.StreamID {
	if s.Camera() == "yard" && s != "yard.sub" {
		return []branchline.StreamID{"yard.sub"}
	}
	return nil
}

func TestAdmission(t *testing.T) {
	streams := rates{"yard.main": {4_100_000, 900_000}, "yard.sub": {400_000, 90_000}, "gate.main": {1_000_000, 200_000},
		"door.main": {800_000, 100_000}}
	b := open(t, budget.Config{Schedule: always(budget.Limit{Rate: 2 * budget.Megabit}), Streams: streams})
	ask := func(stream branchline.StreamID, keys bool) (func(), *budget.Refusal) {
		release, err := b.Admit(budget.Asked{Hub: "hub", Stream: stream, KeyFrames: keys})
		var r *budget.Refusal
		if err != nil && !errors.As(err, &r) {
			t.Fatal(err)
		}
		return release, r
	}
	gate, _ := ask("gate.main", false)
	again, _ := ask("gate.main", false)
	door, r := ask("door.main", false)
	if gate == nil || again == nil || door == nil {
		t.Fatalf("what fits is refused: %v", r)
	}
	_, r = ask("yard.main", false)
	if r == nil || r.Error() != "the uplink's budget now is 2.0 Mbit/s, 1.8 Mbit/s in use by 2 viewers; "+
		"this stream needs 4.1 Mbit/s" {
		t.Fatalf("refused with %v", r)
	}
	if len(r.Instead) != 1 || r.Instead[0] != (budget.Alternative{Stream: "yard.sub", KeyFrames: true, Need: 90_000}) {
		t.Errorf("offered %+v", r.Instead)
	}
	gate()
	gate() // once is enough
	if _, r := ask("yard.sub", false); r == nil {
		t.Error("the other of two viewers of one stream does not count")
	}
	again()
	if _, r := ask("yard.main", false); r == nil || len(r.Instead) != 3 || r.Instead[0].Stream != "yard.sub" ||
		r.Instead[0].KeyFrames || !r.Instead[1].KeyFrames || r.Instead[1].Stream != "yard.main" {
		t.Errorf("offered %+v", r.Instead)
	}
	if _, r := ask("yard.main", true); r != nil {
		t.Errorf("key frames: %v", r)
	}
	if _, r := ask("new.main", false); r != nil {
		t.Errorf("a stream of which nothing is known: %v", r)
	}
}

// BenchmarkWait is what a chunk of 64 KB costs where nothing limits.
func BenchmarkWait(b *testing.B) {
	g, err := budget.Open(budget.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Attach(func() budget.Sample { return budget.Sample{RTT: 100 * time.Microsecond} })()
	for b.Loop() {
		if err := pass(b.Context(), g, budget.Backfill, budget.MostChunk); err != nil {
			b.Fatal(err)
		}
	}
}

// TestBecomesUrgent has something wait behind a class that takes all there is, until it is of a more urgent one.
func TestBecomesUrgent(t *testing.T) {
	l := &line{rate: 2e6 / 8, idle: 40 * time.Millisecond, tax: 1}
	world(t, budget.Config{}, l, func(ctx context.Context, b *budget.Budget) {
		var sent atomic.Int64
		for range 4 {
			go passing(ctx, b, l, budget.Request, &sent)
		}
		wait(2 * time.Second)
		other := make(chan struct{})
		moved := make(chan bool)
		go func() {
			passed, err := b.Wait(ctx, budget.Planned, 1000, other)
			moved <- !passed && err == nil
		}()
		wait(5 * time.Second)
		select {
		case <-moved:
			t.Fatal("it passed before what is more urgent")
		default:
		}
		close(other)
		if !<-moved {
			t.Error("it was not told that it is of another class")
		}
		if st := b.State(); st.Waiting[budget.Planned] != 0 {
			t.Errorf("%d still wait in the class that was left", st.Waiting[budget.Planned])
		}
		if passed, err := b.Wait(ctx, budget.Live, 1000, other); !passed || err != nil {
			t.Errorf("as live: %v, %v", passed, err)
		}
	})
}
