package fetch

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
)

// refusing is a branch that takes no more than most fetches at once, or gives nothing of those that it has taken, as
// its uplink's budget is for nothing but control.
type refusing struct {
	*branch
	takes  int  // at once
	closed bool // the budget

	mu    sync.Mutex
	calls int
	taken int
}

func (r *refusing) Fetch(ctx context.Context, id branchline.SegmentID, b branchline.ByteRange) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls++; r.taken >= r.takes {
		return nil, branchline.ErrBusy
	}
	body, err := r.Store.Fetch(ctx, id, b)
	if err != nil {
		return nil, err
	}
	r.taken++
	return &takenBody{body, r}, nil
}

type takenBody struct {
	io.ReadCloser
	r *refusing
}

func (b *takenBody) Read(p []byte) (int, error) {
	if b.r.closed {
		return 0, branchline.ErrBusy
	}
	<-time.After(10 * time.Millisecond) // a line, in the time of the test
	return b.ReadCloser.Read(p)
}

func (b *takenBody) Close() error {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.r.taken--
	return b.ReadCloser.Close()
}

// TestRefusal asks a site over many connections that gives nothing now. It is left alone at once: those who were sent
// away do not come again and again for as long as the budget is closed.
func TestRefusal(t *testing.T) {
	for name, site := range map[string]*refusing{
		"the budget is for nothing":  {takes: mostStreams, closed: true},
		"it takes no fetches at all": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil)
				site.branch = &branch{Store: recorded(t), lanes: 100}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				tk := aTask(site)
				_, err := f.fetcher.bring(ctx, tk)
				tk.crew.work.Wait()
				if took := time.Since(began); !errors.Is(err, branchline.ErrBusy) || took > 30*time.Second {
					t.Errorf("after %v: %v, want a site that is busy", took, err)
				}
				workers := 24_000_000 / firstBite
				if most := workers * (maxAway + 1); site.calls > most || site.closed && site.calls > workers {
					t.Errorf("%d fetches were asked for", site.calls)
				}
				if tk.crew.room != memory {
					t.Errorf("%d bytes of memory are not given back", memory-tk.crew.room)
				}
			})
		})
	}
}

// TestFewAtOnce fetches from a site that takes few fetches at once: all comes, and when it takes more, there are more
// again.
func TestFewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		site := &refusing{branch: &branch{Store: recorded(t), lanes: 100}, takes: 2 * leastStreams}
		tk := aTask(site)
		if _, err := f.fetcher.bring(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		segs, err := f.store.Segments(t.Context(), door, span(0, 50))
		if err != nil || len(segs) != 1 || !segs[0].Sealed {
			t.Errorf("held are %d segments, %v", len(segs), err)
		}
		c := tk.crew
		c.work.Wait()
		if c.most == 0 || c.most > 5*leastStreams {
			t.Errorf("%d streams at most are asked for at once of a site that takes %d", c.most, site.takes)
		}
		rounds := 0
		for ; c.most > 0 && rounds < 1000; rounds++ { // each stream brings a bite
			for range c.most {
				c.another()
			}
		}
		if c.most > 0 || rounds < mostStreams/8 {
			t.Errorf("after %d rounds without a refusal %d streams at most are asked for", rounds, c.most)
		}
	})
}
