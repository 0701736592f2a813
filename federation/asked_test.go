package federation

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// region is a source that notes how it is asked, as a hub would pass it on.
type region struct {
	branchline.Source
	mu    sync.Mutex
	notes []string
}

func (r *region) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *region) Live(ctx context.Context, s branchline.StreamID) iter.Seq2[branchline.Item, error] {
	r.note("live %s: recording %t, key frames %t", s, Recording(ctx), KeyFrames(ctx))
	return func(yield func(branchline.Item, error) bool) { yield(branchline.Item{}, branchline.ErrNotFound) }
}

func (r *region) Fetch(ctx context.Context, _ branchline.SegmentID, _ branchline.ByteRange) (io.ReadCloser, error) {
	r.note("fetch: %d for %q", priorityOf(ctx, link.KindFetch), Playback(ctx))
	return nil, branchline.ErrNotFound
}

func (r *region) View(s branchline.StreamID) (func(), error) {
	r.note("view %s", s)
	return func() { r.note("leave %s", s) }, nil
}

// TestAskedThroughAHub: what is asked of a source is known there with its urgency and what it is for.
func TestAskedThroughAHub(t *testing.T) {
	src := &region{Source: newSource()}
	edge, hub := link.Pipe("berlin", "")
	run(t, func(ctx context.Context) error { return (&server{conn: edge, src: src}).run(ctx) },
		func() error { return hub.Close(0, "") })
	r, ctx := NewRemote(hub), t.Context()
	live := func(ctx context.Context) {
		for range r.Live(ctx, testStream) {
			break
		}
	}
	live(ctx)
	live(WithKeyFrames(ctx))
	live(WithPriority(ctx, PrioritySchedule))
	for _, ctx := range []context.Context{
		ctx, WithPriority(ctx, PriorityBackfill), WithPlayback(ctx, testStream),
	} {
		if _, err := r.Fetch(ctx, branchline.SegmentID{1}, branchline.ByteRange{}); err == nil {
			t.Error("fetched nothing")
		}
	}
	for _, watched := range []bool{true, false} {
		if err := r.Watch(ctx, testStream, watched); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"live entrance.main: recording false, key frames false",
		"live entrance.main: recording false, key frames true",
		"live entrance.main: recording true, key frames false",
		fmt.Sprintf(`fetch: %d for ""`, PriorityRequest),
		fmt.Sprintf(`fetch: %d for ""`, PriorityBackfill),
		fmt.Sprintf(`fetch: %d for "entrance.main"`, PriorityRequest),
		"view entrance.main", "leave entrance.main",
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if !slices.Equal(src.notes, want) {
		t.Errorf("asked %q, expected %q", src.notes, want)
	}
}
