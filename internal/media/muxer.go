package media

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"

	"github.com/branchline-video/branchline"
)

// The lengths that a zero MuxerConfig stands for.
const (
	DefaultSegmentLength  = time.Minute
	DefaultFragmentLength = 500 * time.Millisecond
)

// MaxFragmentBytes bounds a fragment, which is held in memory as a whole by whoever records or sends
// it: half a second at 200 Mbit/s is 12 MiB.
const MaxFragmentBytes = 15 << 20

// AccessUnit is one coded picture or audio frame. Muxer keeps Data's bytes only as copies.
type AccessUnit struct {
	Track    int           // from 1
	PTS, DTS time.Duration // since the run's start
	Key      bool          // random access point of a video track
	Data     [][]byte      // NAL units without start codes; or one raw audio frame
	Wall     time.Time     // wall time of capture as well as it is known; zero: the run's clock
}

// SealRequest is what a segment's footer is made of. The receiver does not change or keep it.
type SealRequest struct {
	ID        branchline.SegmentID
	Stream    branchline.StreamID
	Run       uint64
	Number    uint32
	Span      branchline.TimeRange
	Codecs    string
	Init      []byte
	Fragments []branchline.Fragment
	Prev      branchline.Hash
}

// Format makes the boxes that segments carry beside media. All fields but NewID are required.
type Format struct {
	// Checksum returns the box after a fragment's mdat, from the bytes before it.
	Checksum func(head []byte, parts ...[]byte) []byte
	// Seal returns a segment's footer box and its hash.
	Seal func(SealRequest) ([]byte, branchline.Hash, error)
	// NewID names segments; nil means branchline.NewSegmentID.
	NewID func(start time.Time) branchline.SegmentID
}

// MuxerConfig describes one run.
type MuxerConfig struct {
	Stream         branchline.StreamID
	Run            uint64
	Start          time.Time // wall time of the access units' time zero
	Tracks         []Track
	SegmentLength  time.Duration // zero means DefaultSegmentLength
	FragmentLength time.Duration // at most; zero means DefaultFragmentLength
	Prev           branchline.Hash
	Format         Format
}

// Muxer makes one run's items from its access units. It is not safe for concurrent use.
type Muxer struct {
	cfg    MuxerConfig
	init   []byte
	codecs string
	lead   int     // index of the lead track
	base   []int64 // of each track: the tick of time zero
	last   []int64 // of each track: decode time of its newest sample
	step   int64   // of the lead track: its newest duration

	ending   bool   // the segment ends at the next random access point, however short it is
	number   uint32 // of the next segment
	sequence uint32 // of the newest fragment
	segment  *segment
	frag     fragment
}

type segment struct {
	start     branchline.SegmentStart
	shown     int64 // presentation time of the first frame, in lead ticks
	size      int64
	fragments []branchline.Fragment
}

// fragment is the one in the making.
type fragment struct {
	start   int64 // lead tick
	wall    time.Time
	key     bool
	bytes   int
	samples [][]sample // of each track
}

// NewMuxer returns a muxer for one run. It fails if a track's codec parameters cannot be read.
func NewMuxer(cfg MuxerConfig) (*Muxer, error) {
	if len(cfg.Tracks) == 0 || len(cfg.Tracks) > MaxTracks {
		return nil, fmt.Errorf("start run with %d tracks: %w", len(cfg.Tracks), branchline.ErrInvalid)
	}
	if cfg.SegmentLength == 0 {
		cfg.SegmentLength = DefaultSegmentLength
	}
	if cfg.FragmentLength == 0 {
		cfg.FragmentLength = DefaultFragmentLength
	}
	if cfg.Format.NewID == nil {
		cfg.Format.NewID = branchline.NewSegmentID
	}
	init, err := marshalInit(cfg.Tracks)
	if err != nil {
		return nil, err
	}
	codecs, err := Codecs(init)
	if err != nil {
		return nil, err
	}
	m := &Muxer{cfg: cfg, init: init, codecs: codecs, lead: lead(cfg.Tracks)}
	for _, t := range cfg.Tracks {
		m.base = append(m.base, ticksFrom(cfg.Start, t.ClockRate))
	}
	m.last = make([]int64, len(cfg.Tracks))
	m.frag.samples = make([][]sample, len(cfg.Tracks))
	return m, nil
}

// Write adds an access unit and returns the items that it completes; its frame is always the last
// of them. A decode time that does not grow is moved behind its track's newest. What comes before the
// lead track's first random access point is dropped.
func (m *Muxer) Write(au AccessUnit) ([]branchline.Item, error) {
	i := au.Track - 1
	if i < 0 || i >= len(m.cfg.Tracks) {
		return nil, fmt.Errorf("write to track %d of %d: %w", au.Track, len(m.cfg.Tracks), branchline.ErrInvalid)
	}
	s, err := m.sample(i, au)
	if err != nil {
		return nil, err
	}
	var items []branchline.Item
	if i == m.lead {
		if items, err = m.turn(s, au.Wall); err != nil {
			return nil, err
		}
	}
	if m.segment == nil {
		return nil, nil
	}
	first := i == m.lead && len(m.frag.samples[i]) == 0
	m.frag.samples[i] = append(m.frag.samples[i], s)
	m.frag.bytes += len(s.data)
	m.last[i] = s.dts
	rate := m.cfg.Tracks[i].ClockRate
	return append(items, branchline.Item{Segment: m.segment.start.ID, Frame: &branchline.Frame{
		Track: au.Track, DTS: timeAt(s.dts, rate), PTS: timeAt(s.pts, rate),
		Key: au.Key, FirstKey: first && m.frag.key, Data: s.data,
	}}), nil
}

// EndSegment makes the open segment end at the next random access point.
func (m *Muxer) EndSegment() { m.ending = m.segment != nil }

// End returns the decode time up to which the run is known to reach.
func (m *Muxer) End() time.Time {
	return timeAt(m.last[m.lead]+m.step, m.cfg.Tracks[m.lead].ClockRate)
}

// Close completes and seals what is open and ends the run. The muxer is of no use afterwards.
func (m *Muxer) Close(cause branchline.Cause) ([]branchline.Item, error) {
	return m.closeAt(m.End(), cause)
}

// closeAt is Close for a run that another one follows at the given time.
func (m *Muxer) closeAt(end time.Time, cause branchline.Cause) ([]branchline.Item, error) {
	rate := m.cfg.Tracks[m.lead].ClockRate
	var items []branchline.Item
	if m.segment != nil {
		tick := max(ticksAt(end, rate), m.last[m.lead]+1)
		end = timeAt(tick, rate)
		var err error
		if items, err = m.seal(m.finish(items, tick)); err != nil {
			return nil, err
		}
	}
	return append(items, branchline.Item{RunEnd: &branchline.RunEnd{Run: m.cfg.Run, At: end, Cause: cause}}), nil
}

func (m *Muxer) sample(i int, au AccessUnit) (sample, error) {
	t := m.cfg.Tracks[i]
	s := sample{dts: m.base[i] + ticks(au.DTS, t.ClockRate), pts: m.base[i] + ticks(au.PTS, t.ClockRate), key: au.Key}
	s.dts = max(s.dts, m.last[i]+1)
	if !t.Video() {
		if len(au.Data) != 1 {
			return s, fmt.Errorf("write %d audio frames at once: %w", len(au.Data), branchline.ErrInvalid)
		}
		s.pts, s.data = s.dts, append([]byte(nil), au.Data[0]...)
		return s, nil
	}
	data, err := h264.AVCC(au.Data).Marshal()
	s.data = data
	return s, err
}

// turn ends the fragment, and the segment, that the lead track's next sample does not belong to, and
// starts the next.
func (m *Muxer) turn(s sample, wall time.Time) (items []branchline.Item, err error) {
	key := s.key || !m.cfg.Tracks[m.lead].Video()
	open := len(m.frag.samples[m.lead]) > 0
	if open {
		m.step = s.dts - m.last[m.lead]
	}
	due := key && m.segment != nil &&
		(m.ending || s.pts-m.segment.shown >= ticks(m.cfg.SegmentLength, m.rate()))
	switch {
	case m.segment == nil && !key:
		return nil, nil
	case open && !due && !m.cut(s, key):
		return nil, nil
	}
	if open {
		items = m.finish(items, s.dts)
	}
	if due {
		if items, err = m.seal(items); err != nil {
			return nil, err
		}
	}
	if m.segment == nil {
		items = append(items, m.begin(s))
	}
	if wall.IsZero() {
		wall = timeAt(s.dts, m.rate())
	}
	m.frag.start, m.frag.wall, m.frag.key = s.dts, wall, key
	return items, nil
}

func (m *Muxer) rate() int { return m.cfg.Tracks[m.lead].ClockRate }

// cut decides where fragments end: before a sample that would make one too long or too large, and at
// random access points, but not so often that short groups of pictures make tiny fragments.
func (m *Muxer) cut(s sample, key bool) bool {
	length := ticks(m.cfg.FragmentLength, m.rate())
	so := s.dts - m.frag.start
	video := m.cfg.Tracks[m.lead].Video()
	return so+m.step > length || m.frag.bytes+len(s.data) > MaxFragmentBytes ||
		key && video && (!m.frag.key || so >= length/2)
}

func (m *Muxer) begin(s sample) branchline.Item {
	start := timeAt(s.dts, m.rate())
	m.segment = &segment{shown: s.pts, size: int64(len(m.init)), start: branchline.SegmentStart{
		ID: m.cfg.Format.NewID(start), Stream: m.cfg.Stream, Run: m.cfg.Run, Number: m.number,
		Start: start, Codecs: m.codecs, Init: m.init,
	}}
	m.number++
	return branchline.Item{Segment: m.segment.start.ID, Start: &m.segment.start}
}

// finish completes the open fragment; end is the decode time of what follows on the lead track.
func (m *Muxer) finish(items []branchline.Item, end int64) []branchline.Item {
	var parts []part
	var data [][]byte
	for i, samples := range m.frag.samples {
		if len(samples) == 0 {
			continue
		}
		p := part{id: i + 1, samples: samples, end: end, sync: !m.cfg.Tracks[i].Video()}
		if i != m.lead {
			last := samples[len(samples)-1]
			p.end = last.dts + max(m.cfg.Tracks[i].nominal(last.data), 1)
		}
		for _, s := range samples {
			data = append(data, s.data)
		}
		parts = append(parts, p)
	}
	m.sequence++
	head := appendPrft(make([]byte, 0, prftSize+headSize(parts)), m.lead+1, m.frag.wall, m.frag.start)
	head = appendHead(head, m.sequence, parts)
	tail := m.cfg.Format.Checksum(head, data...)
	f := m.row(head, data, tail)
	f.Duration = timeAt(end, m.rate()).Sub(f.Start)
	m.segment.fragments = append(m.segment.fragments, f)
	m.segment.size += f.Length
	m.frag = fragment{samples: make([][]sample, len(m.cfg.Tracks))}
	return append(items, branchline.Item{
		Segment: m.segment.start.ID, Fragment: &branchline.FragmentEnd{Fragment: f, Head: head, Tail: tail},
	})
}

// row describes the finished fragment, but for its duration.
func (m *Muxer) row(head []byte, data [][]byte, tail []byte) branchline.Fragment {
	f := branchline.Fragment{
		Offset: m.segment.size, Length: int64(len(head) + len(tail)),
		Start: timeAt(m.frag.start, m.rate()), Key: m.frag.key,
	}
	sum := sha256.New()
	sum.Write(head)
	for _, d := range data {
		sum.Write(d)
		f.Length += int64(len(d))
	}
	sum.Write(tail)
	sum.Sum(f.Hash[:0])
	return f
}

func (m *Muxer) seal(items []branchline.Item) ([]branchline.Item, error) {
	s := m.segment
	end := s.fragments[len(s.fragments)-1].Span().End
	footer, hash, err := m.cfg.Format.Seal(SealRequest{
		ID: s.start.ID, Stream: s.start.Stream, Run: s.start.Run, Number: s.start.Number,
		Span:   branchline.TimeRange{Start: s.start.Start, End: end},
		Codecs: s.start.Codecs, Init: m.init, Fragments: s.fragments, Prev: m.cfg.Prev,
	})
	if err != nil {
		return nil, fmt.Errorf("seal segment %s: %w", s.start.ID, err)
	}
	m.cfg.Prev, m.segment, m.ending = hash, nil, false
	return append(items, branchline.Item{Segment: s.start.ID, Seal: &branchline.SegmentSeal{
		ID: s.start.ID, Hash: hash, Footer: footer, Size: s.size + int64(len(footer)),
	}}), nil
}
