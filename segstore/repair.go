package segstore

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/branchline-video/branchline"
)

// growingFiles returns the paths of the stream's growing files, which may not exist where there is only a
// sidecar.
func (s *Store) growingFiles(stream branchline.StreamID) ([]string, error) {
	var all []string
	for _, v := range s.volumes {
		if !v.present() {
			continue
		}
		dir := filepath.Join(v.dir, growingDir, string(stream))
		names, err := readNames(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			all = append(all, filepath.Join(dir, strings.TrimSuffix(name, filepath.Ext(name))+".mp4"))
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// resume ends what was growing of the stream when its origin stopped. What holds nothing whole is deleted.
func (s *Store) resume(stream branchline.StreamID) error {
	paths, err := s.growingFiles(stream)
	if err != nil {
		return err
	}
	var all []*partial
	for _, data := range paths {
		id, err := branchline.ParseSegmentID(strings.TrimSuffix(filepath.Base(data), ".mp4"))
		if err == nil && s.partial(id) != nil {
			continue // it grows
		}
		p, err := s.load(stream, data)
		if errors.Is(err, fs.ErrNotExist) && s.adoptMoved(stream, data) {
			err = nil
		}
		if p == nil && err == nil {
			s.discard(sidecarPath(data))
			continue
		}
		if err != nil && useless(err) {
			p, err = s.rescue(id, stream, data, err)
		}
		if err != nil {
			s.log.Error("incomplete segment is not readable and stays as it is", "path", data, "cause", err)
		}
		if p == nil || err != nil {
			continue
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *partial) int {
		return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.number, b.number))
	})
	for _, p := range all {
		s.mu.Lock()
		s.partials[p.id] = p
		s.mu.Unlock()
		s.sealCut(p)
	}
	return nil
}

// rescue goes on without the sidecar of a growing file, which is damaged or gone, by what the index has of the
// segment and the file itself. Where that is not possible a file with recordings goes to quarantine, and one
// without any is deleted; then it returns nil.
func (s *Store) rescue(id branchline.SegmentID, stream branchline.StreamID, path string,
	cause error) (*partial, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	some := bytes.Contains(data, []byte(checksumType)) // at the end of each fragment
	if seg, err := s.lookup(id); some && err == nil && !seg.Sealed {
		start := branchline.SegmentStart{ID: id, Stream: stream, Run: seg.Run, Number: seg.Number,
			Start: seg.Span.Start, Codecs: seg.Codecs}
		start.Init, err = readInit(bytes.NewReader(data), int64(len(data)))
		if err == nil && !errors.Is(cause, errWrongInit) {
			_, err = readTracks(start.Init)
		}
		if err == nil && !errors.Is(cause, errWrongInit) {
			s.log.Warn("sidecar of a growing segment is damaged: it is sealed by what the file shows", "path", path,
				"cause", cause)
			p := s.newPartial(stream, start)
			p.state, p.dirty, p.path, p.vol = growing, true, path, s.volumeOf(path)
			return p, nil
		}
	}
	to := filepath.Join(s.volumeOf(path).dir, quarantineDir, fmt.Sprintf("%v.%d.mp4", id, s.clock.Now().UnixNano()))
	if some {
		if err := s.roomInQuarantine(); err != nil {
			return nil, err
		}
		if err := s.makeDir(filepath.Dir(to)); err != nil {
			return nil, err
		}
		if err := s.fs.Rename(path, to); err != nil {
			return nil, err
		}
		s.log.Error("incomplete segment is damaged and moved to quarantine", "path", to, "cause", cause)
	} else {
		s.log.Warn("incomplete segment without any recording is given up", "path", path, "cause", cause)
		s.discard(path)
	}
	s.discard(sidecarPath(path))
	return nil, nil
}

// errSealed is about an incomplete segment that is none any more.
var errSealed = errors.New("it is sealed already")

// errWrongInit is about a growing file whose init part is not the one that was begun.
var errWrongInit = fmt.Errorf("init part is not the one that was begun: %w", branchline.ErrMismatch)

// useless reports whether err, of reading an incomplete segment, means that nothing of it is of use; not so one
// that says something of the machine alone.
func useless(err error) bool {
	for _, e := range []error{errSealed, fs.ErrNotExist, io.EOF, io.ErrUnexpectedEOF, branchline.ErrInvalid,
		branchline.ErrMismatch, branchline.ErrTooLarge} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// adoptMoved enters a segment that was moved to its final place just before the end, so that the next one is
// chained to it. It reports whether there is such.
func (s *Store) adoptMoved(stream branchline.StreamID, data string) bool {
	records, _, err := readLog(sidecarPath(data))
	if err != nil {
		return false
	}
	start, _, _, err := parseBegin(records)
	if err != nil {
		return false
	}
	seg, _, err := readSealed(Path(s.volumeOf(data).dir, stream, start.ID, start.Start), stream)
	if err == nil && seg.ID == start.ID {
		err = s.adopt([]branchline.Segment{seg})
	}
	return err == nil
}

// parseBegin reads a sidecar's first record: the segment as begun, and length and hash of its init part.
func parseBegin(records [][]byte) (start branchline.SegmentStart, size int64, hash branchline.Hash, err error) {
	if len(records) == 0 || records[0][0] != sideBegin {
		return start, 0, hash, fmt.Errorf("sidecar has no beginning: %w", branchline.ErrInvalid)
	}
	err = decode("sidecar", records[0][1:], func(c *codec) { c.begin(&start, &size, &hash) })
	if err == nil && size > MaxInit {
		err = fmt.Errorf("init part of %d bytes: %w", size, branchline.ErrTooLarge)
	}
	return start, size, hash, err
}

// countPartials counts what a replica holds in part.
func (s *Store) countPartials() error {
	streams, err := s.streamsIn(growingDir)
	for _, stream := range streams {
		paths, e := s.growingFiles(stream)
		s.onDisk += len(paths)
		err = errors.Join(err, e)
	}
	return err
}

// load reads the growing file at path and its sidecar. Its error means that nothing of it is usable.
func (s *Store) load(stream branchline.StreamID, path string) (*partial, error) {
	p, records, err := s.loadFiles(stream, path)
	if err != nil {
		return nil, err
	}
	if sealed, _ := s.isSealed(p.id); sealed {
		return nil, errSealed
	}
	p.state, p.dirty = growing, true
	return p, p.readSidecar(records)
}

// loadFiles reads the growing file's init part and its sidecar, of which it returns the records after
// the first.
func (s *Store) loadFiles(stream branchline.StreamID, path string) (*partial, [][]byte, error) {
	records, _, err := readLog(sidecarPath(path))
	if err != nil {
		return nil, nil, err
	}
	start, size, hash, err := parseBegin(records)
	if err != nil {
		return nil, nil, err
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
	if sha256.Sum256(start.Init) != hash { // a cut may leave zeros
		return nil, nil, errWrongInit
	}
	p := s.newPartial(stream, start)
	if filepath.Base(path) != p.id.String()+".mp4" {
		return nil, nil, fmt.Errorf("sidecar is of segment %v: %w", p.id, branchline.ErrMismatch)
	}
	p.state, p.path, p.vol = growing, path, s.volumeOf(path)
	return p, records[1:], p.readKey(records[1:], s.keys)
}

// readSidecar restores what is held of a partly held segment.
func (p *partial) readSidecar(records [][]byte) error {
	for _, r := range records {
		switch kind := r[0]; {
		case kind == sideFragment && p.listed, kind == sideSynced && p.origin, kind == sideLost:
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
		case kind == sideFooter && p.listed:
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
	p.loaded = slices.Clone(p.held)
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

// scanHeld finds the whole fragments of the growing file by reading what follows those that are known.
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
	forgetPages(r)                     // after a failed sync memory has what the disk has not
	for n := len(p.held); n > 0; n-- { // what the sidecar lists was synced; a disk may have lied
		if f, err := fragmentAt(r, t, p.held[n-1].Offset, info.Size()); err == nil && f.Hash == p.held[n-1].Hash {
			break
		}
		p.held = p.held[:n-1]
	}
	from := int64(len(p.init))
	if n := len(p.held); n > 0 {
		from = p.held[n-1].End()
	}
	for f, err := range fragments(r, t, from, info.Size()) {
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
		if p.vol != nil && !p.vol.present() {
			continue // until it is back
		}
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
