package link

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// moveGrace is how long an outlet stays on a way that it has just moved to: the first round trip there may
	// take longer than those before.
	moveGrace = 600 * time.Millisecond
	// A way that carries nothing is knocked at every checkEvery while it answers, and otherwise after pauses from
	// firstCheck to checkEvery, each time for checkTime.
	checkEvery = 5 * time.Second
	firstCheck = 500 * time.Millisecond
	checkTime  = time.Second
	// A way that became dark is used again when it has answered for a while: firstRest, doubled each time up to
	// maxRest, and forgotten when it has carried for goodWay.
	firstRest = time.Second
	maxRest   = time.Minute
	goodWay   = 5 * time.Minute
	// darkTime is how long a metered way that became dark is taken for dark: nothing looks whether it still is.
	darkTime = 30 * time.Second
)

// Way is how one of the ways of a link stands.
type Way struct {
	Uplink
	Use         Use
	Up          bool
	Since       time.Time // of Up, or of its being down
	Connections int       // that go by it now
}

// Roving is what a [Conn] has beside the rest if it has several ways: its connections move from one to another.
// Methods may be called concurrently.
type Roving interface {
	// Ways returns how the ways stand, in the order of Options.Uplinks; nil if there is but one.
	Ways() []Way
	// Moved returns a channel that is closed when a way is used in another manner than it is now.
	Moved() <-chan struct{}
}

var _ Roving = (*bundle)(nil)

// ways is how the connections of one bundle, on the side that dialled, are spread over several ways.
type ways struct {
	all  []Uplink
	opt  Options // without a Local
	addr *net.UDPAddr

	mu        sync.Mutex
	state     []wayState
	use       []Use
	outlets   []*outlet   // of the bundle's endpoints
	endpoints []*endpoint // by way; nil: none was made for it
	moved     chan struct{}
	ended     bool
}

// wayState is what is known of one way.
type wayState struct {
	up       bool
	since    time.Time
	heard    time.Time     // something came by it
	answered time.Time     // the first of the answers in a row since it was dark
	doubted  time.Time     // it seemed dark, and there was no other
	rest     time.Duration // it has to answer for so long
}

// newWays begins with the way by which the first connection was made.
func newWays(e *endpoint, addr *net.UDPAddr, opt Options) *ways {
	w := &ways{
		all: opt.Uplinks, addr: addr, opt: opt, state: make([]wayState, len(opt.Uplinks)),
		endpoints: make([]*endpoint, len(opt.Uplinks)), moved: make(chan struct{}),
	}
	now := clock.Clock{}.Now()
	for i, l := range w.all {
		w.state[i] = wayState{up: i == e.outlet.home || l.Kind == UplinkMetered, since: now}
	}
	w.endpoints[e.outlet.home], w.outlets = e, []*outlet{e.outlet}
	w.mu.Lock()
	w.settle(now)
	w.mu.Unlock()
	e.outlet.ways.Store(w)
	return w
}

// from returns the options with which to dial by a way.
func (w *ways) from(way int) Options {
	opt := w.opt
	opt.Local = w.all[way].Local
	return opt
}

func (w *ways) ups() []bool {
	up := make([]bool, len(w.state))
	for i, s := range w.state {
		up[i] = s.up
	}
	return up
}

// settle moves every outlet to where it belongs. The caller holds mu.
func (w *ways) settle(now time.Time) {
	use := PlanUplinks(w.all, w.ups())
	for _, o := range w.outlets {
		at, _ := o.where()
		if to := target(use, o.home, w.all); to >= 0 && to != at {
			o.move(to, now)
		}
	}
	if !slices.Equal(use, w.use) {
		w.use = use
		close(w.moved)
		w.moved = make(chan struct{})
	}
}

// target returns by which way an outlet is to send: its own if that is used, else the best one that is; -1 if
// none is.
func target(use []Use, home int, all []Uplink) int {
	best := -1
	for i, u := range use {
		if u >= UseUrgent && (best < 0 || i == home || best != home && all[i].Kind.rank() < all[best].Kind.rank()) {
			best = i
		}
	}
	return best
}

// heard notes that something came by a way.
func (w *ways) heard(way int) {
	now := clock.Clock{}.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.state[way]
	s.heard = now
	if s.rest > 0 && s.up && now.Sub(s.since) > goodWay {
		s.rest = 0
	}
}

// dark notes that of what an outlet sends nothing arrives, or that it cannot send: the way is dark, and what goes
// by it goes on by another. Where all are, each is tried in its turn. It returns at once.
func (w *ways) dark(o *outlet) {
	now := clock.Clock{}.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	at, moved := o.where()
	if now.Sub(moved) < moveGrace {
		return
	}
	s := &w.state[at]
	if !w.another(at) {
		// A machine that is busy looks the same: the only way is not left at the first sign.
		switch past := now.Sub(s.doubted); {
		case past > 2*moveGrace:
			s.doubted = now
			return
		case past < moveGrace:
			return
		}
	}
	if s.up {
		s.up, s.since = false, now
	}
	s.answered, s.rest = time.Time{}, min(max(2*s.rest, firstRest), maxRest)
	w.settle(now)
	if here, _ := o.where(); here != at {
		return
	}
	for i := range w.all {
		if o.move((at+1+i)%len(w.all), now) {
			return
		}
	}
}

// another reports whether some other way works, or answers at least. The caller holds mu.
func (w *ways) another(than int) bool {
	for i, s := range w.state {
		if i != than && (s.up || !s.answered.IsZero()) {
			return true
		}
	}
	return false
}

// answered notes whether the hub has answered a knock by a way.
func (w *ways) answered(way int, yes bool) {
	now := clock.Clock{}.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.state[way]
	switch {
	case !yes:
		s.answered = time.Time{}
		if s.up && !w.carries(way) {
			s.up, s.since = false, now
		}
	case s.answered.IsZero():
		s.answered = now
		fallthrough
	default:
		if !s.up && now.Sub(s.answered) >= s.rest {
			s.up, s.since = true, now
		}
	}
	w.settle(now)
}

// carries reports whether some outlet sends by the way. The caller holds mu.
func (w *ways) carries(way int) bool {
	return slices.ContainsFunc(w.outlets, func(o *outlet) bool {
		at, _ := o.where()
		return at == way
	})
}

// run keeps the sockets and looks after the ways until ctx ends.
func (w *ways) run(ctx context.Context) {
	var looking sync.WaitGroup
	for i := range w.all {
		looking.Go(func() { w.look(ctx, i) })
	}
	looking.Wait()
}

// look looks after one way.
func (w *ways) look(ctx context.Context, way int) {
	for pause := firstCheck; ; {
		w.equip(way)
		up := w.check(ctx, way)
		if pause = min(2*pause, checkEvery); up {
			pause = checkEvery
		}
		if w.resting(way) {
			pause = firstCheck
		}
		if !within(ctx, pause) {
			return
		}
	}
}

// resting reports whether the way answers, and is not used again yet.
func (w *ways) resting(way int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.state[way].up && !w.state[way].answered.IsZero()
}

// check reports whether a way works, and knocks at the hub to find out if it carries nothing. A metered way is
// not knocked at: it is taken to work until it is needed and does not.
func (w *ways) check(ctx context.Context, way int) bool {
	now := clock.Clock{}.Now()
	w.mu.Lock()
	s := &w.state[way]
	carries := w.carries(way)
	if w.all[way].Kind == UplinkMetered && !s.up && !carries && now.Sub(s.since) >= darkTime {
		s.up, s.since = true, now
	}
	up := s.up
	w.mu.Unlock()
	if carries && up || w.all[way].Kind == UplinkMetered {
		return up
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := knock(ctx, w.addr, w.from(way))
	w.answered(way, err == nil)
	return err == nil
}

// equip gives every outlet a socket on the way.
func (w *ways) equip(way int) {
	w.mu.Lock()
	all := slices.Clone(w.outlets)
	w.mu.Unlock()
	for _, o := range all {
		if o.lacks(way) && w.all[way].reaches(w.addr.IP) {
			if c, err := w.from(way).listenPacket(w.all[way].from(w.addr.IP)); err == nil {
				o.add(way, c)
			}
		}
	}
}

// knock returns when the hub answers by any way, which is then taken to work.
func (w *ways) knock(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan int, len(w.all))
	for i := range w.all {
		go func() {
			if knock(ctx, w.addr, w.from(i)) != nil {
				i = -1
			}
			found <- i
		}()
	}
	answered := -1
	for range w.all {
		if i := <-found; i >= 0 && answered < 0 {
			answered = i
			cancel()
		}
	}
	if answered < 0 {
		return cmp.Or(ctx.Err(), errUnreached)
	}
	w.works(answered)
	return nil
}

// works notes that a way works while all seemed dark.
func (w *ways) works(way int) {
	now := clock.Clock{}.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := &w.state[way]; !s.up && !slices.Contains(w.ups(), true) {
		s.up, s.since = true, now
	}
	w.settle(now)
}

// endpoint returns the one by which to dial one more connection: of the ways that are used that with the fewest.
func (w *ways) endpoint(conns map[*endpoint]int) (*endpoint, error) {
	w.mu.Lock()
	best := -1
	for i, u := range w.use {
		if u >= UseUrgent && (best < 0 || conns[w.endpoints[i]] < conns[w.endpoints[best]]) {
			best = i
		}
	}
	if best < 0 {
		best = w.outlets[0].home
	}
	e := w.endpoints[best]
	w.mu.Unlock()
	if e != nil {
		return e, nil
	}
	e, err := w.from(best).outward(w.addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	if other := w.endpoints[best]; other != nil || w.ended {
		w.mu.Unlock()
		return cmp.Or(other, e), e.close()
	}
	w.endpoints[best], w.outlets = e, append(w.outlets, e.outlet)
	w.mu.Unlock()
	e.outlet.ways.Store(w)
	for i := range w.all {
		w.equip(i)
	}
	return e, nil
}

// least is how many connections there are to be at least: one by each way that is used at the same time.
func (w *ways) least() int {
	if w == nil {
		return 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, u := range w.use {
		if u == UseAll {
			n++
		}
	}
	return max(n, 1)
}

// level makes the round trip times of several ways comparable: what each takes longer than the shortest of all is
// no queue.
func (w *ways) level(conns []*joined, samples []sample) []sample {
	if w == nil {
		return samples
	}
	best := make(map[*endpoint]time.Duration)
	least := time.Duration(0)
	for i, j := range conns {
		if b, e := samples[i].best, endpointOf(j.conn); b > 0 {
			if best[e] == 0 || b < best[e] {
				best[e] = b
			}
			if least == 0 || b < least {
				least = b
			}
		}
	}
	for i, j := range conns {
		more := best[endpointOf(j.conn)] - least
		samples[i].rtt = max(samples[i].rtt-more, 0)
		samples[i].best = max(samples[i].best-more, 0)
	}
	return samples
}

// surplus returns the connections beyond n: those of the way with the most, the newest first.
func (w *ways) surplus(conns []*joined, n int) (rest, surplus []*joined) {
	if w == nil {
		return conns[:n], conns[n:]
	}
	rest = slices.Clone(conns)
	for len(rest) > n {
		count := make(map[*endpoint]int)
		for _, j := range rest {
			count[endpointOf(j.conn)]++
		}
		at := len(rest) - 1
		for i, j := range rest {
			if count[endpointOf(j.conn)] >= count[endpointOf(rest[at].conn)] && j.control != nil {
				at = i
			}
		}
		surplus = append(surplus, rest[at])
		rest = slices.Delete(rest, at, at+1)
	}
	return rest, surplus
}

func endpointOf(c Conn) *endpoint {
	if c, ok := c.(*conn); ok {
		return c.via
	}
	return nil
}

func (w *ways) close() error {
	w.mu.Lock()
	w.ended = true
	all := slices.Clone(w.endpoints)
	w.mu.Unlock()
	var err error
	for _, e := range all {
		if e != nil {
			err = cmp.Or(e.close(), err)
		}
	}
	return err
}

// Ways implements [Roving].
func (b *bundle) Ways() []Way {
	w := b.ways
	if w == nil {
		return nil
	}
	conns := b.byEndpoint()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Way, len(w.all))
	for i, l := range w.all {
		all[i] = Way{Uplink: l, Use: w.use[i], Up: w.state[i].up, Since: w.state[i].since}
	}
	for e, n := range conns {
		if e != nil && e.outlet != nil {
			at, _ := e.outlet.where()
			all[at].Connections += n
		}
	}
	return all
}

// Moved implements [Roving].
func (b *bundle) Moved() <-chan struct{} {
	if b.ways == nil {
		return nil
	}
	b.ways.mu.Lock()
	defer b.ways.mu.Unlock()
	return b.ways.moved
}

// byEndpoint counts the connections by their endpoints.
func (b *bundle) byEndpoint() map[*endpoint]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := make(map[*endpoint]int)
	for _, j := range b.conns {
		if !j.leaving {
			count[endpointOf(j.conn)]++
		}
	}
	return count
}
