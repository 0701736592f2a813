package federation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// Watch tells the site that somebody begins, or ceases, to watch a stream that is read with [Remote.Live] for
// recording: with [PrioritySchedule]. From then on it is as urgent as one that was asked for to be watched. The
// site may refuse with a [*budget.Refusal]; then the recording goes on as before.
func (r *Remote) Watch(ctx context.Context, stream branchline.StreamID, watched bool) error {
	if !r.version.speaks(version2) {
		return nil // to it a recording is as urgent
	}
	err := r.command(ctx, &wire.Request{Call: &wire.Request_Watch{Watch: &wire.WatchRequest{
		Stream: string(stream), Watched: watched,
	}}})
	if err != nil {
		return fmt.Errorf("watch %s: %w", stream, err)
	}
	return nil
}

// placeTime is how long a place is kept while no live call of its stream goes on: who asks anew does not lose it.
const placeTime = playbackPause

// watches is what a peer watches of the streams that it gets live. The zero value is ready.
type watches struct {
	mu      sync.Mutex
	ended   bool
	calls   uint64                            // live calls so far
	places  int                               // that are taken
	streams map[branchline.StreamID]*watching // those that go on or are watched
}

// watching is how one stream stands.
type watching struct {
	place    *place // nil: nobody watches
	newest   uint64 // call, while it goes on; else zero
	carriers map[link.Stream]bool
	changed  chan struct{} // closed when somebody begins or ceases to watch
}

// place is a viewer's, in the budget.
type place struct{ release func() }

// leave gives the place back; nil: there was none.
func (p *place) leave() {
	if p != nil {
		p.release()
	}
}

// of returns the stream's entry, made if there is none. The caller holds mu, and tidies afterwards.
func (w *watches) of(stream branchline.StreamID) *watching {
	s := w.streams[stream]
	if s == nil {
		s = &watching{carriers: map[link.Stream]bool{}, changed: make(chan struct{})}
		if w.streams == nil {
			w.streams = map[branchline.StreamID]*watching{}
		}
		w.streams[stream] = s
	}
	return s
}

func (w *watches) tidy(stream branchline.StreamID) {
	if s := w.streams[stream]; s.place == nil && s.newest == 0 && len(s.carriers) == 0 {
		delete(w.streams, stream)
	}
}

// begin notes a live call of the stream. A while after the end of the newest one the stream is watched no more.
func (w *watches) begin(stream branchline.StreamID) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	mine := w.calls
	w.of(stream).newest = mine
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		s := w.of(stream)
		defer w.tidy(stream)
		if s.newest != mine {
			return
		}
		s.newest = 0
		w.expire(stream, s.place)
	}
}

// expire takes a place off after a while, unless a call of its stream goes on then. The caller holds mu.
func (w *watches) expire(stream branchline.StreamID, p *place) {
	if p == nil {
		return
	}
	time.AfterFunc(placeTime, func() {
		w.mu.Lock()
		var was *place
		if s := w.streams[stream]; s != nil && s.place == p && s.newest == 0 {
			was = w.set(stream, nil)
		}
		w.mu.Unlock()
		was.leave()
	})
}

// carry has what carries the stream be as urgent as that is, until done is called.
func (w *watches) carry(stream branchline.StreamID, by link.Stream) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.of(stream)
	s.carriers[by] = true
	by.SetPriority(int8(s.class()))
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.of(stream).carriers, by)
		w.tidy(stream)
	}
}

// watch answers a WatchRequest.
func (s *server) watch(a *answer, r *wire.WatchRequest) error {
	stream := branchline.StreamID(r.GetStream())
	if err := stream.Check(); err != nil {
		return err
	}
	if !r.GetWatched() {
		s.watches.drop(stream)
		return a.done(nil)
	}
	release, err := s.view(stream)
	if err == nil {
		err = s.watches.put(stream, release)
	}
	return a.done(err)
}

// viewed is a source that passes on that somebody watches a stream that is read for recording, until release.
type viewed interface {
	View(stream branchline.StreamID) (release func(), err error)
}

// view lets in whoever watches the stream, here and where it comes from.
func (s *server) view(stream branchline.StreamID) (release func(), err error) {
	leave, err := s.budget.Admit(budget.Asked{Hub: s.hub(), Stream: stream})
	src, ok := s.src.(viewed)
	if err != nil || !ok {
		return leave, err
	}
	there, err := src.View(stream)
	if err != nil {
		leave()
		return nil, err
	}
	return func() { there(); leave() }, nil
}

// put has the stream be watched, and remembers how to release its place, instead of the one that it had.
func (w *watches) put(stream branchline.StreamID, release func()) error {
	w.mu.Lock()
	if s := w.of(stream); w.ended || s.place == nil && w.places >= maxLiveCalls {
		w.tidy(stream)
		w.mu.Unlock()
		release()
		return fmt.Errorf("more than %d streams are watched: %w", maxLiveCalls, branchline.ErrBusy)
	}
	was := w.set(stream, &place{release})
	w.mu.Unlock()
	was.leave()
	return nil
}

// drop has the stream be watched no more.
func (w *watches) drop(stream branchline.StreamID) {
	w.mu.Lock()
	was := w.set(stream, nil)
	w.mu.Unlock()
	was.leave()
}

// set gives the stream a place or none, tells those whom that concerns, and returns the one that it had. The caller
// holds mu, and releases that after it.
func (w *watches) set(stream branchline.StreamID, p *place) (was *place) {
	s := w.of(stream)
	was, s.place = s.place, p
	if p != nil && s.newest == 0 { // the call has ended, or is still to come
		w.expire(stream, p)
	}
	if (was == nil) != (p == nil) {
		if p != nil {
			w.places++
		} else {
			w.places--
		}
		for by := range s.carriers {
			by.SetPriority(int8(s.class()))
		}
		close(s.changed)
		s.changed = make(chan struct{})
	}
	w.tidy(stream)
	return was
}

// end releases every place; the link has ended.
func (w *watches) end() {
	w.mu.Lock()
	w.ended = true
	streams := slices.Collect(maps.Keys(w.streams))
	w.mu.Unlock()
	for _, stream := range streams {
		w.drop(stream)
	}
}

// class returns how urgent a stream is that goes on, and a channel that is closed when that has changed.
func (w *watches) class(stream branchline.StreamID) (budget.Class, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.streams[stream]
	if s == nil {
		return budget.Planned, nil
	}
	return s.class(), s.changed
}

func (s *watching) class() budget.Class {
	if s.place != nil {
		return budget.Live
	}
	return budget.Planned
}
