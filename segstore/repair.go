package segstore

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
)

func sortedStreams(seen map[string]bool) []branchline.StreamID {
	var all []branchline.StreamID
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if s := branchline.StreamID(name); s.Check() == nil {
			all = append(all, s)
		}
	}
	return all
}

// always is every time that a segment can have.
func always() branchline.TimeRange {
	return branchline.TimeRange{Start: time.Unix(0, 0).UTC(), End: time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// adoptFiles enters sealed files that the index does not know as such.
func (s *Store) adoptFiles(stream branchline.StreamID) error {
	files, err := sealedFiles(s.dir, stream)
	if err != nil {
		return err
	}
	known, err := s.entries(stream, always(), false)
	if err != nil {
		return err
	}
	for _, seg := range known {
		if seg.Sealed {
			delete(files, seg.ID)
		}
	}
	var found []branchline.Segment
	for id, path := range files {
		seg, err := readSealed(path, stream)
		if err == nil && seg.ID != id {
			err = fmt.Errorf("footer is of segment %v: %w", seg.ID, branchline.ErrMismatch)
		}
		if err != nil {
			s.log.Error("file is no segment and stays unused", "path", path, "cause", err)
			continue
		}
		found = append(found, seg)
	}
	orderSegments(found)
	for batch := range slices.Chunk(found, adoptBatch) {
		if err := s.adopt(batch); err != nil {
			return err
		}
	}
	return nil
}

// adopt enters segments. A segment of which the index has never heard means that it has lost
// changes that followers have seen, so they must start again: a new epoch.
func (s *Store) adopt(batch []branchline.Segment) error {
	return s.commit(func(l *ledger) error {
		for _, seg := range batch {
			_, _, err := find(l.tx, seg.ID)
			if errors.Is(err, branchline.ErrNotFound) {
				l.meta.epoch = rand.Uint64() | 1
			}
			if err := l.segment(seg); err != nil {
				return err
			}
			if err := s.noteSize(l, seg); err != nil {
				return err
			}
		}
		return nil
	})
}

// readSealed returns the segment that the file at path contains, without its fragments, after
// verifying its footer.
func readSealed(path string, stream branchline.StreamID) (branchline.Segment, error) {
	r, err := os.Open(path)
	if err != nil {
		return branchline.Segment{}, err
	}
	defer r.Close()
	f, size, err := verifiedFooter(r)
	if err != nil {
		return branchline.Segment{}, err
	}
	seg := f.Segment(stream, size)
	seg.Fragments = nil
	return seg, nil
}

// verifiedFooter reads and verifies the footer of an open segment file. It returns the segment's size as a
// whole, not that of an excerpt.
func verifiedFooter(r *os.File) (Footer, int64, error) {
	e, err := verifiedEnding(r)
	return e.Footer, e.wholeSize(), err
}

// dropMissing takes out of the index what has neither a sealed file nor a partial.
func (s *Store) dropMissing(stream branchline.StreamID, causes map[branchline.SegmentID]branchline.Cause) error {
	files, err := sealedFiles(s.dir, stream)
	if err != nil {
		return err
	}
	known, err := s.entries(stream, always(), false)
	if err != nil {
		return err
	}
	known = slices.DeleteFunc(known, func(seg branchline.Segment) bool {
		_, ok := files[seg.ID]
		return ok && seg.Sealed || !seg.Sealed && s.goesOn(seg)
	})
	for batch := range slices.Chunk(known, adoptBatch) {
		err := s.commit(func(l *ledger) error {
			for _, seg := range batch {
				cause := branchline.CauseStopped
				if seg.Sealed {
					cause = branchline.CauseDiskFailed
					s.log.Error("file of a sealed segment is missing", "segment", seg.ID, "stream", stream)
				}
				if err := l.remove(seg.ID, cmp.Or(causes[seg.ID], cause)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// resume goes on with the stream's incomplete segments: seals them at the origin, restores them at a
// replica. What holds nothing durable is deleted.
func (s *Store) resume(stream branchline.StreamID) error {
	dir := filepath.Join(s.dir, growingDir, string(stream))
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	var all []*partial
	for _, name := range names {
		path := filepath.Join(dir, name)
		data := strings.TrimSuffix(path, filepath.Ext(path)) + ".mp4"
		if _, err := os.Stat(sidecarPath(data)); path == data && err == nil {
			continue // found by its sidecar
		}
		p, err := s.load(stream, data)
		if err != nil {
			s.log.Warn("incomplete segment is given up", "path", data, "cause", err)
			s.discard(data)
			s.discard(sidecarPath(data))
			continue
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *partial) int {
		return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.number, b.number))
	})
	for _, p := range all {
		s.partials[p.id] = p
		if s.signer != nil {
			s.sealCut(p)
		} else if err := s.restore(p); err != nil {
			return err
		}
	}
	return nil
}

// load reads the growing file at path and its sidecar. Its error means that nothing of it is usable.
func (s *Store) load(stream branchline.StreamID, path string) (*partial, error) {
	p, records, err := s.loadFiles(stream, path)
	if err != nil {
		return nil, err
	}
	if sealed, _ := s.isSealed(p.id); sealed {
		return nil, errors.New("it is sealed already")
	}
	p.state, p.dirty = growing, true
	if p.listed {
		return p, p.readSidecar(records)
	}
	return p, nil
}

// loadFiles reads the growing file's init part and its sidecar, of which it returns the records after
// the first.
func (s *Store) loadFiles(stream branchline.StreamID, path string) (*partial, [][]byte, error) {
	records, _, err := readLog(sidecarPath(path))
	if err != nil {
		return nil, nil, err
	}
	if len(records) == 0 || records[0][0] != sideBegin {
		return nil, nil, fmt.Errorf("sidecar has no beginning: %w", branchline.ErrInvalid)
	}
	var start branchline.SegmentStart
	var size int64
	if err := decode("sidecar", records[0][1:], func(c *codec) { c.begin(&start, &size) }); err != nil {
		return nil, nil, err
	}
	if size > MaxInit {
		return nil, nil, fmt.Errorf("init part of %d bytes: %w", size, branchline.ErrTooLarge)
	}
	r, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	start.Init = make([]byte, size)
	if _, err := r.ReadAt(start.Init, 0); err != nil {
		return nil, nil, err
	}
	p := s.newPartial(stream, start)
	if p.path != path {
		return nil, nil, fmt.Errorf("sidecar is of segment %v: %w", p.id, branchline.ErrMismatch)
	}
	p.state = growing
	return p, records[1:], p.readKey(records[1:], s.keys)
}

// readSidecar restores what is held of a partly held segment.
func (p *partial) readSidecar(records [][]byte) error {
	for _, r := range records {
		switch r[0] {
		case sideFragment, sideLost:
			var f branchline.Fragment
			if err := decode("sidecar", r[1:], func(c *codec) { c.fragment(&f) }); err != nil {
				return err
			}
			if r[0] == sideLost {
				p.held = slices.DeleteFunc(p.held, func(h branchline.Fragment) bool { return sameBytes(h, f) })
				continue
			}
			if ok, err := p.fits(f); err != nil || !ok || checkRow(f) != nil {
				continue
			}
			i, _ := findRow(p.held, f.Offset)
			p.held = slices.Insert(p.held, i, f)
		case sideFooter:
			f, err := ParseFooter(r[1:])
			if err != nil {
				return err
			}
			seal := branchline.SegmentSeal{ID: p.id, Hash: f.Hash, Footer: r[1:], Size: f.End() + int64(len(r)-1)}
			if _, _, err := p.accept(seal); err == nil { // else it is asked for again
				p.recorded = f.Hash
			}
		}
	}
	return nil
}

// goesOn reports whether there is a partial of the segment.
func (s *Store) goesOn(seg branchline.Segment) bool {
	if s.signer != nil {
		return s.partials[seg.ID] != nil
	}
	_, err := os.Stat(growingPath(s.dir, seg.Stream, seg.ID)) // resume has removed what is of no use
	return err == nil
}

// restore makes the index know a partly held segment, leaves it to the disk, and seals it if nothing is
// missing.
func (s *Store) restore(p *partial) error {
	if _, err := s.lookup(p.id); err != nil {
		if err := s.enter(p); err != nil {
			return err
		}
	}
	if p.complete() {
		return s.finish(p)
	}
	s.drop(p)
	s.onDisk++
	return nil
}

// sealCut ends a segment that was growing when its origin stopped: after its last whole fragment.
func (s *Store) sealCut(p *partial) {
	seal, err := s.footerAfterCrash(p)
	if err != nil {
		s.log.Error("growing segment is not readable and stays as it is", "path", p.path, "cause", err)
		s.drop(p)
		return
	}
	if seal == nil { // nothing whole in it; the index forgets it as missing
		s.drop(p)
		s.discard(p.path)
		s.discard(sidecarPath(p.path))
		return
	}
	if _, _, err = p.accept(*seal); err == nil {
		err = s.finish(p)
	}
	if err != nil { // it stays incomplete, and the next Begin of its stream tries again
		s.log.Error("segment is not sealed after a crash", "segment", p.id, "stream", p.stream, "cause", err)
		return
	}
	s.log.Info("segment sealed after a crash", "segment", p.id, "stream", p.stream, "fragments", len(p.held))
}

// scanHeld finds the whole fragments of the growing file by reading it.
func (p *partial) scanHeld() error {
	r, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return err
	}
	t, err := readTracks(p.init)
	if err != nil {
		return err
	}
	for f, err := range fragments(r, t, int64(len(p.init)), info.Size()) {
		if err != nil {
			return err
		}
		if len(p.held) == MaxFragments {
			break
		}
		p.held = append(p.held, f)
	}
	return nil
}

// footerAfterCrash finds the whole fragments of a growing file and returns its footer: the one that it
// has, if it was just being sealed, else a new one. It returns nil if there is no fragment.
func (s *Store) footerAfterCrash(p *partial) (*branchline.SegmentSeal, error) {
	if p.cipher != nil {
		return s.encryptedAfterCrash(p)
	}
	if err := p.scanHeld(); err != nil || len(p.held) == 0 {
		return nil, err
	}
	r, err := os.Open(p.path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info, err := r.Stat(); err == nil {
		if seal := p.ownFooter(r, info.Size()); seal != nil {
			return seal, nil
		}
	}
	return s.footerFor(p)
}

// footerFor makes and signs a footer for what p holds, chained to the stream's newest sealed segment.
func (s *Store) footerFor(p *partial) (*branchline.SegmentSeal, error) {
	tail, err := s.Tail(p.stream)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	rows := slices.Clone(p.held)
	p.mu.Unlock()
	box, hash, err := SealFooter(Footer{ID: p.id, Stream: p.stream, Run: p.run, Number: p.number,
		Codecs: p.start.Codecs, Fragments: rows, Prev: tail.Hash, Cut: true}, p.init, s.signer)
	if err != nil {
		return nil, err
	}
	end := rows[len(rows)-1].End()
	return &branchline.SegmentSeal{ID: p.id, Hash: hash, Footer: box, Size: end + int64(len(box))}, nil
}

// sealAbandoned ends the segments before next of its stream that their recorder gave up.
func (s *Store) sealAbandoned(next *partial) {
	s.mu.Lock()
	all := s.list()
	s.mu.Unlock()
	for _, p := range all {
		if p.stream != next.stream || cmp.Or(cmp.Compare(p.run, next.run), cmp.Compare(p.number, next.number)) >= 0 {
			continue
		}
		if err := s.abandon(p); err != nil {
			s.log.Error("abandoned segment is not sealed yet", "segment", p.id, "stream", p.stream, "cause", err)
		}
	}
}

func (s *Store) abandon(p *partial) error {
	if p.segment().Fragments == nil {
		return s.Remove(p.id, branchline.CauseDiskSlow)
	}
	p.mu.Lock()
	complete := p.complete()
	p.mu.Unlock()
	if complete { // its sealing failed, and goes on with the footer that it has
		return s.finish(p)
	}
	seal, err := s.footerFor(p)
	if err != nil {
		return err
	}
	return s.Seal(p.id, *seal)
}

// ownFooter returns the footer that stands in the file already, nil if there is none that fits.
func (p *partial) ownFooter(r io.ReaderAt, size int64) *branchline.SegmentSeal {
	f, err := ReadFooter(r, size)
	if err != nil || f.Verify(p.init) != nil || f.ID != p.id || len(f.Fragments) != len(p.held) ||
		f.End() != p.held[len(p.held)-1].End() {
		return nil
	}
	box := make([]byte, size-f.End())
	if _, err := r.ReadAt(box, f.End()); err != nil {
		return nil
	}
	return &branchline.SegmentSeal{ID: p.id, Hash: f.Hash, Footer: box, Size: size}
}
