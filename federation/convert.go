package federation

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/branchline-video/branchline"
	wire "github.com/branchline-video/branchline/proto"
)

// Encoding never fails; decoding checks everything that a peer could get wrong, and its errors wrap
// branchline.ErrInvalid.

func invalid(format string, args ...any) error {
	return fmt.Errorf("read message: %s: %w", fmt.Sprintf(format, args...), branchline.ErrInvalid)
}

const (
	// maxCodecs and maxCause bound texts that a hub keeps with each stream and gap, in bytes.
	maxCodecs = 256
	maxCause  = 100
)

// shortTexts checks that a hub has room for what a site says.
func shortTexts(codecs string, cause branchline.Cause) error {
	if len(codecs) > maxCodecs || len(cause) > maxCause {
		return invalid("codecs of %d bytes, cause of %d", len(codecs), len(cause))
	}
	return nil
}

// The first and last instants that the wire has; times beyond are moved to them.
func earliest() time.Time { return time.Unix(0, math.MinInt64).UTC() }
func latest() time.Time   { return time.Unix(0, math.MaxInt64).UTC() }

func encodeTime(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(earliest()):
		return math.MinInt64
	case t.After(latest()):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func decodeTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func encodeRange(r branchline.TimeRange) *wire.TimeRange {
	return &wire.TimeRange{StartNs: encodeTime(r.Start), EndNs: encodeTime(r.End)}
}

func decodeRange(r *wire.TimeRange) branchline.TimeRange {
	return branchline.TimeRange{Start: decodeTime(r.GetStartNs()), End: decodeTime(r.GetEndNs())}
}

func encodePosition(p branchline.Position) *wire.Position {
	return &wire.Position{Epoch: p.Epoch, Seq: p.Seq}
}

func decodePosition(p *wire.Position) branchline.Position {
	return branchline.Position{Epoch: p.GetEpoch(), Seq: p.GetSeq()}
}

func decodeSegmentID(b []byte) (id branchline.SegmentID, err error) {
	if copy(id[:], b) != len(id) || len(b) != len(id) {
		return id, invalid("segment id of %d bytes", len(b))
	}
	return id, nil
}

func decodeHash(b []byte) (h branchline.Hash, err error) {
	if copy(h[:], b) != len(h) || len(b) != len(h) {
		return h, invalid("hash of %d bytes", len(b))
	}
	return h, nil
}

func encodeCamera(c branchline.Camera) *wire.Camera {
	w := &wire.Camera{Id: string(c.ID), Name: c.Name, AddedNs: encodeTime(c.Added), Removed: c.Removed}
	for _, s := range c.Streams {
		w.Streams = append(w.Streams, &wire.Stream{
			Id: string(s.ID), Codecs: s.Codecs, Width: uint32(s.Width), Height: uint32(s.Height),
		})
	}
	withMore(w, c.More)
	return w
}

func decodeCamera(w *wire.Camera) (branchline.Camera, error) {
	c := branchline.Camera{
		ID: branchline.CameraID(w.GetId()), Name: w.GetName(), Added: decodeTime(w.GetAddedNs()),
		Removed: w.GetRemoved(), More: moreOf(w),
	}
	if len(c.Name) > branchline.MaxName {
		return c, invalid("camera name of %d bytes", len(c.Name))
	}
	for _, s := range w.GetStreams() {
		id := branchline.StreamID(s.GetId())
		if err := errors.Join(id.Check(), shortTexts(s.GetCodecs(), "")); err != nil {
			return c, err
		}
		c.Streams = append(c.Streams, branchline.Stream{
			ID: id, Codecs: s.GetCodecs(), Width: int(s.GetWidth()), Height: int(s.GetHeight()),
		})
	}
	return c, c.ID.Check()
}

func encodeSegment(s branchline.Segment) *wire.Segment {
	w := &wire.Segment{
		Id: s.ID[:], Stream: string(s.Stream), Run: s.Run, Number: s.Number, Span: encodeRange(s.Span),
		Codecs: s.Codecs, InitSize: s.InitSize, Size: s.Size, Sealed: s.Sealed,
	}
	if s.Sealed {
		w.Hash = s.Hash[:]
	}
	for _, f := range s.Fragments {
		w.Fragments = append(w.Fragments, encodeFragment(f))
	}
	withMore(w, s.More)
	return w
}

func decodeSegment(w *wire.Segment) (s branchline.Segment, err error) {
	s = branchline.Segment{
		Stream: branchline.StreamID(w.GetStream()), Run: w.GetRun(), Number: w.GetNumber(),
		Span: decodeRange(w.GetSpan()), Codecs: w.GetCodecs(), InitSize: w.GetInitSize(), Size: w.GetSize(),
		Sealed: w.GetSealed(), More: moreOf(w),
	}
	if s.ID, err = decodeSegmentID(w.GetId()); err != nil {
		return s, err
	}
	if s.Sealed {
		if s.Hash, err = decodeHash(w.GetHash()); err != nil {
			return s, err
		}
	}
	if s.InitSize < 0 || s.Size < 0 {
		return s, invalid("segment of negative size")
	}
	if err := shortTexts(s.Codecs, ""); err != nil {
		return s, err
	}
	for _, wf := range w.GetFragments() {
		f, err := decodeFragment(wf)
		if err != nil {
			return s, err
		}
		s.Fragments = append(s.Fragments, f)
	}
	return s, s.Stream.Check()
}

func encodeFragment(f branchline.Fragment) *wire.Fragment {
	return &wire.Fragment{
		Offset: f.Offset, Length: f.Length, StartNs: encodeTime(f.Start), DurationNs: int64(f.Duration),
		Key: f.Key, Hash: f.Hash[:],
	}
}

func decodeFragment(w *wire.Fragment) (f branchline.Fragment, err error) {
	f = branchline.Fragment{
		Offset: w.GetOffset(), Length: w.GetLength(), Start: decodeTime(w.GetStartNs()),
		Duration: time.Duration(w.GetDurationNs()), Key: w.GetKey(),
	}
	if f.Offset < 0 || f.Length < 0 || f.Duration < 0 || f.Offset > math.MaxInt64-f.Length {
		return f, invalid("fragment at %d of %d bytes and %v", f.Offset, f.Length, f.Duration)
	}
	f.Hash, err = decodeHash(w.GetHash())
	return f, err
}

func encodeChange(c branchline.Change) *wire.Change {
	w := &wire.Change{At: encodePosition(c.At)}
	switch {
	case c.Opened != nil:
		w.What = &wire.Change_Opened{Opened: encodeSegment(*c.Opened)}
	case c.Sealed != nil:
		w.What = &wire.Change_Sealed{Sealed: encodeSegment(*c.Sealed)}
	case c.Removed != nil:
		r := c.Removed
		w.What = &wire.Change_Removed{Removed: &wire.Removal{
			Id: r.ID[:], Stream: string(r.Stream), Span: encodeRange(r.Span), Cause: string(r.Cause),
		}}
	case c.Gap != nil:
		g := c.Gap
		w.What = &wire.Change_Gap{Gap: &wire.Gap{
			Stream: string(g.Stream), Span: encodeRange(g.Span), Cause: string(g.Cause), Open: g.Open,
		}}
	case c.Camera != nil:
		w.What = &wire.Change_Camera{Camera: encodeCamera(*c.Camera)}
	default:
		encodeBelow(w, c)
	}
	withMore(w, c.More)
	return w
}

// decodeChange returns a change without content for one of a kind that a newer peer has and this node
// does not know.
func decodeChange(w *wire.Change) (branchline.Change, error) {
	c := branchline.Change{At: decodePosition(w.GetAt()), More: moreOf(w)}
	var err error
	switch what := w.GetWhat().(type) {
	case *wire.Change_Opened:
		c.Opened = new(branchline.Segment)
		*c.Opened, err = decodeSegment(what.Opened)
	case *wire.Change_Sealed:
		c.Sealed = new(branchline.Segment)
		*c.Sealed, err = decodeSegment(what.Sealed)
	case *wire.Change_Removed:
		r := what.Removed
		c.Removed = &branchline.Removal{
			Stream: branchline.StreamID(r.GetStream()), Span: decodeRange(r.GetSpan()),
			Cause: branchline.Cause(r.GetCause()),
		}
		if c.Removed.ID, err = decodeSegmentID(r.GetId()); err == nil {
			err = errors.Join(c.Removed.Stream.Check(), shortTexts("", c.Removed.Cause))
		}
	case *wire.Change_Gap:
		g := what.Gap
		c.Gap = &branchline.Gap{
			Stream: branchline.StreamID(g.GetStream()), Span: decodeRange(g.GetSpan()),
			Cause: branchline.Cause(g.GetCause()), Open: g.GetOpen(),
		}
		err = errors.Join(c.Gap.Stream.Check(), shortTexts("", c.Gap.Cause))
	case *wire.Change_Camera:
		c.Camera = new(branchline.Camera)
		*c.Camera, err = decodeCamera(what.Camera)
	default:
		err = decodeBelow(&c, w)
	}
	return c, err
}
