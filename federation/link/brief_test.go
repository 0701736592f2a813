package link

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

// TestHubThatTakesAndCloses has a hub that takes each connection into the bundle and closes it at once. They are not
// made again four times a second, and when it keeps them there are as many as are wanted.
func TestHubThatTakesAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, far := Pipe("berlin", "")
		b := newBundle(first, ticket{1}, false, nil)
		var dials atomic.Int64
		var keeps atomic.Bool
		b.dial = b.patient(func(ctx context.Context, _ bool) (Conn, error) {
			dials.Add(1)
			c, far := Pipe("berlin", "")
			go func() {
				s, err := far.AcceptStream(ctx)
				if err != nil {
					return
				}
				_, _ = s.Read(make([]byte, 1+ticketSize+4))
				_, _ = s.Write([]byte{joinedAnswer})
				if <-time.After(100 * time.Millisecond); !keeps.Load() {
					_ = far.Close(CodeLeft, "")
				}
			}()
			return c, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		w := &watch{b: b, ctx: ctx}
		const want = 15
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); <-time.After(sizeEvery) {
				if has := b.Stats().Connections; has < 1+want {
					w.grow(clock.Clock{}.Now(), 1+want-has)
				}
			}
		}
		pass(10 * time.Minute)
		if dials := dials.Load(); dials > 20*want {
			t.Errorf("%d connections were made in ten minutes to a hub that closes them", dials)
		}
		keeps.Store(true)
		pass(2 * maxJoinPause)
		if has := b.Stats().Connections; has != 1+want {
			t.Errorf("%d connections with a hub that keeps them, want %d", has, 1+want)
		}
		cancel()
		w.joins.Wait()
		_ = far.Close(0, "")
		if err := b.Close(0, ""); err != nil {
			t.Error(err)
		}
	})
}
