package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// maxJoiningOf bounds the connections of one site that are about to join: those of a whole bundle.
const maxJoiningOf = MaxConnections

// joins are the connections that are about to join a bundle: at most maxJoining, and of one site no more than it
// needs, so that it takes nobody's place. The zero value has none.
type joins struct {
	mu  sync.Mutex
	all int
	of  map[branchline.SiteID]int
}

// enter takes a place, if there is one. The caller gives it back with leave.
func (j *joins) enter(site branchline.SiteID) (leave func(), ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.all >= maxJoining || j.of[site] >= maxJoiningOf {
		return nil, false
	}
	if j.of == nil {
		j.of = make(map[branchline.SiteID]int)
	}
	j.all++
	j.of[site]++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.all--
		if j.of[site]--; j.of[site] == 0 {
			delete(j.of, site)
		}
	}, true
}

// briefLife is how long a connection lives at least that the peer has taken into the bundle, and leaves it there.
const briefLife = time.Second

// errBrief means that no connection is dialled for a while.
var errBrief = errors.New("the peer has closed connections again that had just joined")

// brief notes connections that the peer takes in and closes at once: one that was never taken in would not be dialled
// again at once either. The zero value has seen none.
type brief struct {
	until time.Time     // no connection before
	pause time.Duration // the last one
}

// ended notes that the peer has closed a connection that had joined.
func (b *brief) ended(now, joined time.Time) {
	switch {
	case now.Sub(joined) >= briefLife:
		b.pause = 0
	case !now.Before(b.until):
		b.pause = min(max(2*b.pause, firstJoinPause), maxJoinPause)
		b.until = now.Add(b.pause)
	}
}

// patient returns dial, which fails for a while after such connections.
func (b *bundle) patient(dial dialFunc) dialFunc {
	return func(ctx context.Context, small bool) (Conn, error) {
		now := clock.Clock{}.Now()
		b.mu.Lock()
		early := now.Before(b.brief.until)
		b.mu.Unlock()
		if early {
			return nil, errBrief
		}
		return dial(ctx, small)
	}
}
