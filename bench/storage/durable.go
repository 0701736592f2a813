package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/segstore"
)

// The work of a round of durable: some streams at once, each a few segments, as fast as the disk takes them.
const (
	durableStreams  = 8
	durableSegments = 6
	// syncPause is between two syncs of what grows: the store's own.
	syncPause = 700 * time.Millisecond
	syncSlots = 8
)

// durable writes the same bytes to as many files through the store, through a plain loop that syncs as often,
// and with dd, which syncs each file once.
func durable(ctx context.Context, b *bench) error {
	m, err := makeMinute(time.Minute)
	if err != nil {
		return err
	}
	source := filepath.Join(b.dir, "source")
	if err := os.WriteFile(source, flatten(m), 0o644); err != nil {
		return err
	}
	speed := report.Figure{What: "store, against a loop of the same syncs", Unit: "MB/s", More: true, Limit: 0.8,
		Name: "loop"}
	dd := report.Figure{What: "store, against dd conv=fsync", Unit: "MB/s", More: true, Limit: 0.8, Name: "dd"}
	work := filepath.Join(b.dir, "durable")
	ways := []func() error{
		func() error { return storeMinutes(work, m) },
		func() error { return loopMinutes(work, m) },
		func() error { return ddMinutes(ctx, work, source) },
	}
	for round := range b.rounds {
		var rate [3]float64
		for i := range ways {
			way := (i + round) % len(ways)
			if rate[way], err = timed(work, m.bytes, ways[way]); err != nil {
				return err
			}
		}
		progress("durable: store %.0f, loop %.0f, dd %.0f MB/s", rate[0], rate[1], rate[2])
		speed.Got, speed.Peer = append(speed.Got, rate[0]), append(speed.Peer, rate[1])
		dd.Got, dd.Peer = append(dd.Got, rate[0]), append(dd.Peer, rate[2])
	}
	b.figures = append(b.figures, speed, dd)
	b.note("%d streams at once, each %d segments of %d fragments of %d KB, written as fast as possible.",
		durableStreams, durableSegments, len(m.fragments), m.bytes/int64(len(m.fragments))/1000)
	b.note("The store verifies each fragment (by its checksum, as at an edge), keeps sidecars, syncs what grows every %v,"+
		" and at a seal syncs file, directories and index. The loop writes the same bytes to as many files, syncs those"+
		" that grow every %v, and at the end each file and its directory. dd syncs each file once, at its end.",
		syncPause, syncPause)
	return nil
}

// timed returns the MB (10^6) a second of one way to write, from an idle disk to the last sync.
func timed(dir string, bytes int64, way func() error) (float64, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	unix.Sync()
	began := time.Now()
	if err := way(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return float64(bytes*durableStreams*durableSegments) / took.Seconds() / 1e6, os.RemoveAll(dir)
}

func flatten(m *minute) []byte {
	all := append(make([]byte, 0, m.bytes+int64(len(m.start.Init))), m.start.Init...)
	for _, d := range m.data {
		all = append(all, d...)
	}
	return all
}

func storeMinutes(dir string, m *minute) (err error) {
	s, err := segstore.Open(dir, segstore.Options{Signer: signer()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var group errgroup.Group
	for i := range durableStreams {
		group.Go(func() error {
			var prev branchline.Hash
			for n := range durableSegments {
				var err error
				if prev, err = storeMinute(s, m, m.segment(streamName(i), 1, n), prev); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func storeMinute(s *segstore.Store, m *minute, start branchline.SegmentStart,
	prev branchline.Hash) (branchline.Hash, error) {
	if err := s.Begin(start.Stream, start); err != nil {
		return prev, err
	}
	for k, f := range m.fragments {
		if err := s.Put(start.ID, f, m.data[k]); err != nil {
			return prev, err
		}
	}
	seal, err := m.seal(start, len(m.fragments), prev)
	if err != nil {
		return prev, err
	}
	return seal.Hash, s.Seal(start.ID, seal)
}

// loopMinutes writes what storeMinutes does with nothing but writes and syncs.
func loopMinutes(dir string, m *minute) error {
	var mu sync.Mutex
	growing := make(map[*os.File]bool)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- keepSyncing(&mu, growing, stop) }()
	var group errgroup.Group
	for i := range durableStreams {
		group.Go(func() error {
			for n := range durableSegments {
				f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d-%d", i, n)))
				if err != nil {
					return err
				}
				mu.Lock()
				growing[f] = true
				mu.Unlock()
				err = writeMinute(f, m)
				mu.Lock()
				delete(growing, f)
				mu.Unlock()
				if err := errors.Join(err, f.Sync(), f.Close(), syncDir(dir)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	close(stop)
	return errors.Join(err, <-stopped)
}

func writeMinute(f *os.File, m *minute) error {
	if _, err := f.Write(m.start.Init); err != nil {
		return err
	}
	for k, row := range m.fragments {
		if _, err := f.WriteAt(m.data[k], row.Offset); err != nil {
			return err
		}
	}
	return nil
}

// keepSyncing syncs the growing files over and over. One that was closed meanwhile was synced.
func keepSyncing(mu *sync.Mutex, growing map[*os.File]bool, stop <-chan struct{}) error {
	tick := time.NewTicker(syncPause)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		mu.Lock()
		all := slices.Collect(maps.Keys(growing))
		mu.Unlock()
		var group errgroup.Group
		group.SetLimit(syncSlots)
		for _, f := range all {
			group.Go(func() error {
				if err := f.Sync(); !errors.Is(err, os.ErrClosed) {
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ddMinutes(ctx context.Context, dir, source string) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range durableStreams {
		group.Go(func() error {
			for n := range durableSegments {
				target := filepath.Join(dir, fmt.Sprintf("%d-%d", i, n))
				out, err := exec.CommandContext(ctx, "dd", "if="+source, "of="+target, "bs=250K", "conv=fsync",
					"status=none").CombinedOutput()
				if err != nil {
					return fmt.Errorf("dd: %w: %s", err, out)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
