package marks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/branchline-video/branchline/internal/testcam"
)

// maxBox bounds what is read into memory at once; a fragment is far smaller.
const maxBox = 64 << 20

// Frame is a video sample with what its picture says.
type Frame struct {
	testcam.Mark           // zero if Err is set
	Err          error     // why the picture could not be decoded, nil if it could
	DTS, PTS     time.Time // the file's times, its decode times being counted from 1970
	Duration     time.Duration
	Key          bool // marked as a random access point
	Init         int  // how many init parts (moov) stand before it in the stream
	Size         int  // of the sample, in bytes
}

// Read returns the frames of a whole stream: one file, several one after the other, or fragments behind
// any init part. It returns the frames up to the place where the stream breaks, and the error.
func Read(r io.Reader) ([]Frame, error) {
	var frames []Frame
	for f, err := range All(r) {
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
	return frames, nil
}

// All yields each frame as soon as its fragment is read, so it serves live streams too. An error is the
// last thing that it yields: [io.ErrUnexpectedEOF] for a stream that ends within a box or between a
// fragment's moof and mdat.
func All(r io.Reader) iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		s := stream{r: r}
		for {
			frames, err := s.next()
			for _, f := range frames {
				if !yield(f, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Frame{}, err)
				return
			}
		}
	}
}

// stream is the state between two boxes.
type stream struct {
	r      io.Reader
	pos    uint64
	inits  int
	tracks []*track // the video tracks of the last moov
	moof   *mp4.MoofBox
}

type track struct {
	trex      *mp4.TrexBox
	timescale int64
	pictures  testcam.Decoder
}

// next reads one box and returns the frames that it completes. io.EOF is the end between two boxes.
func (s *stream) next() ([]Frame, error) {
	box, err := s.box()
	if err != nil {
		return nil, err
	}
	switch box := box.(type) {
	case *mp4.MoovBox:
		return nil, s.init(box)
	case *mp4.MoofBox:
		s.moof = box
	case *mp4.MdatBox:
		moof := s.moof
		s.moof = nil
		if moof == nil {
			return nil, fmt.Errorf("read mdat at %d: no moof before it", s.pos)
		}
		return s.fragment(&mp4.Fragment{Moof: moof, Mdat: box})
	}
	return nil, nil
}

func (s *stream) box() (mp4.Box, error) {
	start := s.pos
	header, err := mp4.DecodeHeader(s.r)
	if errors.Is(err, io.EOF) {
		if s.moof != nil {
			return nil, fmt.Errorf("read mdat at %d: %w", start, io.ErrUnexpectedEOF)
		}
		return nil, err //nolint:wrapcheck // io.EOF means the end
	}
	if err != nil {
		return nil, fmt.Errorf("read box header at %d: %w", start, err)
	}
	if header.Size > maxBox {
		return nil, fmt.Errorf("read box %s at %d: %d bytes are too many", header.Name, start, header.Size)
	}
	body := make([]byte, header.Size-uint64(header.Hdrlen))
	if _, err := io.ReadFull(s.r, body); err != nil {
		return nil, fmt.Errorf("read box %s at %d: %w", header.Name, start, io.ErrUnexpectedEOF)
	}
	s.pos += header.Size
	box, err := mp4.DecodeBoxBody(start, header, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read box %s at %d: %w", header.Name, start, err)
	}
	return box, nil
}

func (s *stream) init(moov *mp4.MoovBox) error {
	s.inits++
	s.tracks = nil
	for _, trak := range moov.Traks {
		if trak.Mdia.Hdlr.HandlerType != "vide" || moov.Mvex == nil {
			continue
		}
		trex, ok := moov.Mvex.GetTrex(trak.Tkhd.TrackID)
		if !ok {
			return fmt.Errorf("read init part: no trex of track %d", trak.Tkhd.TrackID)
		}
		t := &track{trex: trex, timescale: int64(trak.Mdia.Mdhd.Timescale)}
		if avc := trak.Mdia.Minf.Stbl.Stsd.AvcX; avc != nil && avc.AvcC != nil {
			if _, err := t.pictures.Decode(avc.AvcC.SPSnalus); err != nil {
				return fmt.Errorf("read init part: %w", err)
			}
		}
		s.tracks = append(s.tracks, t)
	}
	return nil
}

func (s *stream) fragment(fragment *mp4.Fragment) ([]Frame, error) {
	var frames []Frame
	for _, t := range s.tracks {
		samples, err := fragment.GetFullSamples(t.trex)
		if err != nil {
			return frames, fmt.Errorf("read samples before %d: %w", s.pos, err)
		}
		for i := range samples {
			sample := &samples[i]
			f := Frame{
				DTS: t.time(int64(sample.DecodeTime)), PTS: t.time(sample.PresentationTime()),
				Key: !mp4.DecodeSampleFlags(sample.Flags).SampleIsNonSync, Init: s.inits, Size: len(sample.Data),
			}
			f.Duration = t.time(int64(sample.DecodeTime) + int64(sample.Dur)).Sub(f.DTS)
			f.Mark, f.Err = t.mark(sample.Data)
			frames = append(frames, f)
		}
	}
	return frames, nil
}

// time converts ticks since 1970.
func (t *track) time(ticks int64) time.Time {
	return time.Unix(ticks/t.timescale, ticks%t.timescale*int64(time.Second)/t.timescale).UTC()
}

// mark decodes a sample: NAL units, each after its length in four bytes.
func (t *track) mark(data []byte) (testcam.Mark, error) {
	var nalus [][]byte
	for len(data) >= 4 {
		size := binary.BigEndian.Uint32(data)
		if uint64(size) > uint64(len(data)-4) {
			break
		}
		nalus = append(nalus, data[4:4+size])
		data = data[4+size:]
	}
	if len(data) > 0 {
		return testcam.Mark{}, fmt.Errorf("split sample: %d bytes left over", len(data))
	}
	return t.pictures.Mark(nalus)
}
