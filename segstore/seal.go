package segstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/branchline-video/branchline"
)

// A sidecar's records, each behind one byte that says which.
const (
	sideBegin    = 'b' // the segment as begun, always first
	sideFragment = 'f' // a fragment whose bytes are on stable storage
	sideFooter   = 's' // the footer box
	sideSynced   = 'o' // at the origin: a fragment that was synced, so that repair need not read it
	sideLost     = 'd' // a fragment that was noted and is damaged: not held
	sideKey      = 'k' // the key with which the file is encrypted
)

// listsUnsynced is how many times the origin adds to a sidecar without a sync: what is lost of it at a power
// cut, some five seconds, is found by reading the segment.
const listsUnsynced = 7

// createSidecar writes the sidecar with what the file itself does not say until it is sealed.
func (p *partial) createSidecar() error {
	size, hash := int64(len(p.init)), branchline.Hash(sha256.Sum256(p.init))
	begin, err := encode(func(c *codec) { c.begin(&p.start, &size, &hash) })
	if err != nil {
		return err
	}
	f, err := p.fs.Open(sidecarPath(p.path), os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return err
	}
	side := recordLog{f: f}
	records := [][]byte{append([]byte{sideBegin}, begin...)}
	if p.cipher != nil {
		records = append(records, append([]byte{sideKey}, p.cipher.key[:]...))
	}
	err = side.append(records...)
	if e := side.close(); err == nil {
		err = e
	}
	if err == nil {
		p.side = side.size
	}
	return err
}

// createData makes the data file with the init part. It needs mu.
func (p *partial) createData() error {
	f, err := p.fs.Open(p.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return err
	}
	p.file, p.dirty = f, true
	_, err = f.WriteAt(p.init, 0)
	return err
}

// sync brings what was put so far to stable storage, then notes it in the sidecar. After a failure the
// partial is broken. The caller holds turn.
func (p *partial) sync() error {
	p.mu.Lock()
	if p.state != growing || !p.dirty {
		p.mu.Unlock()
		return nil
	}
	_, err := p.open()
	f, fresh, lost, box := p.file, p.fresh, p.lost, p.box
	var sealedAs branchline.Hash
	if p.footer != nil {
		sealedAs = p.footer.Hash
	}
	p.fresh, p.lost, p.dirty = nil, nil, false
	p.mu.Unlock()
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = p.syncSidecar(lost, fresh, box, sealedAs)
	}
	if err == nil && !p.stepped {
		err = errors.Join(p.fs.SyncDir(filepath.Dir(p.path)), p.fs.SyncDir(filepath.Dir(filepath.Dir(p.path))))
		p.stepped = err == nil
	}
	if err == nil {
		return nil
	}
	return p.breakOff(err)
}

// breakOff marks the partial as not to be trusted any more.
func (p *partial) breakOff(err error) error {
	p.vol.suspect(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == growing {
		p.state, p.failed = broken, fmt.Errorf("%w: %w", branchline.ErrUnavailable, err)
		p.changed.ring()
	}
	return fmt.Errorf("sync segment %v: %w", p.id, err)
}

// syncSidecar adds the fragments, lost and then fresh ones, and the footer once, to the sidecar and syncs
// it. Of several footers there the last one counts.
func (p *partial) syncSidecar(lost, fresh []branchline.Fragment, box []byte, sealedAs branchline.Hash) error {
	records := make([][]byte, 0, len(lost)+len(fresh)+1)
	for i, f := range slices.Concat(lost, fresh) {
		row, err := encode(func(c *codec) { c.fragment(&f) })
		if err != nil {
			return err
		}
		kind := byte(sideFragment)
		switch {
		case i < len(lost):
			kind = sideLost
		case !p.listed:
			kind = sideSynced
		}
		records = append(records, append([]byte{kind}, row...))
	}
	if box != nil && p.listed && p.recorded != sealedAs {
		records = append(records, append([]byte{sideFooter}, box...))
	}
	if len(records) == 0 && p.stepped {
		return nil
	}
	side, err := p.openSidecar()
	if err != nil {
		return err
	}
	err = side.append(records...)
	if p.lists++; err == nil && (p.listed || p.lists > listsUnsynced || !p.stepped) {
		p.lists = 0
		err = side.sync()
	}
	if e := side.close(); err == nil {
		err = e
	}
	if p.side = 0; err == nil {
		p.side, p.recorded = side.size, sealedAs
	}
	return err
}

// openSidecar opens the sidecar behind what was written last, which need not be read again. The caller holds
// turn.
func (p *partial) openSidecar() (*recordLog, error) {
	if p.side == 0 {
		side, _, err := openLog(p.fs, sidecarPath(p.path))
		return side, err
	}
	f, err := p.fs.Open(sidecarPath(p.path), os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &recordLog{f: f, size: p.side}, nil
}

// leave closes the partial's file and ends its life in the given state. The caller holds turn.
func (p *partial) leave(end state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		p.file.Close() // what matters was synced, or is given up
		p.file = nil
	}
	p.state = end
	p.changed.ring()
}

// finish seals a complete segment: footer, sync, rename, directories, index, and only then the news.
// After an error other than of a sync it may be called again.
func (s *Store) finish(p *partial) error {
	if err := s.checkLoaded(p); err != nil {
		return fmt.Errorf("seal segment %v: %w", p.id, err)
	}
	p.take()
	defer p.give()
	p.mu.Lock()
	if p.state == sealed {
		p.mu.Unlock()
		return nil
	}
	err := p.usable()
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := s.place(p); err != nil {
		return fmt.Errorf("seal segment %v: %w", p.id, err)
	}
	e := p.ending()
	seg := p.footer.Segment(p.stream, e.wholeSize())
	err = s.commit(func(l *ledger) error { return errors.Join(l.segment(seg), l.size(seg, e.size)) })
	if err != nil {
		return fmt.Errorf("seal segment %v: %w", p.id, err)
	}
	s.mu.Lock()
	s.footers.add(p.id, e)
	s.mu.Unlock()
	p.leave(sealed)
	s.drop(p)
	if err := s.fs.Remove(sidecarPath(p.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("sidecar of a sealed segment stays until the next start", "segment", p.id, "cause", err)
	}
	return nil
}

// place brings the complete file to its final place, durably. The caller holds turn.
func (s *Store) place(p *partial) error {
	final := Path(p.vol.dir, p.stream, p.id, p.footer.Span.Start)
	day := filepath.Dir(final)
	if !p.renamed {
		if err := p.vol.there(); err != nil {
			return err
		}
		if err := p.writeFooter(); err != nil {
			return err
		}
		if err := s.fs.MkdirAll(day); err != nil {
			return err
		}
		p.mu.Lock()
		err := s.fs.Rename(p.path, final)
		if err == nil {
			p.renamed, p.final = true, final
		}
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	for _, dir := range []string{day, filepath.Dir(day), filepath.Dir(filepath.Dir(day)), filepath.Dir(p.path)} {
		if err := s.fs.SyncDir(dir); err != nil {
			return p.breakOff(err)
		}
	}
	return nil
}

// ending describes the file as it is sealed.
func (p *partial) ending() ending {
	e := ending{Footer: *p.footer, kept: p.footer.Fragments, size: p.footer.End() + int64(len(p.box))}
	if p.cipher != nil {
		e.key, e.size = &p.cipher.key, e.size+cryptSize
	}
	return e
}

// writeFooter ends the file with the footer and syncs all of it.
func (p *partial) writeFooter() error {
	p.mu.Lock()
	_, err := p.open()
	f := p.file
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(append(bytes.Clone(p.box), p.cipher.box()...), p.footer.End()); err != nil {
		return err
	}
	if err := f.Truncate(p.ending().size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return p.breakOff(err)
	}
	if r, ok := f.(*os.File); ok && !p.origin {
		forgetPages(r) // it is seldom read soon, would push out what is, and fresh memory is slower than used one
	}
	return nil
}

// Remove deletes a segment, sealed or not, and announces it with the cause; what it leaves on the time
// line is the caller's to record. It is durable on return, and a reader that has it open reads on. It
// wraps [branchline.ErrNotFound], or [branchline.ErrGone] if it was removed before.
func (s *Store) Remove(id branchline.SegmentID, cause branchline.Cause) error {
	_, trash, err := s.withdraw(id, cause, filepath.Join(trashDir, trashName(id, cause)))
	if err != nil {
		return fmt.Errorf("remove segment %v: %w", id, err)
	}
	s.discard(trash)
	return nil
}

// Quarantine moves a segment's file aside, into quarantine/, where it stays until somebody looks into
// it, and announces the segment as removed because it [branchline.CauseFailed]; then it may begin anew,
// with other bytes or another footer. At the origin a gap takes its place on the time line. It is durable on
// return. It has Remove's errors, and wraps [branchline.ErrBusy] when there are maxQuarantined files; then
// nothing is changed.
func (s *Store) Quarantine(id branchline.SegmentID, reason string) error {
	return s.quarantine(id, branchline.CauseFailed, reason)
}

func (s *Store) quarantine(id branchline.SegmentID, cause branchline.Cause, reason string) error {
	if err := s.roomInQuarantine(); err != nil {
		return fmt.Errorf("quarantine segment %v: %w", id, err)
	}
	name := fmt.Sprintf("%v.%d.mp4", id, s.clock.Now().UnixNano())
	seg, path, err := s.withdraw(id, cause, filepath.Join(quarantineDir, name))
	if err != nil {
		return fmt.Errorf("quarantine segment %v: %w", id, err)
	}
	s.moved.Add(1)
	s.log.Error("segment moved to quarantine", "segment", id, "stream", seg.Stream, "sealed", seg.Sealed,
		"hash", seg.Hash, "reason", reason, "path", path)
	return nil
}

func (s *Store) roomInQuarantine() error {
	names, err := s.quarantined()
	if err == nil && len(names) >= maxQuarantined {
		err = fmt.Errorf("%d files are in quarantine: %w", len(names), branchline.ErrBusy)
	}
	return err
}

// quarantined returns the names of the files in quarantine on all volumes.
func (s *Store) quarantined() (all []string, err error) {
	for _, v := range s.volumes {
		names, err := readNames(filepath.Join(v.dir, quarantineDir))
		if err != nil && v.present() {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}

// withdraw takes a segment out of the store, in this order: its file goes to the given path of its volume,
// the directories are synced, the index forgets it. It returns what the index had, and the whole path.
func (s *Store) withdraw(id branchline.SegmentID, cause branchline.Cause,
	to string) (seg branchline.Segment, path string, err error) {
	p, err := s.use(id)
	if err != nil {
		return seg, "", err
	}
	if p != nil {
		defer s.release(p)
		p.take()
		defer p.give()
	}
	defer s.seize(id)()
	if seg, err = s.lookup(id); err != nil {
		return seg, "", err
	}
	from := s.sealedPath(seg)
	if p != nil && !p.renamed {
		from = p.path
	}
	to = filepath.Join(s.volumeOf(from).dir, to)
	if err := s.makeDir(filepath.Dir(to)); err != nil {
		return seg, "", err
	}
	if err := s.fs.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return seg, "", err
	}
	if p != nil {
		p.leave(removed)
		s.drop(p)
	}
	s.mu.Lock()
	s.footers.drop(id)
	s.mu.Unlock()
	if err := s.fs.SyncDir(filepath.Dir(to)); err != nil {
		return seg, "", err
	}
	if err := s.fs.SyncDir(filepath.Dir(from)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return seg, "", err // but a folder that somebody has deleted holds nothing any more
	}
	if err := s.commitBy(s.ix.Relieve, func(l *ledger) error { return l.takeOut(id, cause) }); err != nil {
		return seg, "", err
	}
	if p != nil {
		s.discard(sidecarPath(p.path))
	}
	return seg, to, nil
}

// makeDir makes a directory durably, if it is not there.
func (s *Store) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	return s.fs.SyncDir(filepath.Dir(dir))
}

// seize waits until nobody moves the segment's file, keeps it so, and returns how to end that. What has a
// partial is guarded by its turn instead.
func (s *Store) seize(id branchline.SegmentID) (end func()) {
	mine := make(chan struct{})
	for {
		s.mu.Lock()
		other := s.moving[id]
		if other == nil {
			s.moving[id] = mine
		}
		s.mu.Unlock()
		if other == nil {
			break
		}
		<-other
	}
	return func() {
		s.mu.Lock()
		delete(s.moving, id)
		s.mu.Unlock()
		close(mine)
	}
}

// discard deletes a file that nobody needs; if that fails, the next start does it.
func (s *Store) discard(path string) {
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("file stays until the next start", "path", path, "cause", err)
	}
}

// trashName keeps the cause in the name, for a crash before the index knows it.
func trashName(id branchline.SegmentID, cause branchline.Cause) string {
	return id.String() + "." + url.PathEscape(string(cause)) + ".mp4"
}

func parseTrashName(name string) (branchline.SegmentID, branchline.Cause, error) {
	head, tail, _ := strings.Cut(strings.TrimSuffix(name, ".mp4"), ".")
	id, err := branchline.ParseSegmentID(head)
	if err != nil {
		return id, "", err
	}
	cause, err := url.PathUnescape(tail)
	return id, branchline.Cause(cause), err
}
