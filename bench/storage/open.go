package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/segstore"
)

// openArgument makes this program open a store, so that each opening is a new process.
const openArgument = "open-once"

// opening is what an opening took, in seconds since it began, and in MB.
type opening struct {
	Opened, Recording, Serving, Settled float64
	Peak                                float64 // of memory, all together
}

// open measures how long a store of many segments takes to open after the edge was killed while recording.
func open(ctx context.Context, b *bench) error {
	dir, err := b.large(ctx)
	if err != nil {
		return err
	}
	cold := dropCaches()
	if !cold {
		b.note("Caches cannot be dropped here, so there are only warm openings.")
	}
	for _, how := range []string{"warm", "cold"} {
		if how == "cold" && !cold {
			continue
		}
		rows := []report.Figure{
			{What: how + ": until it records on all streams", Unit: "s", Limit: 1},
			{What: how + ": until it serves segments, bytes and changes", Unit: "s", Limit: 3},
			{What: how + ": until Open returns", Unit: "s"},
			{What: how + ": until index and files are compared", Unit: "s"},
			{What: how + ": memory at its peak", Unit: "MB"},
		}
		for range b.rounds {
			o, err := b.openKilled(ctx, dir, how == "cold")
			if err != nil {
				return err
			}
			progress("open %s: %+v", how, o)
			for i, v := range []float64{o.Recording, o.Serving, o.Opened, o.Settled, o.Peak} {
				rows[i].Got = append(rows[i].Got, v)
			}
		}
		b.figures = append(b.figures, rows...)
	}
	b.note("%d segments; before each opening a real edge recorded %d cameras and was killed with SIGKILL. The opening"+
		" is that of the store in a new process: then Begin and a durable first fragment of each stream, then Segments"+
		" of an hour, Fetch and Changes. Cold: all caches of the kernel were dropped before.", b.segments, largeStreams)
	return b.dropLarge()
}

// openKilled kills an edge and opens its store.
func (b *bench) openKilled(ctx context.Context, dir string, cold bool) (o opening, err error) {
	cams, err := b.cameras(largeStreams, cpuKbits)
	if err != nil {
		return o, err
	}
	e, err := b.edge(dir, cams.urls)
	if err != nil {
		cams.end(syscall.SIGTERM)
		return o, err
	}
	if err = e.recording(ctx, largeStreams); err == nil {
		err = wait(ctx, 3*time.Second)
	}
	e.end(syscall.SIGKILL)
	cams.end(syscall.SIGTERM)
	if err != nil {
		return o, err
	}
	if cold {
		dropCaches()
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	p, err := start(b.dir, time.Hour, self, openArgument, filepath.Join(dir, "store"), strconv.Itoa(largeStreams))
	if err != nil {
		return o, err
	}
	<-p.done
	return o, json.Unmarshal(p.first, &o)
}

// openOnce opens the store, records, reads, waits for the background and prints what that took.
func openOnce(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%s needs a store and a number of streams", openArgument)
	}
	streams, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	debug.SetGCPercent(40) // as an edge does
	m, err := makeMinute(time.Second)
	if err != nil {
		return err
	}
	m.shift(time.Now())
	var o opening
	began := time.Now()
	s, err := segstore.Open(args[0], segstore.Options{Signer: signer()})
	if err != nil {
		return err
	}
	defer s.Close()
	o.Opened = time.Since(began).Seconds()
	if err := recordFirst(s, m, streams); err != nil {
		return err
	}
	o.Recording = time.Since(began).Seconds()
	if err := serve(s); err != nil {
		return err
	}
	o.Serving = time.Since(began).Seconds()
	select {
	case <-s.Settled():
	case <-time.After(30 * time.Minute):
		return fmt.Errorf("not settled after %v", time.Since(began))
	}
	o.Settled = time.Since(began).Seconds()
	o.Peak = memoryOf(os.Getpid(), "VmHWM")
	return json.NewEncoder(os.Stdout).Encode(o)
}

// shift moves the minute's rows to begin at a time.
func (m *minute) shift(to time.Time) {
	by := to.Round(0).UTC().Sub(m.start.Start)
	m.start.Start = m.start.Start.Add(by)
	for i := range m.fragments {
		m.fragments[i].Start = m.fragments[i].Start.Add(by)
	}
}

// recordFirst begins a segment of each stream and makes its first fragment durable.
func recordFirst(s *segstore.Store, m *minute, streams int) error {
	var group errgroup.Group
	for i := range streams {
		group.Go(func() error {
			tail, err := s.Tail(streamName(i))
			if err != nil {
				return err
			}
			start := m.segment(streamName(i), tail.Run+1, 0)
			if err := s.Begin(start.Stream, start); err != nil {
				return err
			}
			if err := s.Put(start.ID, m.fragments[0], m.data[0]); err != nil {
				return err
			}
			return s.Sync(context.Background(), start.ID)
		})
	}
	return group.Wait()
}

// serve reads what a hub asks for first.
func serve(s *segstore.Store) error {
	ctx := context.Background()
	now := time.Now()
	list, err := s.Segments(ctx, streamName(0), branchline.TimeRange{Start: now.Add(-2 * time.Hour), End: now})
	if err != nil || len(list) == 0 {
		return fmt.Errorf("%d segments of the last hours: %w", len(list), err)
	}
	r, err := s.Fetch(ctx, list[0].ID, branchline.ByteRange{})
	if err != nil {
		return err
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err != nil || n != list[0].Size {
		return fmt.Errorf("fetched %d bytes of %d: %w", n, list[0].Size, err)
	}
	for _, err := range s.Changes(ctx, branchline.Position{}) {
		return err
	}
	return nil
}
