package hub_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
)

// viewer watches the stream until it is stopped.
type viewer struct {
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	frames []time.Time // decode times
	starts []branchline.SegmentStart
	missed int
	err    error
}

func (w *world) watch(id branchline.StreamID) *viewer {
	ctx, stop := context.WithCancel(context.Background())
	v := &viewer{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		for item, err := range w.node.Live(ctx, id) {
			v.mu.Lock()
			v.err = err
			v.missed += item.Missed
			if item.Start != nil {
				v.starts = append(v.starts, *item.Start)
			}
			if item.Frame != nil {
				v.frames = append(v.frames, item.Frame.DTS)
			}
			v.mu.Unlock()
		}
	}()
	return v
}

func (v *viewer) seen() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.frames)
}

func (v *viewer) end() {
	v.stop()
	<-v.done
}

func TestOneSubscriptionForAllViewers(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(5 * time.Second)
		if n := w.edge.lives.Load(); n != 0 {
			t.Fatalf("%d subscriptions without a viewer", n)
		}
		var viewers []*viewer
		for range 5 {
			viewers = append(viewers, w.watch(stream))
			pass(time.Second)
		}
		if n := w.edge.lives.Load(); n != 1 {
			t.Errorf("%d subscriptions for five viewers", n)
		}
		for _, v := range viewers {
			if v.seen() < 5 || v.missed > 0 || v.starts[0].Stream != stream {
				t.Errorf("a viewer saw %d frames, missed %d", v.seen(), v.missed)
			}
			v.end()
		}
		pass(4 * time.Second)
		if w.edge.lives.Load() != 1 {
			t.Error("the stream ended with its last viewer, who may come back")
		}
		pass(2 * time.Second)
		if w.edge.lives.Load() != 0 {
			t.Error("the stream goes on without viewers")
		}
	})
}

func TestViewersOutliveTheLink(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(5 * time.Second)
		v := w.watch(stream)
		defer v.end()
		pass(3 * time.Second)
		w.cut()
		synctest.Wait()
		before := v.seen()
		pass(30 * time.Second)
		if v.seen() != before || v.err != nil {
			t.Fatalf("dark, and the viewer has %d new frames, error %v", v.seen()-before, v.err)
		}
		healed := time.Now()
		w.heal()
		took := w.wait(2*time.Second, "no picture after the link is back", func() bool { return v.seen() > before })
		v.mu.Lock()
		defer v.mu.Unlock()
		last := v.starts[len(v.starts)-1]
		if v.missed == 0 || healed.Sub(last.Start) > segmentLength || healed.Sub(v.frames[before]) > 2*time.Second {
			t.Errorf("after %v: missed %d, goes on in the segment of %v at %v",
				took, v.missed, last.Start, v.frames[before])
		}
	})
}

func TestWatchingWhatIsNotThere(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(time.Second)
		for _, id := range []branchline.StreamID{"berlin.door.other", "berlin.gate.main", "paris.door.main"} {
			v := w.watch(id)
			<-v.done
			if !errors.Is(v.err, branchline.ErrNotFound) {
				t.Errorf("watched %s: %v", id, v.err)
			}
			v.end()
		}
	})
}

// TestPlayAcrossHeldAndEdge: what is held comes from the hub's disk, the rest over the link, and
// without a link only what is held is there.
func TestPlayAcrossHeldAndEdge(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(35 * time.Second)
		part := branchline.TimeRange{Start: w.edge.began.Add(12 * time.Second), End: w.edge.began.Add(17 * time.Second)}
		job := w.order(part)
		w.wait(2*time.Second, "not done", func() bool { return w.job(job.ID).State.Final() })
		whole := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(30 * time.Second)}
		play := func() (fragments int, fetched int64) {
			fetched = w.edge.fetched.Load()
			segs, err := w.node.Segments(w.Context(), stream, whole)
			if err != nil {
				t.Fatal(err)
			}
			for _, seg := range segs {
				if seg.Stream != stream {
					t.Errorf("segment of %s", seg.Stream)
				}
				for _, f := range seg.Fragments {
					body, err := w.node.Fetch(w.Context(), seg.ID, branchline.ByteRange{Start: f.Offset, End: f.End()})
					if err != nil {
						t.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, body); err != nil || n != f.Length {
						t.Fatal(n, err)
					}
					body.Close()
					fragments++
				}
			}
			return fragments, w.edge.fetched.Load() - fetched
		}
		held := len(w.fragments(w.node.Store(), stream, whole))
		fragments, fetched := play()
		if there := len(w.fragments(w.edge.Store, local, whole)); fragments != there || fetched == 0 {
			t.Errorf("played %d fragments of %d, fetched %d bytes", fragments, there, fetched)
		}
		w.cut()
		if fragments, fetched = play(); fragments != held || fetched != 0 || held == 0 {
			t.Errorf("dark: played %d fragments of %d, fetched %d bytes", fragments, held, fetched)
		}
	})
}

// TestLingerBeginsAnew: a short visit while a stream lingers lets it linger in full again, and a hub
// that closes meanwhile does not wait for it.
func TestLingerBeginsAnew(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(2 * time.Second)
		for range 2 {
			v := w.watch(stream)
			pass(500 * time.Millisecond)
			v.end()
			pass(3500 * time.Millisecond)
		}
		pass(time.Second)
		if w.edge.lives.Load() != 1 {
			t.Error("the stream ended before its time")
		}
		w.watch(stream).end()
		began := time.Now()
		w.close()
		if took := time.Since(began); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		w.open()
	})
}

// TestHeldBytesDoNotCrossTheLink plays a segment of which the middle is held with one fetch to its end.
func TestHeldBytesDoNotCrossTheLink(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(25 * time.Second)
		from := w.edge.began.Add(segmentLength)
		read := func(seg branchline.Segment, bytes branchline.ByteRange) []byte {
			body, err := w.node.Fetch(w.Context(), seg.ID, bytes)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			data, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		segs, err := w.node.Segments(w.Context(), stream,
			branchline.TimeRange{Start: from.Add(time.Second), End: from.Add(2 * time.Second)})
		if err != nil || len(segs) != 1 {
			t.Fatal(segs, err)
		}
		seg := segs[0]
		whole := read(seg, branchline.ByteRange{})
		for _, c := range []struct {
			from, to time.Duration
			most     float64 // of the segment's bytes may cross the link
		}{{3 * time.Second, 8 * time.Second, 0.6}, {0, segmentLength, 0}} {
			id := w.order(branchline.TimeRange{Start: from.Add(c.from), End: from.Add(c.to)}).ID
			w.wait(2*time.Second, "not done", func() bool { return w.job(id).State.Final() })
			for _, end := range []int64{0, seg.Size} {
				fetched := w.edge.fetched.Load()
				data := read(seg, branchline.ByteRange{End: end})
				fetched = w.edge.fetched.Load() - fetched
				if !bytes.Equal(data, whole) || float64(fetched) > c.most*float64(seg.Size) {
					t.Errorf("%v-%v to %d: %d bytes of %d, %d over the link", c.from, c.to, end, len(data),
						len(whole), fetched)
				}
			}
		}
	})
}

// TestOneSiteDoesNotAnswerForAnother: a segment belongs to the stream under which it was told first.
func TestOneSiteDoesNotAnswerForAnother(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(12 * time.Second)
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(5 * time.Second)}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); w.node.Attach(ctx, "athens", w.edge) }() // tells of berlin's segments
		w.wait(time.Second, "athens has no camera", func() bool {
			_, err := w.node.Catalog().Camera("athens.door")
			return err == nil
		})
		segs, err := w.node.Segments(ctx, "athens.door.main", span)
		if err != nil || len(segs) != 0 {
			t.Errorf("athens lists %d segments of berlin, %v", len(segs), err)
		}
		w.cut()
		before := w.edge.fetches.Load()
		segs, err = w.edge.Segments(ctx, local, span)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.node.Fetch(ctx, segs[0].ID, branchline.ByteRange{End: 10})
		if !errors.Is(err, branchline.ErrUnavailable) || w.edge.fetches.Load() != before {
			t.Errorf("berlin is dark, and its footage is %v", err)
		}
		stop()
		<-done
	})
}
