package link

import (
	"context"
	"slices"
	"time"
)

// Join adds a connection to a bundle that dialled, as its watch does when it wants one, and returns it. The
// watch leaves the bundle alone from then on.
func Join(ctx context.Context, c Conn, number uint32) (Conn, error) {
	b := c.(*bundle)
	b.still.Store(true)
	one, err := b.dial(ctx, false)
	if err != nil {
		return nil, err
	}
	return one, b.join(ctx, one, number, false)
}

// JoinAs is Join with the ticket of another bundle.
func JoinAs(ctx context.Context, c, other Conn) error { return joinAs(ctx, c.(*bundle).dial, other) }

// JoinBulkAs is JoinAs over TCP.
func JoinBulkAs(ctx context.Context, c, other Conn) error {
	return joinAs(ctx, c.(*bundle).near, other)
}

func joinAs(ctx context.Context, dial dialFunc, other Conn) error {
	one, err := dial(ctx, false)
	if err != nil {
		return err
	}
	_, err = askToJoin(ctx, one, other.(*bundle).key, 1)
	_ = one.Close(0, "")
	return err
}

// Give gives a bundle's newest connection up.
func Give(c Conn) {
	b := c.(*bundle)
	b.mu.Lock()
	j := b.conns[len(b.conns)-1]
	b.mu.Unlock()
	b.give(j)
}

// Busiest is the connection of a bundle that carries the most streams.
func Busiest(c Conn) Conn {
	b := c.(*bundle)
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.MaxFunc(b.conns, func(a, b *joined) int { return int(a.open.Load() - b.open.Load()) }).conn
}

// ErrAlone means that the peer knows nothing of bundles.
var ErrAlone = errAlone

// MaxWindowsOf bounds the windows of a site's connections.
const MaxWindowsOf = maxWindowsOf

// Windows counts what connections have been given.
type Windows struct{ windows }

// Allow reports whether a connection, the first of a bundle, may have a window that is so much larger.
func (w *Windows) Allow(c Conn, more uint64) bool {
	return w.allow(c.(*bundle).conns[0].conn.(*conn).c, more)
}

// Bulk is what looks after a bundle's connection for bulk, in place of its own watch.
type Bulk struct{ w watch }

// WatchBulk takes that over from a bundle's watch.
func WatchBulk(c Conn) *Bulk {
	b := c.(*bundle)
	b.still.Store(true)
	return &Bulk{watch{b: b, ctx: context.Background(), next: 1000}}
}

// See is one look, at which the least round trip over QUIC and what is sent, in bytes a second, are these. It returns
// when nothing is under way any more.
func (k *Bulk) See(now time.Time, best time.Duration, rate float64) {
	k.w.b.mu.Lock()
	bulk := slices.DeleteFunc(slices.Clone(k.w.b.conns), func(j *joined) bool { return !j.bulk })
	leaving := slices.ContainsFunc(bulk, func(j *joined) bool { return j.leaving })
	k.w.b.mu.Unlock()
	k.w.beside(now, bulk, leaving, best, rate)
	k.w.joins.Wait()
}

// CarrierOf returns what carries a bundle's stream.
func CarrierOf(s Stream) Carrier { return s.(*bundled).j.conn.Peer().Carrier }

// Favour makes the connections of one carrier the best of a bundle until its next look at them.
func Favour(c Conn, carrier Carrier) {
	b := c.(*bundle)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.conns {
		if j.conn.Peer().Carrier == carrier {
			j.view.cost.Store(1)
		}
	}
}

// Leaving marks the connections of one carrier at one end of a bundle as about to go.
func Leaving(c Conn, carrier Carrier) {
	b := c.(*bundle)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.conns {
		j.leaving = j.leaving || j.conn.Peer().Carrier == carrier
	}
}

// Lose closes the connections of one carrier at one end of a bundle, for a reason that is of them alone.
func Lose(c Conn, carrier Carrier) {
	b := c.(*bundle)
	b.mu.Lock()
	all := slices.Clone(b.conns)
	b.mu.Unlock()
	for _, j := range all {
		if j.conn.Peer().Carrier == carrier {
			_ = j.conn.Close(CodeLeft, "")
		}
	}
}

// Waiting reports whether a bundle's connection for bulk has more to send than its path takes, and GivenUp whether it
// is about to go.
func Waiting(c Conn) bool {
	return slices.ContainsFunc(c.(*bundle).bulks(), func(j *joined) bool { return j.conn.(*tcpConn).waiting() })
}

// GivenUp is as described at [Waiting].
func GivenUp(c Conn) bool {
	b := c.(*bundle)
	all := b.bulks()
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(all, func(j *joined) bool { return j.leaving })
}

func (b *bundle) bulks() []*joined {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.conns), func(j *joined) bool { return !j.bulk })
}
