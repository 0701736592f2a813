package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// maxBatch bounds the changes of one update: enough that a month's feed is read in seconds, and one
// update stays far below the database's limit.
const maxBatch = 512

// maxWipe bounds the rows deleted in one update, for the same limit.
const maxWipe = 2000

const tablePosition = "catalog/position/" // site: branchline.Position

// Follow stores what src, the source of the linked site, tells of itself, from where it was left
// before, until ctx ends or the feed fails; it always returns an error. Only one Follow may run for a
// site. When the past since the stored position is gone, everything known of the site's recordings is
// dropped and the feed is read from its beginning.
func (c *Catalog) Follow(ctx context.Context, site branchline.SiteID, src branchline.Source) error {
	for {
		after, err := c.position(site)
		if err != nil {
			return fmt.Errorf("follow %s: %w", site, err)
		}
		if after == (branchline.Position{}) {
			if err := c.wipe(site); err != nil {
				return fmt.Errorf("follow %s: %w", site, err)
			}
		}
		err = c.follow(ctx, site, src, after)
		if !errors.Is(err, branchline.ErrGone) || after == (branchline.Position{}) {
			return fmt.Errorf("follow %s: %w", site, err)
		}
		c.log.Info("change feed starts anew", "site", site, "after", after, "reason", err)
		if err := c.rewind(site); err != nil {
			return fmt.Errorf("follow %s: %w", site, err)
		}
	}
}

// follow applies the feed in batches of what has arrived: one change at a time when they are rare,
// many in one update while catching up.
func (c *Catalog) follow(
	ctx context.Context, site branchline.SiteID, src branchline.Source, after branchline.Position,
) error {
	arrived := make(chan branchline.Change, maxBatch)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(arrived)
		for change, err := range src.Changes(ctx, after) {
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
	group.Go(func() error {
		for first := range arrived {
			batch := append(make([]branchline.Change, 0, 1+len(arrived)), first)
			for len(batch) < maxBatch && len(arrived) > 0 {
				batch = append(batch, <-arrived)
			}
			if err := c.apply(site, batch); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

func (c *Catalog) position(site branchline.SiteID) (branchline.Position, error) {
	var at branchline.Position
	err := c.db.View(func(tx *index.Tx) error {
		return ignoreNotFound(load(tx, tablePosition+string(site), &at))
	})
	return at, err
}

// rewind makes the stored position zero, by which nothing stored of the site counts any more.
func (c *Catalog) rewind(site branchline.SiteID) error {
	return c.db.Update(func(tx *index.Tx) error {
		return store(tx, tablePosition+string(site), branchline.Position{})
	})
}

// wipe deletes what is known of the site's cameras and recordings, in as many updates as that takes;
// the position stays zero until the feed is applied, so a crash in between is no harm. Outages stay:
// they are the hub's own knowledge.
func (c *Catalog) wipe(site branchline.SiteID) error {
	for _, table := range []string{tableSpan, tableGrowing, tableGap, tableCamera} {
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

// apply stores the changes and the position after them in one update, and then tells of them.
func (c *Catalog) apply(site branchline.SiteID, batch []branchline.Change) error {
	var notices []Notice
	err := c.db.Update(func(tx *index.Tx) error {
		notices = notices[:0]
		for _, change := range batch {
			n, err := applyChange(tx, site, change)
			if err != nil {
				return fmt.Errorf("apply change %d: %w", change.At.Seq, err)
			}
			notices = append(notices, n)
		}
		return store(tx, tablePosition+string(site), batch[len(batch)-1].At)
	})
	if err != nil {
		return err
	}
	for _, n := range notices {
		if n.Camera != "" {
			n.Site = site
			c.changed(n)
		}
	}
	return nil
}

func applyChange(tx *index.Tx, site branchline.SiteID, change branchline.Change) (Notice, error) {
	switch {
	case !wellFormed(change, site):
		return Notice{}, nil // no key can be made of such a name; the rest of the feed still counts
	case change.Opened != nil:
		stream := change.Opened.Stream.Under(site)
		start := change.Opened.Span.Start
		return notice(stream, branchline.TimeRange{Start: start, End: later(start, change.Opened.Span.End)}),
			store(tx, tableGrowing+string(stream), growing{change.Opened.ID, start})
	case change.Sealed != nil:
		stream := change.Sealed.Stream.Under(site)
		n := notice(stream, change.Sealed.Span)
		sealed := *change.Sealed
		sealed.Stream = stream
		n.Sealed = &sealed
		return n, applySealed(tx, stream, *change.Sealed)
	case change.Removed != nil:
		stream := change.Removed.Stream.Under(site)
		return notice(stream, change.Removed.Span), applyRemoved(tx, stream, *change.Removed)
	case change.Gap != nil:
		stream := change.Gap.Stream.Under(site)
		return notice(stream, change.Gap.Span), applyGap(tx, stream, *change.Gap)
	case change.Camera != nil:
		cam := qualify(*change.Camera, site)
		return Notice{Camera: cam.ID}, store(tx, tableCamera+string(cam.ID), cam)
	}
	return Notice{}, nil // of a later version; only its position counts
}

// wellFormed reports whether the names in the change are, as they are here.
func wellFormed(change branchline.Change, site branchline.SiteID) bool {
	switch {
	case change.Opened != nil:
		return change.Opened.Stream.Under(site).Check() == nil
	case change.Sealed != nil:
		return change.Sealed.Stream.Under(site).Check() == nil
	case change.Removed != nil:
		return change.Removed.Stream.Under(site).Check() == nil
	case change.Gap != nil:
		return change.Gap.Stream.Under(site).Check() == nil
	case change.Camera != nil:
		return change.Camera.ID.Under(site).Check() == nil
	}
	return true
}

func notice(stream branchline.StreamID, span branchline.TimeRange) Notice {
	return Notice{Camera: stream.Camera(), Stream: stream, Span: span}
}

func qualify(cam branchline.Camera, site branchline.SiteID) branchline.Camera {
	cam.ID = cam.ID.Under(site)
	streams := make([]branchline.Stream, len(cam.Streams))
	for i, s := range cam.Streams {
		s.ID = s.ID.Under(site)
		streams[i] = s
	}
	cam.Streams = streams
	return cam
}

func applySealed(tx *index.Tx, stream branchline.StreamID, seg branchline.Segment) error {
	if err := endGrowing(tx, stream, seg.ID); err != nil || seg.Span.Empty() {
		return err
	}
	return join(tx, rangePrefix(tableSpan, string(stream)), entry{TimeRange: seg.Span})
}

func applyRemoved(tx *index.Tx, stream branchline.StreamID, gone branchline.Removal) error {
	if err := endGrowing(tx, stream, gone.ID); err != nil || gone.Span.Empty() {
		return err
	}
	if err := cut(tx, rangePrefix(tableSpan, string(stream)), gone.Span); err != nil {
		return err
	}
	gaps := rangePrefix(tableGap, string(stream))
	if err := forget(tx, gaps, gone.Span.End.Add(-Memory)); err != nil {
		return err
	}
	return addGap(tx, gaps, entry{TimeRange: gone.Span, Cause: gone.Cause})
}

func applyGap(tx *index.Tx, stream branchline.StreamID, gap branchline.Gap) error {
	span := gap.Span
	span.End = later(span.Start, span.End)
	gaps := rangePrefix(tableGap, string(stream))
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

func endGrowing(tx *index.Tx, stream branchline.StreamID, id branchline.SegmentID) error {
	var g growing
	err := load(tx, tableGrowing+string(stream), &g)
	if err != nil || g.ID != id {
		return ignoreNotFound(err)
	}
	return tx.Delete([]byte(tableGrowing + string(stream)))
}
