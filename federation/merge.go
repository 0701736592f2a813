package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// lateLimit is how long a part of a live call may hold up later ones that have arrived. Then its stream
	// is reset.
	lateLimit = 700 * time.Millisecond
	// maxWaiting bounds the parts that wait for an earlier one, and maxWaitingBytes what they take, of which an
	// item takes itemBytes besides what it carries.
	maxWaiting      = 32
	maxWaitingBytes = 16 << 20
	itemBytes       = 512
	// laneEvery is how often a live call looks whether the link has connections for more streams.
	laneEvery = time.Second
)

// arrival is what came on one stream of a live call.
type arrival struct {
	from         *call
	item         branchline.Item
	number, part uint64
	end          error // of the stream; the last arrival
	first        bool  // of the stream that the call was made on
}

// merge puts the parts of a live call in order. All but the readers' channel belongs to the goroutine of
// run.
type merge struct {
	r      *Remote
	ctx    context.Context
	stream branchline.StreamID
	in     chan arrival
	work   sync.WaitGroup
	yield  func(branchline.Item) bool

	part    uint64 // the one that goes on
	carrier *call  // its stream, once it has begun
	waiting map[uint64][]arrival
	bytes   int
	late    *time.Timer

	next   uint64 // number of the next item
	missed int    // items that were lost since the last one that was yielded
	lost   bool   // nothing is yielded before the next key frame
	start  *branchline.SegmentStart
}

// live yields a stream's items, which come on as many streams as the link has connections.
func (r *Remote) live(ctx context.Context, stream branchline.StreamID, yield func(branchline.Item) bool) error {
	if KeyFrames(ctx) && !r.version.speaks(version2) {
		yield = keyFramesTo(yield)
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &merge{r: r, ctx: ctx, stream: stream, in: make(chan arrival), yield: yield, part: 1, next: 1,
		waiting: make(map[uint64][]arrival), late: time.NewTimer(math.MaxInt64)}
	defer m.work.Wait()
	defer cancel()
	defer m.late.Stop()
	c, err := m.ask(&wire.LiveRequest{Stream: string(stream), KeyFramesOnly: KeyFrames(ctx)})
	if err != nil {
		return err
	}
	m.work.Go(func() { m.read(c, true) })
	return m.run()
}

func (m *merge) ask(r *wire.LiveRequest) (*call, error) {
	return ask(m.ctx, m.r.conn, link.KindLive, &wire.Request{Call: &wire.Request_Live{Live: r}})
}

// read hands on what comes on one stream, until that or the call ends.
func (m *merge) read(c *call, first bool) {
	defer c.close()
	ticketed := !first
	for {
		a, err := c.next()
		v := arrival{from: c, end: err, first: first}
		if errors.Is(err, io.EOF) {
			v.end = fmt.Errorf("the peer stopped: %w", branchline.ErrUnavailable)
		}
		if t := a.GetLive().GetTicket(); !ticketed && len(t) == ticketSize {
			ticketed = true // more of them would be streams without end
			m.work.Go(func() { m.widen(t) })
			continue
		}
		if err == nil {
			v.item, v.end = decodeItem(a.GetItem())
			v.number, v.part = a.GetItem().GetNumber(), a.GetItem().GetPart()
		}
		select {
		case m.in <- v:
		case <-m.ctx.Done():
			return
		}
		if v.end != nil {
			return
		}
	}
}

// widen opens more streams while the link has more connections than the call has streams.
func (m *merge) widen(ticket []byte) {
	tick := time.NewTicker(laneEvery)
	defer tick.Stop()
	places := make(chan struct{}, maxLanes-1)
	for {
		for len(places) < min(m.r.Lanes(), maxLanes)-1 {
			places <- struct{}{}
			m.work.Go(func() {
				defer func() { <-places }()
				if c, err := m.ask(&wire.LiveRequest{Stream: string(m.stream), Ticket: ticket}); err == nil {
					m.read(c, false)
				}
			})
		}
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
	}
}

// run yields the items in their order until the call ends.
func (m *merge) run() error {
	for {
		select {
		case v := <-m.in:
			more, err := m.take(v)
			if err != nil || !more {
				return err
			}
		case <-m.late.C:
			if !m.skip() {
				return nil
			}
		case <-m.ctx.Done():
			return m.ctx.Err()
		}
	}
}

// take takes what has arrived, and reports whether the caller wants more.
func (m *merge) take(v arrival) (bool, error) {
	switch {
	case v.end != nil && v.first:
		return false, v.end
	case v.end != nil:
		return v.from != m.carrier || m.skip(), nil
	case v.item.Start == nil && v.item.Frame == nil && v.item.Fragment == nil && v.item.Seal == nil &&
		v.item.RunEnd == nil: // of a kind that is not known here
		return true, nil
	case v.part == 0: // a peer that does not spread
		return m.yield(v.item), nil
	case v.part < m.part:
		return true, nil
	case v.part == m.part:
		return m.give(v) && m.drain(), nil
	}
	if len(m.waiting) == 0 {
		m.late.Reset(lateLimit)
	}
	m.waiting[v.part] = append(m.waiting[v.part], v)
	m.bytes += size(v)
	if len(m.waiting) > maxWaiting || m.bytes > maxWaitingBytes {
		return m.skip(), nil
	}
	return true, nil
}

// size returns how much an item takes that waits.
func size(v arrival) int {
	i := v.item
	n := itemBytes + len(i.More)
	switch {
	case i.Start != nil:
		n += len(i.Start.Init)
	case i.Frame != nil:
		n += len(i.Frame.Data)
	case i.Fragment != nil:
		n += len(i.Fragment.Head) + len(i.Fragment.Tail)
	case i.Seal != nil:
		n += len(i.Seal.Footer)
	}
	return n
}

// drain goes on with what has been waiting for its turn.
func (m *merge) drain() bool {
	for len(m.waiting) > 0 {
		list, ok := m.waiting[m.part]
		if !ok {
			return true
		}
		delete(m.waiting, m.part)
		m.late.Stop()
		if len(m.waiting) > 0 {
			m.late.Reset(lateLimit)
		}
		for _, v := range list {
			m.bytes -= size(v)
			if !m.give(v) {
				return false
			}
		}
	}
	m.late.Stop()
	return true
}

// skip gives up the part that holds up the others.
func (m *merge) skip() bool {
	if m.carrier != nil {
		m.carrier.s.Reset(linkCode(wire.Code_CODE_CANCELLED))
		m.carrier = nil
	}
	m.part++
	if len(m.waiting) > 0 { // the peer counts as it likes
		m.part = slices.Min(slices.Collect(maps.Keys(m.waiting)))
	}
	return m.drain()
}

// give yields the next item of the part that goes on, or passes it over until a reader can join again.
func (m *merge) give(v arrival) bool {
	m.carrier = v.from
	if endsPart(v.item) {
		m.part, m.carrier = m.part+1, nil
	}
	if v.number > m.next {
		m.missed += int(min(v.number-m.next, math.MaxInt32))
		m.lost = true
	}
	m.next = v.number + 1
	i := v.item
	if i.Start != nil {
		m.start = i.Start
		i.Missed += m.missed
		m.lost, m.missed = false, 0
		return m.yield(i)
	}
	if !m.lost {
		return m.yield(i)
	}
	if i.Frame == nil || !i.Frame.FirstKey || m.start == nil || m.start.ID != i.Segment {
		m.missed++
		return true
	}
	again := branchline.Item{Segment: i.Segment, Missed: m.missed, Start: m.start}
	m.lost, m.missed = false, 0
	return m.yield(again) && m.yield(i)
}
