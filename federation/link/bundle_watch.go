package link

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// joinTime bounds the making of one more connection.
	joinTime = 2 * HandshakeTimeout
	// The pause after connections could not be made, which doubles each time.
	firstJoinPause = 5 * time.Second
	maxJoinPause   = time.Minute
	// leastTime is how long the least round trip time counts, at least.
	leastTime = 30 * time.Second
	// quiet is after how long without a packet a connection gets no new streams while others get some.
	quiet = KeepAlive + KeepAlive/2
)

// dialFunc makes one more connection to the peer of a bundle, which has still to join.
type dialFunc func(ctx context.Context, small bool) (Conn, error)

// errAlone means that the peer knows nothing of bundles.
var errAlone = errors.New("the peer takes no further connections")

// sight is what is seen of a connection from time to time, by the bundle's watch alone, and how good it
// is, for all.
type sight struct {
	last  Stats
	at    time.Time
	least [2]time.Duration // round trip time of this leastTime and of the one before
	since time.Time        // this one began
	heard time.Time        // something had arrived
	cost  atomic.Uint64    // bits of a float64: seconds of its path for each byte under way, or more
}

// look returns what has gone over the connection since the last look.
func (j *joined) look(now time.Time) sample {
	v, s := &j.view, j.conn.Stats()
	past := now.Sub(v.at)
	m := sample{
		sent: float64(s.Sent - v.last.Sent), lost: max(float64(s.Lost)-float64(v.last.Lost), 0),
		window: float64(s.CongestionWindow), rtt: s.RTT, best: v.best(now, s),
	}
	if v.at.IsZero() {
		m.sent, m.lost, past = 0, 0, sizeEvery
	}
	if s.PacketsIn != v.last.PacketsIn || v.at.IsZero() {
		v.heard = now
	}
	m.limited = m.sent*s.RTT.Seconds() >= limitedShare*m.window*past.Seconds() && m.sent > 0 && s.RTT > 0
	v.last, v.at = s, now
	cost := max(cmp.Or(s.RTT, madeUpRTT), time.Millisecond).Seconds() / max(m.window, packetSize)
	if m.lost > 0 {
		cost *= 1.5 // it is about to send less
	}
	if now.Sub(v.heard) > quiet {
		cost *= 1000
	}
	v.cost.Store(math.Float64bits(cost))
	return m
}

// best returns the least round trip time of the last while, as that of the whole connection may be one of another
// path; zero as long as it is not known.
func (v *sight) best(now time.Time, s Stats) time.Duration {
	rtt := cmp.Or(s.Latest, s.RTT)
	if rtt == 0 {
		return 0
	}
	if now.Sub(v.since) >= leastTime {
		v.least, v.since = [2]time.Duration{rtt, v.least[0]}, now
	}
	v.least[0] = min(v.least[0], rtt)
	return min(v.least[0], cmp.Or(v.least[1], v.least[0]))
}

// load is how long one more stream would wait for its share of the connection, in some unit.
func (j *joined) load() float64 {
	return float64(j.open.Load()+1) * math.Float64frombits(j.view.cost.Load())
}

// watch looks at the connections until the bundle is over, and keeps as many as there should be if it
// can dial.
func (b *bundle) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &watch{b: b, ctx: ctx}
	defer w.joins.Wait()
	defer cancel()
	tick := time.NewTicker(sizeEvery)
	defer tick.Stop()
	for {
		ticks := tick.C
		if b.dial == nil && b.single() {
			ticks = nil // nothing to choose
		}
		select {
		case <-ticks:
		case <-b.changed:
		case <-b.closing:
			return
		case <-b.done:
			return
		}
		w.round(clock.Clock{}.Now())
	}
}

func (b *bundle) single() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns) == 1
}

// watch is the state of a bundle's watch.
type watch struct {
	b     *bundle
	ctx   context.Context
	size  sizing
	at    time.Time // of the last step of size
	next  uint32    // number of the last connection
	joins sync.WaitGroup
	quic  attempts
	bulk  bulkWatch
}

// attempts are those to make further connections in one way. The zero value is ready; it is safe for concurrent use.
type attempts struct {
	mu    sync.Mutex
	under int           // under way
	until time.Time     // none before
	pause time.Duration // after the next failure; 0: firstJoinPause
	alone bool          // none any more
}

// begin reports how many are to be begun, so that as many as wanted are under way.
func (a *attempts) begin(now time.Time, want int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.alone || now.Before(a.until) || want <= a.under {
		return 0
	}
	n := want - a.under
	a.under = want
	return n
}

// made notes how an attempt has ended.
func (a *attempts) made(err error) {
	now := clock.Clock{}.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.under--
	switch {
	case err == nil:
	case errors.Is(err, errAlone):
		a.alone = true
	default:
		a.failed(now)
	}
}

// fail makes a pause before the next attempt, as one has not brought what it should.
func (a *attempts) fail(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed(now)
}

func (a *attempts) failed(now time.Time) {
	if a.until.After(now) {
		return // one of several at once
	}
	a.pause = cmp.Or(a.pause, firstJoinPause)
	a.until = now.Add(a.pause)
	a.pause = min(2*a.pause, maxJoinPause)
}

// works makes the next pause as short as the first.
func (a *attempts) works() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pause = 0
}

func (w *watch) round(now time.Time) {
	w.b.mu.Lock()
	all := slices.Clone(w.b.conns)
	conns := slices.DeleteFunc(slices.Clone(all), func(j *joined) bool { return j.leaving || j.bulk })
	bulk := slices.DeleteFunc(slices.Clone(all), func(j *joined) bool { return !j.bulk })
	used := slices.DeleteFunc(slices.Clone(bulk), func(j *joined) bool { return j.leaving })
	over := w.b.end != nil
	w.b.mu.Unlock()
	if w.at.IsZero() {
		w.at = now
	}
	past := now.Sub(w.at)
	if past > 0 && past < sizeEvery/2 {
		return // woken between two steps
	}
	w.at = now
	samples := make([]sample, 0, len(conns))
	carried := 0.0
	for _, j := range all {
		m := j.look(now)
		if carried += m.sent; slices.Contains(conns, j) {
			samples = append(samples, m)
		}
	}
	if w.b.silent.Swap(false) {
		hush(now, all)
	}
	dark(now, bulk, conns)
	if w.b.dial == nil || w.b.still.Load() || past <= 0 || len(all) == 0 || over {
		return
	}
	if len(conns) == 0 { // all that are left are about to go
		w.grow(now, 1)
		return
	}
	w.beside(now, bulk, len(used) == 0, survey(samples).best, carried/past.Seconds())
	w.size = w.size.step(past, w.b.ways.level(conns, samples))
	switch want := max(w.size.want, w.b.ways.least()); {
	case w.b.stalled.Load() && w.replace(now, conns):
	case want > len(conns):
		w.grow(now, want-len(conns))
	case want < len(conns):
		rest, surplus := w.b.ways.surplus(conns, want)
		for _, j := range surplus {
			if j.control != nil && heard(rest, now) {
				w.b.give(j)
			}
		}
	}
}

// heard reports whether something has come on all of them lately: in place of one that is about to end no other is
// to be given up.
func heard(conns []*joined, now time.Time) bool {
	return !slices.ContainsFunc(conns, func(j *joined) bool { return now.Sub(j.view.heard) > quiet })
}

// hush closes the connections of which nothing has come for as long as of one that was closed for that. Their own
// probes may be many seconds apart: one that was made while the path was dark takes it for a very long one.
func hush(now time.Time, conns []*joined) {
	for _, j := range conns {
		if now.Sub(j.view.heard) >= silentFor {
			_ = j.conn.Close(CodeStalled, ErrSilent.Error()) // it may have ended meanwhile
		}
	}
}

// replace puts a connection with small packets in the place of all that have large ones: those that have
// not stalled yet are about to. It reports whether there are any.
func (w *watch) replace(now time.Time, conns []*joined) bool {
	large := slices.DeleteFunc(slices.Clone(conns), func(j *joined) bool { return j.small })
	switch {
	case len(large) == 0:
		return false
	case len(large) == MaxConnections: // one has to make room
		large = large[MaxConnections-1:]
		fallthrough
	case len(large) < len(conns):
		for _, j := range large {
			_ = j.conn.Close(CodeLeft, ErrStalled.Error())
		}
	default:
		w.grow(now, 1)
	}
	return true
}

// grow makes more connections, all at once.
func (w *watch) grow(now time.Time, more int) {
	for range w.quic.begin(now, more) {
		w.next++
		number, small := w.next, w.b.stalled.Load()
		w.joins.Go(func() {
			err := w.join(w.b.dial, number, small)
			if err == nil {
				w.quic.works()
			}
			w.quic.made(err)
		})
	}
}

func (w *watch) join(dial dialFunc, number uint32, small bool) error {
	ctx, cancel := context.WithTimeout(w.ctx, joinTime)
	defer cancel()
	c, err := dial(ctx, small)
	if err != nil {
		return err
	}
	return w.b.join(ctx, c, number, small)
}
