package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// MaxConnections bounds the connections of one bundle over QUIC. So many NewReno windows fill 100 Mbit/s over
	// 80 ms at 3 % loss.
	MaxConnections = 128
	// drainTime is how long a connection that is no longer needed is kept after its last stream has ended,
	// for what is still under way.
	drainTime = time.Second
)

// CodeLeft is the [Code] with which a single connection of a bundle is closed, while the others go on.
// Closing with any other ends the bundle.
const CodeLeft Code = 100

// bundle is several connections between the same two nodes as one. It is over when its last connection over QUIC
// is. The side that dialled adds connections and takes them away; a connection that fails ends only its own streams.
type bundle struct {
	peer    Peer
	key     ticket
	dial    dialFunc     // nil: the peer dials
	near    dialFunc     // over TCP, for a short path; nil where that cannot be
	ways    *ways        // nil: there is but one, or the peer dialled
	own     func() error // gives back what all share, after the last connection; nil for nothing
	in      chan Stream
	packets chan []byte
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when no connection is left
	changed chan struct{} // has a token after connections have come or gone
	still   atomic.Bool   // the watch only watches; for tests
	stalled atomic.Bool   // a connection has: large packets do not pass
	silent  atomic.Bool   // one has ended because nothing came; the watch has still to look at the others
	dropped atomic.Bool   // the one for bulk has ended by itself; the watch has still to hear of it
	work    sync.WaitGroup
	once    sync.Once
	closed  error // set by once

	mu    sync.Mutex
	over  func()    // called once no connection is left; nil for nothing
	conns []*joined // by number
	end   error     // why it is over
	stop  bool      // Close was called
	past  Stats     // of the connections that have ended
	made  uint64    // connections so far
	brief brief     // of the connections that were dialled
	turn  int       // of the next stream among connections that are equally good
}

// joined is one connection of a bundle.
type joined struct {
	conn    Conn
	number  uint32 // in the order in which they were dialled; 0 for the first
	small   bool   // it keeps its packets small
	bulk    bool   // over TCP, beside those over QUIC
	control Stream // what it joined with; nil for the first
	open    atomic.Int64
	since   time.Time // it is the bundle's
	leaving bool      // takes no new streams; the bundle's mu guards it
	view    sight
	trips   trips
}

func newBundle(first Conn, key ticket, small bool, own func() error) *bundle {
	b := &bundle{
		peer: first.Peer(), key: key, own: own,
		in: make(chan Stream), packets: make(chan []byte, packetsHeld),
		closing: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	j := &joined{conn: first, small: small}
	j.look(clock.Clock{}.Now())
	b.conns, b.made = []*joined{j}, 1
	b.work.Go(func() { b.pump(j) })
	b.work.Go(func() { b.collect(j) })
	return b
}

// errNoRoom means that a bundle takes no connection.
var errNoRoom = errors.New("the bundle is over or has all its connections")

// add takes a connection in. It is the bundle's from then on; after an error it stays the caller's.
func (b *bundle) add(j *joined) error {
	j.since, j.bulk = clock.Clock{}.Now(), j.conn.Peer().Carrier == CarrierTCP
	j.look(j.since)
	b.mu.Lock()
	defer b.mu.Unlock()
	most, alike := MaxConnections, 0
	if j.bulk {
		most = 1
	}
	for _, o := range b.conns {
		if o.bulk == j.bulk {
			alike++
		}
	}
	if b.stop || b.end != nil || len(b.conns) == 0 || alike >= most {
		return errNoRoom
	}
	i, _ := slices.BinarySearchFunc(b.conns, j.number, func(o *joined, n uint32) int { return int(o.number) - int(n) })
	b.conns = slices.Insert(b.conns, i, j)
	b.made++
	b.work.Go(func() { b.pump(j) })
	b.work.Go(func() { b.collect(j) })
	b.wake()
	return nil
}

// pump hands on the streams that the peer opens on one connection until that ends.
func (b *bundle) pump(j *joined) {
	for {
		s, err := j.conn.AcceptStream(context.Background())
		if err != nil {
			b.lose(j, err)
			return
		}
		j.open.Add(1)
		select {
		case b.in <- &bundled{Stream: s, b: b, j: j}:
		case <-b.closing:
			s.Reset(0)
		}
	}
}

// lose notes that a connection has ended.
func (b *bundle) lose(j *joined, err error) {
	var e *Error
	closed := errors.As(err, &e) && e.Conn && e.Remote
	whole := closed && e.Code != CodeLeft // the peer has closed the bundle
	_ = j.conn.Close(0, "")               // it has ended; this gives it back
	b.mu.Lock()
	switch {
	case j.leaving:
	case j.bulk:
		b.dropped.Store(true)
	case closed && j.control != nil:
		b.brief.ended(clock.Clock{}.Now(), j.since)
	}
	b.past = sum(b.past, j.conn.Stats())
	b.conns = slices.DeleteFunc(b.conns, func(o *joined) bool { return o == j })
	alone := !slices.ContainsFunc(b.conns, func(o *joined) bool { return !o.bulk }) // what is for bulk, or nothing
	if b.end == nil && (whole || alone) {
		b.end = err
	}
	rest, last, over, stop := slices.Clone(b.conns), len(b.conns) == 0, b.over, b.stop
	b.mu.Unlock()
	if last {
		close(b.done)
		if over != nil {
			over()
		}
		return
	}
	for _, o := range rest {
		switch {
		case whole:
			_ = o.conn.Close(e.Code, e.Reason)
		case alone && closed:
			_ = o.conn.Close(CodeLeft, "") // it may have ended meanwhile
		case alone && !stop: // nothing will be heard there either
			abandon(o.conn, err)
		}
	}
	switch {
	case j.bulk:
	case errors.Is(err, ErrStalled):
		b.stalled.Store(true)
	case errors.Is(err, ErrSilent):
		b.silent.Store(true)
	}
	b.wake()
}

func (b *bundle) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

func (b *bundle) OpenStream(ctx context.Context, kind Kind) (Stream, error) {
	for {
		bulk := kind == KindFetch && isBulk(ctx)
		j, err := b.choose(kind, bulk)
		if err != nil {
			return nil, fmt.Errorf("open %s stream: %w", kind, err)
		}
		s, err := j.conn.OpenStream(ctx, kind)
		if err == nil {
			return &bundled{Stream: s, b: b, j: j}, nil
		}
		b.ended(j)
		if ctx.Err() != nil || !b.without(j, bulk) {
			return nil, err
		}
	}
}

// without reports whether there is another connection for such a stream after an error of j's, which is about to be
// taken away.
func (b *bundle) without(j *joined, bulk bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j.bulk && !j.leaving {
		b.dropped.Store(true)
	}
	j.leaving = true
	return slices.ContainsFunc(b.conns, func(o *joined) bool { return !o.leaving && (bulk || !o.bulk) })
}

// choose returns the connection for a new stream, which counts as open from now on.
func (b *bundle) choose(kind Kind, bulk bool) (*joined, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		return nil, b.end
	}
	first := 0
	if !kind.lasting() {
		b.turn++
		first = b.turn
	}
	best := b.conns[first%len(b.conns)]
	for i := range b.conns {
		if j := b.conns[(first+i)%len(b.conns)]; j.before(best, kind, bulk) {
			best = j
		}
	}
	best.open.Add(1)
	return best, nil
}

// lasting reports whether streams of the kind last as long as the link.
func (k Kind) lasting() bool { return k == KindChanges || k == KindGossip }

// before reports whether a new stream of the kind, of bulk or not, is better off on j than on o.
func (j *joined) before(o *joined, kind Kind, bulk bool) bool {
	switch {
	case j.bulk != o.bulk && !bulk:
		return o.bulk
	case j.leaving != o.leaving:
		return o.leaving
	case j.bulk != o.bulk:
		return j.bulk
	case kind.lasting(): // these stay on one connection, so that the others can be given up
		return false
	}
	return j.load() < o.load()
}

// ended notes that a stream on the connection has ended.
func (b *bundle) ended(j *joined) {
	if j.open.Add(-1) > 0 || j.control == nil {
		return
	}
	b.mu.Lock()
	drained := j.leaving && j.open.Load() == 0
	b.mu.Unlock()
	if drained {
		_ = j.control.Close() // the peer may give the connection up
	}
}

func (b *bundle) AcceptStream(ctx context.Context) (Stream, error) {
	select {
	case s := <-b.in:
		return s, nil
	case <-b.done:
		b.mu.Lock()
		defer b.mu.Unlock()
		return nil, b.end
	case <-ctx.Done():
		return nil, fmt.Errorf("accept stream: %w", ctx.Err())
	}
}

func (b *bundle) Peer() Peer { return b.peer }

// Stats are the sums over all connections, of which the best round trip time counts.
func (b *bundle) Stats() Stats {
	b.mu.Lock()
	conns, s, made := slices.Clone(b.conns), b.past, b.made
	b.mu.Unlock()
	s.RTT, s.MinRTT, s.CongestionWindow = 0, 0, 0
	now := clock.Clock{}.Now()
	trips := make([]trip, len(conns))
	for i, j := range conns {
		of := j.conn.Stats()
		trips[i] = j.trips.newest(now, of.Latest)
		if b.ways != nil {
			trips[i].way = endpointOf(j.conn)
		}
		s = sum(s, of)
		s.Bulk = s.Bulk || j.bulk
	}
	s.Connections, s.Handshakes, s.Latest = len(conns), made, latest(trips)
	return s
}

func sum(a, b Stats) Stats {
	least := func(a, b time.Duration) time.Duration {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	return Stats{
		RTT: least(a.RTT, b.RTT), MinRTT: least(a.MinRTT, b.MinRTT),
		Sent: a.Sent + b.Sent, Received: a.Received + b.Received, Lost: a.Lost + b.Lost,
		CongestionWindow: a.CongestionWindow + b.CongestionWindow, MTU: max(a.MTU, b.MTU),
		Bulk:        a.Bulk,
		PacketsSent: a.PacketsSent + b.PacketsSent, PacketsIn: a.PacketsIn + b.PacketsIn,
	}
}

func (b *bundle) Close(code Code, reason string) error {
	b.once.Do(func() {
		b.mu.Lock()
		b.stop = true
		conns := slices.Clone(b.conns)
		b.mu.Unlock()
		close(b.closing)
		var all sync.WaitGroup
		errs := make([]error, len(conns))
		for i, j := range conns {
			all.Go(func() { errs[i] = j.conn.Close(code, reason) })
		}
		all.Wait()
		b.work.Wait()
		if b.own != nil {
			errs = append(errs, b.own())
		}
		b.closed = errors.Join(errs...)
	})
	return b.closed
}

// bundled is a stream on one of a bundle's connections.
type bundled struct {
	Stream
	b    *bundle
	j    *joined
	read atomic.Bool // that direction has ended
	sent atomic.Bool
	gone atomic.Bool
}

func (s *bundled) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err != nil {
		s.finish(&s.read)
	}
	return n, err
}

func (s *bundled) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	if err != nil {
		s.finish(&s.sent)
	}
	return n, err
}

func (s *bundled) Close() error {
	defer s.finish(&s.sent)
	return s.Stream.Close()
}

func (s *bundled) Reset(code Code) {
	s.Stream.Reset(code)
	s.read.Store(true)
	s.finish(&s.sent)
}

func (s *bundled) finish(direction *atomic.Bool) {
	direction.Store(true)
	if s.read.Load() && s.sent.Load() && !s.gone.Swap(true) {
		s.b.ended(s.j)
	}
}
