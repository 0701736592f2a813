package live

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

// Limits bound a ring. A zero field stands for the one of DefaultLimits.
type Limits struct {
	Items int           // number of items
	Bytes int           // of all items' payloads
	Age   time.Duration // from the oldest frame's decode time to the newest, without the time between runs
	// Shared, if set, bounds what this ring and others hold together.
	Shared *Budget
}

// DefaultLimits returns limits for one camera: twelve seconds hold a group of pictures of any usual
// camera and a disk that stalls, and 16 MiB are eleven seconds of 12 Mbit/s.
func DefaultLimits() Limits { return Limits{Items: 4096, Bytes: 16 << 20, Age: 12 * time.Second} }

// Ring holds a stream's newest items. Its methods may be called concurrently.
type Ring struct {
	limits Limits

	mu      sync.Mutex
	entries []entry
	first   uint64 // sequence number of entries[0]
	bytes   int
	segment *branchline.SegmentStart // the segment that published items belong to
	joins   []uint64                 // sequence numbers of key fragments' first frames, ascending
	ended   uint64                   // sequence number after the newest RunEnd
	decoded time.Time                // newest decode time of the run
	played  time.Duration            // how much all runs' decode times went on
	wake    chan struct{}            // closed when something is published or the ring closes
	closed  error
}

type entry struct {
	item    branchline.Item
	segment *branchline.SegmentStart
	size    int
	at      time.Duration // the ring's played when it was published
}

// New returns an empty ring. One with a shared budget has its share until Close.
func New(limits Limits) *Ring {
	d := DefaultLimits()
	if limits.Items == 0 {
		limits.Items = d.Items
	}
	if limits.Bytes == 0 {
		limits.Bytes = d.Bytes
	}
	if limits.Age == 0 {
		limits.Age = d.Age
	}
	r := &Ring{limits: limits, wake: make(chan struct{})}
	limits.Shared.join(r)
	return r
}

// Publish appends an item, which nobody changes from now on, and drops the oldest ones over the
// limits. It never waits for readers. After Close it does nothing.
func (r *Ring) Publish(item branchline.Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed != nil {
		return
	}
	e := entry{item: item, size: size(item)}
	next := r.first + uint64(len(r.entries))
	switch {
	case item.Start != nil:
		if r.segment == nil || r.segment.Run != item.Start.Run {
			r.decoded = item.Start.Start // it may be far from the run before, when the clock was stepped
		}
		r.segment = item.Start
	case item.RunEnd != nil:
		r.segment, r.ended = nil, next+1
	case item.Frame != nil:
		if step := item.Frame.DTS.Sub(r.decoded); step > 0 {
			if !r.decoded.IsZero() {
				r.played += step
			}
			r.decoded = item.Frame.DTS
		}
		if item.Frame.FirstKey && r.segment != nil {
			r.joins = append(r.joins, next)
		}
	}
	e.segment, e.at = r.segment, r.played
	r.entries = append(r.entries, e)
	r.bytes += e.size
	r.limits.Shared.add(e.size)
	r.trim()
	close(r.wake)
	r.wake = make(chan struct{})
}

// trim drops the oldest entries over the limits, but never the newest.
func (r *Ring) trim() {
	if len(r.entries) == 0 || r.closed != nil {
		return
	}
	drop := 0
	for drop < len(r.entries)-1 {
		e := r.entries[drop]
		if len(r.entries)-drop <= r.limits.Items && r.bytes <= r.limits.Bytes &&
			r.played-e.at <= r.limits.Age && !r.limits.Shared.over(r.bytes) {
			break
		}
		r.bytes -= e.size
		r.limits.Shared.add(-e.size)
		drop++
	}
	clear(r.entries[:drop])
	r.entries = r.entries[drop:]
	r.first += uint64(drop)
	for len(r.joins) > 0 && r.joins[0] < r.first {
		r.joins = r.joins[1:]
	}
}

// Close ends every reader, once it has read what is there, with err. It does not wait for them.
// A nil err stands for [branchline.ErrUnavailable]. Only the first call has an effect.
func (r *Ring) Close(err error) {
	if err == nil {
		err = branchline.ErrUnavailable
	}
	r.mu.Lock()
	was := r.closed
	if was == nil {
		r.closed = err
		close(r.wake)
	}
	bytes := r.bytes
	r.mu.Unlock()
	if was == nil {
		r.limits.Shared.leave(r, bytes)
	}
}

// Subscribe returns the items from the newest key fragment on, first the SegmentStart of its segment;
// without one in the ring, from the next on. The place is taken now, not when the sequence is read.
// The sequence ends with an error: ctx's, or the ring's when it is closed. It is for one reader.
func (r *Ring) Subscribe(ctx context.Context) iter.Seq2[branchline.Item, error] {
	c := &cursor{ring: r}
	c.join()
	return func(yield func(branchline.Item, error) bool) {
		for {
			items, wake, err := c.take()
			if ctx.Err() != nil {
				err = fmt.Errorf("read live stream: %w", context.Cause(ctx))
			}
			if err != nil {
				yield(branchline.Item{}, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if len(items) > 0 {
				continue
			}
			select {
			case <-wake:
			case <-ctx.Done():
			}
		}
	}
}

// cursor is one reader's place. The ring's mutex guards it.
type cursor struct {
	ring    *Ring
	next    uint64 // sequence number of the next item to give
	waiting bool   // there was no place to join yet: take the first one from next on
	joining bool   // next is a place to join: the segment's start is given first
	missed  int    // lost before next and not told yet
	batch   [16]branchline.Item
}

func (c *cursor) join() {
	r := c.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	c.waiting, c.joining, c.next = true, true, r.first+uint64(len(r.entries))
	if n := len(r.joins); n > 0 && r.joins[n-1] >= r.ended {
		c.waiting, c.next = false, r.startOf(r.joins[n-1])
	}
}

// startOf returns the sequence number of the SegmentStart just before the place to join, if it has
// one in the ring, else the place itself.
func (r *Ring) startOf(join uint64) uint64 {
	if join > r.first && r.entries[join-r.first-1].item.Start != nil {
		return join - 1
	}
	return join
}

// take returns the next items, or none and a channel that closes when there may be more. The items
// are valid until the next call.
func (c *cursor) take() ([]branchline.Item, <-chan struct{}, error) {
	r := c.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	out := c.batch[:0]
	if (c.waiting || c.next < r.first) && !c.place() {
		return nil, r.wake, r.closed
	}
	if c.joining {
		e := r.entries[c.next-r.first]
		c.joining = false
		if e.item.Start != nil {
			c.next++
		} else {
			e.item = branchline.Item{Segment: e.segment.ID, Start: e.segment}
		}
		e.item.Missed += c.missed
		c.missed = 0
		out = append(out, e.item)
	}
	for len(out) < cap(out) && c.next < r.first+uint64(len(r.entries)) {
		out = append(out, r.entries[c.next-r.first].item)
		c.next++
	}
	if len(out) == 0 {
		return nil, r.wake, r.closed
	}
	return out, r.wake, nil
}

// place moves the cursor to where a reader that waits for a start, or was overtaken, goes on, and
// reports whether there is such a place. What was lost on the way is counted; not so what a reader that
// waits in vain was not to get anyway, unless the ring has dropped some of it.
func (c *cursor) place() bool {
	r := c.ring
	if len(r.joins) == 0 {
		return false
	}
	at := r.startOf(r.joins[len(r.joins)-1])
	if c.waiting && c.next >= r.first {
		i, _ := slices.BinarySearch(r.joins, c.next)
		if i == len(r.joins) {
			return false
		}
		at = r.startOf(r.joins[i])
		c.next = at
	}
	c.missed += int(at - c.next)
	c.next, c.waiting, c.joining = at, false, true
	return true
}

func size(item branchline.Item) int {
	overhead := 256 + len(item.More) // the item and what it points to
	switch {
	case item.Start != nil:
		return overhead + len(item.Start.Init)
	case item.Frame != nil:
		return overhead + len(item.Frame.Data)
	case item.Fragment != nil:
		return overhead + len(item.Fragment.Head) + len(item.Fragment.Tail)
	case item.Seal != nil:
		return overhead + len(item.Seal.Footer)
	default:
		return overhead
	}
}
