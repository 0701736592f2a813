package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Overhead is how many bytes of a sealed fragment are not ciphertext: the tag, the nonce and the mark.
// The fragment in plain is sealed without as many bytes at its end.
const Overhead = tagSize + nonceSize + len(mark)

const (
	tagSize   = 16
	nonceSize = 12
	mark      = "BLe1"
	// dataContext and boundContext keep what is derived and authenticated here apart from all else.
	dataContext  = "branchline data key\x00"
	boundContext = "branchline fragment\x00"
)

// ErrAltered: the bytes are not those that were sealed for this place.
var ErrAltered = errors.New("encrypted bytes were altered")

// Segment seals and opens the fragments of one segment. It may be used concurrently.
type Segment struct {
	aead  cipher.AEAD
	bound []byte // what all of the segment's fragments are bound to
}

// Segment returns what seals and opens fragments of the segment with this identifier.
func (k Key) Segment(id [16]byte) (*Segment, error) {
	data, err := hkdf.Key(sha256.New, k.secret[:], id[:], dataContext, 32)
	if err != nil {
		return nil, fmt.Errorf("derive data key: %w", err)
	}
	block, err := aes.NewCipher(data)
	if err != nil {
		return nil, fmt.Errorf("derive data key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive data key: %w", err)
	}
	return &Segment{aead: aead, bound: append([]byte(boundContext), id[:]...)}, nil
}

// at returns what a fragment is bound to: its segment, offset, and length on disk.
func (s *Segment) at(offset int64, length int) []byte {
	bound := binary.BigEndian.AppendUint64(append([]byte(nil), s.bound...), uint64(offset))
	return binary.BigEndian.AppendUint32(bound, uint32(length))
}

// Seal returns len(plain) + [Overhead] new bytes for the fragment at an offset of the segment.
func (s *Segment) Seal(plain []byte, offset int64) []byte {
	length := len(plain) + Overhead
	var nonce [nonceSize]byte
	rand.Read(nonce[:]) // which never fails
	sealed := s.aead.Seal(make([]byte, 0, length), nonce[:], plain, s.at(offset, length))
	return append(append(sealed, nonce[:]...), mark...)
}

// Open appends to dst what was sealed, [Overhead] bytes less. It wraps [ErrAltered] if it is anything else
// than Seal returned for the same key, segment and offset.
func (s *Segment) Open(dst, sealed []byte, offset int64) ([]byte, error) {
	end := len(sealed) - nonceSize - len(mark)
	if end < tagSize || string(sealed[end+nonceSize:]) != mark {
		return nil, fmt.Errorf("open fragment at %d: %w", offset, ErrAltered)
	}
	nonce := sealed[end : end+nonceSize]
	plain, err := s.aead.Open(dst, nonce, sealed[:end], s.at(offset, len(sealed)))
	if err != nil {
		return nil, fmt.Errorf("open fragment at %d: %w", offset, ErrAltered)
	}
	return plain, nil
}
