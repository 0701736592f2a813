package media

import (
	"bytes"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
)

// Assembler puts the exact bytes of fragments together from a stream's items. The zero value is ready;
// it is not safe for concurrent use.
type Assembler struct {
	Buffers *buffer.Pool // to which whoever is done with a fragment's bytes may return them

	frames [MaxTracks][][]byte
	size   int
	lost   bool
}

// Add takes the stream's next item. When the item ends a fragment of which every frame was seen, it
// returns the fragment's bytes, which are the caller's own until it returns them to Buffers; otherwise nil.
func (a *Assembler) Add(item branchline.Item) []byte {
	if item.Missed > 0 || item.Start != nil {
		a.reset()
	}
	switch {
	case item.Frame != nil:
		a.add(item.Frame)
	case item.Fragment != nil:
		defer a.reset()
		return a.bytes(item.Fragment)
	}
	return nil
}

// Open reports whether frames were added since the last fragment's end.
func (a *Assembler) Open() bool { return a.size > 0 || a.lost }

func (a *Assembler) add(f *branchline.Frame) {
	if f.Track < 1 || f.Track > MaxTracks || a.size+len(f.Data) > MaxFragmentBytes*2 {
		a.reset()
		a.lost = true
	}
	if a.lost {
		return
	}
	a.frames[f.Track-1] = append(a.frames[f.Track-1], f.Data)
	a.size += len(f.Data)
}

func (a *Assembler) bytes(end *branchline.FragmentEnd) []byte {
	size := len(end.Head) + a.size + len(end.Tail)
	if a.lost || int64(size) != end.Fragment.Length {
		return nil
	}
	out := append(a.Buffers.Get(size), end.Head...)
	for _, track := range a.frames {
		for _, data := range track {
			out = append(out, data...)
		}
	}
	return append(out, end.Tail...)
}

func (a *Assembler) reset() {
	for i := range a.frames {
		clear(a.frames[i])
		a.frames[i] = a.frames[i][:0]
	}
	a.size, a.lost = 0, false
}

// FrameFragmenter wraps single frames for a viewer that cannot wait for a fragment's end: moof and mdat
// of one frame, on the time line and time scales of the segment header that it was made from, so that
// both go into one player's buffer. It is not safe for concurrent use.
type FrameFragmenter struct {
	info     Info
	sequence uint32
	last     [MaxTracks]int64 // decode time of the track's newest frame, zero before the first
	step     [MaxTracks]int64 // newest distance of two frames
}

// NewFrameFragmenter reads a segment's header, a [branchline.SegmentStart]'s Init.
func NewFrameFragmenter(init []byte) (*FrameFragmenter, error) {
	info, err := Describe(init)
	if err != nil {
		return nil, err
	}
	return &FrameFragmenter{info: info}, nil
}

// Info tells what the segment header says.
func (g *FrameFragmenter) Info() Info { return g.info }

// Marshal returns the frame's moof and mdat. As the next frame is not known yet, the frame's duration
// is taken from the one before; a player goes by the decode times.
func (g *FrameFragmenter) Marshal(f *branchline.Frame) ([]byte, error) {
	i := f.Track - 1
	if i < 0 || i >= len(g.info.TimeScales) {
		return nil, fmt.Errorf("wrap frame of track %d: %w", f.Track, branchline.ErrInvalid)
	}
	rate := g.info.TimeScales[i]
	dts, pts := ticksAt(f.DTS, rate), ticksAt(f.PTS, rate)
	switch {
	case g.last[i] > 0 && dts > g.last[i]:
		g.step[i] = dts - g.last[i]
	case g.step[i] == 0 && g.info.Video[i]:
		g.step[i] = int64(rate) / 25
	case g.step[i] == 0:
		g.step[i] = 1024 // the frame of AAC; Opus is corrected by its second frame
	}
	g.last[i] = dts
	g.sequence++
	part := fmp4.Part{SequenceNumber: g.sequence, Tracks: []*fmp4.PartTrack{{
		ID: f.Track, BaseTime: uint64(dts), Samples: []*fmp4.Sample{{
			Duration:        uint32(min(g.step[i], int64(rate))),
			PTSOffset:       int32(pts - dts),
			IsNonSyncSample: g.info.Video[i] && !f.Key,
			Payload:         f.Data,
		}},
	}}}
	var buf seekablebuffer.Buffer
	if err := part.Marshal(&buf); err != nil {
		return nil, fmt.Errorf("wrap frame: %w", err)
	}
	return bytes.Clone(buf.Bytes()), nil
}
