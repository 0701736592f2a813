package hub

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/backoff"
	"github.com/branchline-video/branchline/internal/live"
	"github.com/branchline-video/branchline/internal/record"
)

const (
	// linger is how long a live stream goes on without readers: who looks at another picture and comes
	// back finds it running.
	linger = 5 * time.Second
	// maxFeeds bounds the live streams at once, each with its ring in memory; liveBytes is for all of
	// these rings together: twelve seconds of 150 streams of 4 Mbit/s, and a group of pictures of all.
	maxFeeds  = 2000
	liveBytes = 1 << 30
)

// feed is a live stream at the hub: a ring that one subscription at the site fills.
type feed struct {
	ring    *live.Ring
	stop    context.CancelFunc
	readers int // guarded by the node's mutex, as visits: how many there ever were
	visits  int
	viewers map[*context.CancelCauseFunc]bool // those readers who watch; guarded by the node's mutex
	stirred chan struct{}                     // holds a token when there is another number of them

	mu      sync.Mutex
	flowing bool      // frames come, on the present link
	cut     bool      // items were lost since the last one
	at      time.Time // decode time of the newest frame
	pace    pace
}

// Live implements [branchline.Source]. The stream goes on over a cut of the site's link: there are no
// items meanwhile, and then they begin with a SegmentStart. The reader watches: where its stream does not fit the
// budget of the site's uplink it ends with a [*budget.Refusal]. With [federation.WithKeyFrames] it gets these only.
func (n *Node) Live(ctx context.Context, stream branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		key := n.keyFor(stream, federation.KeyFrames(ctx))
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		f, err := n.join(key, &cancel)
		if err != nil {
			yield(branchline.Item{}, fmt.Errorf("watch %s: %w", stream, err))
			return
		}
		defer n.leave(key, f, &cancel)
		for item, err := range f.ring.Subscribe(ctx) {
			if federation.KeyFrames(ctx) && err == nil && !keyFramesOf(item) {
				continue
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// keyFor returns the feed from which a viewer is to be served: key frames come from the whole stream if somebody
// watches that already.
func (n *Node) keyFor(stream branchline.StreamID, keyFrames bool) feedKey {
	whole := feedKey{stream: stream}
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.feeds[whole]; !keyFrames || f != nil && len(f.viewers) > 0 {
		return whole
	}
	return feedKey{stream, true}
}

// recorded is Live for a recorder, which nobody refuses, as it takes what is left of the uplink.
func (n *Node) recorded(ctx context.Context, stream branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		key := feedKey{stream: stream}
		f, err := n.join(key, nil)
		if err != nil {
			yield(branchline.Item{}, fmt.Errorf("record %s: %w", stream, err))
			return
		}
		defer n.leave(key, f, nil)
		for item, err := range f.ring.Subscribe(ctx) {
			if !yield(item, err) {
				return
			}
		}
	}
}

// join makes the caller a reader of the stream's feed, which it starts if there is none. One that watches, and
// does not record, can be ended with cancel.
func (n *Node) join(key feedKey, cancel *context.CancelCauseFunc) (*feed, error) {
	stream := key.stream
	cam, err := n.catalog.Camera(stream.Camera())
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(cam.Streams, func(s branchline.Stream) bool { return s.ID == stream }) {
		return nil, branchline.ErrNotFound
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, branchline.ErrUnavailable
	}
	f := n.feeds[key]
	if f == nil {
		if len(n.feeds) >= maxFeeds {
			return nil, fmt.Errorf("%d streams are live: %w", maxFeeds, branchline.ErrBusy)
		}
		f = &feed{
			ring: live.New(live.Limits{Shared: n.memory}), stirred: make(chan struct{}, 1),
			viewers: make(map[*context.CancelCauseFunc]bool),
		}
		var ctx context.Context
		ctx, f.stop = context.WithCancel(n.life)
		n.feeds[key] = f
		n.work.Go(func() { n.fill(ctx, key, f) })
	}
	f.readers++
	f.visits++
	if cancel != nil {
		f.viewers[cancel] = true
	}
	f.stir()
	return f, nil
}

// leave ends what join began. The feed ends some time after its last reader has left.
func (n *Node) leave(key feedKey, f *feed, cancel *context.CancelCauseFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(f.viewers, cancel)
	f.stir()
	f.readers--
	if f.readers > 0 || n.closed {
		return
	}
	visits := f.visits
	n.work.Go(func() {
		select {
		case <-time.After(linger):
		case <-n.life.Done():
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if f.visits == visits && n.feeds[key] == f { // nobody came meanwhile
			delete(n.feeds, key)
			f.stop()
		}
	})
}

// fill publishes the site's live items in the feed's ring until ctx ends, whatever becomes of links
// meanwhile.
func (n *Node) fill(ctx context.Context, key feedKey, f *feed) {
	defer f.ring.Close(branchline.ErrUnavailable)
	stream := key.stream
	pause := backoff.New(200*time.Millisecond, 5*time.Second)
	var toldTo branchline.Source
	var told, again bool // it may take the stream for watched; it is asked anew
	for ctx.Err() == nil {
		src, changed := n.link(stream.Site())
		if src == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		watched, read := n.watched(f)
		if !read { // those who were here were refused
			select {
			case <-f.stirred:
			case <-ctx.Done():
			}
			continue
		}
		if src != toldTo {
			toldTo, told, again = src, false, false
		}
		var came bool
		came, told, again = n.receive(ctx, src, key, f, asking{watched && !again, told})
		f.interrupted()
		if came {
			pause.Reset()
		}
		if again {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, pause.Next())
		select {
		case <-changed: // a new link need not wait for the old one's pause
		case <-wait.Done():
		}
		cancel()
	}
}

// asking is how a site is asked for a stream: as one that is watched, and whether it may take it for that already.
type asking struct{ watched, told bool }

// receive publishes what comes of one subscription at the site until that ends. It reports whether anything came,
// whether the site may take the stream for watched now, and whether to ask again at once, as it is watched and what is
// under way is late.
func (n *Node) receive(ctx context.Context, src branchline.Source, key feedKey, f *feed, as asking) (
	came, told, again bool,
) {
	stream := key.stream
	local, _ := stream.Within(stream.Site())
	ctx, stop := context.WithCancel(ctx)
	told = as.told || as.watched
	f.subscribed(n.cfg.Clock.Now(), told)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		told, again = n.tellWatched(ctx, src, key, f, told)
		stop()
	}()
	refused := false
	for item, err := range src.Live(subscription(ctx, key, as.watched), local) {
		if err != nil {
			n.log.Debug("live stream interrupted", "stream", stream, "error", err)
			if err = outward(stream.Site(), err); as.watched && isRefusal(err) {
				n.refuse(f, err)
				refused = true
			}
			break
		}
		came = true
		if at := item.Start; at != nil {
			n.origins.add(branchline.Segment{ID: at.ID, Stream: stream, Span: branchline.TimeRange{Start: at.Start}})
		}
		f.publish(stream, item, n.cfg.Clock.Now())
	}
	stop()
	<-ended
	return came, told && !refused, again
}

// publish passes an item on under the hub's own name of the stream. The first one after an interruption
// tells readers that they missed something.
func (f *feed) publish(stream branchline.StreamID, item branchline.Item, now time.Time) {
	if item.Start != nil {
		start := *item.Start
		start.Stream = stream
		item.Start = &start
	}
	f.mu.Lock()
	if f.cut {
		item.Missed, f.cut = max(item.Missed, 1), false
	}
	switch {
	case item.Start != nil:
		f.pace.start(item.Start.Run)
	case item.Frame != nil:
		f.flowing, f.at = true, item.Frame.DTS
		f.pace.see(now, item.Frame.DTS)
	case item.RunEnd != nil:
		f.pace.ended = true
	}
	f.mu.Unlock()
	f.ring.Publish(item)
}

func (f *feed) subscribed(now time.Time, watched bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pace.begin(now, watched)
}

// behind reports whether what comes has fallen behind since the subscription began.
func (f *feed) behind(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pace.behind(now)
}

func (f *feed) interrupted() {
	f.mu.Lock()
	f.flowing, f.cut = false, !f.at.IsZero()
	f.mu.Unlock()
}

// liveAt returns how far the live stream has come, and whether it flows.
func (n *Node) liveAt(stream branchline.StreamID) (time.Time, bool) {
	n.mu.Lock()
	f := n.feeds[feedKey{stream: stream}]
	n.mu.Unlock()
	if f == nil {
		return time.Time{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at, f.flowing
}

// record keeps a recorder for every stream of which policies want everything, until ctx ends.
func (n *Node) record(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	recorders := make(map[branchline.StreamID]context.CancelFunc)
	known, err := n.store.Cameras(ctx)
	if err != nil {
		return err
	}
	for {
		cameras, err := n.catalog.Cameras()
		if err != nil {
			return err
		}
		n.tell(known, cameras)
		known = cameras
		wanted := n.alwaysWanted(cameras)
		for stream, stop := range recorders {
			if !wanted[stream] {
				stop()
				delete(recorders, stream)
			}
		}
		for stream := range wanted {
			if recorders[stream] == nil {
				ctx, stop := context.WithCancel(ctx)
				recorders[stream] = stop
				group.Go(func() error {
					defer stop()
					n.recordStream(ctx, stream)
					return nil
				})
			}
		}
		select {
		case <-n.cameras:
		case <-ctx.Done():
			return group.Wait()
		}
	}
}

// tell enters cameras in the hub's own change feed, those that are not known just so.
func (n *Node) tell(known, cameras []branchline.Camera) {
	byID := func(c branchline.Camera, id branchline.CameraID) int { return cmp.Compare(c.ID, id) }
	for _, cam := range cameras {
		if i, ok := slices.BinarySearchFunc(known, cam.ID, byID); ok && same(known[i], cam) {
			continue
		}
		if err := n.store.PutCamera(cam); err != nil {
			n.log.Error("camera not entered in the hub's feed", "camera", cam.ID, "error", err)
		}
	}
}

func same(a, b branchline.Camera) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Added.Equal(b.Added) && a.Removed == b.Removed &&
		slices.Equal(a.Streams, b.Streams) && slices.Equal(a.More, b.More)
}

func (n *Node) alwaysWanted(cameras []branchline.Camera) map[branchline.StreamID]bool {
	wanted := make(map[branchline.StreamID]bool)
	for _, cam := range cameras {
		for _, s := range cam.Streams {
			if !cam.Removed && policy.For(n.fetcher.Policies(), s.ID).Kind == policy.Always {
				wanted[s.ID] = true
			}
		}
	}
	return wanted
}

// tellRecorded is how often the growing end of a recording is told.
const tellRecorded = 2 * time.Second

// recordStream records the live stream until ctx ends.
func (n *Node) recordStream(ctx context.Context, stream branchline.StreamID) {
	pause := backoff.New(time.Second, 30*time.Second)
	told := n.cfg.Clock.Now()
	wrote := func(int) {
		if now := n.cfg.Clock.Now(); now.Sub(told) >= tellRecorded {
			n.moved(stream, branchline.TimeRange{Start: told.Add(-tellRecorded), End: now})
			told = now
		}
	}
	for ctx.Err() == nil {
		err := record.Run(ctx, record.Config{Store: n.store, Stream: stream, Logger: n.log, Wrote: wrote},
			n.recorded(ctx, stream))
		if ctx.Err() == nil {
			n.log.Warn("live recording interrupted", "stream", stream, "error", err)
			if pause.Wait(ctx) != nil {
				return
			}
		}
	}
}
