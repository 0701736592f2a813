package media

import (
	"bytes"
	"fmt"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/opus"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"

	"github.com/branchline-video/branchline"
)

// Codec names a coding that can be recorded.
type Codec string

// The codings that can be recorded.
const (
	H264 Codec = "H.264"
	H265 Codec = "H.265"
	AAC  Codec = "AAC"
	Opus Codec = "Opus"
)

// VideoClockRate is the time scale of every video track, the one of RTP.
const VideoClockRate = 90000

// Track describes one track of a run. Tracks are numbered from 1 in the order in which they are given.
type Track struct {
	Codec     Codec
	ClockRate int // ticks a second: VideoClockRate, or the audio's sample rate

	VPS, SPS, PPS []byte // parameter sets; may be empty until they arrive in band
	Config        []byte // AudioSpecificConfig, of AAC
	Channels      int    // of Opus
}

// Video reports whether the track carries pictures.
func (t Track) Video() bool { return t.Codec == H264 || t.Codec == H265 }

// complete reports whether all that the file's header needs is known.
func (t Track) complete() bool {
	switch t.Codec {
	case H264:
		return len(t.SPS) > 3 && len(t.PPS) > 0
	case H265:
		return len(t.VPS) > 0 && len(t.SPS) > 0 && len(t.PPS) > 0
	case AAC:
		return len(t.Config) > 0 && t.ClockRate > 0
	default:
		return t.Codec == Opus && t.ClockRate > 0
	}
}

// key reports whether a decoder may start at the access unit.
func (t Track) key(au [][]byte) bool {
	switch t.Codec {
	case H264:
		return h264.IsRandomAccess(au)
	case H265:
		return h265.IsRandomAccess(au)
	default:
		return false
	}
}

// adopt takes over the first parameter set of each kind in the access unit, and reports whether one
// of them differs from what was known.
func (t *Track) adopt(au [][]byte) (changed bool) {
	var seen [3]bool
	for _, nalu := range au {
		n, known := t.parameter(nalu)
		if known == nil || seen[n] {
			continue
		}
		seen[n] = true
		if !bytes.Equal(*known, nalu) {
			*known, changed = bytes.Clone(nalu), true
		}
	}
	return changed
}

// parameter returns where the track keeps parameter sets of the unit's kind, nil if it is none.
func (t *Track) parameter(nalu []byte) (int, *[]byte) {
	switch t.Codec {
	case H264:
		switch h264.NALUType(nalu[0] & 0x1f) {
		case h264.NALUTypeSPS:
			return 1, &t.SPS
		case h264.NALUTypePPS:
			return 2, &t.PPS
		}
	case H265:
		switch h265.NALUType(nalu[0] >> 1 & 0x3f) {
		case h265.NALUType_VPS_NUT:
			return 0, &t.VPS
		case h265.NALUType_SPS_NUT:
			return 1, &t.SPS
		case h265.NALUType_PPS_NUT:
			return 2, &t.PPS
		}
	}
	return 0, nil
}

// parameters returns the parameter sets in the order in which a decoder wants them.
func (t Track) parameters() [][]byte {
	if t.Codec == H265 {
		return [][]byte{t.VPS, t.SPS, t.PPS}
	}
	return [][]byte{t.SPS, t.PPS}
}

// codec returns the track's sample description.
func (t Track) codec() (codecs.Codec, error) {
	switch t.Codec {
	case H264:
		return &codecs.H264{SPS: t.SPS, PPS: t.PPS}, nil
	case H265:
		return &codecs.H265{VPS: t.VPS, SPS: t.SPS, PPS: t.PPS}, nil
	case AAC:
		var c codecs.MPEG4Audio
		if err := c.Config.Unmarshal(t.Config); err != nil {
			return nil, fmt.Errorf("read AAC configuration: %w", err)
		}
		return &c, nil
	case Opus:
		return &codecs.Opus{ChannelCount: t.Channels}, nil
	default:
		return nil, fmt.Errorf("describe codec %q: %w", t.Codec, branchline.ErrInvalid)
	}
}

// nominal returns how many ticks an audio frame lasts by its coding; zero for video.
func (t Track) nominal(frame []byte) int64 {
	switch t.Codec {
	case AAC:
		return mpeg4audio.SamplesPerAccessUnit
	case Opus:
		return opus.PacketDuration2(frame) * int64(t.ClockRate) / 48000
	default:
		return 0
	}
}

// lead returns the index of the track that starts fragments: the first video, else the first.
func lead(tracks []Track) int {
	for i, t := range tracks {
		if t.Video() {
			return i
		}
	}
	return 0
}

// ticks converts a duration, rounding to the nearest tick.
func ticks(d time.Duration, rate int) int64 {
	sec, rest := int64(d/time.Second), int64(d%time.Second)
	round := int64(time.Second / 2)
	if rest < 0 {
		round = -round
	}
	return sec*int64(rate) + (rest*int64(rate)+round)/int64(time.Second)
}

// ticksAt returns the last tick since 1970 that is not after t.
func ticksAt(t time.Time, rate int) int64 {
	return t.Unix()*int64(rate) + int64(t.Nanosecond())*int64(rate)/int64(time.Second)
}

// timeAt returns the first nanosecond of a tick since 1970, so that ticksAt gives the tick back.
func timeAt(tick int64, rate int) time.Time {
	sec, rest := tick/int64(rate), tick%int64(rate)
	nano := (rest*int64(time.Second) + int64(rate) - 1) / int64(rate)
	return time.Unix(sec, nano).UTC()
}

// ticksFrom returns the first tick since 1970 that is not before t.
func ticksFrom(t time.Time, rate int) int64 {
	tick := ticksAt(t, rate)
	if timeAt(tick, rate).Before(t) {
		tick++
	}
	return tick
}
