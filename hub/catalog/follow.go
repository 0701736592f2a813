package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

const (
	// maxBatch bounds the changes of one update: enough that a month's feed is read in seconds, and one
	// update stays far below the database's limit.
	maxBatch = 512
	// maxWipe bounds the rows deleted in one update, for the same limit.
	maxWipe = 2000
	// MaxCameras bounds the cameras of one site, and MaxStreams the streams of one camera, as its store
	// does: what a site tells beyond is left out, so that no site can fill the hub's database.
	MaxCameras = 1000
	MaxStreams = 16
	// quiet is how long a feed tells nothing once its past has been read. A busy feed is quiet as long
	// every few seconds, and showing what was read a little early is no harm.
	quiet = 250 * time.Millisecond
)

// follower is one call of Follow.
type follower struct {
	c    *Catalog
	site branchline.SiteID
	src  branchline.Source
	feed feedRecord
	left int // changes left out
}

// Follow stores what src, the source of the linked site, tells of itself, from where it was left
// before, until ctx ends or the feed fails; it always returns an error. Only one Follow may run for a
// site. When the past since the stored position is gone, the feed is read from its beginning, and what
// was known of the site's recordings stays until that has been done.
func (c *Catalog) Follow(ctx context.Context, site branchline.SiteID, src branchline.Source) error {
	f := &follower{c: c, site: site, src: src}
	for {
		after, err := f.position()
		if err == nil && after == (branchline.Position{}) {
			err = c.wipe(site, f.feed.followed())
		}
		if err != nil {
			return fmt.Errorf("follow %s: %w", site, err)
		}
		err = f.follow(ctx, after)
		if !errors.Is(err, branchline.ErrGone) || after == (branchline.Position{}) {
			return fmt.Errorf("follow %s: %w", site, err)
		}
		c.log.Info("change feed starts anew", "site", site, "after", after, "reason", err)
		if err := f.rewind(); err != nil {
			return fmt.Errorf("follow %s: %w", site, err)
		}
	}
}

// follow applies the feed in batches of what has arrived: one change at a time when they are rare,
// many in one update while catching up. The cameras come first: in the feed each is told of where it
// changed last, which may be after its recordings.
func (f *follower) follow(ctx context.Context, after branchline.Position) error {
	cameras, err := f.src.Cameras(ctx)
	if err != nil {
		return err
	}
	if err := f.apply(told(cameras), branchline.Position{}); err != nil {
		return err
	}
	arrived := make(chan branchline.Change, maxBatch)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(arrived)
		for change, err := range f.src.Changes(ctx, after) {
			if err != nil {
				return err
			}
			select {
			case arrived <- change:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("change feed ended: %w", branchline.ErrUnavailable)
	})
	group.Go(func() error { return f.take(arrived) })
	return group.Wait()
}

// told returns the cameras as changes.
func told(cameras []branchline.Camera) []branchline.Change {
	changes := make([]branchline.Change, len(cameras))
	for i := range cameras {
		changes[i].Camera = &cameras[i]
	}
	return changes
}

// take applies what arrives. A generation that is being built is shown once nothing arrives for a while.
func (f *follower) take(arrived <-chan branchline.Change) error {
	settled := time.NewTimer(quiet)
	defer settled.Stop()
	for {
		select {
		case first, more := <-arrived:
			if !more {
				return nil
			}
			batch := append(make([]branchline.Change, 0, 1+len(arrived)), first)
			for len(batch) < maxBatch && len(arrived) > 0 {
				batch = append(batch, <-arrived)
			}
			if err := f.apply(batch, batch[len(batch)-1].At); err != nil {
				return err
			}
			settled.Reset(quiet)
		case <-settled.C:
			if err := f.show(); err != nil {
				return err
			}
		}
	}
}

// position returns where the feed goes on.
func (f *follower) position() (branchline.Position, error) {
	var at branchline.Position
	err := f.c.db.View(func(tx *index.Tx) (err error) {
		if f.feed, err = readFeed(tx, f.site); err != nil {
			return err
		}
		return ignoreNotFound(load(tx, f.feed.followed().positions()+string(f.site), &at))
	})
	return at, err
}

// rewind makes the feed begin anew, in the generation that is not shown: by a position of zero nothing
// that is stored there counts any more.
func (f *follower) rewind() error {
	f.feed.Building = true
	return f.c.db.Update(func(tx *index.Tx) error {
		if err := store(tx, tableFeed+string(f.site), f.feed); err != nil {
			return err
		}
		return store(tx, f.feed.followed().positions()+string(f.site), branchline.Position{})
	})
}

// show makes the generation that was built the one that is shown, and tells of all that may differ.
func (f *follower) show() error {
	if !f.feed.Building {
		return nil
	}
	old := f.feed.Shown
	shown := feedRecord{Shown: f.feed.followed()}
	err := f.c.db.Update(func(tx *index.Tx) error {
		if f.c.onward != nil {
			if err := f.c.onward.Anew(tx); err != nil {
				return err
			}
		}
		return store(tx, tableFeed+string(f.site), shown)
	})
	if err != nil {
		return err
	}
	f.feed = shown
	cameras, err := f.c.SiteCameras(f.site)
	if err != nil {
		return err
	}
	f.c.changed(Notice{Site: f.site})
	for _, cam := range cameras {
		f.c.changed(Notice{Site: f.site, Camera: cam.ID})
	}
	return f.c.wipe(f.site, old)
}

// wipe deletes what is known in one generation of the site's cameras and recordings, in as many updates
// as that takes. Outages stay: they are the hub's own knowledge.
func (c *Catalog) wipe(site branchline.SiteID, g generation) error {
	for _, table := range []string{g.growing(), g.cameras(), "catalog/" + string(g) + "span/",
		"catalog/" + string(g) + "gap/"} {
		for more := true; more; {
			err := c.db.Update(func(tx *index.Tx) error {
				var keys [][]byte
				for key := range tx.Scan([]byte(table+string(site)+"."), nil) {
					if keys = append(keys, bytes.Clone(key)); len(keys) == maxWipe {
						break
					}
				}
				more = len(keys) == maxWipe
				for _, key := range keys {
					if err := tx.Delete(key); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// apply stores the changes and, if it is not zero, the position after them in one update, and then tells
// of them.
func (f *follower) apply(batch []branchline.Change, after branchline.Position) error {
	var notices []Notice
	left := 0
	err := f.c.db.Update(func(tx *index.Tx) error {
		notices, left = nil, 0 // it may be called again
		for _, change := range batch {
			n, err := f.applyAndTell(tx, change)
			switch {
			case err != nil:
				return fmt.Errorf("apply change %d: %w", change.At.Seq, err)
			case n != nil:
				notices = append(notices, *n)
			default:
				left++
			}
		}
		if after == (branchline.Position{}) {
			return nil
		}
		return store(tx, f.feed.followed().positions()+string(f.site), after)
	})
	if err != nil {
		return err
	}
	if f.left == 0 && left > 0 {
		f.c.log.Warn("changes of a site are left out: unknown kinds, bad names, or over a limit", "site", f.site)
	}
	f.left += left
	for _, n := range notices {
		f.c.changed(n)
	}
	return nil
}

// applyChange stores the change and returns whom it concerns: nobody if it is left out, because no key
// can be made of its names, it is of a stream that no camera has, or of a later version.
func applyChange(tx *index.Tx, g generation, site branchline.SiteID, change branchline.Change) (Notice, error) {
	stream, span := concerns(change)
	if change.Site != nil {
		return applySite(tx, site, *change.Site)
	}
	if change.Camera != nil {
		return applyCamera(tx, g, change.Camera.Under(site))
	}
	if stream = stream.Under(site); !named(stream) {
		return Notice{}, nil
	}
	known, err := knows(tx, g, stream)
	n := Notice{Camera: stream.Camera(), Stream: stream, Span: span}
	switch {
	case err != nil:
		return Notice{}, err
	case change.Removed != nil && !known: // of a stream that its camera no longer has
		return n, cut(tx, g.spans(stream), span)
	case !known:
		return Notice{}, nil
	case change.Opened != nil:
		opened := *change.Opened
		opened.Stream = stream
		n.Opened = &opened
		return n, store(tx, g.growing()+string(stream), growing{change.Opened.ID, span.Start})
	case change.Sealed != nil:
		sealed := *change.Sealed
		sealed.Stream = stream
		n.Sealed = &sealed
		return n, applySealed(tx, g, sealed)
	case change.Removed != nil:
		return n, applyRemoved(tx, g, stream, *change.Removed)
	case change.Recorded != nil:
		return n, applyRecorded(tx, g, stream, span)
	}
	return n, applyGap(tx, g, stream, *change.Gap)
}

// concerns returns the stream and the time of a change, as the site calls it.
func concerns(change branchline.Change) (branchline.StreamID, branchline.TimeRange) {
	switch {
	case change.Opened != nil:
		span := change.Opened.Span
		span.End = later(span.Start, span.End)
		return change.Opened.Stream, span
	case change.Sealed != nil:
		return change.Sealed.Stream, change.Sealed.Span
	case change.Removed != nil:
		return change.Removed.Stream, change.Removed.Span
	case change.Gap != nil:
		return change.Gap.Stream, change.Gap.Span
	case change.Recorded != nil:
		return change.Recorded.Stream, change.Recorded.Span
	}
	return "", branchline.TimeRange{}
}

// knows reports whether one of the site's cameras has the stream.
func knows(tx *index.Tx, g generation, stream branchline.StreamID) (bool, error) {
	var cam branchline.Camera
	err := load(tx, g.cameras()+string(stream.Camera()), &cam)
	known := slices.ContainsFunc(cam.Streams, func(s branchline.Stream) bool { return s.ID == stream })
	return known, ignoreNotFound(err)
}

func named(stream branchline.StreamID) bool { return stream.Check() == nil }

// sound reports whether the camera's names are good and its streams its own, and not too many.
func sound(cam branchline.Camera) bool {
	bad := func(s branchline.Stream) bool { return !named(s.ID) || s.ID.Camera() != cam.ID }
	return cam.ID.Check() == nil && len(cam.Streams) <= MaxStreams && !slices.ContainsFunc(cam.Streams, bad)
}

// applyCamera stores a camera, if it is known or there is room for it.
func applyCamera(tx *index.Tx, g generation, cam branchline.Camera) (Notice, error) {
	if !sound(cam) {
		return Notice{}, nil
	}
	_, err := tx.Get([]byte(g.cameras() + string(cam.ID)))
	if err != nil {
		if ignoreNotFound(err) != nil {
			return Notice{}, err
		}
		if !room(tx, g, cam.ID) {
			return Notice{}, nil
		}
	}
	return Notice{Camera: cam.ID}, store(tx, g.cameras()+string(cam.ID), cam)
}

func applySealed(tx *index.Tx, g generation, seg branchline.Segment) error {
	if err := endGrowing(tx, g, seg.Stream, seg.ID); err != nil {
		return err
	}
	return applyRecorded(tx, g, seg.Stream, seg.Span)
}

func applyRemoved(tx *index.Tx, g generation, stream branchline.StreamID, gone branchline.Removal) error {
	if err := endGrowing(tx, g, stream, gone.ID); err != nil || gone.Span.Empty() {
		return err
	}
	if err := cut(tx, g.spans(stream), gone.Span); err != nil {
		return err
	}
	gaps := g.gaps(stream)
	if err := forget(tx, gaps, gone.Span.End.Add(-Memory)); err != nil {
		return err
	}
	return addGap(tx, gaps, entry{TimeRange: gone.Span, Cause: gone.Cause})
}

func applyGap(tx *index.Tx, g generation, stream branchline.StreamID, gap branchline.Gap) error {
	span := gap.Span
	span.End = later(span.Start, span.End)
	gaps := g.gaps(stream)
	if gap.Open {
		rows, err := touching(tx, gaps, span)
		if err != nil {
			return err
		}
		for _, row := range rows { // another open one cannot go on beside it
			if row.Open && !row.Start.Equal(span.Start) {
				if err := closeGap(tx, gaps, row, span); err != nil {
					return err
				}
			}
		}
		return put(tx, gaps, entry{span, true, gap.Cause})
	}
	if err := tx.Delete(rangeKey(gaps, span.Start)); err != nil { // as it was announced when it began
		return err
	}
	return addGap(tx, gaps, entry{TimeRange: span, Cause: gap.Cause})
}

func closeGap(tx *index.Tx, gaps []byte, open entry, next branchline.TimeRange) error {
	if !open.Start.Before(next.Start) {
		return remove(tx, gaps, open)
	}
	open.Open, open.End = false, next.Start
	return put(tx, gaps, open)
}

// addGap adds a gap that has ended, where no other gap of a different cause is known already.
func addGap(tx *index.Tx, gaps []byte, e entry) error {
	rows, err := touching(tx, gaps, e.TimeRange)
	if err != nil {
		return err
	}
	var others []branchline.TimeRange
	for _, row := range rows {
		if row.Cause != e.Cause || row.Open {
			others = append(others, row.TimeRange)
		}
	}
	for _, left := range (branchline.Spans{e.TimeRange}).Minus(branchline.NewSpans(others...)) {
		if err := join(tx, gaps, entry{TimeRange: left, Cause: e.Cause}); err != nil {
			return err
		}
	}
	return nil
}

// cutGaps takes a sealed segment's span out of the gaps that have ended: it was lost at the edge and came back.
func cutGaps(tx *index.Tx, gaps []byte, span branchline.TimeRange) error {
	rows, err := touching(tx, gaps, span)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Open || !row.Overlaps(span) {
			continue
		}
		if err := remove(tx, gaps, row); err != nil {
			return err
		}
		for _, left := range (branchline.Spans{row.TimeRange}).Minus(branchline.Spans{span}) {
			if err := put(tx, gaps, entry{left, false, row.Cause}); err != nil {
				return err
			}
		}
	}
	return nil
}

func endGrowing(tx *index.Tx, g generation, stream branchline.StreamID, id branchline.SegmentID) error {
	key := g.growing() + string(stream)
	var now growing
	if err := load(tx, key, &now); err != nil || now.ID != id {
		return ignoreNotFound(err)
	}
	return tx.Delete([]byte(key))
}
