package federation

import (
	"errors"
	"math"

	"github.com/branchline-video/branchline"
	wire "github.com/branchline-video/branchline/proto"
)

func encodeItem(i branchline.Item) *wire.Item {
	w := &wire.Item{Missed: uint32(min(max(i.Missed, 0), math.MaxUint32))}
	if i.Segment != (branchline.SegmentID{}) {
		w.Segment = i.Segment[:]
	}
	switch {
	case i.Start != nil:
		s := i.Start
		w.What = &wire.Item_Start{Start: &wire.SegmentStart{
			Id: s.ID[:], Stream: string(s.Stream), Run: s.Run, Number: s.Number, StartNs: encodeTime(s.Start),
			Codecs: s.Codecs, Init: s.Init,
		}}
		withMore(w.GetStart(), s.More)
	case i.Frame != nil:
		f := i.Frame
		w.What = &wire.Item_Frame{Frame: &wire.Frame{
			Track: uint32(f.Track), DtsNs: encodeTime(f.DTS), PtsNs: encodeTime(f.PTS), Key: f.Key,
			FirstKey: f.FirstKey, Data: f.Data,
		}}
	case i.Fragment != nil:
		f := i.Fragment
		w.What = &wire.Item_Fragment{Fragment: &wire.FragmentEnd{
			Fragment: encodeFragment(f.Fragment), Head: f.Head, Tail: f.Tail,
		}}
	case i.Seal != nil:
		s := i.Seal
		w.What = &wire.Item_Seal{Seal: &wire.SegmentSeal{Id: s.ID[:], Hash: s.Hash[:], Footer: s.Footer, Size: s.Size}}
	case i.RunEnd != nil:
		r := i.RunEnd
		w.What = &wire.Item_RunEnd{RunEnd: &wire.RunEnd{Run: r.Run, AtNs: encodeTime(r.At), Cause: string(r.Cause)}}
	}
	withMore(w, i.More)
	return w
}

// decodeItem returns an item without content for one of a kind that a newer peer has and this node
// does not know.
func decodeItem(w *wire.Item) (i branchline.Item, err error) {
	i.Missed, i.More = int(min(w.GetMissed(), math.MaxInt32)), moreOf(w)
	if len(w.GetSegment()) > 0 {
		if i.Segment, err = decodeSegmentID(w.GetSegment()); err != nil {
			return i, err
		}
	}
	switch what := w.GetWhat().(type) {
	case *wire.Item_Start:
		i.Start, err = decodeStart(what.Start)
	case *wire.Item_Frame:
		f := what.Frame
		if f.GetTrack() == 0 || f.GetTrack() > maxTrack {
			return i, invalid("frame of track %d", f.GetTrack())
		}
		i.Frame = &branchline.Frame{
			Track: int(f.GetTrack()), DTS: decodeTime(f.GetDtsNs()), PTS: decodeTime(f.GetPtsNs()),
			Key: f.GetKey(), FirstKey: f.GetFirstKey(), Data: f.GetData(),
		}
	case *wire.Item_Fragment:
		f := what.Fragment
		i.Fragment = &branchline.FragmentEnd{Head: f.GetHead(), Tail: f.GetTail()}
		i.Fragment.Fragment, err = decodeFragment(f.GetFragment())
	case *wire.Item_Seal:
		i.Seal, err = decodeSeal(what.Seal)
	case *wire.Item_RunEnd:
		r := what.RunEnd
		i.RunEnd = &branchline.RunEnd{
			Run: r.GetRun(), At: decodeTime(r.GetAtNs()), Cause: branchline.Cause(r.GetCause()),
		}
		err = shortTexts("", i.RunEnd.Cause)
	}
	return i, err
}

// maxTrack bounds a frame's track number: far more tracks than any camera has.
const maxTrack = 64

func decodeStart(w *wire.SegmentStart) (*branchline.SegmentStart, error) {
	id, err := decodeSegmentID(w.GetId())
	if err != nil {
		return nil, err
	}
	s := &branchline.SegmentStart{
		ID: id, Stream: branchline.StreamID(w.GetStream()), Run: w.GetRun(), Number: w.GetNumber(),
		Start: decodeTime(w.GetStartNs()), Codecs: w.GetCodecs(), Init: w.GetInit(),
		More: moreOf(w),
	}
	return s, errors.Join(s.Stream.Check(), shortTexts(s.Codecs, ""))
}

func decodeSeal(w *wire.SegmentSeal) (*branchline.SegmentSeal, error) {
	id, err := decodeSegmentID(w.GetId())
	if err != nil {
		return nil, err
	}
	hash, err := decodeHash(w.GetHash())
	if err != nil {
		return nil, err
	}
	if w.GetSize() < 0 {
		return nil, invalid("segment of negative size")
	}
	return &branchline.SegmentSeal{ID: id, Hash: hash, Footer: w.GetFooter(), Size: w.GetSize()}, nil
}
