package catalog

import (
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// StreamFacts is what the catalog knows of one stream in a range, read at one moment.
type StreamFacts struct {
	Known     bool                 // a feed told of the stream's camera
	Added     time.Time            // when its camera was first configured
	Available branchline.Spans     // recorded at the edge, with what is being recorded
	Gaps      []Gap                // as the edge told, by start; open ones go on until Heard
	Outages   []Outage             // of the site's link, by start
	Told      time.Time            // the feed has told of all that was recorded before; zero if it has told nothing
	Growing   branchline.TimeRange // what the segment in the making covers; empty without one
	Linked    bool
	Heard     time.Time // the last contact with the site: now, while it is linked
}

// Facts returns what is known of the stream in the range r.
func (c *Catalog) Facts(stream branchline.StreamID, r branchline.TimeRange) (StreamFacts, error) {
	var f StreamFacts
	err := c.db.View(func(tx *index.Tx) (err error) {
		f, err = c.facts(tx, stream, r)
		return err
	})
	if err != nil {
		return StreamFacts{}, fmt.Errorf("look up %s in the catalog: %w", stream, err)
	}
	return f, nil
}

func (c *Catalog) facts(tx *index.Tx, stream branchline.StreamID, r branchline.TimeRange) (StreamFacts, error) {
	var f StreamFacts
	var rec siteRecord
	branch, now := stream.Camera().Branch(), c.clock.Now()
	if err := load(tx, tableSite+string(branch), &rec); ignoreNotFound(err) != nil {
		return f, err
	}
	state := rec.state(branch, now, 0)
	if err := c.over(tx, &state, now); err != nil {
		return f, err
	}
	f.Linked, f.Heard = state.Linked, state.LastContact
	feed, err := readFeed(tx, stream.Site())
	if err != nil {
		return f, err
	}
	g := feed.Shown
	var cam branchline.Camera
	if err = load(tx, g.cameras()+string(stream.Camera()), &cam); ignoreNotFound(err) != nil {
		return f, err
	}
	f.Known, f.Added = err == nil, cam.Added
	gaps, err := touching(tx, g.gaps(stream), r)
	if err != nil {
		return f, err
	}
	for _, e := range slices.Backward(gaps) {
		if e.Open {
			e.End = later(e.End, f.Heard)
		}
		if e.Overlaps(r) {
			f.Gaps = append(f.Gaps, Gap{e.Intersect(r), e.Cause, e.Open})
		}
	}
	if f.Growing, err = growingSpan(tx, g, stream, f.Heard); err != nil {
		return f, err
	}
	if f.Told, err = toldUpTo(tx, g, stream, f.Growing.Start); err != nil {
		return f, err
	}
	recorded, err := touching(tx, g.spans(stream), r)
	if err != nil {
		return f, err
	}
	ranges := []branchline.TimeRange{f.Growing.Intersect(r)}
	for _, e := range recorded {
		ranges = append(ranges, e.Intersect(r))
	}
	f.Available = branchline.NewSpans(ranges...)
	for _, site := range branch.Way() {
		found, err := outages(tx, site, r, now)
		if err != nil {
			return f, err
		}
		f.Outages = append(f.Outages, found...)
	}
	slices.SortStableFunc(f.Outages, func(a, b Outage) int { return a.Span.Start.Compare(b.Span.Start) })
	return f, nil
}

// toldUpTo returns the time up to which the feed has told of the stream: it tells in order, so up to the
// newest of what it told. Of the segment in the making only the start counts, as what the edge was
// doing when it was last heard of may long be over.
func toldUpTo(tx *index.Tx, g generation, stream branchline.StreamID, growing time.Time) (time.Time, error) {
	at := growing
	for _, prefix := range [][]byte{g.spans(stream), g.gaps(stream)} {
		for key, value := range tx.ScanReverse(prefix, nil) {
			last, err := parseEntry(prefix, key, value)
			if err != nil {
				return at, err
			}
			end := last.End
			if last.Open {
				end = last.Start
			}
			at = later(at, end)
			break
		}
	}
	return at, nil
}

// growingSpan returns what the stream's segment in the making covers: from its start until the site
// was last heard of, but not into an interruption that goes on.
func growingSpan(
	tx *index.Tx, g generation, stream branchline.StreamID, heard time.Time,
) (branchline.TimeRange, error) {
	var now growing
	if err := load(tx, g.growing()+string(stream), &now); err != nil {
		return branchline.TimeRange{}, ignoreNotFound(err)
	}
	span := branchline.TimeRange{Start: now.Start, End: heard}
	open, err := openGap(tx, g, stream)
	if err == nil && open.Open && !open.Start.Before(now.Start) && open.Start.Before(span.End) {
		span.End = open.Start
	}
	return span, err
}

// openGap returns the latest gap that the edge told of, if that one goes on.
func openGap(tx *index.Tx, g generation, stream branchline.StreamID) (entry, error) {
	prefix := g.gaps(stream)
	for key, value := range tx.ScanReverse(prefix, nil) {
		last, err := parseEntry(prefix, key, value)
		if err != nil || !last.Open {
			return entry{}, err
		}
		return last, nil
	}
	return entry{}, nil
}

// Available returns what is recorded at the edge in the range, as far as the hub was told: sealed
// segments, and the one in the making up to the last contact.
func (c *Catalog) Available(stream branchline.StreamID, r branchline.TimeRange) (branchline.Spans, error) {
	f, err := c.Facts(stream, r)
	return f.Available, err
}

// Gaps returns the time in the range that the edge told not to be recorded, by start.
func (c *Catalog) Gaps(stream branchline.StreamID, r branchline.TimeRange) ([]Gap, error) {
	f, err := c.Facts(stream, r)
	return f.Gaps, err
}

// Growing returns what the segment in the making covers: from its start to now, or to the last
// contact while the site is dark. It is empty when nothing is being recorded.
func (c *Catalog) Growing(stream branchline.StreamID) (branchline.TimeRange, error) {
	f, err := c.Facts(stream, branchline.TimeRange{})
	return f.Growing, err
}

// Outages returns when the site's link was down in the range, by start.
func (c *Catalog) Outages(site branchline.SiteID, r branchline.TimeRange) ([]Outage, error) {
	var found []Outage
	err := c.db.View(func(tx *index.Tx) (err error) {
		found, err = outages(tx, site, r, c.clock.Now())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list outages of %s: %w", site, err)
	}
	return found, nil
}

// Recording says what the edge last told of a stream.
type Recording string

// What a stream can be doing.
const (
	RecordingOn      Recording = "recording"
	RecordingOff     Recording = "interrupted"
	RecordingUnknown Recording = "unknown"
)

// Recording returns what the edge last told of the stream, and why it is not recorded if it is not.
// While the site is dark that is what held when it was last heard of.
func (c *Catalog) Recording(stream branchline.StreamID) (Recording, branchline.Cause, error) {
	doing, cause := RecordingUnknown, branchline.Cause("")
	err := c.db.View(func(tx *index.Tx) error {
		feed, err := readFeed(tx, stream.Site())
		if err != nil {
			return err
		}
		open, err := openGap(tx, feed.Shown, stream)
		if err != nil {
			return err
		}
		var now growing
		err = load(tx, feed.Shown.growing()+string(stream), &now)
		switch {
		case open.Open && (err != nil || !open.Start.Before(now.Start)):
			doing, cause = RecordingOff, open.Cause
		case err == nil:
			doing = RecordingOn
		}
		return ignoreNotFound(err)
	})
	if err != nil {
		return RecordingUnknown, "", fmt.Errorf("look up what %s does: %w", stream, err)
	}
	return doing, cause, nil
}
