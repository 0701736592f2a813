package link

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

const (
	// seekFrom is the number of QUIC's probes in a row without an answer from which on a hub is knocked at.
	// The next one is then at least four times as far away as the first was.
	seekFrom = 2
	// seekGrace is how long after the answer the acknowledgement of a probe that went with the knock may take.
	seekGrace = 100 * time.Millisecond
)

// watchdog closes a connection of which nothing arrives at the peer although the peer's packets arrive
// here. QUIC counts its probe timeouts since the last acknowledgement and tells that count in a
// connection's trace, to which the watchdog listens. The side that dials has one: it sends the video,
// and it can dial anew. A trace is not free: some tenth of the highest rate over loopback.
type watchdog struct {
	came atomic.Bool // anything, from the peer

	mu      sync.Mutex
	conn    *quic.Conn  // nil while the handshake goes on
	timer   *time.Timer // from the first probe timeout on; nil while acknowledgements come
	ended   bool
	arrived uint64 // packets at the last look
	seeks   bool   // a hub that is silent is knocked at

	knock   func(context.Context) error // at the hub
	running *sync.WaitGroup             // of the connection's endpoint, which waits for it
	mtu     atomic.Uint64               // what passes, as far as discovery knows
}

// trace is a [quic.Config]'s tracer.
func (w *watchdog) trace(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return w }

// watch begins to watch the connection, of which w has the trace.
// Whatever it runs ends with the connection.
func (w *watchdog) watch(c *quic.Conn, running *sync.WaitGroup, knock func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn, w.running, w.knock = c, running, knock
}

// heard reports whether anything came from the peer.
func (w *watchdog) heard() bool { return w.came.Load() }

// AddProducer is part of a trace.
func (w *watchdog) AddProducer() qlogwriter.Recorder { return w }

// RecordEvent is part of a trace. The connection calls it for every packet.
func (w *watchdog) RecordEvent(e qlogwriter.Event) {
	if m, ok := e.(qlog.MTUUpdated); ok {
		w.mtu.Store(uint64(m.Value))
		return
	}
	probes, ok := e.(qlog.PTOCountUpdated)
	if !ok {
		if _, came := e.(qlog.PacketReceived); came && !w.came.Load() {
			w.came.Store(true)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case probes.PTOCount == 0 && w.timer != nil:
		w.timer.Stop()
		w.timer = nil
	case probes.PTOCount > 0 && w.timer == nil && w.conn != nil && !w.ended:
		s := w.conn.ConnectionStats()
		w.arrived = s.PacketsReceived
		w.timer = time.AfterFunc(StallTimeout+s.SmoothedRTT, w.bark)
	case probes.PTOCount >= seekFrom && w.timer != nil && !w.seeks:
		w.seeks = true
		w.running.Go(w.seek)
	}
}

// seek closes a connection of which nothing arrives at the peer although the hub answers knocks: its path was
// dark and is not any more, or has begun to lose large packets. QUIC's next probe may be seconds away, and a
// new connection is made in less.
func (w *watchdog) seek() {
	ctx := w.conn.Context()
	if w.knock(ctx) == nil && within(ctx, seekGrace) && w.dark() {
		_ = w.conn.CloseWithError(quic.ApplicationErrorCode(CodeStalled), ErrSilent.Error())
	}
}

// dark reports whether still nothing is acknowledged.
func (w *watchdog) dark() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seeks = false
	return w.timer != nil
}

// Close is part of a trace: the connection has ended.
func (w *watchdog) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended = true; w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	return nil
}

// bark closes the connection, unless nothing arrives here either: of that the idle timeout takes care,
// with a better reason.
func (w *watchdog) bark() {
	if c := w.stalled(); c != nil {
		// The peer may hear it: this packet is small.
		_ = c.CloseWithError(quic.ApplicationErrorCode(CodeStalled), ErrStalled.Error())
	}
}

func (w *watchdog) stalled() *quic.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return nil
	}
	arrived := w.conn.ConnectionStats().PacketsReceived
	if arrived == w.arrived {
		w.timer.Reset(KeepAlive)
		return nil
	}
	return w.conn
}
