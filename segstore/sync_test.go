package segstore

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestSyncIsABarrier kills a replica right after Sync: everything put before is held.
func TestSyncIsABarrier(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	segs := []testSegment{makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})}
	whole := makeSegment(2, 4, 2, branchline.Hash{})
	for _, seg := range segs {
		must(t, s.Begin(testStream, seg.start))
		must(t, s.Put(seg.start.ID, seg.fragments[1], seg.data(1)))
		must(t, s.Put(seg.start.ID, seg.fragments[2], seg.data(2)))
	}
	record(t, s, whole)
	must(t, s.Sync(t.Context(), segs[0].start.ID, segs[1].start.ID, whole.start.ID))
	s = openStore(t, snapshot(t, dir), false)
	want := []branchline.TimeRange{day(0.5, 1.5), day(2.5, 3.5), day(4, 5)}
	if held, _ := s.Held(testStream, day(0, 9)); !slices.Equal(held, want) {
		t.Errorf("held after a crash: %v, want %v", held, want)
	}
}

func TestSyncTellsWhatIsNotStored(t *testing.T) {
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	id := seg.start.ID
	begun := func(s *Store) { must(t, s.Begin(testStream, seg.start)) }
	for _, c := range []struct {
		name string
		do   func(s *Store)
		want error
	}{
		{"never begun", func(*Store) {}, branchline.ErrNotFound},
		{"removed", func(s *Store) { begun(s); must(t, s.Remove(id, branchline.CauseExpired)) }, branchline.ErrGone},
		{"closed", func(s *Store) { begun(s); must(t, s.Close()) }, branchline.ErrUnavailable},
		{"turn is taken for ever", func(s *Store) { begun(s); s.partial(id).take() }, context.Canceled},
	} {
		s := openStore(t, t.TempDir(), false)
		c.do(s)
		ctx, cancel := context.WithCancel(t.Context())
		if errors.Is(c.want, context.Canceled) {
			cancel()
		}
		if err := s.Sync(ctx, id); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if p := s.partial(id); errors.Is(c.want, context.Canceled) {
			p.give()
		}
		cancel()
	}
	s, err := openWith(t.TempDir(), Options{}, failingSync{})
	must(t, err)
	defer s.Close()
	begun(s)
	for range 2 {
		if err := s.Sync(t.Context(), id); !errors.Is(err, branchline.ErrUnavailable) {
			t.Errorf("on a disk that fails: %v", err)
		}
	}
}
