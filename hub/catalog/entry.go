package catalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// The tables. Identifiers contain neither '/' nor zero bytes, so a name followed by one of them is a
// prefix of that name's keys alone.
const (
	tableSite   = "catalog/site/"   // site: siteRecord
	tableFeed   = "catalog/feed/"   // site: feedRecord
	tableOutage = "catalog/outage/" // site 0 start: entry
	keyAlive    = "catalog/alive"   // time of the hub's last sign of life
)

// generation is one of the two sets of tables of what a site's feed told: one is shown, and when the
// feed has to be read from its beginning the other is built meanwhile.
type generation string

func (g generation) other() generation {
	if g == "" {
		return "b/"
	}
	return ""
}

func (g generation) cameras() string   { return "catalog/" + string(g) + "camera/" }   // camera: branchline.Camera
func (g generation) growing() string   { return "catalog/" + string(g) + "growing/" }  // stream: growing
func (g generation) positions() string { return "catalog/" + string(g) + "position/" } // site: branchline.Position

// spans and gaps return the prefixes of a stream's rows: start: entry.
func (g generation) spans(s branchline.StreamID) []byte {
	return rangePrefix("catalog/"+string(g)+"span/", string(s))
}

func (g generation) gaps(s branchline.StreamID) []byte {
	return rangePrefix("catalog/"+string(g)+"gap/", string(s))
}

// feedRecord says which tables hold what a site's feed told.
type feedRecord struct {
	Shown    generation
	Building bool // the other generation is being read in
}

// followed returns the generation to which the feed goes.
func (r feedRecord) followed() generation {
	if r.Building {
		return r.Shown.other()
	}
	return r.Shown
}

func readFeed(tx *index.Tx, site branchline.SiteID) (feedRecord, error) {
	var r feedRecord
	err := ignoreNotFound(load(tx, tableFeed+string(site), &r))
	return r, err
}

// entry is a row of a table of ranges: a recording, a gap or an outage. Rows under one name do not
// overlap, so they are ordered by end as well as by start.
type entry struct {
	branchline.TimeRange
	Open  bool // still goes on; End is the time until which that is known
	Cause branchline.Cause
}

func rangePrefix(table, name string) []byte { return append([]byte(table+name), 0) }

func rangeKey(prefix []byte, start time.Time) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(prefix), uint64(start.UnixNano())^1<<63)
}

func (e entry) value() []byte {
	v := binary.BigEndian.AppendUint64(nil, uint64(e.End.UnixNano()))
	if e.Open {
		v = append(v, 1)
	} else {
		v = append(v, 0)
	}
	return append(v, e.Cause...)
}

func parseEntry(prefix, key, value []byte) (entry, error) {
	if len(key) != len(prefix)+8 || len(value) < 9 {
		return entry{}, fmt.Errorf("parse catalog entry %q: %w", key, branchline.ErrInvalid)
	}
	start := int64(binary.BigEndian.Uint64(key[len(prefix):]) ^ 1<<63)
	end := int64(binary.BigEndian.Uint64(value))
	return entry{
		TimeRange: branchline.TimeRange{Start: time.Unix(0, start).UTC(), End: time.Unix(0, end).UTC()},
		Open:      value[8] != 0,
		Cause:     branchline.Cause(value[9:]),
	}, nil
}

// touching returns the rows under prefix that overlap or touch r, latest first.
func touching(tx *index.Tx, prefix []byte, r branchline.TimeRange) ([]entry, error) {
	var found []entry
	for key, value := range tx.ScanReverse(prefix, rangeKey(prefix, r.End)) {
		e, err := parseEntry(prefix, key, value)
		if err != nil {
			return nil, err
		}
		if !e.Open && e.End.Before(r.Start) {
			break
		}
		found = append(found, e)
	}
	return found, nil
}

func put(tx *index.Tx, prefix []byte, e entry) error {
	return tx.Set(rangeKey(prefix, e.Start), e.value())
}

func remove(tx *index.Tx, prefix []byte, e entry) error {
	return tx.Delete(rangeKey(prefix, e.Start))
}

// JoinWithin is the distance up to which two recordings, or two gaps of one cause, count as one: the
// rounding between time scales. It is far below a frame's duration, because whatever it bridges counts
// as recorded, and would be wanted for ever without being there.
const JoinWithin = time.Millisecond

// join adds e and makes one row of it and the rows of the same cause that it overlaps or nearly
// touches.
func join(tx *index.Tx, prefix []byte, e entry) error {
	near := branchline.TimeRange{Start: e.Start.Add(-JoinWithin), End: e.End.Add(JoinWithin)}
	rows, err := touching(tx, prefix, near)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Cause != e.Cause || row.Open {
			continue
		}
		if err := remove(tx, prefix, row); err != nil {
			return err
		}
		if row.Start.Before(e.Start) {
			e.Start = row.Start
		}
		if row.End.After(e.End) {
			e.End = row.End
		}
	}
	return put(tx, prefix, e)
}

// cut takes r out of the rows. A remainder no longer than JoinWithin goes too: it is what join
// bridged, and no recording.
func cut(tx *index.Tx, prefix []byte, r branchline.TimeRange) error {
	rows, err := touching(tx, prefix, r)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !row.Overlaps(r) {
			continue
		}
		if err := remove(tx, prefix, row); err != nil {
			return err
		}
		for _, left := range (branchline.Spans{row.TimeRange}).Minus(branchline.Spans{r}) {
			if left.Duration() <= JoinWithin {
				continue
			}
			if err := put(tx, prefix, entry{left, row.Open && left.End.Equal(row.End), row.Cause}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Memory is how long gaps and outages are remembered: over a year, so that last year's incident can
// still be explained, and a bound on what an unsteady camera or link can add.
const Memory = 400 * 24 * time.Hour

// forget deletes the rows that ended before t.
func forget(tx *index.Tx, prefix []byte, t time.Time) error {
	var old []entry
	for key, value := range tx.Scan(prefix, nil) {
		e, err := parseEntry(prefix, key, value)
		if err != nil {
			return err
		}
		if e.Open || !e.End.Before(t) {
			break
		}
		old = append(old, e)
	}
	for _, e := range old {
		if err := remove(tx, prefix, e); err != nil {
			return err
		}
	}
	return nil
}
