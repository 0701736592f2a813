package segstore

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/branchline-video/branchline"
)

// verifyFile reads all of a sealed segment's file and holds it against itself: footer, signature, the hash
// and checksum of each fragment. Before it reads so many bytes it calls pace, whose error ends it. The
// bytes come from the disk and not from memory as far as the system can be made to, and leave nothing
// behind there. Its other errors are those of isDamage for a damaged file, and those of opening it.
func (s *Store) verifyFile(path string, pace func(bytes int64) error) (Footer, int64, error) {
	r, err := os.Open(path)
	if err != nil {
		return Footer{}, 0, err
	}
	defer r.Close()
	forgetPages(r)
	defer forgetPages(r)
	e, err := verifiedEnding(r)
	if err != nil {
		return e.Footer, e.wholeSize(), err
	}
	if err := pace(e.InitSize + e.boxSize()); err != nil {
		return e.Footer, e.wholeSize(), err
	}
	c := content{file: r, end: &e, open: e.cipher(s.keys)}
	for _, row := range e.kept {
		if err := pace(row.Length); err != nil {
			return e.Footer, e.wholeSize(), err
		}
		data, err := c.fragment(row)
		if err == nil {
			err = checkFragment(row, data)
		}
		if err != nil {
			return e.Footer, e.wholeSize(), err
		}
	}
	return e.Footer, e.wholeSize(), nil
}

// forgetPages asks the system to keep nothing of the file in memory. What it keeps all the same is as good.
func forgetPages(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// verifySealed is verifyFile of a segment as the index has it. It wraps [branchline.ErrDenied] or whatever
// [Options.Trust] says of a file that is whole, but signed by a key that is not trusted.
func (s *Store) verifySealed(seg branchline.Segment, pace func(bytes int64) error) error {
	f, size, err := s.verifyFile(s.sealedPath(seg), pace)
	if err != nil {
		return err
	}
	if f.Hash != seg.Hash || size != seg.Size {
		return fmt.Errorf("segment %v: index says %v with %d bytes, file says %v with %d: %w", seg.ID, seg.Hash,
			seg.Size, f.Hash, size, branchline.ErrMismatch)
	}
	if err := s.trust(seg.Stream, f.PublicKey); err != nil {
		return fmt.Errorf("%w: segment %v, key %x: %w", errUntrusted, seg.ID, f.PublicKey, err)
	}
	return nil
}

// errRotten wraps [branchline.ErrUnavailable]: what was held is in quarantine, and all is to be put again.
var errRotten = fmt.Errorf("what was held in part is damaged and put aside: %w", branchline.ErrUnavailable)

// checkLoaded reads what a complete partial holds from a former life, for months perhaps. If it is damaged the
// partial goes to quarantine, and the error wraps errRotten.
func (s *Store) checkLoaded(p *partial) error {
	if p.origin {
		return nil // which looked at the end of it; the rest was synced, and is for the scrub
	}
	p.mu.Lock()
	path := p.where()
	rows := slices.DeleteFunc(slices.Clone(p.loaded), func(row branchline.Fragment) bool {
		i, ok := findRow(p.held, row.Offset)
		return !ok || !sameBytes(p.held[i], row)
	})
	if p.state != growing || p.renamed {
		rows = nil
	}
	p.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	err := checkRows(path, rows, p.cipher)
	if !isDamage(err) {
		if err == nil {
			p.mu.Lock()
			p.loaded = nil
			p.mu.Unlock()
		}
		return err
	}
	if e := s.quarantine(p.id, branchline.CauseDiskFailed, err.Error()); e != nil {
		return errors.Join(err, e)
	}
	return fmt.Errorf("%w: %s", errRotten, err.Error())
}

// checkRows verifies some fragments of the file at path.
func checkRows(path string, rows []branchline.Fragment, open *cipher) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	c := content{file: r, open: open}
	for _, row := range rows {
		if _, err := c.fragment(row); err != nil {
			return err
		}
	}
	return nil
}
