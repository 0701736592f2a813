package branchline

import "time"

// Item is an entry of a live stream. Exactly one of the pointers is set. Items and all that they
// point to are shared between readers and never changed.
//
// The order within a segment is: Start, then for each fragment its frames and then its Fragment,
// then Seal. A run ends with RunEnd after the last Seal. A fragment's bytes in the file are
// Fragment.Head, the frames since the previous Fragment grouped by track in ascending order, and
// Fragment.Tail; so a reader that records assembles the exact bytes and never muxes.
type Item struct {
	Segment  SegmentID // the segment that the item belongs to; zero for RunEnd
	Missed   int       // how many items this reader lost just before this one
	Start    *SegmentStart
	Frame    *Frame
	Fragment *FragmentEnd
	Seal     *SegmentSeal
	RunEnd   *RunEnd

	More More `json:",omitempty"` // of all that
}

// SegmentStart opens a segment. A reader that joins later receives it first.
type SegmentStart struct {
	ID     SegmentID
	Stream StreamID
	Run    uint64
	Number uint32
	Start  time.Time // decode time of the first fragment
	Codecs string    // RFC 6381
	Init   []byte    // ftyp and moov, the file's first bytes
	More   More      `json:",omitempty"`
}

// Frame is an access unit in the form in which it stands in the file: H.264 with four-byte lengths,
// AAC raw. Frames of one fragment come in decoding order, tracks interleaved.
type Frame struct {
	Track    int // as in Init, from 1
	DTS, PTS time.Time
	Key      bool // random access point of a video track
	FirstKey bool // first frame of a key fragment: a reader may join here
	Data     []byte
}

// FragmentEnd completes the frames since the previous one into a fragment.
type FragmentEnd struct {
	Fragment Fragment
	Head     []byte // prft, moof and the header of mdat
	Tail     []byte // the checksum box
}

// SegmentSeal completes a segment.
type SegmentSeal struct {
	ID     SegmentID
	Hash   Hash
	Footer []byte // the footer box, the file's last bytes
	Size   int64  // of the whole file, in bytes
}

// RunEnd tells that the session with the camera is over, and why.
type RunEnd struct {
	Run   uint64
	At    time.Time
	Cause Cause
}
