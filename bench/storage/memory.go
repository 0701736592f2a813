package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/branchline-video/branchline/bench/report"
)

const largeStreams = 16

// large makes the store of many segments, unless it is there.
func (b *bench) large(ctx context.Context) (dir string, err error) {
	dir = filepath.Join(b.dir, "large")
	l := library{dir: filepath.Join(dir, "store"), streams: largeStreams, segments: b.segments, fragments: 1}
	took, err := l.make(ctx)
	if err == nil && took > 0 {
		b.note("The index of these %d segments was made from the files in %v, offline.", b.segments,
			took.Round(time.Second))
	}
	return dir, err
}

// memory is that of a real edge which records and has many segments.
func memory(ctx context.Context, b *bench) error {
	dir, err := b.large(ctx)
	if err != nil {
		return err
	}
	cams, err := b.cameras(largeStreams, cpuKbits)
	if err != nil {
		return err
	}
	defer cams.end(syscall.SIGTERM)
	most := report.Figure{What: "edge, memory at its peak (VmHWM)", Unit: "MB", Limit: 200}
	mean := report.Figure{What: "edge, memory while it records (VmRSS)", Unit: "MB", Limit: 200}
	ready := report.Figure{What: "edge, from its start until it says that it records", Unit: "s"}
	first := report.Figure{What: "edge, from its start until each stream has a fragment", Unit: "s"}
	for range b.rounds {
		began := time.Now()
		e, err := b.edge(dir, cams.urls)
		if err != nil {
			return err
		}
		ready.Got = append(ready.Got, time.Since(began).Seconds())
		err = e.recording(ctx, largeStreams)
		first.Got = append(first.Got, time.Since(began).Seconds())
		var rss []float64
		for end := time.Now().Add(b.seconds); err == nil && time.Now().Before(end); err = wait(ctx, time.Second) {
			rss = append(rss, memoryOf(e.cmd.Process.Pid, "VmRSS"))
		}
		mean.Got = append(mean.Got, report.Median(rss))
		most.Got = append(most.Got, memoryOf(e.cmd.Process.Pid, "VmHWM"))
		progress("memory: %.0f MB, at most %.0f", mean.Got[len(mean.Got)-1], most.Got[len(most.Got)-1])
		e.end(syscall.SIGKILL)
		if err != nil {
			return err
		}
	}
	b.figures = append(b.figures, most, mean, ready, first)
	b.note("%d cameras of %d kbit/s, %d segments in the store, each round %v after a kill -9, the comparison of index"+
		" and files in the background included.", largeStreams, cpuKbits, b.segments, b.seconds)
	return b.dropLarge()
}

// dropLarge deletes the large store unless it is to be kept, or is needed once more.
func (b *bench) dropLarge() error {
	if b.keep {
		return nil
	}
	return errors.Join(os.RemoveAll(filepath.Join(b.dir, "large", "store.complete")),
		os.RemoveAll(filepath.Join(b.dir, "large")))
}
