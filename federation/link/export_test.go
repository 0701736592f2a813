package link

import (
	"context"
	"slices"
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
func JoinAs(ctx context.Context, c, other Conn) error {
	one, err := c.(*bundle).dial(ctx, false)
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
