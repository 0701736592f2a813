package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// A site has at least leastStreams fetches under way, to fill a long link while answers and windows are waited for,
	// and half as many more than the link has connections, so that none is idle between two fetches. There are no
	// more than mostStreams, which an edge answers at once.
	leastStreams = 8
	mostStreams  = 200
	// A fetch is of what a stream brings in biteTime, so that a slow connection holds up little, and not of so
	// little that asking costs more than fetching. It begins with firstBite, as nothing is known.
	biteTime  = 500 * time.Millisecond
	leastBite = 64 << 10
	firstBite = 128 << 10
	mostBite  = 4 << 20
	// A bite that began slowAfter ago and is slower than others by slowTimes is taken from its connection.
	slowTimes = 4
	slowAfter = time.Second
	// hireEvery is how often a crew looks whether the link has more connections.
	hireEvery = 100 * time.Millisecond
	// tries bounds how often one bite is asked for anew, one after the other with less than leastBite, because
	// connections end.
	tries = 6
	// busyPause is how long a site that is busy is left alone by whom it has sent away.
	busyPause = 100 * time.Millisecond
)

// lanes is a source whose fetches go on several connections.
type lanes interface{ Lanes() int }

// crew brings what is missing of segments over as many streams as the link to a site carries, for all tasks
// there. Each worker takes the next bite, and a share of another's when there is no next one: so neither the
// last fragments of a task nor a slow connection leaves others idle.
type crew struct {
	src   branchline.Source
	clock clock.Clock
	all   *tally
	work  sync.WaitGroup

	mu      sync.Mutex
	room    int64 // for what is being read, in bytes
	orders  []*order
	working int
	most    int     // workers, as the site has answered that it is busy; 0: any number
	rate    float64 // bytes a second that a stream brings; 0: not known
}

// tally is what the crews of all sites count together.
type tally struct {
	came atomic.Int64 // bytes of fetches, with what came twice or in vain
	room atomic.Int64 // bytes taken of memoryOfAll
	lent buffer.Pool  // for parts
}

func newCrew(src branchline.Source, clock clock.Clock, all *tally) *crew {
	return &crew{src: src, clock: clock, all: all, room: memory}
}

// order is what a task has a crew bring. The crew's mu guards it.
type order struct {
	ctx   context.Context
	stop  context.CancelFunc
	task  *task
	all   []*segmentTransfer
	queue []*bite // what nobody has begun
	busy  []*bite // what somebody is at
	err   error
	done  chan struct{} // closed when there is nothing left and nobody is at it any more
}

// bring brings the parts of all transfers. It returns an error of the site or of the hub's own store; what is
// wrong with one segment alone is noted there.
func (c *crew) bring(ctx context.Context, t *task, all []*segmentTransfer) error {
	o := &order{task: t, all: all, done: make(chan struct{})}
	o.ctx, o.stop = context.WithCancel(ctx)
	defer o.stop()
	for _, st := range all {
		st.begin()
		if err := st.possible(); err != nil {
			st.fail(err)
			continue
		}
		for first := 0; first < len(st.parts); {
			next := first + 1
			for next < len(st.parts) && st.parts[next].bytes.Start == st.parts[next-1].bytes.End {
				next++
			}
			o.queue = append(o.queue, newBite(st, st.parts[first:next:next]))
			first = next
		}
	}
	if len(o.queue) == 0 {
		return nil
	}
	c.mu.Lock()
	c.orders = append(c.orders, o)
	c.mu.Unlock()
	tick := time.NewTicker(hireEvery)
	defer tick.Stop()
	for left := ctx.Done(); ; {
		c.hire()
		select {
		case <-o.done:
			return o.err
		case <-left:
			left = nil
			c.mu.Lock()
			o.fail(ctx.Err())
			c.settle(o)
			c.mu.Unlock()
		case <-tick.C:
		}
	}
}

// hire starts as many workers as there should be.
func (c *crew) hire() {
	want := c.streams()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > 0 {
		want = min(want, c.most)
	}
	for ; c.working < want; c.working++ {
		o, b := c.take()
		if b == nil {
			return
		}
		c.work.Go(func() { c.serve(o, b) })
	}
}

// streams returns how many streams the site should be asked for at once.
func (c *crew) streams() int {
	n := 1
	if l, ok := c.src.(lanes); ok {
		n = l.Lanes()
	}
	return max(min(n+n/2, mostStreams), leastStreams)
}

// serve is a worker: it begins with the bite, and leaves when there is nothing more.
func (c *crew) serve(o *order, b *bite) {
	for b != nil {
		err := b.bring(o.ctx, c)
		streams := c.streams()
		c.mu.Lock()
		c.finish(o, b, err)
		if o, b = nil, nil; c.working <= streams && (c.most == 0 || c.working <= c.most) {
			o, b = c.take()
		}
		if b == nil {
			c.working--
		}
		c.mu.Unlock()
	}
}

// take returns what to bring next, of the most urgent orders the oldest: so they end one after the other, and the
// next ones are made ready meanwhile. The caller holds mu.
func (c *crew) take() (*order, *bite) {
	for _, o := range c.orders {
		o.queue = slices.DeleteFunc(o.queue, func(b *bite) bool { return b.st.over() })
		c.settle(o)
	}
	c.orders = slices.DeleteFunc(c.orders, (*order).over)
	slices.SortStableFunc(c.orders, func(a, b *order) int {
		return cmp.Compare(a.task.priority, b.task.priority)
	})
	of, slowest, left := c.slowest()
	if slowest != nil && c.stuck(slowest, left) {
		return of, of.give(slowest, slowest.pos)
	}
	for _, o := range c.orders {
		if b := c.cut(o); b != nil {
			o.busy = append(o.busy, b)
			return o, b
		}
	}
	if slowest != nil && slowest.end-slowest.pos >= 2*leastBite {
		return of, of.give(slowest, (slowest.pos+slowest.end)/2)
	}
	return nil, nil
}

// give takes what comes from a position on off a bite that somebody is at, for somebody else. The caller holds the
// crew's mu.
func (o *order) give(b *bite, at int64) *bite {
	rest := b.give(at)
	o.busy = append(o.busy, rest)
	return rest
}

// cut takes a bite off what is to do in the order, as far as there is room; it does not end shortly before the
// end of a part. The caller holds mu.
func (c *crew) cut(o *order) *bite {
	if len(o.queue) == 0 {
		return nil
	}
	size := int64(firstBite)
	if c.rate > 0 {
		size = min(max(int64(c.rate*biteTime.Seconds()), leastBite), mostBite)
	}
	b := o.queue[0]
	at := b.start
	for _, p := range b.parts {
		if !p.begun {
			if !c.reserve(p.size()) {
				break
			}
			p.begun = true
		}
		if at = p.bytes.End; at-b.start >= size {
			if most := b.start + size; at-most >= max(size/2, leastBite) {
				at = most // a part that two bites bring is read twice at the site
			}
			break
		}
	}
	switch at {
	case b.start:
		return nil
	case b.end:
		o.queue = o.queue[1:]
		return b
	}
	return b.split(at)
}

// reserve takes room for a part, if there is any. A site that has none yet gets some whatever others have. The caller
// holds mu.
func (c *crew) reserve(size int64) bool {
	if c.room < size {
		return false
	}
	if c.all.room.Add(size) > memoryOfAll && c.room < memory {
		c.all.room.Add(-size)
		return false
	}
	c.room -= size
	return true
}

// slowest returns the bite that takes longest of those that somebody is at, nil if there is none, and for how long
// yet. The caller holds mu.
func (c *crew) slowest() (of *order, slowest *bite, most time.Duration) {
	now := c.clock.Now()
	for _, o := range c.orders {
		for _, b := range o.busy {
			if left := b.left(now, c.rate); o.err == nil && b.running() && left > most {
				of, slowest, most = o, b, left
			}
		}
	}
	return of, slowest, most
}

// stuck reports whether a bite, which takes so much longer, would better be on another connection: others that have
// gone on as long are faster by far. The caller holds mu.
func (c *crew) stuck(b *bite, left time.Duration) bool {
	now := c.clock.Now()
	if left < slowTimes*biteTime || now.Sub(b.since) < slowAfter {
		return false
	}
	var all float64
	n := 0
	for _, o := range c.orders {
		for _, other := range o.busy {
			if now.Sub(other.since) >= slowAfter && other.running() {
				all += other.rate(now)
				n++
			}
		}
	}
	return n > 1 && slowTimes*b.rate(now) < all/float64(n)
}

// finish notes how a bite ended. The caller holds mu.
func (c *crew) finish(o *order, b *bite, err error) {
	o.busy = slices.DeleteFunc(o.busy, func(other *bite) bool { return other == b })
	if took := c.clock.Now().Sub(b.since).Seconds(); err == nil && b.pos > b.start && took > 0 {
		rate := float64(b.pos-b.start) / took
		if c.rate == 0 {
			c.rate = rate
		}
		c.rate += (rate - c.rate) / 16
	}
	switch {
	case err == nil, errors.Is(err, errOver):
	case errors.Is(err, branchline.ErrGone) || errors.Is(err, branchline.ErrNotFound):
		o.task.lost.Store(true)
		b.st.fail(nil) // the edge's change feed tells of the removal
	case errors.Is(err, errSite) || permanent(err):
		b.st.fail(err)
	default:
		b.st.fail(nil)
		o.fail(fmt.Errorf("fetch segment %s of %s: %w", b.st.seg.ID, b.st.task.stream, err))
	}
	if b.st.over() && !slices.ContainsFunc(o.busy, func(other *bite) bool { return other.st == b.st }) {
		c.giveUp(b.st)
	}
	c.settle(o)
}

// giveUp gives back the room of what has not become whole of a segment that nobody is at any more. The caller
// holds mu.
func (c *crew) giveUp(st *segmentTransfer) {
	for _, p := range st.parts {
		c.release(p)
	}
}

func (c *crew) release(p *part) {
	if p.begun && !p.ended {
		c.room += p.size()
		c.all.room.Add(-p.size())
		c.all.lent.Return(p.data)
		p.ended, p.data = true, nil
	}
}

// fail ends the order with the first error. The caller holds the crew's mu.
func (o *order) fail(err error) {
	if o.err == nil {
		o.err = err
	}
	o.queue = nil
	o.stop()
}

func (o *order) over() bool { return len(o.queue)+len(o.busy) == 0 }

// settle tells whoever waits for the order if it is over. The caller holds mu.
func (c *crew) settle(o *order) {
	if !o.over() {
		return
	}
	select {
	case <-o.done:
		return
	default:
	}
	for _, st := range o.all {
		c.giveUp(st)
	}
	close(o.done)
}

// tooMany notes that the site has too many fetches: there are to be fewer, as far as that goes.
func (c *crew) tooMany() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working <= leastStreams {
		return
	}
	if c.most == 0 {
		c.most = c.working
	}
	c.most = max(c.most-1, leastStreams)
}
