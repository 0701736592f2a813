package segstore

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/crypt"
)

// A store may encrypt its files (Options.Keys). Then each fragment stands there at the same offset with
// the same length, but instead of its bytes up to the checksum box there is ciphertext (AES-256-GCM), and
// instead of that box:
//
//	-32  16   the tag
//	-16  12   the nonce, random for each write
//	 -4   4   "BLe1"
//
// The data key is HKDF-SHA256 of the store's key, with the segment's identifier as salt and
// "branchline data key\0" as info. What is authenticated besides is "branchline fragment\0", the segment's
// identifier, the offset (u64) and the length with those 32 bytes (u32) of the fragment, in the segment as
// a whole. Opened, and with the checksum box made anew, it has the hash that its row says.
//
// Init part and footer are plain, so names, times, sizes and codecs are not secret, and the segment can be
// found and its signature verified without a key. A sealed file says that it is encrypted by one more
// box, the very last:
//
//	 0  u32  box size = 56
//	 4  4    "uuid"
//	 8  16   "brnchline\0CRYPTO" (cryptType)
//	24  u8   version = 1, then 3 zero bytes
//	28  u32  algorithm: 1 = as above
//	32  16   key identifier: the first 16 bytes of SHA-256 of "branchline store key\0" and the key
//	48  u32  box size again
//	52  4    "BLen"
//
// A file that is not sealed says so in its sidecar, which lists its fragments then at the origin too.
const (
	cryptType  = "brnchline\x00CRYPTO"
	cryptMagic = "BLen"
	cryptFixed = boxHeaderSize + 4 + 4
	cryptSize  = cryptFixed + 16 + trailerSize
)

// cryptBox returns the box of a file that is encrypted with a key.
func cryptBox(key crypt.ID) []byte {
	box := binary.BigEndian.AppendUint32(make([]byte, 0, cryptSize), cryptSize)
	box = append(box, "uuid"+cryptType...)
	box = append(box, 1, 0, 0, 0, 0, 0, 0, 1)
	box = append(box, key[:]...)
	box = binary.BigEndian.AppendUint32(box, cryptSize)
	return append(box, cryptMagic...)
}

// parseCrypt reads such a box. It wraps ErrNewer for a newer version or algorithm, and ErrInvalid.
func parseCrypt(box []byte) (key crypt.ID, err error) {
	if len(box) == cryptSize && isUUIDBox(box, cryptType) {
		copy(key[:], box[cryptFixed:])
		if string(box) == string(cryptBox(key)) {
			return key, nil
		}
		if box[boxHeaderSize] > 1 || binary.BigEndian.Uint32(box[boxHeaderSize+4:]) > 1 {
			return key, fmt.Errorf("parse encryption box: version %d: %w", box[boxHeaderSize], ErrNewer)
		}
	}
	return key, fmt.Errorf("parse encryption box: %w", branchline.ErrInvalid)
}

// cipher is how one segment's fragments stand in its file. Nil is in plain.
type cipher struct {
	key  crypt.ID
	seal *crypt.Segment // nil without the key
	none error          // why; wraps crypt.ErrNoKey
}

// cipherOf returns the cipher of a segment that is encrypted with a key, whether that is there or not.
func cipherOf(keys *crypt.Keys, id crypt.ID, segment branchline.SegmentID) *cipher {
	c := &cipher{key: id}
	key, err := keys.Find(id)
	if err == nil {
		c.seal, err = key.Segment(segment)
	}
	if err != nil {
		c.none = fmt.Errorf("segment %v: %w: %w", segment, branchline.ErrUnavailable, err)
	}
	return c
}

// encrypt returns a fragment as it stands in the file.
func (c *cipher) encrypt(data []byte, offset int64) ([]byte, error) {
	switch {
	case c == nil:
		return data, nil
	case c.none != nil:
		return nil, c.none
	}
	return c.seal.Seal(data[:len(data)-ChecksumSize], offset), nil
}

// decrypt returns the fragment that stands in the file as raw, in plain or in dst's storage.
func (c *cipher) decrypt(dst, raw []byte, offset int64) ([]byte, error) {
	switch {
	case c == nil:
		return raw, nil
	case c.none != nil:
		return nil, c.none
	}
	plain, err := c.seal.Open(dst[:0], raw, offset)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", branchline.ErrMismatch, err)
	}
	return append(plain, ChecksumBox(plain)...), nil
}

// box returns what the file ends with, nothing in plain.
func (c *cipher) box() []byte {
	if c == nil {
		return nil
	}
	return cryptBox(c.key)
}

// newCipher returns the cipher of a new segment; nil unless the store encrypts.
func (s *Store) newCipher(id branchline.SegmentID) *cipher {
	key, ok := s.keys.First()
	if !ok || s.plain {
		return nil
	}
	return cipherOf(s.keys, key.ID(), id)
}

// writeEncrypted writes a sealed file that is in plain, whole or an excerpt, as it is with its fragments
// encrypted. Before each of them it calls pace, whose error ends it.
func writeEncrypted(w io.Writer, c content, as *cipher, pace func() error) error {
	init, box, err := c.end.frame(c.file)
	if err != nil {
		return err
	}
	if _, err := w.Write(init); err != nil {
		return err
	}
	keep := make([]bool, len(c.end.Fragments))
	for i, row := range c.end.Fragments {
		if _, keep[i] = findRow(c.end.kept, row.Offset); !keep[i] {
			continue
		}
		if err := pace(); err != nil {
			return err
		}
		data, err := c.fragment(row)
		if err == nil {
			data, err = as.encrypt(data, row.Offset)
		}
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			return err
		}
	}
	if c.end.excerpt() {
		box = append(box, excerptBox(keep)...)
	}
	_, err = w.Write(append(box, as.box()...))
	return err
}

// encryptedAfterCrash is footerAfterCrash for a file in which only the sidecar tells fragments: those that it
// lists, or all of the footer that stands in the file, if the key is there to show that they are whole.
func (s *Store) encryptedAfterCrash(p *partial) (*branchline.SegmentSeal, error) {
	if !p.complete() {
		if err := p.readSealing(); err != nil {
			s.log.Info("segment is sealed with what its sidecar lists", "segment", p.id, "cause", err)
		}
	}
	switch {
	case p.complete():
		return &branchline.SegmentSeal{ID: p.id, Hash: p.footer.Hash, Footer: p.box, Size: p.ending().wholeSize()}, nil
	case len(p.held) == 0:
		return nil, nil
	}
	return s.footerFor(p)
}

// readSealing completes a partial whose file was just being sealed, after verifying all of it.
func (p *partial) readSealing() error {
	r, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer r.Close()
	e, err := verifiedEnding(r)
	if err != nil {
		return err
	}
	_, box, err := e.frame(r)
	if err != nil {
		return err
	}
	c := content{file: r, end: &e, open: p.cipher}
	for _, row := range e.kept {
		if _, err := c.fragment(row); err != nil {
			return err
		}
	}
	if e.ID != p.id || e.excerpt() || e.key == nil || *e.key != p.cipher.key {
		return fmt.Errorf("footer of another segment: %w", branchline.ErrMismatch)
	}
	p.held, p.footer, p.box = e.Fragments, &e.Footer, box
	return nil
}

// readKey finds in a sidecar's records how the file is encrypted.
func (p *partial) readKey(records [][]byte, keys *crypt.Keys) error {
	for _, r := range records {
		if r[0] != sideKey {
			continue
		}
		if len(r) != 1+len(crypt.ID{}) {
			return fmt.Errorf("sidecar's key: %w", branchline.ErrInvalid)
		}
		p.cipher, p.listed = cipherOf(keys, crypt.ID(r[1:]), p.id), true
	}
	return nil
}
