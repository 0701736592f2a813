package budget

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

// Class says how urgent something is, the most urgent first. The values are those of the wire.
type Class uint8

// The classes of DESIGN section 7.
const (
	Control Class = iota
	Live
	Request
	Event
	Planned // policies, and the hub's recording of live streams
	Backfill
	classes
)

// String returns the class's name.
func (c Class) String() string {
	switch c {
	case Control:
		return "control"
	case Live:
		return "live"
	case Request:
		return "request"
	case Event:
		return "event"
	case Planned:
		return "schedule"
	}
	return "backfill"
}

const (
	// MostChunk is what may pass at once where nothing limits, in bytes. Where something does, a chunk is what
	// the rate takes in chunkTime, between leastChunk and mostPaced: so long something urgent waits for bulk.
	MostChunk  = 64 << 10
	mostPaced  = 16 << 10
	leastChunk = 1200
	chunkTime  = 10 * time.Millisecond
	// lookEvery is how often the links are looked at while something is sent, and idleLook while nothing is.
	lookEvery = 20 * time.Millisecond
	idleLook  = time.Second
	// burst is how long a bucket fills while nothing is sent. With a chunk it is how far a second is over the limit at
	// most, which is a twenty-fifth.
	burst = 30 * time.Millisecond
	// packetCost is what each packet has in headers outside of QUIC, in bytes: UDP and IPv4.
	packetCost = 28
)

// Sample is what a link tells of itself.
type Sample struct {
	RTT     time.Duration // the newest; zero for not known
	Sent    uint64        // bytes of all packets since the link was made, without what is around QUIC
	Packets uint64        // sent
}

// Config describes a budget. The zero Config limits nothing and still yields by delay.
type Config struct {
	Schedule Schedule
	Quota    Quota
	Capacity Rate    // of the uplink, if somebody knows it; zero: measured
	Streams  Streams // for admission; nil: nobody is refused for what a stream needs
	Path     string  // of the file that keeps what was measured and counted; empty: nothing is kept
	Clock    clock.Clock
	Logger   *slog.Logger // nil means none
}

// Budget is one gate for all that a site sends. A nil Budget lets everything pass. Methods may be called
// concurrently, until Close.
type Budget struct {
	cfg    Config
	log    *slog.Logger
	free   atomic.Bool           // nothing limits
	look   atomic.Int64          // when to look at the links next, in nanoseconds since 1970
	passed [classes]atomic.Int64 // bytes by class

	file sync.Mutex // held while it is written; before mu

	mu       sync.Mutex
	links    map[*tap]bool
	waiting  [classes][]*waiter
	alarm    *time.Timer // nil: none is set
	starved  bool        // something waited for the path since the last look
	shared   bool        // something waited for nothing but what is allowed since then
	delay    delay
	path     bucket // what the line takes without a queue; binds what is less urgent than live
	allow    bucket // what the schedule and the quota allow; binds all but control
	count    count
	limit    Limit     // of the schedule now
	until    time.Time // when that changes; zero: never
	lookedAt time.Time
	admitted map[*admission]bool
	entries  uint64 // how often admitted has changed
}

// tap is a link that is looked at.
type tap struct {
	sample func() Sample
	last   Sample
}

type waiter struct {
	n     int
	ready chan struct{} // closed when it may pass, or err is set
	err   error
}

// Open returns the budget with what was kept of it. Its error says that the file cannot be read.
func Open(cfg Config) (*Budget, error) {
	b := &Budget{cfg: cfg, log: cfg.Logger, links: map[*tap]bool{}, admitted: map[*admission]bool{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.count = count{quota: cfg.Quota, zone: cfg.Schedule.Zone()}
	now := cfg.Clock.Now()
	if err := b.count.open(cfg.Path, now); err != nil {
		return nil, err
	}
	if known := b.capacity(); known > 0 {
		b.delay.rate, b.delay.gain = known.bytes()*0.7, mostGain
	}
	b.mu.Lock()
	b.setRates(now)
	b.mu.Unlock()
	return b, nil
}

// Run looks at the links while nothing is sent, and keeps what was counted, until ctx ends; it returns ctx's
// error.
func (b *Budget) Run(ctx context.Context) error {
	tick := time.NewTicker(idleLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		b.lookNow(b.cfg.Clock.Now())
		if err := b.keep(false); err != nil {
			b.log.Error("what the uplink sent is not kept", "error", err)
		}
	}
}

// Close keeps what was counted. Nobody may wait any more.
func (b *Budget) Close() error {
	b.lookNow(b.cfg.Clock.Now())
	b.mu.Lock()
	if b.alarm != nil {
		b.alarm.Stop()
	}
	b.mu.Unlock()
	return b.keep(true)
}

// Attach counts and watches a link until detach is called, which takes a last look. sample is called by
// whoever sends, often, and must return at once.
func (b *Budget) Attach(sample func() Sample) (detach func()) {
	if b == nil {
		return func() {}
	}
	t := &tap{sample: sample}
	b.mu.Lock()
	b.links[t] = true
	b.mu.Unlock()
	return func() {
		b.lookNow(b.cfg.Clock.Now())
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.links, t)
	}
}

// Chunk returns how many bytes to ask for at once, at most.
func (b *Budget) Chunk() int {
	if b == nil || b.free.Load() {
		return MostChunk
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	rate := b.path.rate
	if b.allow.rate > 0 && (rate == 0 || b.allow.rate < rate) {
		rate = b.allow.rate
	}
	switch {
	case rate == 0 && !b.delay.known:
		return leastChunk
	case rate == 0:
		return MostChunk
	}
	return min(max(int(rate*chunkTime.Seconds()), leastChunk), mostPaced)
}

// Wait returns true when n bytes of the class may be sent, at most [MostChunk]. It returns false when other is closed
// before that, which tells that they are of another class by now. Its error is ctx's, or a [*Refusal] if nothing of
// the class may be sent for longer.
func (b *Budget) Wait(ctx context.Context, class Class, n int, other <-chan struct{}) (bool, error) {
	if b == nil || class == Control {
		return true, nil
	}
	class = min(class, Backfill)
	now := b.cfg.Clock.Now()
	if due := b.look.Load(); now.UnixNano() >= due {
		b.lookNow(now)
	}
	if b.free.Load() {
		b.passed[class].Add(int64(n))
		return true, nil
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	w, err := b.queue(class, n, now)
	if w == nil {
		return err == nil, err
	}
	select {
	case <-w.ready:
		return w.err == nil, w.err
	case <-ctx.Done():
		b.leave(class, w)
		return false, ctx.Err()
	case <-other:
		if b.leave(class, w) {
			return false, nil
		}
		return w.err == nil, w.err
	}
}

// queue lets the bytes pass, or returns whom to wait for.
func (b *Budget) queue(class Class, n int, now time.Time) (*waiter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.barred(class, now); err != nil {
		return nil, err
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.waiting[class] = append(b.waiting[class], w)
	b.dispatch(now)
	select {
	case <-w.ready:
		return nil, w.err
	default:
		return w, nil
	}
}

// leave takes the waiter back, and returns false if it has been let pass or refused.
func (b *Budget) leave(class Class, w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting[class], w)
	if i >= 0 {
		b.waiting[class] = slices.Delete(b.waiting[class], i, i+1)
	}
	return i >= 0
}

// dispatch lets pass who may, the most urgent first. The caller holds mu.
func (b *Budget) dispatch(now time.Time) {
	b.path.fill(now)
	b.allow.fill(now)
	for class := Live; class < classes; class++ {
		for len(b.waiting[class]) > 0 {
			w := b.waiting[class][0]
			if err := b.barred(class, now); err != nil {
				w.err = err
			} else if wait := b.ready(class); wait > 0 {
				b.wake(wait)
				return
			} else {
				b.path.take(w.n)
				b.allow.take(w.n)
				b.passed[class].Add(int64(w.n))
			}
			b.waiting[class] = b.waiting[class][1:]
			close(w.ready)
		}
	}
}

// ready returns how long something of the class has to wait.
func (b *Budget) ready(class Class) time.Duration {
	wait := b.allow.wait()
	if class > Live {
		path := b.path.wait()
		b.starved, b.shared = b.starved || path > 0, b.shared || path == 0 && wait > 0
		wait = max(wait, path)
	}
	return wait
}

// wake makes dispatch run again after a while, or at the next look, as rates may have changed by then.
func (b *Budget) wake(after time.Duration) {
	after = min(max(after, time.Millisecond/4), lookEvery)
	if b.alarm == nil {
		b.alarm = time.AfterFunc(after, b.rung)
		return
	}
	b.alarm.Reset(after)
}

func (b *Budget) rung() {
	now := b.cfg.Clock.Now()
	if now.UnixNano() >= b.look.Load() {
		b.lookNow(now)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dispatch(now)
}

// bucket is a rate with what may be sent of it now.
type bucket struct {
	rate   float64 // bytes a second; 0: no limit
	tokens float64 // bytes; negative is owed
	at     time.Time
}

func (b *bucket) fill(now time.Time) {
	if since := now.Sub(b.at).Seconds(); since > 0 {
		most := max(b.rate*burst.Seconds(), 2*leastChunk)
		b.tokens = min(b.tokens+b.rate*since, most)
		b.at = now
	}
}

// take pays for n bytes. What is owed is never more than of a second, so that whatever was counted wrongly is
// forgotten.
func (b *bucket) take(n int) {
	if b.rate > 0 {
		b.tokens = max(b.tokens-float64(n), -max(b.rate, mostPaced))
	}
}

func (b *bucket) wait() time.Duration {
	if b.rate == 0 || b.tokens > 0 {
		return 0
	}
	return time.Duration((1 - b.tokens) / b.rate * float64(time.Second))
}
