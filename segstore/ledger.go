package segstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// The index holds, each under its key (record.go):
//
//	V  version of what follows
//	E  epoch, sequence number of the newest change, that of the newest forgotten one, count of tombstones,
//	   the journal's generation and up to where that is entered
//	C  sequence number -> change; of a segment its key S
//	S  stream, start, segment -> sequence number of its change, segment (opened or sealed)
//	I  segment -> its key S, or the empty value for a removed one (tombstone)
//	X  sequence number of a removal -> segment, so that the oldest tombstone is found
//	G  stream, start -> sequence number of its change, gap
//	O  stream -> the key G of its newest gap that is open
//	M  camera -> sequence number of its change, camera
//	T  stream -> its totals and end
//	W  where the scrub is
//	Z  segment -> size of its file, where that is not the segment's
//	L  identifier -> evidence lock
//	H  stream, holder -> hold
//	N  stream -> the time in which its segments are thinned
//	D and P, from which spans are listed: days.go
//
// The feed stays as small as the state: a change that supersedes another (sealed after opened, a gap
// that ended after the same gap open) replaces it in the feed. So a follower that comes late sees the
// newest state of everything once, and one that is there sees every step. Only removals would pile
// up; the oldest is forgotten when there are more than maxTombstones.

// maxTombstones bounds the removals that the feed remembers: two days of 32 streams in one-minute
// segments, some 10 MB. A follower that was away for longer gets [branchline.ErrGone] and starts again.
const maxTombstones = 100_000

// ledger is one update of the index.
type ledger struct {
	tx      *index.Tx
	meta    meta
	horizon time.Time           // gaps that ended before are forgotten
	crowded bool                // older ones are forgotten even so
	origin  bool                // of segments: what is lost leaves gaps
	noted   []branchline.Change // gaps made by the way, for the journal
	days    map[string]dayCover // changed, and to be set at the end
}

type meta struct {
	epoch, head, floor, tombstones uint64
	generation, journaled          uint64 // the journal, and up to where the index has it
}

func (m *meta) move(c *codec) {
	for _, p := range []*uint64{&m.epoch, &m.head, &m.floor, &m.tombstones,
		&m.generation, &m.journaled} {
		number(c, p, 8)
	}
}

// streamState is what the index keeps of a stream as a whole.
type streamState struct {
	lastRun         uint64    // highest run of any segment begun
	runStart        time.Time // of that run, if this node made it
	run             uint64    // of the newest sealed segment, by run and number
	number          uint32
	hash            branchline.Hash
	span            branchline.TimeRange // of that segment
	segments, bytes int64                // sealed
}

func (s *streamState) move(c *codec) {
	number(c, &s.lastRun, 8)
	c.instant(&s.runStart)
	number(c, &s.run, 8)
	number(c, &s.number, 4)
	c.raw(s.hash[:])
	c.span(&s.span)
	number(c, &s.segments, 8)
	number(c, &s.bytes, 8)
}

func readMeta(tx *index.Tx) (meta, error) {
	var m meta
	b, err := tx.Get(keyMeta())
	if err != nil {
		return m, err
	}
	return m, decode("index head", b, m.move)
}

func readStream(tx *index.Tx, stream branchline.StreamID) (streamState, error) {
	var s streamState
	b, err := tx.Get(keyStream(stream))
	if errors.Is(err, branchline.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return s, decode("stream", b, s.move)
}

// commit changes the index durably and then tells the followers.
func (s *Store) commit(change func(l *ledger) error) error { return s.commitBy(s.ix.Update, change) }

// commitBy is commit by the given kind of update.
func (s *Store) commitBy(update func(func(tx *index.Tx) error) error, change func(l *ledger) error) error {
	err := update(func(tx *index.Tx) error {
		l := ledger{tx: tx, horizon: s.clock.Now().Add(-gapAge), crowded: s.journalLive > s.journalMost/3*2,
			origin: s.signer != nil}
		m, err := readMeta(tx)
		l.meta = m
		if errors.Is(err, branchline.ErrNotFound) {
			l.meta.epoch, err = rand.Uint64()|1, nil
		}
		if err != nil {
			return err
		}
		if err := change(&l); err != nil {
			return err
		}
		if err := s.note(&l, l.noted...); err != nil {
			return err
		}
		if err := l.setDays(); err != nil {
			return err
		}
		if l.meta == m {
			return nil
		}
		return l.set(keyMeta(), l.meta.move)
	})
	if err == nil {
		s.feed.ring()
	}
	return err
}

func (l *ledger) set(key []byte, move func(c *codec)) error {
	b, err := encode(move)
	if err != nil {
		return err
	}
	return l.tx.Set(key, b)
}

// announce adds a change to the feed in place of the one with number old, if that is not zero.
func (l *ledger) announce(ch branchline.Change, old uint64) error {
	if old != 0 {
		if err := l.tx.Delete(keyChange(old)); err != nil {
			return err
		}
	}
	l.meta.head++
	if seg := cmp.Or(ch.Opened, ch.Sealed); seg != nil {
		return l.tx.Set(keyChange(l.meta.head), append([]byte{kindSegment}, keySegment(*seg)...))
	}
	return l.set(keyChange(l.meta.head), func(c *codec) { c.change(&ch) })
}

// readChange returns a change from its entry in the feed.
func readChange(tx *index.Tx, entry []byte) (ch branchline.Change, err error) {
	if len(entry) == 0 || entry[0] != kindSegment {
		return ch, decode("change", entry, func(c *codec) { c.change(&ch) })
	}
	b, err := tx.Get(entry[1:])
	if err != nil {
		return ch, err
	}
	var seg branchline.Segment
	var seq uint64
	if err := decode("segment", b, sequenced(&seq, func(c *codec) { c.segment(&seg) })); err != nil {
		return ch, err
	}
	if seg.Sealed {
		return branchline.Change{Sealed: &seg}, nil
	}
	return branchline.Change{Opened: &seg}, nil
}

// sequenced moves an entry that is kept behind the number of its change.
func sequenced(seq *uint64, move func(c *codec)) func(c *codec) {
	return func(c *codec) { number(c, seq, 8); move(c) }
}

// find returns the segment's entry. It wraps ErrNotFound or, for a tombstone, ErrGone.
func find(tx *index.Tx, id branchline.SegmentID) (branchline.Segment, uint64, error) {
	var seg branchline.Segment
	var seq uint64
	key, err := tx.Get(keyID(id))
	switch {
	case err != nil:
		return seg, 0, fmt.Errorf("segment %v: %w", id, err)
	case len(key) == 0:
		return seg, 0, fmt.Errorf("segment %v was removed: %w", id, branchline.ErrGone)
	}
	b, err := tx.Get(key)
	if err != nil {
		return seg, 0, fmt.Errorf("segment %v: %w", id, err)
	}
	return seg, seq, decode("segment", b, sequenced(&seq, func(c *codec) { c.segment(&seg) }))
}

// segment enters a segment that was opened or sealed. What is sealed stays sealed.
func (l *ledger) segment(seg branchline.Segment) error {
	old, seq, err := find(l.tx, seg.ID)
	known := err == nil
	if known && (old.Sealed || old.Stream != seg.Stream) {
		return nil
	}
	if err != nil && !errors.Is(err, branchline.ErrNotFound) && !errors.Is(err, branchline.ErrGone) {
		return err
	}
	if known {
		if err := l.tx.Delete(keySegment(old)); err != nil {
			return err
		}
		if err := l.uncover(old); err != nil {
			return err
		}
	}
	ch := branchline.Change{Opened: &seg}
	if seg.Sealed {
		ch = branchline.Change{Sealed: &seg}
	}
	if err := l.announce(ch, seq); err != nil {
		return err
	}
	head := l.meta.head
	if err := l.set(keySegment(seg), sequenced(&head, func(c *codec) { c.segment(&seg) })); err != nil {
		return err
	}
	if err := l.tx.Set(keyID(seg.ID), keySegment(seg)); err != nil {
		return err
	}
	if seg.Sealed {
		if err := l.takePlace(seg); err != nil {
			return err
		}
	}
	if err := l.cover(seg); err != nil {
		return err
	}
	return l.count(seg, 1)
}

// count adds the segment to its stream's totals, or takes it off again.
func (l *ledger) count(seg branchline.Segment, n int64) error {
	st, err := readStream(l.tx, seg.Stream)
	if err != nil {
		return err
	}
	st.lastRun = max(st.lastRun, seg.Run)
	if seg.Sealed {
		st.segments += n
		st.bytes += n * seg.Size
		if seg.Run > st.run || seg.Run == st.run && (seg.Number >= st.number || st.hash == branchline.Hash{}) {
			st.run, st.number, st.hash, st.span = seg.Run, seg.Number, seg.Hash, seg.Span
		}
	}
	return l.set(keyStream(seg.Stream), st.move)
}

// remove replaces the segment by a tombstone. It has find's errors.
func (l *ledger) remove(id branchline.SegmentID, cause branchline.Cause) error {
	seg, seq, err := find(l.tx, id)
	if err != nil {
		return err
	}
	if err := l.size(seg, seg.Size); err != nil { // so that count takes off what it added
		return err
	}
	if err := l.tx.Delete(keySegment(seg)); err != nil {
		return err
	}
	if err := l.uncover(seg); err != nil {
		return err
	}
	gone := branchline.Removal{ID: id, Stream: seg.Stream, Span: seg.Span, Cause: cause}
	if err := l.announce(branchline.Change{Removed: &gone}, seq); err != nil {
		return err
	}
	if err := l.tx.Set(keyID(id), nil); err != nil {
		return err
	}
	if err := l.tx.Set(keyTombstone(l.meta.head), id[:]); err != nil {
		return err
	}
	l.meta.tombstones++
	if err := l.forget(); err != nil {
		return err
	}
	return l.count(seg, -1)
}

// forget drops the oldest tombstone when there are too many.
func (l *ledger) forget() error {
	if l.meta.tombstones <= maxTombstones {
		return nil
	}
	var seq uint64
	var id branchline.SegmentID
	for k, v := range l.tx.Scan([]byte("X"), nil) {
		var err error
		if seq, err = keySequence(k); err != nil || len(v) != len(id) {
			return fmt.Errorf("decode tombstone: %w", branchline.ErrInvalid)
		}
		copy(id[:], v)
		break
	}
	if seq == 0 {
		return nil
	}
	l.meta.tombstones--
	l.meta.floor = seq
	if err := l.tx.Delete(keyChange(seq)); err != nil {
		return err
	}
	if key, err := l.tx.Get(keyID(id)); err == nil && len(key) == 0 {
		if err := l.tx.Delete(keyID(id)); err != nil {
			return err
		}
	}
	return l.tx.Delete(keyTombstone(seq))
}

// gap enters a gap in place of the one with the same stream and start. It reports whether anything
// changed.
func (l *ledger) gap(g branchline.Gap) (bool, error) {
	key := keyAt('G', g.Stream, g.Span.Start)
	var old branchline.Gap
	var seq uint64
	if b, err := l.tx.Get(key); err == nil {
		if err := decode("gap", b, sequenced(&seq, func(c *codec) { c.gap(&old) })); err != nil {
			return false, err
		}
	} else if !errors.Is(err, branchline.ErrNotFound) {
		return false, err
	}
	if seq != 0 && old == g {
		return false, nil
	}
	if err := l.announce(branchline.Change{Gap: &g}, seq); err != nil {
		return false, err
	}
	if err := l.open(g, key); err != nil {
		return false, err
	}
	head := l.meta.head
	if err := l.set(key, sequenced(&head, func(c *codec) { c.gap(&g) })); err != nil {
		return false, err
	}
	return true, l.forgetGaps(g.Stream, key)
}

// forgetGaps drops the two oldest gaps of the stream if they are to be forgotten, but not the one just
// entered: two, so that they get fewer.
func (l *ledger) forgetGaps(stream branchline.StreamID, entered []byte) error {
	var old [][]byte
	for k, v := range l.tx.Scan(keyLine('G', stream), nil) {
		var g branchline.Gap
		var seq uint64
		if err := decode("gap", v, sequenced(&seq, func(c *codec) { c.gap(&g) })); err != nil {
			return err
		}
		if len(old) == 4 || bytes.Equal(k, entered) || g.Open || !l.crowded && !g.Span.End.Before(l.horizon) {
			break
		}
		old = append(old, bytes.Clone(k), keyChange(seq))
	}
	for _, k := range old {
		if err := l.tx.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// open notes which gap of the stream is open, if any. Starts do not tell: a clock may have been ahead.
func (l *ledger) open(g branchline.Gap, key []byte) error {
	if g.Open {
		return l.tx.Set(keyOpen(g.Stream), key)
	}
	if last, err := l.tx.Get(keyOpen(g.Stream)); err != nil || !bytes.Equal(last, key) {
		if errors.Is(err, branchline.ErrNotFound) {
			err = nil
		}
		return err
	}
	return l.tx.Delete(keyOpen(g.Stream))
}

// camera enters a camera in place of the one with the same identifier. It reports whether anything
// changed.
func (l *ledger) camera(m branchline.Camera) (bool, error) {
	now, err := encode(func(c *codec) { c.camera(&m) })
	if err != nil {
		return false, err
	}
	var seq uint64
	b, err := l.tx.Get(keyCamera(m.ID))
	switch {
	case err == nil && len(b) > 8:
		if string(b[8:]) == string(now) {
			return false, nil
		}
		seq = binary.BigEndian.Uint64(b)
	case err != nil && !errors.Is(err, branchline.ErrNotFound):
		return false, err
	}
	if err := l.announce(branchline.Change{Camera: &m}, seq); err != nil {
		return false, err
	}
	return true, l.tx.Set(keyCamera(m.ID), append(binary.BigEndian.AppendUint64(nil, l.meta.head), now...))
}
