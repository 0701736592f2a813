package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph265"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/opus"
	"github.com/pion/rtp"

	"github.com/branchline-video/branchline/internal/media"
)

// track puts one medium's packets together to access units.
type track struct {
	number int // in the session, from 1
	medium *description.Media
	format format.Format
	media  media.Track
	unpack func(*rtp.Packet) ([][]byte, error)
	reset  func() error // makes unpack afresh

	sequence uint16 // of the newest packet
	started  bool   // sequence is set
	lost     bool   // units were lost since the last one that was handed over
	skip     bool   // the unit with timestamp skipped is not whole
	skipped  uint32
	pending  bool // unpack holds the start of a unit, with this stamp and timestamp
	stamp    stamp
	at       uint32
}

// stamp is the time of a packet: on the session's clock, and of day by the camera.
type stamp struct {
	pts time.Duration
	ntp time.Time
}

// newTrack returns nil for a format that is not recorded.
func newTrack(m *description.Media, f format.Format) (*track, error) {
	t := &track{medium: m, format: f}
	switch f := f.(type) {
	case *format.H264:
		t.media = media.Track{Codec: media.H264, ClockRate: media.VideoClockRate, SPS: f.SPS, PPS: f.PPS}
		t.reset = func() error { return unpackWith(t, f.CreateDecoder) }
	case *format.H265:
		t.media = media.Track{
			Codec: media.H265, ClockRate: media.VideoClockRate, VPS: f.VPS, SPS: f.SPS, PPS: f.PPS,
		}
		t.reset = func() error { return unpackWith(t, f.CreateDecoder) }
	case *format.MPEG4Audio:
		config, err := f.Config.Marshal()
		if err != nil {
			return nil, fmt.Errorf("read AAC configuration: %w", err)
		}
		t.media = media.Track{Codec: media.AAC, ClockRate: f.ClockRate(), Config: config}
		t.reset = func() error { return unpackWith(t, f.CreateDecoder) }
	case *format.Opus:
		if f.ChannelCount > 2 {
			return nil, nil
		}
		t.media = media.Track{Codec: media.Opus, ClockRate: f.ClockRate(), Channels: f.ChannelCount}
		t.reset = func() error {
			d, err := f.CreateDecoder()
			t.unpack = func(p *rtp.Packet) ([][]byte, error) {
				frame, err := d.Decode(p)
				return [][]byte{frame}, err
			}
			return err
		}
	default:
		return nil, nil
	}
	return t, t.reset()
}

func unpackWith[D interface {
	Decode(*rtp.Packet) ([][]byte, error)
}](t *track, create func() (D, error)) error {
	d, err := create()
	t.unpack = d.Decode
	return err
}

func (t *track) duration(pts int64) time.Duration {
	rate := int64(t.media.ClockRate)
	return time.Duration(pts/rate)*time.Second + time.Duration(pts%rate)*time.Second/time.Duration(rate)
}

// decode takes a packet and returns the units that it completes, and how many packets or units were
// lost. The units have no track and arrival yet.
func (t *track) decode(p *rtp.Packet, s stamp) (units []media.Unit, lost int) {
	if t.started && p.SequenceNumber != t.sequence+1 {
		lost = max(int(int16(p.SequenceNumber-t.sequence-1)), 1)
		t.damaged(p)
	}
	t.sequence, t.started = p.SequenceNumber, true
	if t.skip && p.Timestamp == t.skipped && t.media.Video() {
		return nil, lost
	}
	t.skip = false
	au, err := t.unpack(p)
	if err != nil {
		switch {
		case more(err):
			t.hold(p, s)
		case !nonStarting(err):
			t.damaged(p)
			lost++
		}
		return nil, lost
	}
	done := s
	if t.pending && t.at != p.Timestamp {
		done = t.stamp // the packet completed the unit before its own by starting another
		t.pending = false
		t.hold(p, s)
	} else {
		t.pending = false
	}
	return t.units(au, done), lost
}

// hold remembers the stamp of the oldest unit that is not handed over.
func (t *track) hold(p *rtp.Packet, s stamp) {
	if !t.pending {
		t.pending, t.at, t.stamp = true, p.Timestamp, s
	}
}

// damaged forgets the unit in the making and leaves out the rest of the one the packet belongs to.
func (t *track) damaged(p *rtp.Packet) {
	t.lost, t.pending = true, false
	t.skip, t.skipped = true, p.Timestamp
	_ = t.reset() // it was made once with the same parameters
}

func (t *track) units(au [][]byte, s stamp) []media.Unit {
	lost := t.lost
	t.lost = false
	if t.media.Video() {
		return []media.Unit{{PTS: s.pts, NTP: s.ntp, Lost: lost, Data: au}}
	}
	var units []media.Unit
	var after time.Duration
	for i, frame := range au {
		u := media.Unit{PTS: s.pts + after, Lost: lost && i == 0, Data: [][]byte{frame}}
		if !s.ntp.IsZero() {
			u.NTP = s.ntp.Add(after)
		}
		units = append(units, u)
		after += t.length(frame)
	}
	return units
}

func (t *track) length(frame []byte) time.Duration {
	if t.media.Codec == media.Opus {
		return t.duration(opus.PacketDuration2(frame))
	}
	return t.duration(mpeg4audio.SamplesPerAccessUnit)
}

func more(err error) bool {
	return errors.Is(err, rtph264.ErrMorePacketsNeeded) || errors.Is(err, rtph265.ErrMorePacketsNeeded) ||
		errors.Is(err, rtpmpeg4audio.ErrMorePacketsNeeded)
}

// nonStarting reports whether the packet goes on with a unit that started before the session.
func nonStarting(err error) bool {
	return errors.Is(err, rtph264.ErrNonStartingPacketAndNoPrevious) ||
		errors.Is(err, rtph265.ErrNonStartingPacketAndNoPrevious)
}
