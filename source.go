package branchline

import (
	"context"
	"crypto/ed25519"
	"io"
	"iter"
	"time"
)

// Source is a node that has recordings. Methods may be called concurrently. Errors wrap
// [ErrUnavailable] when the node cannot be reached; the caller retries.
type Source interface {
	// Cameras lists the node's cameras, sorted by ID.
	Cameras(ctx context.Context) ([]Camera, error)
	// Changes yields what happened after a position, first the past, then the present, until ctx
	// ends or an error is yielded, which is the last thing yielded. The zero Position asks for all
	// that is known. It yields [ErrGone] if that past is no longer kept or the position is of another
	// epoch, and the caller starts again from zero.
	Changes(ctx context.Context, after Position) iter.Seq2[Change, error]
	// Segments lists segments, sealed and growing, that touch the range, with their fragment tables,
	// ordered by start. At most [MaxSegments]; a caller that gets as many asks again from the last
	// one's start. An unknown stream wraps [ErrNotFound].
	Segments(ctx context.Context, stream StreamID, span TimeRange) ([]Segment, error)
	// Fetch returns a segment's bytes in the range, the same bytes every time. A range without an end
	// goes on, on a growing segment, until the segment is sealed. It wraps [ErrNotFound] for an
	// unknown segment, [ErrGone] for a removed one, [ErrInvalid] for a range outside it, and on a
	// partly held segment [ErrUnavailable] for bytes that are not held. Each fragment is verified by its
	// hash before any of its bytes is given out, or by its checksum alone with [WithVerifier]. The caller
	// closes the reader.
	Fetch(ctx context.Context, id SegmentID, bytes ByteRange) (io.ReadCloser, error)
	// Live yields the stream's items from the newest key fragment on, first the SegmentStart of the
	// segment that it is in, until ctx ends or an error is yielded, which is the last thing yielded.
	// A slow caller misses items, is told how many, and goes on at a key fragment. An unknown
	// stream wraps [ErrNotFound]. A stream without a picture at present yields when it has one again.
	Live(ctx context.Context, stream StreamID) iter.Seq2[Item, error]
}

// MaxSegments bounds one answer of [Source.Segments]: a day of one-minute segments.
const MaxSegments = 1440

// Camera is a device as its node knows it.
type Camera struct {
	ID      CameraID
	Name    string // for people; any text up to MaxName bytes
	Added   time.Time
	Removed bool // no longer configured; what was recorded stays
	Streams []Stream
	More    More `json:",omitempty"`
}

// More is what a newer node tells of something beyond what this one knows, as it came. Who passes that on passes it
// on too. It is never changed.
type More []byte

// MaxName bounds a camera's readable name, in bytes.
const MaxName = 200

// Stream is one encoded feed of a camera.
type Stream struct {
	ID            StreamID
	Codecs        string // RFC 6381, "avc1.42c01f,mp4a.40.2"; empty until first seen
	Width, Height int    // pixels; zero until first seen
}

// Segment describes a file of consecutive fragments of one run. While it grows, Span, Size and
// Fragments tell what was there when asked. Where a node holds only part of a segment, Fragments
// lists the held ones, in order.
type Segment struct {
	ID        SegmentID
	Stream    StreamID
	Run       uint64 // counts the stream's runs, from 1
	Number    uint32 // counts the run's segments, from 0
	Span      TimeRange
	Codecs    string // RFC 6381
	InitSize  int64  // length in bytes of ftyp and moov; fragments start there
	Size      int64  // bytes so far; with the footer once sealed
	Sealed    bool
	Hash      Hash // valid once sealed
	Fragments []Fragment
	More      More `json:",omitempty"`
}

// Fragment is a row of a segment's fragment table.
type Fragment struct {
	Offset, Length int64 // bytes in the file
	Start          time.Time
	Duration       time.Duration
	Key            bool
	Hash           Hash // SHA-256 of the fragment's Length bytes
}

// Span returns the range of time that the fragment covers.
func (f Fragment) Span() TimeRange { return TimeRange{f.Start, f.Start.Add(f.Duration)} }

// End returns the offset of the byte after the fragment.
func (f Fragment) End() int64 { return f.Offset + f.Length }

// Position is a place in a node's change feed: the store's random epoch and a sequence number.
type Position struct{ Epoch, Seq uint64 }

// Change is an entry in a node's ordered feed. At is the position to resume after. Exactly one of
// the pointers is set.
type Change struct {
	At      Position
	Opened  *Segment // a segment began to grow; without fragments
	Sealed  *Segment // a segment is complete and durable; without fragments
	Removed *Removal
	Gap     *Gap
	Camera  *Camera // added, changed or removed
	// Those of a hub for the hubs above it.
	Recorded *Recorded
	Site     *SiteLink

	More More `json:",omitempty"` // of all that
}

// Recorded sums up recordings that are not told one by one: the span is recorded.
type Recorded struct {
	Stream StreamID
	Span   TimeRange
}

// SiteLink tells how the link of a site behind a hub stands, as that hub sees it, and vouches for the keys
// with which the site signs its segments.
type SiteLink struct {
	Site   SiteID // as the hub calls it; a path if it is behind further hubs
	Linked bool
	Since  time.Time
	Keys   []ed25519.PublicKey // at most MaxKeys
}

// MaxKeys bounds the keys of one site: one for each time that it was enrolled with a new identity.
const MaxKeys = 64

// Removal tells that a segment is no longer at the node.
type Removal struct {
	ID     SegmentID
	Stream StreamID
	Span   TimeRange
	Cause  Cause
}

// Gap is a span of a stream without recording. An open gap still goes on, and its End is the time
// until which it is known to; the same gap (stream and start) is announced again when it ends.
type Gap struct {
	Stream StreamID
	Span   TimeRange
	Cause  Cause
	Open   bool
}

// Cause says why there is no recording.
type Cause string

// The causes that arise at the edge.
const (
	CauseUnreachable  Cause = "camera unreachable"
	CauseRefused      Cause = "camera refused credentials"
	CauseDamaged      Cause = "stream damaged"
	CauseNotScheduled Cause = "not scheduled"
	CauseStopped      Cause = "edge stopped"
	CauseClockStep    Cause = "clock step"
	CauseDiskSlow     Cause = "disk slow"
	CauseDiskFull     Cause = "disk full"
	CauseDiskFailed   Cause = "disk failed"
	CauseRemovedEarly Cause = "removed early"
	CauseExpired      Cause = "expired"
)

// The causes that arise at the hub.
const (
	CauseLinkDown   Cause = "link down"
	CauseWaiting    Cause = "waiting"
	CauseRetrieving Cause = "retrieving"
	CauseFailed     Cause = "failed"
)
