package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
)

const (
	// A task has at least leastStreams fetches under way, to fill a long link while answers are waited for,
	// and streamsPerLane for each connection of the link, so that none is idle between two fetches. All
	// tasks of a site together have no more than mostStreams, which an edge answers at once.
	leastStreams   = 4
	streamsPerLane = 2
	mostStreams    = 136
	// A fetch is of a small share of what is still to do, so that a slow connection holds up little, and not
	// of so little that asking costs more than fetching.
	leastBite = 256 << 10
	mostBite  = 4 << 20
	shares    = 3 // of each stream
	// hireEvery is how often a task looks whether the link has more connections.
	hireEvery = 100 * time.Millisecond
	// tries bounds how often one bite is asked for anew because its connection has ended.
	tries = 6
)

// lanes is a source whose fetches go on several connections.
type lanes interface{ Lanes() int }

// crew brings what is missing of several segments over as many streams as the link carries. Each worker
// takes the next bite, and the half of another's when there is no next one.
type crew struct {
	f     *Fetcher
	src   branchline.Source
	task  *task
	group errgroup.Group

	mu      sync.Mutex
	queue   []*bite // what nobody has begun
	busy    []*bite // what somebody is at
	working int
	most    int // workers, as the site has answered that it is busy; 0: any number
	failed  bool
}

// bite is a range of consecutive parts of a segment. Its fields belong to the worker that is at it, but
// for next and parts, which the crew's mu guards.
type bite struct {
	st    *segmentTransfer
	parts []part // the last ones may be taken away while somebody is at the first
	next  int    // the part that is being brought

	data bytes.Buffer // what came of it
	room int64        // taken from the task's memory for it
}

func (b *bite) size() (n int64) {
	for _, p := range b.parts[b.next:] {
		n += p.size()
	}
	return n
}

// stripe fetches the parts of all transfers. It returns an error of the site or of the hub's own store;
// what is wrong with one segment alone is noted there.
func (f *Fetcher) stripe(ctx context.Context, src branchline.Source, t *task, all []*segmentTransfer) error {
	c := &crew{f: f, src: src, task: t}
	for _, st := range all {
		st.begin()
		for first := 0; first < len(st.parts); {
			next := first + 1
			for next < len(st.parts) && st.parts[next].bytes.Start == st.parts[next-1].bytes.End {
				next++
			}
			c.queue = append(c.queue, &bite{st: st, parts: st.parts[first:next:next]})
			first = next
		}
	}
	c.hire(ctx, true)
	done := make(chan struct{})
	var watch sync.WaitGroup
	if _, ok := src.(lanes); ok && len(c.queue) > 0 {
		watch.Go(func() { c.hiring(ctx, done) })
	}
	err := c.group.Wait()
	close(done)
	watch.Wait()
	return err
}

func (c *crew) hiring(ctx context.Context, done <-chan struct{}) {
	tick := time.NewTicker(hireEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.hire(ctx, false)
		case <-done:
			return
		}
	}
}

// hire starts as many workers as there should be. Once all have left there is nothing more to do.
func (c *crew) hire(ctx context.Context, first bool) {
	want := c.f.streams(c.src, c.task)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > 0 {
		want = min(want, c.most)
	}
	for (first || c.working > 0) && c.working < want && c.hasMore() {
		c.working++
		c.group.Go(func() error { return c.work(ctx) })
	}
}

// hasMore reports whether one more worker would find something to do. The caller holds mu.
func (c *crew) hasMore() bool {
	return len(c.queue) > 0 || slices.ContainsFunc(c.busy, func(b *bite) bool { return b.size() >= 2*leastBite })
}

// streams returns how many streams a task should use.
func (f *Fetcher) streams(src branchline.Source, t *task) int {
	n := 1
	if l, ok := src.(lanes); ok {
		n = l.Lanes()
	}
	tasks := 1
	if f != nil {
		f.mu.Lock()
		tasks = max(len(f.siteLocked(t.stream.Site()).running), 1)
		f.mu.Unlock()
	}
	return max(min(n*streamsPerLane, mostStreams)/tasks, leastStreams)
}

func (c *crew) work(ctx context.Context) error {
	for {
		b := c.take()
		if b == nil {
			return nil
		}
		err := b.bring(ctx, c)
		b.rest()
		if err = c.finish(b, err); err != nil {
			return err
		}
	}
}

// take returns what to bring next; nil ends the worker.
func (c *crew) take() *bite {
	streams := c.f.streams(c.src, c.task)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = slices.DeleteFunc(c.queue, func(b *bite) bool { return b.st.over() })
	b := c.cut(streams)
	if c.failed || c.most > 0 && c.working > c.most {
		b = nil
	}
	if b == nil {
		c.working--
		return nil
	}
	c.busy = append(c.busy, b)
	return b
}

// cut takes a bite off what is to do. The caller holds mu.
func (c *crew) cut(streams int) *bite {
	if c.failed || len(c.queue) == 0 {
		return c.steal()
	}
	left := int64(0)
	for _, b := range c.queue {
		left += b.size()
	}
	most := min(max(left/int64(shares*streams), leastBite), mostBite)
	first := c.queue[0]
	n, size := 0, int64(0)
	for n < len(first.parts) && (n == 0 || size+first.parts[n].size() <= most) {
		size += first.parts[n].size()
		n++
	}
	if n == len(first.parts) {
		c.queue = c.queue[1:]
		return first
	}
	b := &bite{st: first.st, parts: first.parts[:n:n]}
	first.parts = first.parts[n:]
	return b
}

// steal takes the second half of the largest bite that somebody is at. The caller holds mu.
func (c *crew) steal() *bite {
	var from *bite
	for _, b := range c.busy {
		if len(b.parts)-b.next >= 3 && !b.st.over() && (from == nil || b.size() > from.size()) {
			from = b
		}
	}
	if c.failed || from == nil || from.size() < 2*leastBite {
		return nil
	}
	half := (from.next + len(from.parts) + 1) / 2
	b := &bite{st: from.st, parts: from.parts[half:]}
	from.parts = from.parts[:half:half]
	return b
}

// finish notes how a bite ended and returns the error that ends the worker.
func (c *crew) finish(b *bite, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = slices.DeleteFunc(c.busy, func(o *bite) bool { return o == b })
	switch {
	case err == nil, errors.Is(err, errOver):
		return nil
	case errors.Is(err, branchline.ErrGone) || errors.Is(err, branchline.ErrNotFound):
		c.task.lost.Store(true)
		b.st.fail(nil) // the edge's change feed tells of the removal
		return nil
	case errors.Is(err, errSite) || permanent(err):
		b.st.fail(err)
		return nil
	case errors.Is(err, branchline.ErrBusy) && !errors.Is(err, errStore) && c.working > leastStreams:
		c.most = max(c.working-1, leastStreams)
		c.queue = slices.Insert(c.queue, 0, &bite{st: b.st, parts: b.parts[b.next:]})
		return nil // the next take sees that there are too many
	}
	c.working--
	c.failed = true
	b.st.fail(nil)
	return fmt.Errorf("fetch segment %s of %s: %w", b.st.seg.ID, b.st.task.stream, err)
}

// bring brings the bite, asking anew for the rest, from the byte on at which it stopped, when a connection
// ends and the link goes on.
func (b *bite) bring(ctx context.Context, c *crew) error {
	for try := 1; ; try++ {
		err := b.fetch(ctx, c)
		if !errors.Is(err, branchline.ErrUnavailable) || errors.Is(err, errStore) || ctx.Err() != nil || try == tries {
			return err
		}
	}
}

// errStore is wrapped by errors of the hub's own store.
var errStore = errors.New("store what was fetched")

// errOver means that of the segment no more is to be fetched, for a reason that is noted.
var errOver = errors.New("the segment is given up")

// rest gives back the memory of a part that has not become whole.
func (b *bite) rest() {
	b.st.task.memory.Release(b.room)
	b.room = 0
}

func (b *bite) fetch(ctx context.Context, c *crew) error {
	st := b.st
	p, ok := b.part(c)
	if !ok {
		return nil
	}
	c.mu.Lock()
	for _, p := range b.parts {
		if n := p.size(); n <= 0 || n > p.limit() {
			c.mu.Unlock()
			return fmt.Errorf("listed with a part of %d bytes: %w", n, branchline.ErrTooLarge)
		}
	}
	want := branchline.ByteRange{Start: p.bytes.Start + int64(b.data.Len()), End: b.parts[len(b.parts)-1].bytes.End}
	c.mu.Unlock()
	body, err := st.src.Fetch(ctx, st.seg.ID, want)
	if err != nil {
		return bySite(ctx, err)
	}
	defer body.Close()
	if !p.init {
		if err := st.begun(ctx); err != nil {
			return err
		}
	}
	for ; ok; p, ok = b.part(c) {
		if err := b.take(ctx, p, body); err != nil {
			return err
		}
		c.mu.Lock()
		b.next++
		c.mu.Unlock()
	}
	return nil
}

// part returns the part that is to be brought next.
func (b *bite) part(c *crew) (part, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.next >= len(b.parts) {
		return part{}, false
	}
	return b.parts[b.next], true
}

// take reads the rest of one part from body and stores it.
func (b *bite) take(ctx context.Context, p part, body io.Reader) error {
	if b.room == 0 {
		if err := b.st.task.memory.Acquire(ctx, p.size()); err != nil {
			return err
		}
		b.room = p.size()
	}
	if b.data.Len() == 0 {
		b.data.Grow(int(min(p.size(), firstRead)))
	}
	if _, err := io.CopyN(&b.data, body, p.size()-int64(b.data.Len())); err != nil {
		if ctx.Err() == nil && errors.Is(err, io.EOF) {
			err = fmt.Errorf("bytes ended early: %w", branchline.ErrUnavailable)
		}
		return bySite(ctx, err)
	}
	err := b.st.stored(p, b.data.Bytes())
	b.data = bytes.Buffer{}
	b.rest()
	if err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return nil
}
