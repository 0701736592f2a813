package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/segstore"
)

const (
	rebuildSegments = 100_000
	// A recorder puts a fragment of each stream every half second.
	putPause = 500 * time.Millisecond
)

// rebuild deletes the index of a store and opens it, and records meanwhile.
func rebuild(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "hundred")
	l := library{dir: filepath.Join(dir, "store"), streams: largeStreams, segments: min(b.segments, rebuildSegments),
		fragments: 120}
	if _, err := l.make(ctx); err != nil {
		return err
	}
	m, err := makeMinute(time.Minute)
	if err != nil {
		return err
	}
	cold := dropCaches()
	took := report.Figure{What: "index made again while recording", Unit: "s", Limit: 60}
	longest := report.Figure{What: "the longest Begin or Put meanwhile", Unit: "s", Limit: 1}
	peak := report.Figure{What: "memory at its peak", Unit: "MB"}
	for range b.rounds {
		if err := os.RemoveAll(filepath.Join(l.dir, "index")); err != nil {
			return err
		}
		if cold {
			dropCaches()
		}
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil {
			return fmt.Errorf("reset the peak of memory: %w", err)
		}
		seconds, worst, err := rebuildOnce(ctx, l, m)
		if err != nil {
			return err
		}
		progress("rebuild: %.1f s, the longest write %v", seconds, worst)
		took.Got, longest.Got = append(took.Got, seconds), append(longest.Got, worst.Seconds())
		peak.Got = append(peak.Got, memoryOf(os.Getpid(), "VmHWM"))
	}
	b.figures = append(b.figures, took, longest, peak)
	b.note("%d segments of %d fragments each; %d streams of 4 Mbit/s are recorded meanwhile. Caches dropped before"+
		" each: %v. The memory includes %d MB of footage to record.", l.segments, l.fragments, largeStreams, cold,
		m.bytes>>20)
	if b.keep {
		return nil
	}
	return os.RemoveAll(dir)
}

// rebuildOnce opens the store without its index and returns how many seconds that took in the background, and
// the longest time that a call of a recorder took.
func rebuildOnce(ctx context.Context, l library, m *minute) (seconds float64, worst time.Duration, err error) {
	began := time.Now()
	s, err := segstore.Open(l.dir, segstore.Options{Signer: signer()})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var mu sync.Mutex
	var recorders sync.WaitGroup
	for i := range l.streams {
		recorders.Go(func() {
			longest, e := recordUntil(ctx, s, m, i)
			mu.Lock()
			defer mu.Unlock()
			worst, err = max(worst, longest), errors.Join(err, e)
		})
	}
	recorders.Wait()
	seconds = time.Since(began).Seconds()
	if n := s.Stats().Segments; err == nil && n < int64(l.segments/l.streams*l.streams) {
		err = fmt.Errorf("%d segments in the index of %d", n, l.segments)
	}
	return seconds, worst, err
}

// recordUntil records a stream at its pace until the store is settled.
func recordUntil(ctx context.Context, s *segstore.Store, m *minute, i int) (longest time.Duration, err error) {
	tail, err := s.Tail(streamName(i))
	if err != nil {
		return 0, err
	}
	call := func(do func() error) error {
		began := time.Now()
		err := do()
		longest = max(longest, time.Since(began))
		return err
	}
	tick := time.NewTicker(putPause)
	defer tick.Stop()
	for number := 0; ; number++ {
		start := m.segment(streamName(i), tail.Run+1, number)
		if err := call(func() error { return s.Begin(start.Stream, start) }); err != nil {
			return longest, err
		}
		for k, f := range m.fragments {
			if err := call(func() error { return s.Put(start.ID, f, m.data[k]) }); err != nil {
				return longest, err
			}
			select {
			case <-s.Settled():
				return longest, nil
			case <-ctx.Done():
				return longest, context.Cause(ctx)
			case <-tick.C:
			}
		}
		seal, err := m.seal(start, len(m.fragments), tail.Hash)
		if err == nil {
			tail.Hash = seal.Hash
			err = call(func() error { return s.Seal(start.ID, seal) })
		}
		if err != nil {
			return longest, err
		}
	}
}
