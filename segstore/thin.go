package segstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// thinnedName ends the name in trash/ of a thinned file that is being written. What a crash leaves of it
// is deleted there as everything is.
const thinnedName = "thinned"

// Thin keeps only the key fragments of a sealed segment: what is left stays listed under the same
// identifier with the same offsets, size and hash, is proven by the same footer, and plays, a picture for
// each key frame. It is durable on return, and nothing happens to a segment that was thinned, or has only
// key fragments. Who reads the segment reads on in what there was. It wraps [branchline.ErrNotFound];
// [branchline.ErrGone] for a segment that was removed or turns out to be damaged, as in Fetch;
// [branchline.ErrBusy] for one that is not sealed; and ENOSPC and [branchline.ErrUnavailable] on a disk
// without room for the copy.
func (s *Store) Thin(id branchline.SegmentID) error {
	err := s.thin(id)
	if isDamage(err) {
		err = s.thin(id)
	}
	err = s.unreadable(id, err)
	if err != nil {
		return fmt.Errorf("thin segment %v: %w", id, err)
	}
	return nil
}

func (s *Store) thin(id branchline.SegmentID) error {
	defer s.seize(id)()
	seg, err := s.lookup(id)
	switch {
	case err != nil:
		return err
	case !seg.Sealed:
		return fmt.Errorf("it is not sealed: %w", branchline.ErrBusy)
	}
	path := s.sealedPath(seg)
	fresh := filepath.Join(s.volumeOf(path).dir, trashDir, trashName(id, thinnedName))
	size, err := s.writeThinned(seg, path, fresh)
	if err != nil {
		if size != 0 {
			s.discard(fresh)
		}
		return err
	}
	if size != 0 {
		if err := s.fs.Rename(fresh, path); err != nil {
			return err
		}
		s.replaced(id)
		if err := s.fs.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return s.commit(func(l *ledger) error { return s.noteSize(l, seg) })
}

// replaced makes readers look anew at what a segment's file is.
func (s *Store) replaced(id branchline.SegmentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.thins++
	s.footers.drop(id)
}

// writeThinned writes the key fragments of the file at path to the file fresh, durably, and returns that
// one's size; zero if there was nothing to leave out, or nothing was written.
func (s *Store) writeThinned(seg branchline.Segment, path, fresh string) (size int64, err error) {
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("its file: %w", branchline.ErrGone)
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	e, err := s.endingOf(r, seg)
	if err != nil {
		return 0, err
	}
	keep := make([]bool, len(e.Fragments))
	left := false
	for i, row := range e.Fragments {
		keep[i] = row.Key
		left = left || !row.Key
	}
	if e.excerpt() || !left {
		return 0, nil
	}
	if err := s.room(s.volumeOf(path)); err != nil {
		return 0, err
	}
	if err := s.fs.MkdirAll(filepath.Dir(fresh)); err != nil {
		return 0, err
	}
	w, err := s.fs.Open(fresh, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return 0, err
	}
	c := content{file: r, end: &e, open: e.cipher(s.keys)}
	size, err = writeExcerpt(io.NewOffsetWriter(w, 0), c, keep, true)
	if err == nil {
		err = w.Sync()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	return max(size, 1), err
}

// SizeOnDisk returns how many bytes the file of a sealed segment has: less than the segment's size after
// thinning. It wraps [branchline.ErrNotFound] or [branchline.ErrGone].
func (s *Store) SizeOnDisk(id branchline.SegmentID) (size int64, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		seg, _, err := find(tx, id)
		if err == nil {
			size, err = sizeOf(tx, seg)
		}
		return err
	})
	return size, err
}

// The size of a sealed file stands in the index, by its segment, where it differs from the segment's own.

func keySize(id branchline.SegmentID) []byte { return append([]byte("Z"), id[:]...) }

func sizeOf(tx *index.Tx, seg branchline.Segment) (int64, error) {
	b, err := tx.Get(keySize(seg.ID))
	switch {
	case errors.Is(err, branchline.ErrNotFound):
		return seg.Size, nil
	case err == nil && len(b) != 8:
		err = fmt.Errorf("decode size: %w", branchline.ErrInvalid)
	}
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// noteSize enters the size that the segment's file has now. One that is not there is missed elsewhere.
func (s *Store) noteSize(l *ledger, seg branchline.Segment) error {
	info, err := os.Stat(s.sealedPath(seg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.size(seg, info.Size())
}

// size enters the size of a sealed segment's file, and in the stream's totals.
func (l *ledger) size(seg branchline.Segment, size int64) error {
	old, err := sizeOf(l.tx, seg)
	if err != nil || old == size {
		return err
	}
	st, err := readStream(l.tx, seg.Stream)
	if err != nil {
		return err
	}
	st.bytes += size - old
	if err := l.set(keyStream(seg.Stream), st.move); err != nil {
		return err
	}
	if size == seg.Size {
		return l.tx.Delete(keySize(seg.ID))
	}
	return l.tx.Set(keySize(seg.ID), binary.BigEndian.AppendUint64(nil, uint64(size)))
}
