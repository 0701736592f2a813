package segstore

import (
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
func verifyFile(path string, pace func(bytes int64) error) (Footer, int64, error) {
	r, err := os.Open(path)
	if err != nil {
		return Footer{}, 0, err
	}
	defer r.Close()
	forgetPages(r)
	defer forgetPages(r)
	f, size, err := verifiedFooter(r)
	if err != nil {
		return f, size, err
	}
	if err := pace(f.InitSize + size - f.End()); err != nil {
		return f, size, err
	}
	var data []byte
	for _, row := range f.Fragments {
		if err := pace(row.Length); err != nil {
			return f, size, err
		}
		data = slices.Grow(data[:0], int(row.Length))[:row.Length]
		if _, err := r.ReadAt(data, row.Offset); err != nil {
			return f, size, fmt.Errorf("read fragment at %d: %w", row.Offset, err)
		}
		if err := checkFragment(row, data); err != nil {
			return f, size, fmt.Errorf("fragment at %d: %w", row.Offset, err)
		}
	}
	return f, size, nil
}

// forgetPages asks the system to keep nothing of the file in memory. What it keeps all the same is as good.
func forgetPages(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// verifySealed is verifyFile of a segment as the index has it. It wraps [branchline.ErrDenied] or whatever
// [Options.Trust] says of a file that is whole, but signed by a key that is not trusted.
func (s *Store) verifySealed(seg branchline.Segment, pace func(bytes int64) error) error {
	f, size, err := verifyFile(s.sealedPath(seg), pace)
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
