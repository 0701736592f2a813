package segstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// joinWithin is the largest hole between two fragments or segments that Held takes for none: times are
// rounded to the tracks' clocks, and no frame is that short.
const joinWithin = time.Millisecond

// Cameras lists the cameras, sorted by identifier.
func (s *Store) Cameras(ctx context.Context) ([]branchline.Camera, error) {
	var all []branchline.Camera
	err := s.ix.View(func(tx *index.Tx) error {
		for _, v := range tx.Scan([]byte("M"), nil) {
			var m branchline.Camera
			var seq uint64
			if err := decode("camera", v, sequenced(&seq, func(c *codec) { c.camera(&m) })); err != nil {
				return err
			}
			all = append(all, m)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cameras: %w", err)
	}
	return all, nil
}

// Segments lists segments, sealed and incomplete, that touch the range, with the fragments held,
// ordered by start: at most [branchline.MaxSegments]. One whose file turns out to be damaged is left out,
// moved to quarantine and announced as removed; not so if that may be the disk's fault. An
// unknown stream wraps [branchline.ErrNotFound].
func (s *Store) Segments(ctx context.Context, stream branchline.StreamID,
	span branchline.TimeRange) ([]branchline.Segment, error) {
	found, err := s.entries(stream, span, true)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var all []branchline.Segment
	for _, seg := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !seg.Sealed {
			var ok bool
			if seg, ok = s.incomplete(seg); !ok {
				continue
			}
		}
		if seg.Sealed && seg.Fragments == nil {
			f, err := s.footer(seg)
			if isDamage(err) {
				f, err = s.footer(seg)
			}
			if err != nil {
				err = s.unreadable(seg.ID, err)
				if !errors.Is(err, branchline.ErrGone) && !errors.Is(err, errDoubted) &&
					(!errors.Is(err, fs.ErrNotExist) || s.allPresent()) {
					s.log.Error("segment is not readable", "segment", seg.ID, "stream", stream, "cause", err)
				}
				continue
			}
			seg.Fragments = f.kept
		}
		if !seg.Span.Overlaps(span) {
			continue
		}
		if all = append(all, seg); len(all) == branchline.MaxSegments {
			break
		}
	}
	return all, nil
}

// incomplete returns what is held of a segment that the index has as opened. It may have been sealed
// since, or removed.
func (s *Store) incomplete(seg branchline.Segment) (branchline.Segment, bool) {
	if p := s.partial(seg.ID); p != nil {
		return p.segment(), true
	}
	if p, err := s.fromDisk(seg.ID); err == nil && p != nil {
		return p.segment(), true
	}
	seg, err := s.lookup(seg.ID)
	return seg, err == nil && seg.Sealed
}

// entries returns the index's segments that may touch the range: opened ones whose end it does not
// know, too. With known it returns ErrNotFound for an unknown stream.
func (s *Store) entries(stream branchline.StreamID, span branchline.TimeRange,
	known bool) ([]branchline.Segment, error) {
	var all []branchline.Segment
	err := s.ix.View(func(tx *index.Tx) error {
		if known && !knowsStream(tx, stream) {
			return fmt.Errorf("stream %s: %w", stream, branchline.ErrNotFound)
		}
		from := keyAt('S', stream, span.Start.Add(-MaxSpan))
		for _, v := range tx.Scan(keyLine('S', stream), from) {
			var seg branchline.Segment
			var seq uint64
			if err := decode("segment", v, sequenced(&seq, func(c *codec) { c.segment(&seg) })); err != nil {
				return err
			}
			if !seg.Span.Start.Before(span.End) {
				break
			}
			if seg.Sealed && !seg.Span.Overlaps(span) {
				continue
			}
			// Opened ones may turn out to lie before the range, so there can be more of them.
			if all = append(all, seg); known && len(all) == branchline.MaxSegments+maxPartials {
				break
			}
		}
		return nil
	})
	return all, err
}

// knowsStream reports whether the stream has segments or belongs to a camera.
func knowsStream(tx *index.Tx, stream branchline.StreamID) bool {
	if _, err := tx.Get(keyStream(stream)); err == nil {
		return true
	}
	b, err := tx.Get(keyCamera(stream.Camera()))
	if err != nil {
		return false
	}
	var m branchline.Camera
	var seq uint64
	err = decode("camera", b, sequenced(&seq, func(c *codec) { c.camera(&m) }))
	return err == nil && slices.ContainsFunc(m.Streams, func(st branchline.Stream) bool { return st.ID == stream })
}

// footer returns the ending of a sealed segment's file, verified.
func (s *Store) footer(seg branchline.Segment) (ending, error) {
	s.mu.Lock()
	e, ok := s.footers.get(seg.ID)
	s.mu.Unlock()
	if ok {
		return e, nil
	}
	r, err := os.Open(s.sealedPath(seg))
	if err != nil {
		return e, err
	}
	defer r.Close()
	return s.endingOf(r, seg)
}

// endingOf returns the verified ending of an open file of a sealed segment, from memory if that is of a
// file of this size: there is another one after thinning.
func (s *Store) endingOf(r *os.File, seg branchline.Segment) (ending, error) {
	info, err := r.Stat()
	if err != nil {
		return ending{}, err
	}
	s.mu.Lock()
	e, ok := s.footers.get(seg.ID)
	thins := s.thins
	s.mu.Unlock()
	if ok && e.size == info.Size() {
		return e, nil
	}
	if e, err = verifiedEnding(r); err != nil {
		forgetPages(r) // so that who looks again does so on disk
		return e, err
	}
	if e.Hash != seg.Hash || e.wholeSize() != seg.Size {
		return e, fmt.Errorf("segment %v: index says %v with %d bytes, file says %v with %d: %w", seg.ID, seg.Hash,
			seg.Size, e.Hash, e.wholeSize(), branchline.ErrMismatch)
	}
	s.mu.Lock()
	if s.thins == thins {
		s.footers.drop(seg.ID)
		s.footers.add(seg.ID, e)
	}
	s.mu.Unlock()
	return e, nil
}

// Tail is where a stream's recording stands, for who goes on with it.
type Tail struct {
	Run  uint64          // highest run number used; zero before the first
	Hash branchline.Hash // of the newest sealed segment, to which the next is chained
	End  time.Time       // of the newest sealed segment
	Gap  *branchline.Gap // the stream's open gap, the newest if there are several
}

// Tail returns where the stream stands; the zero Tail for a new one.
func (s *Store) Tail(stream branchline.StreamID) (Tail, error) {
	var t Tail
	s.filling <- struct{}{} // an index that is being made again does not know yet
	defer func() { <-s.filling }()
	err := s.ix.View(func(tx *index.Tx) error {
		st, err := readStream(tx, stream)
		if err != nil {
			return err
		}
		t.Run, t.Hash, t.End = st.lastRun, st.hash, st.span.End
		t.Gap, err = openGap(tx, stream)
		return err
	})
	if err != nil {
		return Tail{}, fmt.Errorf("read tail of %s: %w", stream, err)
	}
	return t, nil
}

// openGap returns the stream's open gap, nil if there is none.
func openGap(tx *index.Tx, stream branchline.StreamID) (*branchline.Gap, error) {
	key, err := tx.Get(keyOpen(stream))
	if err == nil {
		key, err = tx.Get(key)
	}
	if errors.Is(err, branchline.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var g branchline.Gap
	var seq uint64
	err = decode("gap", key, sequenced(&seq, func(c *codec) { c.gap(&g) }))
	return &g, err
}

// Held returns the spans in the range of which the bytes are here, sealed or not, coalesced and in
// order. It is empty for an unknown stream.
func (s *Store) Held(stream branchline.StreamID, span branchline.TimeRange) ([]branchline.TimeRange, error) {
	parts, open, err := s.covered(stream, span)
	if err != nil {
		return nil, fmt.Errorf("list held spans: %w", err)
	}
	for _, seg := range open {
		seg, ok := s.incomplete(seg)
		if !ok {
			continue
		}
		if seg.Sealed {
			parts = append(parts, seg.Span)
			continue
		}
		for _, f := range seg.Fragments {
			parts = append(parts, f.Span())
		}
	}
	return coalesce(parts, span), nil
}

// joined joins ranges that all but touch.
func joined(parts ...branchline.TimeRange) branchline.Spans {
	wide := make([]branchline.TimeRange, len(parts))
	for i, r := range parts {
		wide[i] = branchline.TimeRange{Start: r.Start, End: r.End.Add(joinWithin)}
	}
	set := branchline.NewSpans(wide...)
	for i := range set {
		set[i].End = set[i].End.Add(-joinWithin)
	}
	return set
}

// coalesce joins ranges that all but touch, and cuts them to the span.
func coalesce(parts []branchline.TimeRange, span branchline.TimeRange) []branchline.TimeRange {
	var held []branchline.TimeRange
	for _, r := range joined(parts...) {
		if r = r.Intersect(span); !r.Empty() {
			held = append(held, r)
		}
	}
	return held
}

// Stats are a store's totals.
type Stats struct {
	Streams  int   // with at least one segment ever begun
	Segments int64 // sealed
	Bytes    int64 // of sealed segments
	Partial  int   // segments that grow or are held in part
	Suspect  int   // of those, how many are given up because the disk failed
	Changes  uint64
}

// Stats returns the store's totals.
func (s *Store) Stats() Stats {
	var t Stats
	err := s.ix.View(func(tx *index.Tx) error {
		for _, v := range tx.Scan([]byte("T"), nil) {
			var st streamState
			if err := decode("stream", v, st.move); err != nil {
				return err
			}
			t.Streams++
			t.Segments += st.segments
			t.Bytes += st.bytes
		}
		m, err := readMeta(tx)
		t.Changes = m.head
		return err
	})
	if err != nil {
		s.log.Error("totals are not readable", "cause", err)
	}
	s.mu.Lock()
	all := s.list()
	t.Partial = len(all) + s.onDisk
	s.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		if p.state == broken {
			t.Suspect++
		}
		p.mu.Unlock()
	}
	return t
}

// Fetch returns a segment's bytes in the range, each fragment verified before any of it, by its hash, or by its
// checksum alone with [branchline.WithVerifier]. A range without
// an end goes on, on a segment that still grows, until it is sealed, and includes the footer. It wraps
// [branchline.ErrNotFound], [branchline.ErrGone] for a segment that was removed or whose file is found
// damaged, as Segments does, [branchline.ErrInvalid] for a range outside it, [branchline.ErrUnavailable]
// for bytes that are not held, found damaged in a file that is not sealed, or seem so for another
// reason, and [branchline.ErrBusy] when
// too many readers are open. The caller closes the reader; its Read ends when ctx does, and has the same
// errors.
func (s *Store) Fetch(ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange) (io.ReadCloser, error) {
	if bytes.Start < 0 || bytes.End != 0 && bytes.End < bytes.Start {
		return nil, fmt.Errorf("fetch bytes %d to %d: %w", bytes.Start, bytes.End, branchline.ErrInvalid)
	}
	select {
	case s.readers <- struct{}{}:
	default:
		return nil, fmt.Errorf("fetch segment %v: %d readers are open: %w", id, maxReaders, branchline.ErrBusy)
	}
	r, err := s.reader(ctx, id, bytes)
	if err != nil {
		<-s.readers
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return r, nil
}

func (s *Store) reader(ctx context.Context, id branchline.SegmentID, b branchline.ByteRange) (*reader, error) {
	r := &reader{ctx: ctx, s: s, id: id, at: b.Start, end: b.End}
	p, err := s.use(id)
	if err != nil {
		return nil, err
	}
	if p != nil {
		err := r.openPartial(p)
		if err == nil {
			return r, nil // which releases p
		}
		s.release(p)
		if !errors.Is(err, errSealedSince) {
			return nil, err
		}
	}
	seg, err := s.lookup(id)
	switch {
	case err != nil:
		return nil, err
	case !seg.Sealed:
		return nil, fmt.Errorf("segment %v is just being begun: %w", id, branchline.ErrUnavailable)
	}
	if r.end == 0 {
		r.end = seg.Size
	}
	if r.at > seg.Size || r.end > seg.Size {
		return nil, fmt.Errorf("bytes %d to %d of segment %v with %d: %w", r.at, r.end, id, seg.Size,
			branchline.ErrInvalid)
	}
	if err := r.openSealed(seg); err != nil {
		return nil, err
	}
	if reach := r.sealed.reach(r.at); r.at < r.end && reach == 0 || b.End != 0 && r.at+reach < r.end {
		r.f.Close()
		return nil, fmt.Errorf("bytes %d to %d of segment %v were left out: %w", r.at, r.end, id, branchline.ErrGone)
	}
	if r.at < r.end { // so that who asks for what is damaged hears it now
		if _, err := r.verified(); err != nil {
			r.f.Close()
			return nil, err
		}
	}
	return r, nil
}

// openSealed opens a sealed segment's file after a look at whether it is whole, two looks if it is not.
func (r *reader) openSealed(seg branchline.Segment) error {
	err := r.tryOpen(seg)
	if isDamage(err) {
		err = r.tryOpen(seg)
	}
	return r.s.unreadable(seg.ID, err)
}

func (r *reader) tryOpen(seg branchline.Segment) error {
	var err error
	r.f, err = os.Open(r.s.sealedPath(seg))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !r.s.allPresent():
		return fmt.Errorf("file of segment %v: its volume is absent: %w", seg.ID, branchline.ErrUnavailable)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("file of segment %v: %w", seg.ID, branchline.ErrGone)
	case err != nil:
		return err
	}
	if r.sealed, err = r.s.endingOf(r.f, seg); err == nil {
		r.init, r.box, err = r.sealed.frame(r.f)
	}
	r.content = content{
		file: r.f, end: &r.sealed, open: r.sealed.cipher(r.s.keys), lent: &r.s.lent,
		sums: branchline.Verifies(r.ctx),
	}
	if err != nil {
		forgetPages(r.f)
		r.f.Close()
	}
	return err
}

// frame returns a sealed file's init part and footer box if they are those of e, which may have been read
// long ago.
func (e ending) frame(r io.ReaderAt) (init, box []byte, err error) {
	at := e.End()
	if e.excerpt() {
		last := len(e.kept) - 1
		at = e.places[last] + e.kept[last].Length
	}
	init, box = make([]byte, e.InitSize), make([]byte, e.boxSize())
	if _, err := r.ReadAt(init, 0); err != nil {
		return nil, nil, err
	}
	if _, err := r.ReadAt(box, at); err != nil {
		return nil, nil, err
	}
	want, err := e.box()
	if err == nil && (!bytes.Equal(box, want) || sha256.Sum256(init) != e.InitHash) {
		err = fmt.Errorf("init part or footer of segment %v: %w", e.ID, branchline.ErrMismatch)
	}
	return init, box, err
}
