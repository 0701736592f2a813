package sourcetest

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
)

// live reads a stream item by item.
type live struct {
	r    *run
	next func() (branchline.Item, error, bool)
	stop func()
}

func (r *run) live(ctx context.Context) *live {
	next, stop := iter.Pull2(r.Source.Live(ctx, r.Stream))
	r.Cleanup(stop)
	return &live{r, next, stop}
}

func (l *live) item() branchline.Item {
	l.r.Helper()
	i, err, ok := l.next()
	if err != nil || !ok {
		l.r.Fatalf("live ended: %v", err)
	}
	n := 0
	for _, set := range []bool{i.Start != nil, i.Frame != nil, i.Fragment != nil, i.Seal != nil, i.RunEnd != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		l.r.Fatalf("%d parts of item %+v are set, want one", n, i)
	}
	return i
}

// start reads the item that a reader gets first.
func (l *live) start() *branchline.SegmentStart {
	l.r.Helper()
	i := l.item()
	if i.Start == nil {
		l.r.Fatalf("live begins with %+v, want the start of the segment", i)
	}
	return i.Start
}

// fragment reads items up to the end of a fragment and returns its bytes.
func (l *live) fragment() (*branchline.FragmentEnd, []byte) {
	l.r.Helper()
	tracks := map[int][]byte{}
	for {
		i := l.item()
		switch {
		case i.Frame != nil:
			tracks[i.Frame.Track] = append(tracks[i.Frame.Track], i.Frame.Data...)
		case i.Fragment != nil:
			data := slices.Clone(i.Fragment.Head)
			order := make([]int, 0, len(tracks))
			for track := range tracks {
				order = append(order, track)
			}
			slices.Sort(order)
			for _, track := range order {
				data = append(data, tracks[track]...)
			}
			return i.Fragment, append(data, i.Fragment.Tail...)
		default:
			l.r.Fatalf("item %+v inside a fragment", i)
		}
	}
}

func (r *run) liveJoins() {
	id := r.Feed.Begin(piece)
	r.Feed.Append(false, piece)
	r.Feed.Append(true, piece) // the newest key fragment
	r.Feed.Append(false, piece)
	want := r.segment(id).Fragments[2:]
	l := r.live(r.ctx)
	if start := l.start(); start.ID != id || start.Stream != r.Stream || len(start.Init) == 0 {
		r.Errorf("joined at %+v, want segment %s of %s", start, id, r.Stream)
	}
	for _, f := range want {
		got, _ := l.fragment()
		if diff := cmp.Diff(f, got.Fragment); diff != "" {
			r.Errorf("fragment (-want +got):\n%s", diff)
		}
	}
}

func (r *run) liveBytes() {
	id := r.Feed.Begin(piece)
	l := r.live(r.ctx)
	file := slices.Clone(l.start().Init)
	for i := range 6 {
		_, data := l.fragment()
		file = append(file, data...)
		if i < 5 {
			r.Feed.Append(i%2 == 1, piece)
		}
	}
	r.Feed.Seal()
	seal := l.item().Seal
	if seal == nil || seal.ID != id {
		r.Fatalf("no seal of %s after the last fragment", id)
	}
	file = append(file, seal.Footer...)
	seg := r.segment(id)
	if seal.Hash != seg.Hash || seal.Size != seg.Size {
		r.Errorf("seal %+v, want that of %+v", seal, seg)
	}
	if whole := r.bytes(id, branchline.ByteRange{}); !bytes.Equal(file, whole) {
		r.Errorf("the %d bytes seen live are not the %d recorded", len(file), len(whole))
	}
	next := r.Feed.Begin(piece)
	if start := l.start(); start.ID != next {
		r.Errorf("the next segment is %s, want %s", start.ID, next)
	}
	l.fragment()
	r.Feed.Stop(branchline.CauseDamaged)
	l.item() // its seal
	if end := l.item().RunEnd; end == nil || end.Cause != branchline.CauseDamaged {
		r.Errorf("the run ended with %+v", end)
	}
}

// liveSlow publishes more than fits into all buffers between the source and a reader that stands
// still. The feed is never held up by it.
func (r *run) liveSlow() {
	const fragments = 160 // 20 MB
	id := r.Feed.Begin(bulk)
	l := r.live(r.ctx)
	l.start()
	for i := range fragments {
		r.Feed.Append(i%2 == 0, bulk)
	}
	mark := r.segment(id).Fragments
	last := mark[len(mark)-1].Offset
	missed, keyNext := 0, false
	var end int64
	for end == 0 || end <= last {
		i := l.item()
		if i.Missed > 0 {
			missed += i.Missed
			if i.Start == nil {
				r.Fatalf("after a loss comes %+v, want the start of the segment", i)
			}
			keyNext, end = true, 0
		}
		switch {
		case i.Frame != nil:
			if keyNext && !i.Frame.FirstKey {
				r.Fatal("after a loss the first frame is no key frame")
			}
			keyNext = false
		case i.Fragment != nil:
			if end != 0 && i.Fragment.Fragment.Offset != end {
				r.Fatalf("fragment at %d follows one that ends at %d, no loss told", i.Fragment.Fragment.Offset, end)
			}
			end = i.Fragment.Fragment.End()
		}
	}
	if missed == 0 {
		r.Error("nothing was missed; the reader was not slow enough or items were queued without limit")
	}
}

func (r *run) liveWaits() {
	first := make(chan branchline.Item, 1)
	go func() {
		defer close(first)
		for i, err := range r.Source.Live(r.ctx, r.Stream) {
			if err == nil {
				first <- i
			}
			return
		}
	}()
	id := r.Feed.Begin(piece)
	if i, ok := <-first; !ok || i.Start == nil || i.Start.ID != id {
		r.Errorf("first item is %+v, want the start of %s", i, id)
	}
}

func (r *run) liveUnknown() {
	n := 0
	for _, err := range r.Source.Live(r.ctx, "nowhere.main") {
		n++
		r.wantError("live of an unknown stream", err, branchline.ErrNotFound)
	}
	if n != 1 {
		r.Errorf("%d things were yielded, want the error alone", n)
	}
}

// iteratorsEnd checks that iterators which wait end soon after their context, with nothing or with
// its error.
func (r *run) iteratorsEnd() {
	r.record(2, piece)
	r.Feed.Stop(branchline.CauseStopped)
	for name, follow := range map[string]func(context.Context, func()) error{
		"changes": func(ctx context.Context, seen func()) error {
			for _, err := range r.Source.Changes(ctx, branchline.Position{}) {
				if err != nil {
					return err
				}
				seen()
			}
			return nil
		},
		"live": func(ctx context.Context, seen func()) error {
			seen()
			for _, err := range r.Source.Live(ctx, r.Stream) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		ctx, cancel := context.WithCancel(r.ctx)
		ended := make(chan error, 1)
		seen := make(chan struct{}, 1000)
		go func() { ended <- follow(ctx, func() { seen <- struct{}{} }) }()
		<-seen
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			r.wantError(name+" that are cancelled", err, context.Canceled)
		}
		if took := time.Since(began); took > time.Second {
			r.Errorf("%s ended %v after their context", name, took)
		}
	}
}
