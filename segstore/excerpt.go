package segstore

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/crypt"
)

// An excerpt is a segment's file with only some of its fragments: one that was thinned, or trimmed for
// export. Init part and footer box are those of the whole, so each fragment in it is proven, and it plays
// as it is, because decode times are absolute. It ends with another box, without which no footer would be
// found where it is, so it never passes for the whole:
//
//	+--------------------+
//	| init part          |
//	| fragments kept     |  one after the other, so each at an offset less than its row says
//	| uuid footer        |  as it was
//	| uuid excerpt       |
//	+--------------------+
//
// The excerpt box:
//
//	 0  u32  box size
//	 4  4    "uuid"
//	 8  16   "brnchline\0EXCRPT" (excerptType)
//	24  u8   version = 1, then 3 zero bytes
//	28  u32  n, number of fragments in the footer's table
//	32  m    (n+7)/8 bytes: fragment i is kept if bit i%8 (0 is the lowest) of byte i/8 is set; the
//	         bits from n on are zero
//	    u32  box size again
//	    4    "BLex"
//
// At least one fragment is kept and at least one is not.
const (
	excerptType  = "brnchline\x00EXCRPT"
	excerptMagic = "BLex"
	excerptFixed = boxHeaderSize + 4 + 4
	maxExcerpt   = excerptFixed + MaxFragments/8 + trailerSize
)

// errNoEnding: the file does not end as a sealed one does, so it still grows or was cut.
var errNoEnding = fmt.Errorf("none at the end of the file: %w", branchline.ErrInvalid)

// excerptBox returns the box for a segment of which the fragments are kept that kept has.
func excerptBox(kept []bool) []byte {
	size := uint32(excerptFixed + (len(kept)+7)/8 + trailerSize)
	box := make([]byte, 0, size)
	box = binary.BigEndian.AppendUint32(box, size)
	box = append(box, "uuid"+excerptType...)
	box = append(box, 1, 0, 0, 0)
	box = binary.BigEndian.AppendUint32(box, uint32(len(kept)))
	bits := make([]byte, (len(kept)+7)/8)
	for i, k := range kept {
		if k {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	box = append(box, bits...)
	box = binary.BigEndian.AppendUint32(box, size)
	return append(box, excerptMagic...)
}

// parseExcerpt reads a whole excerpt box. It wraps ErrNewer for a newer version and ErrInvalid for anything
// malformed.
func parseExcerpt(box []byte) ([]bool, error) {
	malformed := fmt.Errorf("parse excerpt box: %w", branchline.ErrInvalid)
	if len(box) < excerptFixed+trailerSize || len(box) > maxExcerpt || !isUUIDBox(box, excerptType) ||
		string(box[len(box)-4:]) != excerptMagic ||
		binary.BigEndian.Uint32(box[len(box)-trailerSize:]) != uint32(len(box)) {
		return nil, malformed
	}
	if box[boxHeaderSize] > 1 {
		return nil, fmt.Errorf("parse excerpt box: version %d: %w", box[boxHeaderSize], ErrNewer)
	}
	n := binary.BigEndian.Uint32(box[boxHeaderSize+4:])
	bits := box[excerptFixed : len(box)-trailerSize]
	if string(box[boxHeaderSize:boxHeaderSize+4]) != "\x01\x00\x00\x00" || n > MaxFragments ||
		len(bits) != (int(n)+7)/8 {
		return nil, malformed
	}
	kept, some := make([]bool, n), 0
	for i := range len(bits) * 8 {
		if bits[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if i >= int(n) {
			return nil, malformed
		}
		kept[i], some = true, some+1
	}
	if some == 0 || some == int(n) {
		return nil, fmt.Errorf("parse excerpt box: keeps %d of %d fragments: %w", some, n, branchline.ErrInvalid)
	}
	return kept, nil
}

// ending is what follows the fragments of a sealed file, and so what the file is.
type ending struct {
	Footer
	kept   []branchline.Fragment // what is in the file, with the offsets in the whole segment
	places []int64               // of an excerpt: where each of kept is in the file
	key    *crypt.ID             // with which the fragments are encrypted; nil: in plain
	size   int64                 // of the file
}

// excerpt reports whether fragments of the segment are not in the file.
func (e ending) excerpt() bool { return e.places != nil }

// wholeSize returns the size that the segment has as a whole, and in plain.
func (e ending) wholeSize() int64 { return e.End() + e.boxSize() }

// cipher returns how the fragments stand in the file.
func (e ending) cipher(keys *crypt.Keys) *cipher {
	if e.key == nil {
		return nil
	}
	return cipherOf(keys, *e.key, e.ID)
}

// segment describes what is in the file.
func (e ending) segment(stream branchline.StreamID) branchline.Segment {
	seg := e.Segment(stream, e.wholeSize())
	seg.Fragments = e.kept
	return seg
}

// place returns where in the file the fragment of a row is.
func (e ending) place(row branchline.Fragment) (int64, error) {
	i, ok := findRow(e.kept, row.Offset)
	switch {
	case !ok:
		return 0, fmt.Errorf("fragment at %d was left out: %w", row.Offset, branchline.ErrGone)
	case e.excerpt():
		return e.places[i], nil
	}
	return row.Offset, nil
}

// reach returns how many bytes of the segment from offset on are in the file without a hole.
func (e ending) reach(offset int64) int64 {
	if !e.excerpt() || offset >= e.End() {
		return e.wholeSize() - offset
	}
	end := max(offset, e.InitSize)
	for end < e.End() {
		row, ok := rowAt(e.kept, end)
		if !ok {
			return end - offset
		}
		end = row.End()
	}
	return e.wholeSize() - offset
}

// readEnding finds and parses what ends a sealed file of size bytes, with ReadFooter's errors. It does not
// verify it.
func readEnding(r io.ReaderAt, size int64) (e ending, err error) {
	e.size = size
	box, magic, err := lastBox(r, size)
	if err != nil {
		return e, err
	}
	if magic == cryptMagic {
		key, err := parseCrypt(box)
		if err != nil {
			return e, fmt.Errorf("read footer: %w", err)
		}
		e.key = &key
		size -= int64(len(box))
		if box, magic, err = lastBox(r, size); err != nil {
			return e, err
		}
	}
	var kept []bool
	if magic == excerptMagic {
		if kept, err = parseExcerpt(box); err != nil {
			return e, fmt.Errorf("read footer: %w", err)
		}
		size -= int64(len(box))
		if box, magic, err = lastBox(r, size); err != nil {
			return e, err
		}
	}
	if magic != footerMagic {
		return e, fmt.Errorf("read footer: none where it should be: %w", branchline.ErrInvalid)
	}
	if e.Footer, err = ParseFooter(box); err != nil {
		return e, err
	}
	return e, e.keep(kept, size-int64(len(box)))
}

// keep sets which fragments are in the file, all for nil, of which the footer is at an offset.
func (e *ending) keep(kept []bool, footer int64) error {
	e.kept = e.Fragments
	end := e.End()
	if kept != nil {
		if len(kept) != len(e.Fragments) {
			return fmt.Errorf("read footer: excerpt of %d fragments instead of %d: %w", len(kept), len(e.Fragments),
				branchline.ErrInvalid)
		}
		e.kept, end = nil, e.InitSize
		for i, row := range e.Fragments {
			if kept[i] {
				e.kept, e.places = append(e.kept, row), append(e.places, end)
				end += row.Length
			}
		}
	}
	if end != footer {
		return fmt.Errorf("read footer: fragments end at %d, footer starts at %d: %w", end, footer,
			branchline.ErrInvalid)
	}
	return nil
}

// lastBox reads the box that ends at an offset and has its size and a magic number at its end.
func lastBox(r io.ReaderAt, size int64) ([]byte, string, error) {
	var end [trailerSize]byte
	if size < trailerSize {
		return nil, "", fmt.Errorf("read footer: file of %d bytes: %w", size, errNoEnding)
	}
	if _, err := r.ReadAt(end[:], size-trailerSize); err != nil {
		return nil, "", fmt.Errorf("read footer: %w", err)
	}
	limit := int64(0)
	switch string(end[4:]) {
	case footerMagic:
		limit = maxFooter
	case excerptMagic:
		limit = maxExcerpt
	case cryptMagic:
		limit = cryptSize
	}
	length := int64(binary.BigEndian.Uint32(end[:]))
	if length > min(size, limit) || length < trailerSize {
		return nil, "", fmt.Errorf("read footer: %w", errNoEnding)
	}
	box := make([]byte, length)
	if _, err := r.ReadAt(box, size-length); err != nil {
		return nil, "", fmt.Errorf("read footer: %w", err)
	}
	return box, string(end[4:]), nil
}

// verifiedEnding reads and verifies what ends an open segment file.
func verifiedEnding(r *os.File) (ending, error) {
	info, err := r.Stat()
	if err != nil {
		return ending{}, err
	}
	e, err := readEnding(r, info.Size())
	if err != nil {
		return e, err
	}
	init := make([]byte, e.InitSize)
	if _, err := r.ReadAt(init, 0); err != nil {
		return e, err
	}
	return e, e.Verify(init)
}

func readEndingFile(path string) (ending, error) {
	r, err := os.Open(path)
	if err != nil {
		return ending{}, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return ending{}, err
	}
	return readEnding(r, info.Size())
}

// Whole reports whether a sealed segment is listed with all of its fragments. It is not where some were
// left out, as by [Store.Thin].
func Whole(seg branchline.Segment) bool {
	end := seg.InitSize
	for _, f := range seg.Fragments {
		if f.Offset != end {
			return false
		}
		end = f.End()
	}
	// What follows is the footer, which has the name of the stream at its edge. A fragment and its row
	// are longer than any.
	name := seg.Size - end - Footer{Codecs: seg.Codecs, Fragments: seg.Fragments}.boxSize()
	return len(seg.Fragments) > 0 && name <= branchline.MaxID
}
