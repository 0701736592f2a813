package federation

import (
	"context"
	"fmt"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
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

// watches is what a peer watches of the streams that it records. The zero value is ready.
type watches struct {
	mu      sync.Mutex
	ended   bool
	release map[branchline.StreamID]func()        // of those that were let in
	other   map[branchline.StreamID]chan struct{} // closed when a stream is put; of those in use
	calls   uint64                                // live calls so far
	newest  map[branchline.StreamID]uint64        // the newest one of each stream, while it goes on
}

// begin notes a live call of the stream. With the end of the newest one the stream is watched no more: who calls
// anew says anew whether it is.
func (w *watches) begin(stream branchline.StreamID) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.newest == nil {
		w.newest = map[branchline.StreamID]uint64{}
	}
	w.calls++
	mine := w.calls
	w.newest[stream] = mine
	return func() {
		w.mu.Lock()
		last := w.newest[stream] == mine
		if last {
			delete(w.newest, stream)
		}
		w.mu.Unlock()
		if last {
			_ = w.put(stream, nil) // taking off never fails
		}
	}
}

// watch answers a WatchRequest.
func (s *server) watch(a *answer, r *wire.WatchRequest) error {
	stream := branchline.StreamID(r.GetStream())
	if err := stream.Check(); err != nil {
		return err
	}
	if !r.GetWatched() {
		_ = s.watches.put(stream, nil) // taking off never fails
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

// put remembers how to release the stream's place, in place of what was there; nil: it is not watched.
func (w *watches) put(stream branchline.StreamID, release func()) error {
	w.mu.Lock()
	if other := w.other[stream]; other != nil {
		close(other)
		delete(w.other, stream)
	}
	was := w.release[stream]
	delete(w.release, stream)
	full := w.ended || len(w.release) >= maxLiveCalls
	if release != nil && !full {
		if w.release == nil {
			w.release = map[branchline.StreamID]func(){}
		}
		w.release[stream] = release
	}
	w.mu.Unlock()
	if was != nil {
		was()
	}
	if release != nil && full {
		release()
		return fmt.Errorf("more than %d streams are watched: %w", maxLiveCalls, branchline.ErrBusy)
	}
	return nil
}

// end releases every place; the link has ended.
func (w *watches) end() {
	w.mu.Lock()
	all := w.release
	w.release, w.ended = nil, true
	w.mu.Unlock()
	for _, release := range all {
		release()
	}
}

// class returns how urgent a stream is that is recorded live, and a channel that is closed when that may have changed.
func (w *watches) class(stream branchline.StreamID) (budget.Class, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.other == nil {
		w.other = map[branchline.StreamID]chan struct{}{}
	}
	if w.other[stream] == nil {
		w.other[stream] = make(chan struct{})
	}
	if w.release[stream] != nil {
		return budget.Live, w.other[stream]
	}
	return budget.Planned, w.other[stream]
}
