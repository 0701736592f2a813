package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// restoreEvery is how often a linked node looks whether it has lost something.
	restoreEvery = time.Minute
	// restoreAgain is the pause before a segment that the hub could not give, or that came wrong, is asked
	// for again.
	restoreAgain = time.Hour
)

// Restorer is a node that takes back what its disk has lost. Its methods are called one at a time.
type Restorer interface {
	// Lost lists the segments that the node had and that its disk damaged.
	Lost() ([]branchline.SegmentID, error)
	// Restore reads the whole file of a lost segment from body and takes it in if it is the node's own.
	Restore(ctx context.Context, id branchline.SegmentID, body io.Reader) error
}

// CopyFunc gives bytes of a segment of the site that this hub holds as a whole, as [branchline.Source.Fetch]
// does. It wraps [branchline.ErrNotFound] for every other segment.
type CopyFunc func(ctx context.Context, site branchline.SiteID, id branchline.SegmentID,
	bytes branchline.ByteRange) (io.ReadCloser, error)

// restoring asks the hub for what the node has lost, as long as the link lives.
func (u *Uplink) restoring(ctx context.Context, conn link.Conn) error {
	tick := time.NewTicker(restoreEvery)
	defer tick.Stop()
	next := make(map[branchline.SegmentID]time.Time)
	for u.cfg.Restore != nil && u.restoreAll(ctx, conn, next) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// restoreAll asks for each lost segment that is due by next. It reports whether to ask this hub again.
func (u *Uplink) restoreAll(ctx context.Context, conn link.Conn, next map[branchline.SegmentID]time.Time) bool {
	lost, err := u.cfg.Restore.Lost()
	if err != nil {
		u.cfg.Logger.Warn("lost segments are not known", "error", err)
		return true
	}
	for _, id := range lost {
		now := u.cfg.Clock.Now()
		if now.Before(next[id]) {
			continue
		}
		err := u.restore(ctx, conn, id)
		switch {
		case ctx.Err() != nil:
			return true
		case err == nil:
			delete(next, id)
			continue
		case errors.Is(err, branchline.ErrDenied):
			u.cfg.Logger.Info("this hub gives nothing back", "error", err)
			return false
		case !errors.Is(err, branchline.ErrNotFound): // that would be said of most of them, and is no fault
			u.cfg.Logger.Warn("lost segment is not restored", "segment", id, "error", err)
		}
		next[id] = now.Add(restoreAgain)
	}
	return true
}

func (u *Uplink) restore(ctx context.Context, conn link.Conn, id branchline.SegmentID) error {
	body, err := NewRemote(conn).Fetch(WithPriority(ctx, PriorityBackfill), id, branchline.ByteRange{})
	if err != nil {
		return err
	}
	defer body.Close()
	if err := u.cfg.Restore.Restore(ctx, id, body); err != nil {
		return fmt.Errorf("%w: %s", errNotRestored, err.Error()) // whatever it means here is not what the hub said
	}
	return nil
}

var errNotRestored = errors.New("take back copy")

// shared is a Restorer for several uplinks at once: each segment is asked for over one link at a time.
type shared struct {
	Restorer

	mu   sync.Mutex
	busy map[branchline.SegmentID]bool
}

// ShareRestorer returns r for several uplinks: what one of them is bringing back the others do not see as lost.
// The methods of r are then called by several at once, for different segments.
func ShareRestorer(r Restorer) Restorer {
	return &shared{Restorer: r, busy: make(map[branchline.SegmentID]bool)}
}

func (s *shared) Lost() ([]branchline.SegmentID, error) {
	lost, err := s.Restorer.Lost()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(lost, func(id branchline.SegmentID) bool { return s.busy[id] }), err
}

func (s *shared) Restore(ctx context.Context, id branchline.SegmentID, body io.Reader) error {
	if !s.begin(id) {
		return fmt.Errorf("another hub is giving it back: %w", branchline.ErrBusy)
	}
	defer s.end(id)
	return s.Restorer.Restore(ctx, id, body)
}

func (s *shared) begin(id branchline.SegmentID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.busy[id]
	s.busy[id] = true
	return !was
}

func (s *shared) end(id branchline.SegmentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
}
