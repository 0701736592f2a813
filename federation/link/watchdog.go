package link

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// seekFrom is the number of QUIC's probes in a row without an answer from which on a hub is knocked at.
	// The next one is then at least four times as far away as the first was.
	seekFrom = 2
	// seekGrace is how long after the answer the acknowledgement of what was then sent again may take, beyond a
	// round trip, and seekTries how often it is sent.
	seekGrace = 100 * time.Millisecond
	seekTries = 2
	// silentFor is how long after the first probe a connection on which nothing comes is given up: a little before
	// QUIC itself does.
	silentFor = IdleTimeout - 300*time.Millisecond
	// darkAfter is how long after a round trip and a half acknowledgements have to come, on one of several ways.
	darkAfter = 300 * time.Millisecond
	// pokeTime is how long quic-go has to send a packet of its own once it may.
	pokeTime = 50 * time.Millisecond
)

// watchdog closes a connection of which nothing arrives at the peer although the peer's packets arrive
// here. QUIC counts its probe timeouts since the last acknowledgement and tells that count in a
// connection's trace, to which the watchdog listens. The side that dials has one: it sends the video,
// and it can dial anew. A trace is not free: some 3 % of the highest rate over loopback.
type watchdog struct {
	e    *endpoint   // the connection's, which waits for what runs here
	came atomic.Bool // anything, from the peer
	mtu  atomic.Uint64

	mu       sync.Mutex
	conn     *quic.Conn  // nil while the handshake goes on
	timer    *time.Timer // from the first probe timeout on; nil while acknowledgements come
	ended    bool
	arrived  uint64        // packets when the first probe timed out
	since    time.Time     // of that
	before   int64         // packets of the whole endpoint when the first probe timed out
	hears    bool          // packets have come since
	holds    bool          // counts among those of the endpoint of which nothing comes
	unacked  time.Time     // when the first packet was sent since the last acknowledgement; of several ways only
	patience time.Duration // from then on
	stop     func()        // ends the seeking; nil while there is none
}

// trace is a [quic.Config]'s tracer.
func (w *watchdog) trace(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return w }

// watch begins to watch the connection, of which w has the trace.
// Whatever it runs ends with the connection.
func (w *watchdog) watch(c *quic.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = c
}

// heard reports whether anything came from the peer.
func (w *watchdog) heard() bool { return w.came.Load() }

// AddProducer is part of a trace.
func (w *watchdog) AddProducer() qlogwriter.Recorder { return w }

// RecordEvent is part of a trace. The connection calls it for every packet.
func (w *watchdog) RecordEvent(e qlogwriter.Event) {
	switch e := e.(type) {
	case qlog.MTUUpdated:
		w.mtu.Store(uint64(e.Value))
	case qlog.PacketSent:
		if w.e.outlet != nil && !answersOnly(e.Frames) && w.sent() {
			w.dark()
		}
	case qlog.PacketReceived:
		w.e.seeking.in.Add(1)
		if w.e.outlet != nil && slices.ContainsFunc(e.Frames, isAck) {
			w.acked()
		}
		if !w.came.Load() {
			w.came.Store(true)
		}
	case qlog.PTOCountUpdated:
		w.probed(int(e.PTOCount))
	}
}

// probed takes note of so many probes in a row without an answer. The next ones have not been sent yet.
func (w *watchdog) probed(probes int) {
	if w.counted(probes) && w.e.outlet != nil {
		w.dark()
	}
}

// dark has what goes by this connection's way go by another.
func (w *watchdog) dark() {
	if ways := w.e.outlet.ways.Load(); ways != nil {
		ways.dark(w.e.outlet)
	}
}

// sent notes that a packet is sent that is to be acknowledged, and reports whether the others have not been for so
// long that the way is to be taken for dark. QUIC's probes do not tell in time: each packet puts them off, and live
// pictures are sent all the time.
func (w *watchdog) sent() bool {
	now := clock.Clock{}.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.conn == nil:
	case w.unacked.IsZero():
		w.unacked, w.patience = now, darkAfter+w.conn.ConnectionStats().SmoothedRTT*3/2
	case now.Sub(w.unacked) > w.patience:
		w.unacked = now
		return true
	}
	return false
}

func (w *watchdog) acked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unacked = time.Time{}
}

func isAck(f qlog.Frame) bool {
	_, is := f.Frame.(*qlog.AckFrame)
	return is
}

// answersOnly reports whether nothing of a packet is to be acknowledged.
func answersOnly(frames []qlog.Frame) bool {
	return !slices.ContainsFunc(frames, func(f qlog.Frame) bool { return !isAck(f) })
}

// counted does so, and reports whether the path is to be taken for dark.
func (w *watchdog) counted(probes int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if probes == 0 {
		w.calm()
		return false
	}
	if w.conn == nil || w.ended {
		return false
	}
	if w.timer == nil {
		s := w.conn.ConnectionStats()
		w.arrived, w.before = s.PacketsReceived, w.e.seeking.in.Load()
		w.hears, w.since = false, clock.Clock{}.Now()
		w.timer = time.AfterFunc(StallTimeout-KeepAlive+s.SmoothedRTT, w.bark)
		w.e.seeking.wait(1)
	}
	if probes < seekFrom {
		return false
	}
	silent := w.e.seeking.in.Load() == w.before
	w.hold(silent && w.e.outlet == nil)
	if w.stop == nil {
		var ctx context.Context
		ctx, w.stop = context.WithCancel(w.conn.Context())
		w.e.running.Go(func() { w.seek(ctx) })
	}
	return silent || probes > seekFrom
}

// calm ends all that goes on while nothing is acknowledged. The caller holds mu.
func (w *watchdog) calm() {
	if w.timer == nil {
		return
	}
	w.timer.Stop()
	w.timer = nil
	w.hold(false)
	w.e.seeking.wait(-1)
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// hold has packets of the endpoint held back on behalf of this connection, or no more. The caller holds mu.
func (w *watchdog) hold(on bool) {
	switch {
	case on && !w.holds:
		w.e.seeking.holding.Add(1)
	case !on && w.holds:
		w.e.seeking.holding.Add(-1)
	}
	w.holds = on
}

// seek waits until the hub answers knocks, or the path is found not to be dark by the connection itself. If the
// connection does not go on by what is then sent it is closed: the hub has forgotten it, or its path has begun to
// lose large packets.
func (w *watchdog) seek(ctx context.Context) {
	answered := w.e.seeking.seek(ctx, &w.e.running) == nil
	if p, err := w.conn.AddPath(w.e.t); err == nil {
		defer w.poke(p)()
	}
	if !answered {
		return
	}
	grace := seekGrace + w.conn.ConnectionStats().SmoothedRTT
	if w.e.outlet != nil {
		grace += moveGrace // it has just moved, and the hub looks at the new way first
	}
	for try := range seekTries {
		w.e.seeking.again(try > 0)
		if !within(ctx, grace) {
			return
		}
	}
	w.close(w.conn, ErrSilent)
}

// close ends the connection. The packet that tells the hub so is small and is not held back. On a dark path it is sent
// again when that heals, while QUIC's own end says nothing, and the hub would go on with half a bundle.
func (w *watchdog) close(c *quic.Conn, why error) {
	w.e.seeking.closing.Add(1)
	defer w.e.seeking.closing.Add(-1)
	_ = c.CloseWithError(quic.ApplicationErrorCode(CodeStalled), why.Error()) // it may have ended meanwhile
}

// poke has the connection send one packet more, as soon as its window lets it, and makes the hub send something
// that is acknowledged: what both had sent meanwhile is lost, as they see by that at once, while their own next
// probes may be seconds away. The packet asks whether the path in use works, which nobody answers, and then the
// connection ID that it had is given up, for which the hub has to give another one. done waits for that.
func (w *watchdog) poke(p *quic.Path) (done func()) {
	ctx, cancel := context.WithCancel(w.conn.Context())
	var probing sync.WaitGroup
	probing.Go(func() { _ = p.Probe(ctx) })
	return func() {
		within(ctx, pokeTime)
		cancel()
		probing.Wait()
		_ = p.Close() // it is not in use
	}
}

// Close is part of a trace: the connection has ended.
func (w *watchdog) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.calm()
	return nil
}

// bark closes the connection if the peer's packets arrive, or nothing has for nearly as long as QUIC itself waits.
func (w *watchdog) bark() {
	if c, why := w.stalled(); c != nil {
		w.close(c, why)
	}
}

// stalled returns the connection and why to close it, if packets were coming already when it was last asked, or
// have not for too long.
func (w *watchdog) stalled() (*quic.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return nil, nil
	}
	if w.hears {
		return w.conn, ErrStalled
	}
	// A path that has just healed brings the peer's packets before its acknowledgements.
	w.hears = w.conn.ConnectionStats().PacketsReceived != w.arrived
	waited := clock.Clock{}.Now().Sub(w.since)
	switch {
	case w.hears:
		w.timer.Reset(KeepAlive)
	case waited >= silentFor:
		return w.conn, ErrSilent
	default:
		w.timer.Reset(min(KeepAlive, silentFor-waited))
	}
	return nil, nil
}
