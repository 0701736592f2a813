package media

import (
	"bytes"
	"fmt"
	"math/bits"
	"strings"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"

	"github.com/branchline-video/branchline"
)

// MaxInit bounds the header of a segment, ftyp and moov, in bytes: parameter sets are hundreds.
const MaxInit = 64 << 10

// MaxTracks bounds the tracks of one stream: a picture and a few languages of sound.
const MaxTracks = 8

// Info tells what a segment's header says.
type Info struct {
	Codecs        string // RFC 6381, "avc1.42c01f,mp4a.40.2"
	Width, Height int    // pixels; zero without video
	TimeScales    []int  // ticks a second of each track, by track number less one
	Video         []bool // whether each track carries pictures
}

// Describe reads a segment's header. Its error wraps [branchline.ErrInvalid] or
// [branchline.ErrTooLarge].
func Describe(init []byte) (Info, error) {
	if len(init) > MaxInit {
		return Info{}, fmt.Errorf("read segment header of %d bytes: %w", len(init), branchline.ErrTooLarge)
	}
	var head fmp4.Init
	if err := head.Unmarshal(bytes.NewReader(init)); err != nil {
		return Info{}, fmt.Errorf("read segment header: %w: %w", branchline.ErrInvalid, err)
	}
	if len(head.Tracks) > MaxTracks {
		return Info{}, fmt.Errorf("read segment header of %d tracks: %w", len(head.Tracks), branchline.ErrTooLarge)
	}
	var info Info
	var names []string
	for i, t := range head.Tracks {
		name, err := codecName(t.Codec)
		if err != nil || t.ID != i+1 {
			return Info{}, fmt.Errorf("read track %d of segment header: %w: %w", t.ID, branchline.ErrInvalid, err)
		}
		names = append(names, name)
		info.TimeScales = append(info.TimeScales, int(t.TimeScale))
		info.Video = append(info.Video, t.Codec.IsVideo())
		if t.Codec.IsVideo() && info.Width == 0 {
			info.Width, info.Height = size(t.Codec)
		}
	}
	info.Codecs = strings.Join(names, ",")
	return info, nil
}

// Codecs returns the RFC 6381 names of a segment header's tracks.
func Codecs(init []byte) (string, error) {
	info, err := Describe(init)
	return info.Codecs, err
}

// marshalInit writes the header of a run's segments.
func marshalInit(tracks []Track) ([]byte, error) {
	var head fmp4.Init
	for i, t := range tracks {
		c, err := t.codec()
		if err != nil {
			return nil, err
		}
		head.Tracks = append(head.Tracks, &fmp4.InitTrack{ID: i + 1, TimeScale: uint32(t.ClockRate), Codec: c})
	}
	var buf seekablebuffer.Buffer
	if err := head.Marshal(&buf); err != nil {
		return nil, fmt.Errorf("write segment header: %w", err)
	}
	return bytes.Clone(buf.Bytes()), nil
}

func codecName(c codecs.Codec) (string, error) {
	switch c := c.(type) {
	case *codecs.H264:
		if len(c.SPS) < 4 {
			return "", fmt.Errorf("name H.264 with a short SPS: %w", branchline.ErrInvalid)
		}
		return fmt.Sprintf("avc1.%02x%02x%02x", c.SPS[1], c.SPS[2], c.SPS[3]), nil
	case *codecs.H265:
		return hevcName(c.SPS)
	case *codecs.MPEG4Audio:
		return fmt.Sprintf("mp4a.40.%d", c.Config.Type), nil
	case *codecs.Opus:
		return "opus", nil
	default:
		return "", fmt.Errorf("name codec %T: %w", c, branchline.ErrInvalid)
	}
}

// hevcName follows ISO/IEC 14496-15, annex E.3: profile, compatibility flags in reverse bit order,
// tier and level, and the constraint bytes without trailing zeros.
func hevcName(nalu []byte) (string, error) {
	raw := h264.EmulationPreventionRemove(nalu)
	const profile = 3 // after the two bytes of the unit's header and one of identifiers
	if len(raw) < profile+12 {
		return "", fmt.Errorf("name H.265 with a short SPS: %w", branchline.ErrInvalid)
	}
	p := raw[profile:]
	space := [4]string{"", "A", "B", "C"}[p[0]>>6]
	tier := [2]string{"L", "H"}[p[0]>>5&1]
	flags := uint32(p[1])<<24 | uint32(p[2])<<16 | uint32(p[3])<<8 | uint32(p[4])
	name := fmt.Sprintf("hvc1.%s%d.%X.%s%d", space, p[0]&0x1f, bits.Reverse32(flags), tier, p[11])
	constraints := bytes.TrimRight(p[5:11], "\x00")
	for _, b := range constraints {
		name += fmt.Sprintf(".%X", b)
	}
	return name, nil
}

func size(c codecs.Codec) (width, height int) {
	switch c := c.(type) {
	case *codecs.H264:
		var sps h264.SPS
		if sps.Unmarshal(c.SPS) == nil {
			return sps.Width(), sps.Height()
		}
	case *codecs.H265:
		var sps h265.SPS
		if sps.Unmarshal(c.SPS) == nil {
			return sps.Width(), sps.Height()
		}
	}
	return 0, 0
}
