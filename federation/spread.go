package federation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// maxLanes bounds the streams of one live call, the first included: enough that one or two may stand
	// still.
	maxLanes = 4
	// laneItems is how much a lane may have waiting: a fragment with many channels of sound.
	laneItems = 256
	// ticketSize is the size of what a live call is known by to its further streams.
	ticketSize = 16
)

type liveTicket [ticketSize]byte

// spread is a live call whose fragments go on several streams, each on the next that has nothing left to
// send. So a fragment that is held up on its connection holds up no other.
type spread struct {
	stream branchline.StreamID
	done   chan struct{} // closed when the call has ended
	idle   chan struct{} // has a token after a lane has become idle

	mu    sync.Mutex
	lanes []*lane
	turn  int
}

// lane is one stream of a spread.
type lane struct {
	items chan *wire.Answer
	gone  chan struct{} // closed when the stream has ended
	left  int           // items that were given to it and are not sent; the spread's mu guards it
	open  bool          // a part is not complete; so does that
}

func (sp *spread) attach() (*lane, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if len(sp.lanes) >= maxLanes {
		return nil, fmt.Errorf("more than %d streams of a live call: %w", maxLanes, branchline.ErrBusy)
	}
	l := &lane{items: make(chan *wire.Answer, laneItems), gone: make(chan struct{})}
	sp.lanes = append(sp.lanes, l)
	sp.wake()
	return l, nil
}

func (sp *spread) detach(l *lane) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.lanes = slices.DeleteFunc(sp.lanes, func(o *lane) bool { return o == l })
	close(l.gone)
	sp.wake()
}

func (sp *spread) wake() {
	select {
	case sp.idle <- struct{}{}:
	default:
	}
}

// run sends what the lane is given until the call or the lane's stream ends.
func (sp *spread) run(a *answer, l *lane) error {
	for {
		select {
		case m := <-l.items:
			if err := a.send(m); err != nil {
				return err
			}
			sp.sent(l)
		case <-sp.done:
			if len(l.items) > 0 {
				continue // what came before the end
			}
			return fmt.Errorf("the stream ended: %w", branchline.ErrUnavailable)
		case <-a.ctx.Done():
			return a.ctx.Err()
		}
	}
}

func (sp *spread) sent(l *lane) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if l.left--; l.left == 0 && !l.open {
		sp.wake()
	}
}

// pick returns the lane for the next part: one that has nothing to send. While there is none it waits.
func (sp *spread) pick(ctx context.Context) (*lane, error) {
	for {
		if l := sp.free(); l != nil {
			return l, nil
		}
		select {
		case <-sp.idle:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (sp *spread) free() *lane {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for range sp.lanes {
		sp.turn++
		if l := sp.lanes[sp.turn%len(sp.lanes)]; l.left == 0 && !l.open {
			l.open = true
			return l
		}
	}
	return nil
}

// give puts an item on the lane; what is for one that has ended is lost.
func (sp *spread) give(ctx context.Context, l *lane, m *wire.Answer, last bool) error {
	sp.mu.Lock()
	l.left++
	l.open = !last
	sp.mu.Unlock()
	select {
	case l.items <- m:
	case <-l.gone:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// endsPart reports whether the next item may come on another stream.
func endsPart(i branchline.Item) bool { return i.Fragment != nil || i.Seal != nil || i.RunEnd != nil }

// spreadLive answers a live call on this stream and those that join it.
func (s *server) spreadLive(a *answer, stream branchline.StreamID) error {
	var key liveTicket
	if _, err := rand.Read(key[:]); err != nil {
		return fmt.Errorf("make a ticket: %w", err)
	}
	sp := &spread{stream: stream, done: make(chan struct{}), idle: make(chan struct{}, 1)}
	first, err := sp.attach()
	if err != nil {
		return err
	}
	if err := a.send(&wire.Answer{Body: &wire.Answer_Live{Live: &wire.LiveAnswer{Ticket: key[:]}}}); err != nil {
		return err
	}
	s.setSpread(key, sp)
	defer s.setSpread(key, nil)
	g, ctx := errgroup.WithContext(a.ctx)
	g.Go(func() error { return sp.run(a, first) })
	err = sp.feed(ctx, s.src, stream)
	close(sp.done)
	ended := g.Wait()
	if errors.Is(err, context.Canceled) { // as the first stream failed
		return ended
	}
	return err
}

// feed numbers the source's items and gives them to the lanes, part by part.
func (sp *spread) feed(ctx context.Context, src branchline.Source, stream branchline.StreamID) error {
	var number, part uint64
	var at *lane
	for i, err := range src.Live(ctx, stream) {
		if err != nil {
			return err
		}
		if at == nil {
			part++
			if at, err = sp.pick(ctx); err != nil {
				return err
			}
		}
		number++
		item := encodeItem(i)
		item.Number, item.Part = number, part
		last := endsPart(i)
		if err := sp.give(ctx, at, &wire.Answer{Body: &wire.Answer_Item{Item: item}}, last); err != nil {
			return err
		}
		if last {
			at = nil
		}
	}
	return fmt.Errorf("the stream ended: %w", branchline.ErrUnavailable)
}

// joinLive answers a request for one more stream of a live call.
func (s *server) joinLive(a *answer, ticket []byte) error {
	if len(ticket) != ticketSize {
		return invalid("ticket of %d bytes", len(ticket))
	}
	s.mu.Lock()
	sp := s.spreads[liveTicket(ticket)]
	s.mu.Unlock()
	if sp == nil {
		return fmt.Errorf("find live call: %w", branchline.ErrNotFound)
	}
	l, err := sp.attach()
	if err != nil {
		return err
	}
	defer sp.detach(l)
	class, done := s.carry(a, sp.stream)
	defer done()
	a.out = &sender{w: s.paced(a, class)}
	return sp.run(a, l)
}

func (s *server) setSpread(key liveTicket, sp *spread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp == nil {
		delete(s.spreads, key)
		return
	}
	if s.spreads == nil {
		s.spreads = make(map[liveTicket]*spread)
	}
	s.spreads[key] = sp
}
