package edge

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/segstore"
)

const (
	// maxNotes bounds what waits to be entered while the disk is slow or full; a stream makes a few an
	// hour, so this is a day of 32 streams.
	maxNotes = 4096
	// noteAgain is the pause before what could not be entered is tried again.
	noteAgain = 5 * time.Second
)

// entries is what is entered into; a segstore.Store is one.
type entries interface {
	RecordGap(g branchline.Gap) error
	PutCamera(c branchline.Camera) error
}

// ledger enters gaps and what becomes known of cameras into the store, in order, apart from the
// goroutines that take frames, which must not wait for a disk.
type ledger struct {
	store   entries
	logger  *slog.Logger
	cameras []branchline.Camera // configured; changed only by run
	wake    chan struct{}       // holds a token after a note was added
	ending  chan struct{}       // closed by end

	mu    sync.Mutex
	notes []note // the oldest first
}

// note is one thing to enter: a gap, or what a stream turned out to be.
type note struct {
	stream branchline.StreamID
	gap    *branchline.Gap
	init   []byte
}

func newLedger(store entries, logger *slog.Logger) *ledger {
	return &ledger{
		store: store, logger: logger, wake: make(chan struct{}, 1), ending: make(chan struct{}),
	}
}

// enterCameras brings the cameras that the store knows in line with the configuration.
func enterCameras(store *segstore.Store, known []branchline.Camera, cfg Config) (*ledger, error) {
	l := newLedger(store, cfg.Logger)
	byID := make(map[branchline.CameraID]branchline.Camera)
	for _, c := range known {
		byID[c.ID] = c
	}
	now := cfg.Clock.Now().Round(0)
	for _, configured := range cfg.Cameras {
		c := configured.camera(now)
		if old, ok := byID[c.ID]; ok {
			c.Added = old.Added
			keepSeen(c.Streams, old.Streams)
			delete(byID, c.ID)
		}
		if err := store.PutCamera(c); err != nil {
			return nil, err
		}
		l.cameras = append(l.cameras, c)
	}
	for _, c := range known {
		if _, gone := byID[c.ID]; gone && !c.Removed {
			if err := remove(store, c, cfg.Clock); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// remove enters that a camera is no longer configured. Its streams are left with an open gap that says so.
func remove(store *segstore.Store, c branchline.Camera, clk clock.Clock) error {
	for _, s := range c.Streams {
		g := gaps{stream: s.ID, clock: clk, enter: store.RecordGap}
		if _, err := g.resume(store, c.Added); err != nil {
			return err
		}
		g.because(branchline.CauseNotScheduled)
		if g.err != nil {
			return g.err
		}
	}
	c.Removed = true
	return store.PutCamera(c)
}

// keepSeen copies what was seen of streams earlier.
func keepSeen(streams, old []branchline.Stream) {
	for i := range streams {
		for _, o := range old {
			if o.ID == streams[i].ID {
				streams[i] = o
			}
		}
	}
}

func (l *ledger) camera(id branchline.CameraID) branchline.Camera {
	i := slices.IndexFunc(l.cameras, func(c branchline.Camera) bool { return c.ID == id })
	return l.cameras[i]
}

// gap asks for a gap to be entered.
func (l *ledger) gap(g branchline.Gap) { l.add(note{stream: g.Stream, gap: &g}) }

// seen tells the header of a stream's new run.
func (l *ledger) seen(stream branchline.StreamID, init []byte) {
	l.add(note{stream: stream, init: init})
}

// add never waits. A note takes the place of one that it makes out of date; of too many the oldest is lost.
func (l *ledger) add(n note) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.notes, n.replaces); i >= 0 {
		l.notes[i] = n
		return
	}
	if len(l.notes) == maxNotes {
		l.logger.Error("not entered into store: too much waits", "stream", l.notes[0].stream, "gap", l.notes[0].gap)
		l.notes = slices.Delete(l.notes, 0, 1)
	}
	l.notes = append(l.notes, n)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// replaces reports whether n is the news of what old tells.
func (n note) replaces(old note) bool {
	if n.stream != old.stream || (n.gap == nil) != (old.gap == nil) {
		return false
	}
	return n.gap == nil || n.gap.Span.Start.Equal(old.gap.Span.Start)
}

// end makes run return when everything was entered, or tried once more. Nothing may be asked for afterwards.
func (l *ledger) end() { close(l.ending) }

// run enters what is asked for, in order. What cannot be entered, such as on a full disk, is tried again.
func (l *ledger) run() {
	for ended := false; ; {
		var again <-chan time.Time
		if !l.enterAll() {
			again = time.After(noteAgain)
		}
		if ended {
			return
		}
		select {
		case <-l.wake:
		case <-again:
		case <-l.ending:
			ended = true
		}
	}
}

// enterAll enters notes until one fails, which stays the first unless there is news of it. It reports
// whether none did.
func (l *ledger) enterAll() bool {
	for {
		l.mu.Lock()
		if len(l.notes) == 0 {
			l.mu.Unlock()
			return true
		}
		n := l.notes[0]
		l.notes = slices.Delete(l.notes, 0, 1)
		l.mu.Unlock()
		err := l.enter(n)
		if err == nil {
			continue
		}
		l.logger.Error("enter into store", "stream", n.stream, "error", err)
		if errors.Is(err, branchline.ErrInvalid) {
			continue // for ever
		}
		l.mu.Lock()
		if !slices.ContainsFunc(l.notes, func(newer note) bool { return newer.replaces(n) }) {
			l.notes = slices.Insert(l.notes, 0, n)
		}
		l.mu.Unlock()
		return false
	}
}

func (l *ledger) enter(n note) error {
	if n.gap != nil {
		return l.store.RecordGap(*n.gap)
	}
	return l.describe(n.stream, n.init)
}

// describe enters a stream's codecs and size if they are not what is known.
func (l *ledger) describe(stream branchline.StreamID, init []byte) error {
	info, err := media.Describe(init)
	if err != nil {
		return fmt.Errorf("describe %s: %w: %w", stream, branchline.ErrInvalid, err)
	}
	i := slices.IndexFunc(l.cameras, func(c branchline.Camera) bool { return c.ID == stream.Camera() })
	c := l.cameras[i]
	c.Streams = slices.Clone(c.Streams)
	for j := range c.Streams {
		if c.Streams[j].ID == stream {
			c.Streams[j] = branchline.Stream{ID: stream, Codecs: info.Codecs, Width: info.Width, Height: info.Height}
		}
	}
	if slices.Equal(c.Streams, l.cameras[i].Streams) {
		return nil
	}
	if err := l.store.PutCamera(c); err != nil {
		return err
	}
	l.cameras[i] = c
	return nil
}
