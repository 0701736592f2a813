package link

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// Over a short path, as within one building, processors are the limit and not the line, and TCP, which the kernel
// speaks, takes far less of them than QUIC does. So one connection over TCP joins the bundle there while much is sent,
// and takes the fetches of bulk; all else stays with QUIC, where no stream waits for another.
const (
	// nearTrip is the longest least round trip of a short path: there is no line of a branch in between. When the
	// path, with the queue that bulk itself makes, has become longer than farTrip, it is another one.
	nearTrip = 2 * time.Millisecond
	farTrip  = 20 * time.Millisecond
	// nearRate, in bytes per second, is from when it is worth it; nearIdle how long less than that is sent before it
	// is given up.
	nearRate = 8 << 20
	nearIdle = 10 * time.Second
	// One that for slowLooks looks in a row brings less than 1/slowShare of what there was without it, and has more to
	// send, is given up: something on the way slows TCP.
	slowLooks = 4
	slowShare = 2
	// steadyBulk is how long one lives before it counts as working.
	steadyBulk = time.Minute
)

type bulkKey struct{}

// WithBulk makes [Conn]'s OpenStream open a fetch that may go by a connection which can end, or be slow, by itself: its
// caller goes on elsewhere then.
func WithBulk(ctx context.Context) context.Context { return context.WithValue(ctx, bulkKey{}, true) }

func isBulk(ctx context.Context) bool { return ctx.Value(bulkKey{}) != nil }

// bulkWatch is what a bundle's watch knows of the connection for bulk.
type bulkWatch struct {
	attempts
	busy   time.Time // when there was last enough sent for one
	before float64   // what was sent without it, in bytes per second
	slow   int       // looks in a row at which it was slow
}

// near returns how to make a connection for bulk to the address, nil where that is not to be.
func (o Options) near(addr *net.UDPAddr) dialFunc {
	if !o.Bulk || !o.streams() {
		return nil
	}
	return func(ctx context.Context, _ bool) (Conn, error) { return dialTCP(ctx, addr, o) }
}

// beside keeps a connection over TCP beside the others as long as it is of use, on the side that dialled. bulk is that
// connection, if there is one, best the least round trip of the others, 0 if it is not known, and rate
// what all send, in bytes per second.
func (w *watch) beside(now time.Time, bulk []*joined, leaving bool, best time.Duration, rate float64) {
	v := &w.bulk
	if rate >= nearRate {
		v.busy = now
	}
	if w.b.dropped.Swap(false) {
		v.fail(now)
	}
	if len(bulk) == 0 {
		if w.b.near != nil && best > 0 && best <= nearTrip && rate >= nearRate && v.begin(now, 1) > 0 {
			v.before, v.slow = rate, 0
			w.next++
			number := w.next
			w.joins.Go(func() { v.made(foreign(w.join(w.b.near, number, false))) })
		}
		return
	}
	j := bulk[0]
	switch {
	case leaving:
	case v.slower(j, rate):
		v.fail(now)
		w.b.give(j)
	case best > farTrip || now.Sub(v.busy) >= nearIdle:
		w.b.give(j)
	case now.Sub(j.since) >= steadyBulk:
		v.works()
	}
}

// slower reports whether the connection is slow.
func (v *bulkWatch) slower(j *joined, rate float64) bool {
	c, ok := j.conn.(*tcpConn)
	if rate >= v.before/slowShare || !ok || !c.waiting() {
		v.slow = 0
		return false
	}
	v.slow++
	return v.slow >= slowLooks
}

// foreign adds errAlone to the refusal of a hub that does not know such connections.
func foreign(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Conn && e.Remote && e.Code != codeBusy {
		return errors.Join(errAlone, err)
	}
	return err
}

// waiting reports whether there are bytes to send that the peer would take and the path has not taken yet.
func (c *tcpConn) waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.credit > 0 && slices.ContainsFunc(c.queues[:], func(q []*tcpStream) bool { return len(q) > 0 })
}

// dark ends the connections for bulk of which nothing has come for some time though something has of others: on so
// short a path that is a long time, and whoever fetches goes on over the others.
func dark(now time.Time, bulk, others []*joined) {
	for _, j := range bulk {
		lately := func(o *joined) bool { return now.Sub(o.view.heard) <= quiet }
		if !lately(j) && slices.ContainsFunc(others, lately) {
			abandon(j.conn, ErrSilent)
		}
	}
}

// abandon ends a connection at once and does not wait for the peer to hear it.
func abandon(c Conn, why error) {
	if one, ok := c.(*counted); ok {
		c = one.Conn
	}
	if t, ok := c.(*tcpConn); ok {
		t.fail(why)
	}
}
