package segstore

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/branchline-video/branchline"
)

// A segment file is fragmented MP4 that any player opens. All numbers are big endian.
//
//	+--------------------+  0
//	| ftyp moov          |  the init part
//	+--------------------+  init size
//	| prft moof mdat     |  fragment 0
//	| uuid checksum      |
//	+--------------------+
//	| ...                |  fragments follow one another without holes
//	+--------------------+
//	| uuid footer        |  makes the segment sealed
//	+--------------------+
//	| uuid excerpt       |  only if fragments were left out, see excerpt.go
//	| uuid encryption    |  only if they are encrypted, see encrypt.go
//	+--------------------+  file size
//
// The checksum box, the last 32 bytes of a fragment:
//
//	 0  u32  box size = 32
//	 4  4    "uuid"
//	 8  16   "brnchline\0CRC32C" (checksumType)
//	24  u8   version = 1, then 3 zero bytes
//	28  u32  CRC-32C (Castagnoli) of the fragment's bytes before this box
//
// The footer box, whose length stands at its end, as that of the boxes after it, so that it is found from
// the end of the file:
//
//	 0  u32  box size
//	 4  4    "uuid"
//	 8  16   "brnchline\0FOOTER" (footerType)
//	24  u8   version = 1               ---+ the statement
//	25  u24  flags; bit 0: cut            |
//	28  u32  n, number of fragments       |
//	32  16   segment identifier           |
//	48  u64  run                          |
//	56  u32  number in the run            |
//	60  u32  size of the init part        |
//	64  i64  start, ns since 1970 UTC     |
//	72  i64  end                          |
//	80  32   SHA-256 of the init part     |
//	112 32   hash of the stream's previous segment, zero for the first
//	144 u16  length, then the stream's identifier at its edge
//	    u16  length, then codecs (RFC 6381)
//	    n*64 fragment table            ---+
//	    32   the segment's hash: SHA-256 of the statement
//	    32   Ed25519 public key of the edge
//	    64   Ed25519 signature over "branchline segment\0" and the hash
//	    u32  box size again
//	    4    "BLsg"
//
// A row of the table:
//
//	 0  u64  offset in the file
//	 8  u32  length, with the checksum box
//	12  u32  flags; bit 0: key
//	16  i64  start, ns since 1970 UTC
//	24  i64  duration, ns
//	32  32   SHA-256 of the fragment's bytes
//
// Cut means that the edge closed the segment after a crash, so it may be shorter than it was seen
// live. docs/reference/segment.md says the same for readers in other languages.
const (
	// Version is the format's version. A file of a newer one is refused with [ErrNewer].
	Version = 1
	// ChecksumSize is the length of the checksum box in bytes.
	ChecksumSize = 32

	checksumType  = "brnchline\x00CRC32C"
	footerType    = "brnchline\x00FOOTER"
	footerMagic   = "BLsg"
	signedContext = "branchline segment\x00"

	boxHeaderSize  = 8 + 16 // size, "uuid", type
	statementFixed = 4 + 4 + 16 + 8 + 4 + 4 + 16 + 32 + 32 + 2 + 2
	rowSize        = 64
	endSize        = 32 + ed25519.PublicKeySize + ed25519.SignatureSize + trailerSize
	trailerSize    = 8

	flagCut = 1
	rowKey  = 1
)

// Limits of the format; a reader need not prepare for more.
const (
	// MaxInit bounds ftyp and moov; real ones have about one kilobyte.
	MaxInit = 64 << 10
	// MaxFragments bounds a segment's table: a minute has 120, an hour of half seconds 7200.
	MaxFragments = 8192
	// MaxFragment bounds one fragment: half a second at 256 Mbit/s.
	MaxFragment = 16 << 20
	// MaxSpan bounds a segment's time, so that a search by time knows how far to look back.
	MaxSpan = time.Hour
	// MaxCodecs bounds the codecs text: eight tracks.
	MaxCodecs = 256

	maxFooter = boxHeaderSize + statementFixed + branchline.MaxID + MaxCodecs + MaxFragments*rowSize + endSize
)

// ErrNewer says that the file was written by a newer version of the format. It is left alone.
var ErrNewer = errors.New("segment format is newer than this program")

// Footer describes a segment and proves it: whoever has it can verify any fragment by itself.
type Footer struct {
	ID        branchline.SegmentID
	Stream    branchline.StreamID // as the edge calls it
	Run       uint64
	Number    uint32
	Span      branchline.TimeRange // from the first fragment's start to the last one's end
	Codecs    string               // RFC 6381
	InitSize  int64
	InitHash  branchline.Hash // SHA-256 of the init part
	Fragments []branchline.Fragment
	Prev      branchline.Hash // hash of the stream's previous segment; zero for its first
	Cut       bool            // closed by repair after a crash
	Version   uint8
	Hash      branchline.Hash
	PublicKey ed25519.PublicKey
	Signature []byte
}

// SealFooter completes f and returns its box, the last bytes of the file, and the segment's hash.
// The caller sets ID, Stream, Run, Number, Codecs, Fragments, Prev and Cut; the rest follows from
// those, from init and from key. It wraps [branchline.ErrInvalid] when f breaks a rule or limit of
// the format.
func SealFooter(f Footer, init []byte, key ed25519.PrivateKey) ([]byte, branchline.Hash, error) {
	f.Version = Version
	f.InitSize = int64(len(init))
	f.InitHash = sha256.Sum256(init)
	if n := len(f.Fragments); n > 0 {
		f.Span = branchline.TimeRange{Start: f.Fragments[0].Start, End: f.Fragments[n-1].Span().End}
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, branchline.Hash{}, fmt.Errorf("seal segment %v: no signing key: %w", f.ID, branchline.ErrInvalid)
	}
	if err := f.check(); err != nil {
		return nil, branchline.Hash{}, fmt.Errorf("seal segment %v: %w", f.ID, err)
	}
	statement, err := f.statement()
	if err != nil {
		return nil, branchline.Hash{}, fmt.Errorf("seal segment %v: %w", f.ID, err)
	}
	f.Hash = sha256.Sum256(statement)
	f.PublicKey = key.Public().(ed25519.PublicKey)
	f.Signature = ed25519.Sign(key, signedBytes(f.Hash))
	box, err := f.box()
	return box, f.Hash, err
}

// box returns the footer's box.
func (f Footer) box() ([]byte, error) {
	statement, err := f.statement()
	if err != nil {
		return nil, err
	}
	size := uint32(boxHeaderSize + len(statement) + endSize)
	box := make([]byte, 0, size)
	box = binary.BigEndian.AppendUint32(box, size)
	box = append(box, "uuid"+footerType...)
	box = append(box, statement...)
	box = append(box, f.Hash[:]...)
	box = append(box, f.PublicKey...)
	box = append(box, f.Signature...)
	box = binary.BigEndian.AppendUint32(box, size)
	return append(box, footerMagic...), nil
}

// ParseFooter reads a whole footer box. It checks form and limits, not hash and signature: that is
// Verify. It wraps [ErrNewer] for a newer version and [branchline.ErrInvalid] for anything malformed.
func ParseFooter(box []byte) (Footer, error) {
	if len(box) < boxHeaderSize+statementFixed+endSize || len(box) > maxFooter ||
		!isUUIDBox(box, footerType) || string(box[len(box)-4:]) != footerMagic ||
		binary.BigEndian.Uint32(box[len(box)-trailerSize:]) != uint32(len(box)) {
		return Footer{}, fmt.Errorf("parse footer: not a footer box: %w", branchline.ErrInvalid)
	}
	statement, end := box[boxHeaderSize:len(box)-endSize], box[len(box)-endSize:]
	if statement[0] > Version {
		return Footer{}, fmt.Errorf("parse footer: version %d: %w", statement[0], ErrNewer)
	}
	var f Footer
	c := codec{buf: statement, reading: true}
	f.move(&c)
	if err := c.end(); err != nil {
		return Footer{}, fmt.Errorf("parse footer: %w", err)
	}
	if err := f.check(); err != nil {
		return Footer{}, fmt.Errorf("parse footer: %w", err)
	}
	end = end[copy(f.Hash[:], end):]
	f.PublicKey = bytes.Clone(end[:ed25519.PublicKeySize])
	f.Signature = bytes.Clone(end[ed25519.PublicKeySize : ed25519.PublicKeySize+ed25519.SignatureSize])
	return f, nil
}

// ReadFooter finds and parses the footer of a whole segment file of size bytes, with ParseFooter's errors
// and r's. A file without a footer, with only some of its fragments, or encrypted, wraps
// [branchline.ErrInvalid].
func ReadFooter(r io.ReaderAt, size int64) (Footer, error) {
	e, err := readEnding(r, size)
	if err == nil && (e.excerpt() || e.key != nil) {
		err = fmt.Errorf("read footer: of an excerpt, or encrypted: %w", branchline.ErrInvalid)
	}
	return e.Footer, err
}

// Verify checks the segment's hash, the signature by the footer's own key, and that init is the init
// part meant; whose key it is, the caller decides. It wraps [branchline.ErrMismatch].
func (f Footer) Verify(init []byte) error {
	if branchline.Hash(sha256.Sum256(init)) != f.InitHash || int64(len(init)) != f.InitSize {
		return fmt.Errorf("verify segment %v: init part: %w", f.ID, branchline.ErrMismatch)
	}
	statement, err := f.statement()
	if err != nil {
		return fmt.Errorf("verify segment %v: %w", f.ID, err)
	}
	if got := branchline.Hash(sha256.Sum256(statement)); got != f.Hash {
		return fmt.Errorf("verify segment %v: footer says %v, content is %v: %w", f.ID, f.Hash, got,
			branchline.ErrMismatch)
	}
	if len(f.PublicKey) != ed25519.PublicKeySize || !ed25519.Verify(f.PublicKey, signedBytes(f.Hash), f.Signature) {
		return fmt.Errorf("verify segment %v: signature: %w", f.ID, branchline.ErrMismatch)
	}
	return nil
}

// End returns the offset of the byte after the last fragment, where the footer starts.
func (f Footer) End() int64 {
	if n := len(f.Fragments); n > 0 {
		return f.Fragments[n-1].End()
	}
	return f.InitSize
}

// boxSize returns the length of the footer's box.
func (f Footer) boxSize() int64 {
	return int64(boxHeaderSize + statementFixed + len(f.Stream) + len(f.Codecs) + len(f.Fragments)*rowSize + endSize)
}

// Segment returns the sealed segment that f describes, of which stream is this node's name.
func (f Footer) Segment(stream branchline.StreamID, size int64) branchline.Segment {
	return branchline.Segment{ID: f.ID, Stream: stream, Run: f.Run, Number: f.Number, Span: f.Span,
		Codecs: f.Codecs, InitSize: f.InitSize, Size: size, Sealed: true, Hash: f.Hash, Fragments: f.Fragments}
}

// ChecksumBox returns the box that ends a fragment whose bytes are head and then parts, each once.
func ChecksumBox(head []byte, parts ...[]byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, head)
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	box := make([]byte, 0, ChecksumSize)
	box = binary.BigEndian.AppendUint32(box, ChecksumSize)
	box = append(box, "uuid"+checksumType...)
	box = append(box, 1, 0, 0, 0)
	return binary.BigEndian.AppendUint32(box, sum)
}

// checksumHolds reports whether fragment ends with the right checksum box.
func checksumHolds(fragment []byte) bool {
	n := len(fragment) - ChecksumSize
	return n > 0 && bytes.Equal(fragment[n:], ChecksumBox(fragment[:n]))
}

func (f Footer) statement() ([]byte, error) {
	c := codec{buf: make([]byte, 0, statementFixed+len(f.Stream)+len(f.Codecs)+len(f.Fragments)*rowSize)}
	f.move(&c)
	return c.buf, c.end()
}

// move passes the statement's fields through c, in the order of the drawing.
func (f *Footer) move(c *codec) {
	var flags [3]byte
	if f.Cut {
		flags[2] = flagCut
	}
	n := len(f.Fragments)
	number(c, &f.Version, 1)
	c.raw(flags[:])
	number(c, &n, 4)
	c.raw(f.ID[:])
	number(c, &f.Run, 8)
	number(c, &f.Number, 4)
	number(c, &f.InitSize, 4)
	c.span(&f.Span)
	c.raw(f.InitHash[:])
	c.raw(f.Prev[:])
	text(c, &f.Stream, branchline.MaxID)
	text(c, &f.Codecs, MaxCodecs)
	if c.reading {
		if c.err != nil || n > MaxFragments || n*rowSize != len(c.buf) || flags[0]|flags[1]|flags[2]&^flagCut != 0 {
			c.fail("malformed footer")
			return
		}
		f.Cut = flags[2] == flagCut
		f.Fragments = make([]branchline.Fragment, n)
	}
	for i := range f.Fragments {
		c.fragment(&f.Fragments[i])
	}
}

// check holds f against the rules and limits of the format.
func (f Footer) check() error {
	switch {
	case f.Version != Version:
		return fmt.Errorf("version %d: %w", f.Version, branchline.ErrInvalid)
	case f.ID == branchline.SegmentID{}:
		return fmt.Errorf("no segment identifier: %w", branchline.ErrInvalid)
	case f.InitSize < 8 || f.InitSize > MaxInit:
		return fmt.Errorf("init part of %d bytes: %w", f.InitSize, branchline.ErrInvalid)
	case len(f.Codecs) > MaxCodecs:
		return fmt.Errorf("codecs of %d bytes: %w", len(f.Codecs), branchline.ErrInvalid)
	case len(f.Fragments) == 0 || len(f.Fragments) > MaxFragments:
		return fmt.Errorf("%d fragments: %w", len(f.Fragments), branchline.ErrInvalid)
	case f.Span.Duration() > MaxSpan:
		return fmt.Errorf("span of %v: %w", f.Span.Duration(), branchline.ErrInvalid)
	}
	if err := f.Stream.Check(); err != nil {
		return err
	}
	at := f.InitSize
	for i, r := range f.Fragments {
		if err := checkRow(r); err != nil {
			return fmt.Errorf("fragment %d: %w", i, err)
		}
		if r.Offset != at {
			return fmt.Errorf("fragment %d at %d instead of %d: %w", i, r.Offset, at, branchline.ErrInvalid)
		}
		at = r.End()
	}
	last := f.Fragments[len(f.Fragments)-1].Span().End
	if !f.Span.Start.Equal(f.Fragments[0].Start) || !f.Span.End.Equal(last) {
		return fmt.Errorf("span is not that of the fragments: %w", branchline.ErrInvalid)
	}
	return nil
}

func checkRow(r branchline.Fragment) error {
	if r.Length <= ChecksumSize || r.Length > MaxFragment || r.Offset < 0 || r.Offset > MaxFragment*MaxFragments ||
		r.Duration < 0 || r.Duration > MaxSpan || r.Start.IsZero() {
		return fmt.Errorf("row out of bounds: %w", branchline.ErrInvalid)
	}
	return nil
}

func signedBytes(h branchline.Hash) []byte { return append([]byte(signedContext), h[:]...) }

func isUUIDBox(b []byte, kind string) bool {
	return len(b) >= boxHeaderSize && binary.BigEndian.Uint32(b) == uint32(len(b)) &&
		string(b[4:boxHeaderSize]) == "uuid"+kind
}
