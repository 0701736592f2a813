package api

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
)

// maxDirty bounds what a subscriber of a Feed may have waiting: one entry each for the sites, cameras
// and orders of a big hub. Beyond it the subscriber is told to ask for everything again.
const maxDirty = 20_000

// Feed passes on to every events connection that something changed. Its methods never block and may be
// called from anywhere. The zero Feed is ready.
//
// A subscriber keeps what changed and not how often: however slow it is, it gets the newest state of
// all that changed, and takes no more memory than there are things that can change.
type Feed struct {
	mu          sync.Mutex
	subscribers map[*subscriber]bool
}

// Catalog tells that the catalog changed. It fits catalog.Options.
func (f *Feed) Catalog(n catalog.Notice) {
	switch {
	case n.Camera == "":
		f.Site(n.Site)
	case n.Stream == "":
		f.publish(func(d *dirty) { d.cameras = true })
		f.Site(n.Site) // which tells how many cameras it has
	default:
		f.Timeline(n.Camera, n.Span)
	}
}

// Site tells that a site's state changed.
func (f *Feed) Site(id branchline.SiteID) {
	f.publish(func(d *dirty) {
		if d.sites == nil {
			d.sites = map[branchline.SiteID]bool{}
		}
		d.sites[id] = true
	})
}

// Timeline tells that the camera's time line changed in the range.
func (f *Feed) Timeline(id branchline.CameraID, span branchline.TimeRange) {
	f.publish(func(d *dirty) {
		if was, ok := d.timelines[id]; ok {
			span = union(was, span)
		}
		if d.timelines == nil {
			d.timelines = map[branchline.CameraID]branchline.TimeRange{}
		}
		d.timelines[id] = span
	})
}

// Job tells of an order's new state or progress. It fits fetch.Options.
func (f *Feed) Job(job fetch.Job) {
	f.publish(func(d *dirty) {
		if d.jobs == nil {
			d.jobs = map[string]fetch.Job{}
		}
		d.jobs[job.ID] = job
	})
}

// Lock tells that an evidence lock is new, stands otherwise or is gone. It fits evidence.Options.
func (f *Feed) Lock(evidence.Lock) { f.publish(func(d *dirty) { d.locks = true }) }

// Run tells the Feed what changes in the hub's own holdings, until ctx ends; then it returns nil. It
// reads the hub's change feed, which begins with everything that is held.
func (a *API) Run(ctx context.Context) error {
	var at branchline.Position
	for ctx.Err() == nil {
		for change, err := range a.Source.Changes(ctx, at) {
			if errors.Is(err, branchline.ErrGone) {
				at = branchline.Position{}
				break
			}
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("follow what is held: %w", err)
			}
			at = change.At
			switch {
			case change.Sealed != nil:
				a.Feed.Timeline(change.Sealed.Stream.Camera(), change.Sealed.Span)
			case change.Removed != nil:
				a.Feed.Timeline(change.Removed.Stream.Camera(), change.Removed.Span)
			}
		}
	}
	return nil
}

func (f *Feed) publish(note func(*dirty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subscribers {
		if !s.dirty.overflow {
			note(&s.dirty)
		}
		if len(s.dirty.sites)+len(s.dirty.timelines)+len(s.dirty.jobs) > maxDirty {
			s.dirty = dirty{overflow: true}
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// dirty is what changed since a subscriber last looked.
type dirty struct {
	overflow  bool // more than fits
	cameras   bool
	locks     bool
	sites     map[branchline.SiteID]bool
	timelines map[branchline.CameraID]branchline.TimeRange
	jobs      map[string]fetch.Job
}

func union(a, b branchline.TimeRange) branchline.TimeRange {
	if b.Start.Before(a.Start) {
		a.Start = b.Start
	}
	if b.End.After(a.End) {
		a.End = b.End
	}
	return a
}

// subscriber is one reader of a Feed.
type subscriber struct {
	feed  *Feed
	wake  chan struct{} // holds a token while something is dirty
	dirty dirty         // guarded by feed.mu
}

// subscribe starts to collect what changes. The caller calls stop when it is done.
func (f *Feed) subscribe() *subscriber {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &subscriber{feed: f, wake: make(chan struct{}, 1)}
	if f.subscribers == nil {
		f.subscribers = map[*subscriber]bool{}
	}
	f.subscribers[s] = true
	return s
}

func (s *subscriber) stop() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.subscribers, s)
}

// next waits until something changed and takes all of it.
func (s *subscriber) next(ctx context.Context) (dirty, error) {
	select {
	case <-s.wake:
	case <-ctx.Done():
		return dirty{}, context.Cause(ctx)
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	d := s.dirty
	s.dirty = dirty{}
	return d, nil
}
