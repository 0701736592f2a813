package edge

import (
	"log/slog"
	"slices"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/segstore"
)

// maxNotes bounds what waits to be entered while the disk is slow; a stream makes a few an hour.
const maxNotes = 256

// ledger enters gaps and what becomes known of cameras into the store, in order, apart from the
// goroutines that take frames, which must not wait for a disk.
type ledger struct {
	store   *segstore.Store
	logger  *slog.Logger
	cameras []branchline.Camera // configured; changed only by run
	notes   chan note
}

// note is one thing to enter: a gap, or what a stream turned out to be.
type note struct {
	gap    *branchline.Gap
	stream branchline.StreamID
	init   []byte
}

// enterCameras brings the cameras that the store knows in line with the configuration.
func enterCameras(store *segstore.Store, known []branchline.Camera, cfg Config) (*ledger, error) {
	l := &ledger{store: store, logger: cfg.Logger, notes: make(chan note, maxNotes)}
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
		tail, err := store.Tail(s.ID)
		if err != nil {
			return err
		}
		g := gaps{stream: s.ID, clock: clk, enter: store.RecordGap}
		g.resume(tail, c.Added)
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
func (l *ledger) gap(g branchline.Gap) { l.notes <- note{gap: &g} }

// seen tells the header of a stream's new run.
func (l *ledger) seen(stream branchline.StreamID, init []byte) {
	l.notes <- note{stream: stream, init: init}
}

// end makes run return when everything is entered. Nothing may be asked for afterwards.
func (l *ledger) end() { close(l.notes) }

func (l *ledger) run() {
	for n := range l.notes {
		var err error
		if n.gap != nil {
			err = l.store.RecordGap(*n.gap)
		} else {
			err = l.describe(n.stream, n.init)
		}
		if err != nil {
			l.logger.Error("enter into store", "error", err)
		}
	}
}

// describe enters a stream's codecs and size if they are not what is known.
func (l *ledger) describe(stream branchline.StreamID, init []byte) error {
	info, err := media.Describe(init)
	if err != nil {
		return err
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
	l.cameras[i] = c
	return l.store.PutCamera(c)
}
