package segstore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// What is held is asked for a month at a time, which is forty thousand segments. So the index keeps, beside
// the segments, which time those cover that start on a day: usually one span. It changes in the same update as
// the segment does.
//
//	D  stream, day -> the sealed segments that start on it: how many, their identifiers' exclusive or, and their
//	   spans, joined where they all but touch
//	P  stream, start, segment -> nothing: a segment that is opened and not sealed
//
// Number and identifiers tell whether the files of a day are those that the index has, without reading its
// segments. A day with more than maxDaySpans spans is marked as crowded and has none; its time is read from its
// segments.

const maxDaySpans = 1000

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

func keyDay(s branchline.StreamID, day time.Time) []byte { return keyAt('D', s, day) }

func keyPartial(s branchline.Segment) []byte {
	return append(keyAt('P', s.Stream, s.Span.Start), s.ID[:]...)
}

// dayCover is what the index has of one day of a stream.
type dayCover struct {
	count   uint32
	ids     branchline.SegmentID // exclusive or
	crowded bool
	spans   branchline.Spans
}

// toggle adds an identifier, or takes it off.
func toggle(ids, id branchline.SegmentID) branchline.SegmentID {
	for i := range ids {
		ids[i] ^= id[i]
	}
	return ids
}

func (d *dayCover) move(c *codec) {
	number(c, &d.count, 4)
	c.raw(d.ids[:])
	c.flag(&d.crowded)
	for i := 0; c.err == nil && (c.reading && len(c.buf) > 0 || !c.reading && i < len(d.spans)); i++ {
		if c.reading {
			d.spans = append(d.spans, branchline.TimeRange{})
		}
		c.span(&d.spans[i])
	}
}

func parseDay(b []byte) (d dayCover, err error) { return d, decode("day", b, d.move) }

func (l *ledger) readDay(key []byte) (dayCover, error) {
	if d, ok := l.days[string(key)]; ok {
		return d, nil
	}
	b, err := l.tx.Get(key)
	if errors.Is(err, branchline.ErrNotFound) {
		return dayCover{}, nil
	}
	if err != nil {
		return dayCover{}, err
	}
	return parseDay(b)
}

// changeDay has the day set at the end of the update, so that many segments of a day write it once.
func (l *ledger) changeDay(key []byte, d dayCover) {
	if l.days == nil {
		l.days = make(map[string]dayCover)
	}
	if len(d.spans) > maxDaySpans || d.crowded {
		d.crowded, d.spans = true, nil
	}
	l.days[string(key)] = d
}

// setDays writes what changeDay was told.
func (l *ledger) setDays() error {
	for _, key := range slices.Sorted(maps.Keys(l.days)) {
		var err error
		if d := l.days[key]; d.count == 0 {
			err = l.tx.Delete([]byte(key))
		} else {
			err = l.set([]byte(key), d.move)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cover adds a segment, which was just entered, to what its day has.
func (l *ledger) cover(seg branchline.Segment) error {
	if !seg.Sealed {
		return l.tx.Set(keyPartial(seg), nil)
	}
	key := keyDay(seg.Stream, dayOf(seg.Span.Start))
	d, err := l.readDay(key)
	if err != nil {
		return err
	}
	d.count, d.ids = d.count+1, toggle(d.ids, seg.ID)
	if !d.crowded {
		d.spans = joined(append(d.spans, seg.Span)...)
	}
	l.changeDay(key, d)
	return nil
}

// uncover takes a segment, which was just taken out, off what its day has. Segments that lie about it may cover
// the same time, as when a clock was set back.
func (l *ledger) uncover(seg branchline.Segment) error {
	if !seg.Sealed {
		return l.tx.Delete(keyPartial(seg))
	}
	first := dayOf(seg.Span.Start)
	key := keyDay(seg.Stream, first)
	d, err := l.readDay(key)
	if err != nil {
		return err
	}
	cut := branchline.TimeRange{Start: seg.Span.Start.Add(-joinWithin), End: seg.Span.End.Add(joinWithin)}
	if d.crowded { // it may fit again
		cut = branchline.TimeRange{Start: first, End: first.Add(24 * time.Hour)}
	}
	left := d.spans.Minus(branchline.Spans{cut})
	from := cut.Start.Add(-MaxSpan)
	if from.Before(first) {
		from = first
	}
	for k, v := range l.tx.Scan(keyLine('S', seg.Stream), keyAt('S', seg.Stream, from)) {
		other, err := parseSegment(v)
		if err != nil {
			return err
		}
		if !other.Span.Start.Before(cut.End) || !dayOf(other.Span.Start).Equal(first) {
			break
		}
		if string(k) != string(keySegment(seg)) && other.Sealed && other.Span.End.After(cut.Start) {
			left = append(left, other.Span)
		}
	}
	l.changeDay(key, dayCover{count: d.count - 1, ids: toggle(d.ids, seg.ID), spans: joined(left...)})
	return nil
}

// agrees reports whether the files are the sealed segments that the index has of the stream's day.
func (s *Store) agrees(stream branchline.StreamID, day time.Time,
	files map[branchline.SegmentID]string) (agrees bool, err error) {
	var ids branchline.SegmentID
	for id := range files {
		ids = toggle(ids, id)
	}
	err = s.ix.View(func(tx *index.Tx) error {
		l := ledger{tx: tx}
		d, err := l.readDay(keyDay(stream, day))
		agrees = int(d.count) == len(files) && d.ids == ids
		return err
	})
	return agrees, err
}

// unsealed returns the segments of the stream's day that the index has as opened.
func (s *Store) unsealed(stream branchline.StreamID, day time.Time) (open []branchline.Segment, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		open, err = openSegments(tx, stream, day, day.Add(24*time.Hour))
		return err
	})
	return open, err
}

// openSegments returns the segments that are opened and not sealed and start in a time.
func openSegments(tx *index.Tx, stream branchline.StreamID, from, to time.Time) ([]branchline.Segment, error) {
	var open []branchline.Segment
	for k := range tx.Scan(keyLine('P', stream), keyAt('P', stream, from)) {
		b, err := tx.Get(append([]byte{'S'}, k[1:]...))
		if err != nil {
			return nil, fmt.Errorf("partial segment: %w", err)
		}
		seg, err := parseSegment(b)
		if err != nil {
			return nil, err
		}
		if !seg.Span.Start.Before(to) {
			break
		}
		open = append(open, seg)
	}
	return open, nil
}

func parseSegment(b []byte) (seg branchline.Segment, err error) {
	var seq uint64
	return seg, decode("segment", b, sequenced(&seq, func(c *codec) { c.segment(&seg) }))
}

// covered returns the spans of sealed segments that may touch the range, and the segments that are not sealed.
func (s *Store) covered(stream branchline.StreamID,
	span branchline.TimeRange) (spans []branchline.TimeRange, open []branchline.Segment, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		from := span.Start.Add(-MaxSpan)
		var crowded []time.Time
		for k, v := range tx.Scan(keyLine('D', stream), keyDay(stream, dayOf(from))) {
			at := timeOfKey(k)
			if !at.Before(span.End) {
				break
			}
			d, err := parseDay(v)
			if err != nil {
				return err
			}
			if d.crowded {
				crowded = append(crowded, at)
			}
			spans = append(spans, d.spans...)
		}
		for _, first := range crowded {
			for _, v := range tx.Scan(keyLine('S', stream), keyAt('S', stream, first)) {
				seg, err := parseSegment(v)
				if err != nil {
					return err
				}
				if !dayOf(seg.Span.Start).Equal(first) {
					break
				}
				if seg.Sealed {
					spans = append(spans, seg.Span)
				}
			}
		}
		open, err = openSegments(tx, stream, from, span.End)
		return err
	})
	return spans, open, err
}
