package federation

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
)

// used is what this process has of what can leak.
type used struct{ goroutines, files int }

func use(t *testing.T) used {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not tell which files are open: ", err)
	}
	return used{runtime.NumGoroutine(), len(files)}
}

// nothingStays checks that f, done very often, leaves nothing behind. It is done a few times before, for what is made
// once and stays.
func nothingStays(t *testing.T, what string, times int, f func(i int)) {
	t.Helper()
	for i := range 10 {
		f(i)
	}
	before := use(t)
	for i := range times {
		f(i)
	}
	const few = 12 // that come and go by themselves
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	now := use(t)
	for range 150 { // a link that was cut in silence is noticed within seconds
		if now = use(t); now.goroutines <= before.goroutines+few && now.files <= before.files+few {
			return
		}
		<-tick.C
	}
	t.Errorf("%s, %d times: %+v, before %+v", what, times, now, before)
}

// TestNothingStaysOfCalls opens and closes live streams and fetches very often, at every moment of their lives, over
// real links under a budget. No goroutine, no file and no place in the budget stays.
func TestNothingStaysOfCalls(t *testing.T) {
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		src := newSource()
		feed := src.Feed(testStream)
		id := feed.Begin(200 << 10)
		for range 3 {
			feed.Append(false, 200<<10)
		}
		b, err := budget.Open(budget.Config{Schedule: budget.NewSchedule(time.UTC, []budget.Rule{{
			Days: [7]bool{true, true, true, true, true, true, true}, To: 24,
			Limit: budget.Limit{Rate: 400 * budget.Megabit}}})})
		if err != nil {
			t.Fatal(err)
		}
		conn, r := a.edge(a.node("berlin"), carrier)
		serveWith(t, &server{conn: conn, src: src, budget: b})
		nothingStays(t, "live opened and closed", 1000, func(i int) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%5 == 0 {
				cancel()
			}
			for range r.Live(ctx, testStream) {
				if i--; i%3 == 0 {
					break
				}
			}
		})
		nothingStays(t, "watched and not", 300, func(i int) {
			if err := r.Watch(t.Context(), testStream, i%3 != 0); err != nil {
				t.Fatal(err)
			}
		})
		if err := r.Watch(t.Context(), testStream, false); err != nil {
			t.Fatal(err)
		}
		nothingStays(t, "fetches given up", 200, func(i int) {
			var all sync.WaitGroup
			for n := range 10 {
				all.Go(func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if n%4 == 0 {
						time.AfterFunc(time.Duration(i)*10*time.Microsecond, cancel)
					}
					body, err := r.Fetch(ctx, id, branchline.ByteRange{Start: int64(n), End: 500_000})
					if err != nil {
						return
					}
					_, _ = body.Read(make([]byte, 1+n*1000))
					_ = body.Close()
				})
			}
			all.Wait()
		})
		until(t, "somebody is let in for good", func() bool {
			s := b.State()
			return len(s.Viewers) == 0 && s.Waiting == [6]int{}
		})
		a.lives("calls without end")
	})
}

// TestNothingStaysOfConnections makes and cuts links, some before they greet, some that want to join what is not
// theirs, and ones by two ways. No goroutine and no file stays, at either end.
func TestNothingStaysOfConnections(t *testing.T) {
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		berlin := a.node("berlin")
		dial := func(opt link.Options, protocol string) link.Conn {
			conf, err := berlin.TLS()
			if err != nil {
				t.Fatal(err)
			}
			conf.NextProtos = []string{protocol}
			opt.TLS, opt.Carriers = conf, []link.Carrier{carrier}
			c, err := link.Dial(t.Context(), a.peers.Addr().String(), opt)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		nothingStays(t, "links that do not greet", 200, func(int) {
			_ = dial(link.Options{}, identity.ProtocolLink).Close(0, "")
		})
		ways := []link.Uplink{
			{Local: link.Local{Name: "fibre", Addr: netip.MustParseAddr("127.0.0.1")}, Kind: link.UplinkBoth},
			{Local: link.Local{Name: "lte", Addr: netip.MustParseAddr("127.0.0.1")}, Kind: link.UplinkBoth},
		}
		nothingStays(t, "links", 200, func(i int) {
			opt := link.Options{Join: identity.ProtocolJoin}
			if i%2 == 0 {
				opt.Uplinks = ways
			}
			c := dial(opt, identity.ProtocolLink)
			if _, err := greet(t.Context(), c, "hostile", nil); err != nil {
				t.Fatal(err)
			}
			<-a.linked
			_ = c.Close(link.Code(i%3), "")
		})
		if carrier == link.CarrierQUIC { // over TCP there are no bundles
			nothingStays(t, "joins that are refused", 300, func(i int) {
				c := dial(link.Options{}, identity.ProtocolJoin)
				if s, err := c.OpenStream(t.Context(), link.KindJoin); err == nil && i%4 > 0 {
					_, _ = s.Write(make([]byte, []int{35, 36, 100}[i%3]))
				}
				_ = c.Close(0, "")
			})
		}
		a.lives("links that come and go")
	})
}
