package hub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/internal/live"
)

// thin is a site that lets one in at a time, and remembers what it was told.
type thin struct {
	branchline.Source
	mu      sync.Mutex
	full    bool
	dark    bool
	watched []bool
}

func (s *thin) Watch(_ context.Context, _ branchline.StreamID, watched bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dark {
		return branchline.ErrUnavailable
	}
	s.watched = append(s.watched, watched)
	if watched && s.full {
		return &budget.Refusal{Budget: 1, Need: 2, Instead: []budget.Alternative{{Stream: "door.sub"}}}
	}
	return nil
}

// TestSiteIsToldWhoWatches follows the viewers of a stream that is recorded: the site hears of the first and of
// the last, and its refusal ends viewers under the hub's names and leaves the recording alone.
func TestSiteIsToldWhoWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{}
		f := &feed{stirred: make(chan struct{}, 1), viewers: map[*context.CancelCauseFunc]bool{}, readers: 1}
		f.subscribed(time.Now(), false)
		site := &thin{}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.tellWatched(ctx, &patient{Source: site}, feedKey{stream: "berlin.door.main"}, f, false)
		}()
		view := func() (context.Context, *context.CancelCauseFunc) {
			viewer, cancel := context.WithCancelCause(t.Context())
			n.mu.Lock()
			f.viewers[&cancel] = true
			n.mu.Unlock()
			f.stir()
			synctest.Wait()
			return viewer, &cancel
		}
		gone := func(cancel *context.CancelCauseFunc) {
			n.mu.Lock()
			delete(f.viewers, cancel)
			n.mu.Unlock()
			f.stir()
			synctest.Wait()
		}
		first, a := view()
		second, b := view()
		gone(a)
		gone(b)
		if len(site.watched) != 2 || !site.watched[0] || site.watched[1] {
			t.Errorf("the site was told %v", site.watched)
		}
		if first.Err() != nil || second.Err() != nil {
			t.Error("viewers who were let in are ended")
		}
		site.full = true
		third, c := view()
		var r *budget.Refusal
		if err := context.Cause(third); !errors.As(err, &r) || r.Instead[0].Stream != "berlin.door.sub" {
			t.Errorf("who was refused got %v", err)
		}
		gone(c)
		if ctx.Err() != nil || f.readers != 1 {
			t.Error("the recording ended")
		}
		stop()
		<-done
	})
}

// TestSiteIsToldAgainWhoWatches: a site that could not be told that somebody watches is told again, and does not
// send the stream as one that is only recorded for as long as it is watched.
func TestSiteIsToldAgainWhoWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{log: slog.New(slog.DiscardHandler)}
		f := &feed{stirred: make(chan struct{}, 1), viewers: map[*context.CancelCauseFunc]bool{}, readers: 1}
		site := &thin{dark: true}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.tellWatched(ctx, &patient{Source: site}, feedKey{stream: "berlin.door.main"}, f, false)
		}()
		var cancel context.CancelCauseFunc
		n.mu.Lock()
		f.viewers[&cancel] = true
		n.mu.Unlock()
		f.stir()
		synctest.Wait()
		site.mu.Lock()
		site.dark = false
		site.mu.Unlock()
		<-time.After(2 * tellAgain)
		synctest.Wait()
		if len(site.watched) != 1 || !site.watched[0] {
			t.Errorf("the site was told %v", site.watched)
		}
		stop()
		<-done
	})
}

// Live has one frame come.
func (s *thin) Live(ctx context.Context, _ branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		if yield(branchline.Item{Frame: &branchline.Frame{DTS: time.Now()}}, nil) {
			<-ctx.Done()
			yield(branchline.Item{}, ctx.Err())
		}
	}
}

// TestLateStreamIsAskedForAnew has somebody begin to watch a recorded stream: while it comes as it is made it goes on,
// and once it has fallen behind it is asked for anew.
func TestLateStreamIsAskedForAnew(t *testing.T) {
	for _, silent := range []time.Duration{behindLimit, 2 * behindLimit} {
		synctest.Test(t, func(t *testing.T) {
			n := &Node{log: slog.New(slog.DiscardHandler)}
			f := &feed{
				ring: live.New(live.Limits{}), stirred: make(chan struct{}, 1),
				viewers: map[*context.CancelCauseFunc]bool{}, readers: 1,
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			site := &thin{}
			time.AfterFunc(silent, func() {
				var cancel context.CancelCauseFunc
				n.mu.Lock()
				f.viewers[&cancel] = true
				n.mu.Unlock()
				f.stir()
			})
			time.AfterFunc(time.Minute, stop)
			began := time.Now()
			came, told, again := n.receive(ctx, &patient{Source: site}, feedKey{stream: "berlin.door.main"}, f, asking{})
			late := silent > behindLimit
			if took := time.Since(began); !came || !told || again != late || late != (took == silent) {
				t.Errorf("after %v of silence: ended after %v, to be asked for anew: %v", silent, took, again)
			}
			if len(site.watched) != 1 || !site.watched[0] {
				t.Errorf("the site was told %v", site.watched)
			}
		})
	}
}

// far is a site that takes a while to hear who watches, and notes what it is asked and told.
type far struct {
	branchline.Source
	cut   chan struct{} // what is sent ends the call that goes on
	mu    sync.Mutex
	notes []string
}

func (s *far) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, text)
}

func (s *far) Watch(_ context.Context, _ branchline.StreamID, watched bool) error {
	s.note(fmt.Sprint("watched ", watched))
	<-time.After(200 * time.Millisecond)
	return nil
}

func (s *far) Live(ctx context.Context, _ branchline.StreamID) iter.Seq2[branchline.Item, error] {
	s.note(fmt.Sprint("recording ", federation.Recording(ctx)))
	return func(yield func(branchline.Item, error) bool) {
		if yield(branchline.Item{Frame: &branchline.Frame{DTS: time.Now()}}, nil) {
			select {
			case <-s.cut:
			case <-ctx.Done():
			}
			yield(branchline.Item{}, branchline.ErrUnavailable)
		}
	}
}

// recordFar runs test while a stream of the site is recorded, with a function that changes whether somebody watches it.
// A minute after the test the last that the site has been told is that nobody does.
func recordFar(t *testing.T, what any, test func(site *far, watch func(bool))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		site := &far{cut: make(chan struct{})}
		n := &Node{
			log: slog.New(slog.DiscardHandler), linked: make(chan struct{}),
			links: map[branchline.SiteID]branchline.Source{"berlin": &patient{Source: site}},
		}
		f := &feed{
			ring: live.New(live.Limits{}), stirred: make(chan struct{}, 1),
			viewers: map[*context.CancelCauseFunc]bool{}, readers: 1,
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.fill(ctx, feedKey{stream: "berlin.door.main"}, f)
		}()
		var cancel context.CancelCauseFunc
		test(site, func(watched bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if delete(f.viewers, &cancel); watched {
				f.viewers[&cancel] = true
			}
			f.stir()
		})
		<-time.After(time.Minute)
		site.mu.Lock()
		defer site.mu.Unlock()
		told := slices.DeleteFunc(slices.Clone(site.notes), func(s string) bool { return s == "recording true" })
		if len(told) == 0 || told[len(told)-1] != "watched false" {
			t.Errorf("%v: %q", what, site.notes)
		}
		stop()
		<-done
	})
}

// TestSiteHearsTheLast has somebody look for a moment at a stream that has fallen behind.
func TestSiteHearsTheLast(t *testing.T) {
	for stay := 50 * time.Millisecond; stay < 500*time.Millisecond; stay += 50 * time.Millisecond {
		recordFar(t, stay, func(_ *far, watch func(bool)) {
			<-time.After(5 * time.Second)
			watch(true)
			<-time.After(stay)
			watch(false)
		})
	}
}

// TestSiteHearsTheLastAnew has the stream interrupted while somebody watches, who leaves before it goes on.
func TestSiteHearsTheLastAnew(t *testing.T) {
	for _, before := range []time.Duration{100 * time.Millisecond, time.Second} {
		recordFar(t, before, func(site *far, watch func(bool)) {
			<-time.After(300 * time.Millisecond)
			watch(true)
			<-time.After(before)
			site.cut <- struct{}{}
			<-time.After(100 * time.Millisecond)
			watch(false)
		})
	}
}

func TestKeyFramesOfAWholeStream(t *testing.T) {
	for i, c := range []struct {
		item branchline.Item
		want bool
	}{
		{branchline.Item{Start: &branchline.SegmentStart{}}, true},
		{branchline.Item{Frame: &branchline.Frame{Key: true}}, true},
		{branchline.Item{Frame: &branchline.Frame{}}, false},
		{branchline.Item{Fragment: &branchline.FragmentEnd{}}, false},
		{branchline.Item{Seal: &branchline.SegmentSeal{}}, false},
		{branchline.Item{RunEnd: &branchline.RunEnd{}}, true},
	} {
		if got := keyFramesOf(c.item); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}
