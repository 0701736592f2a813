package media

import (
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
)

// The limits of what a camera may do before its run, or its session, is ended.
const (
	// MaxHole is the longest step between two pictures, and from the newest picture to sound that goes
	// on without it: slow cameras send a picture every few seconds, a longer step is a loss.
	MaxHole = 5 * time.Second
	// MaxReorder is the farthest that a picture is shown from its decoding.
	MaxReorder = 2 * time.Second
	// MaxKeyWait is how long a session may go on without a random access point while none of its
	// frames can be used; a new session makes most cameras send one.
	MaxKeyWait = 30 * time.Second
	// MaxSegment ends a run whose segment cannot end for want of a random access point.
	MaxSegment = 10 * time.Minute
)

// Unit is an access unit as it came from a camera. The receiver keeps Data only as copies.
type Unit struct {
	Track   int           // from 1
	PTS     time.Duration // on the session's own clock, the same for all tracks
	NTP     time.Time     // time of capture by the camera's sender reports; zero while not known
	Arrived time.Time     // by this machine's clock
	Lost    bool          // units of this track were lost just before this one
	Data    [][]byte      // NAL units without start codes; or one raw audio frame
}

// Chain is where a stream's recording stands: what the next run continues.
type Chain struct {
	Run  uint64 // number of the newest run
	Prev branchline.Hash
	End  time.Time // decode time up to which the stream is recorded
}

// Counters tells what a Feed did not record.
type Counters struct {
	Frames  uint64 // recorded
	Dropped uint64 // received but not usable: before a random access point, or out of time
	Clamped uint64 // recorded with a corrected decode time
}

// FeedConfig describes one stream.
type FeedConfig struct {
	Stream         branchline.StreamID
	SegmentLength  time.Duration
	FragmentLength time.Duration
	Chain          Chain // where the stream stands
	Format         Format
}

// Feed makes a stream's items from the sessions with its camera, one after the other: it starts and
// ends runs, puts them on the time line, finds decode times, and drops what cannot be used. It is not
// safe for concurrent use.
type Feed struct {
	cfg      FeedConfig
	chain    Chain
	counters Counters

	tracks []Track // of the session, with the newest parameter sets
	lead   int
	follow time.Time     // end of a run that the next one continues without a hole; else zero
	since  time.Duration // session time of the first unit without a run; negative when not known
	run    *run          // nil between runs
}

// NewFeed returns a feed that has no session yet.
func NewFeed(cfg FeedConfig) *Feed { return &Feed{cfg: cfg, chain: cfg.Chain} }

// Chain returns where the stream stands.
func (f *Feed) Chain() Chain { return f.chain }

// Counters returns what was done so far.
func (f *Feed) Counters() Counters { return f.counters }

// Recording reports whether a run is open.
func (f *Feed) Recording() bool { return f.run != nil }

// EndSegment makes the open segment, if there is one, end at the next random access point: for a reader
// that cannot go on inside it.
func (f *Feed) EndSegment() {
	if f.run != nil {
		f.run.mux.EndSegment()
	}
}

// NotBefore makes the next run start at t or later, as the time before it is accounted for, unless
// the clock is back by more than [MaxCatchUp].
func (f *Feed) NotBefore(t time.Time) {
	if t.After(f.chain.End) {
		f.chain.End = t
	}
}

// Session prepares for a new session with the camera. The last one was ended with End. Of several
// video tracks only the first is of use to players; the caller leaves the others out.
func (f *Feed) Session(tracks []Track) {
	f.tracks, f.lead, f.since = append([]Track(nil), tracks...), lead(tracks), -1
}

// End ends the run, if one is open, and returns its last items.
func (f *Feed) End(cause branchline.Cause) ([]branchline.Item, error) {
	if f.run == nil {
		return nil, nil
	}
	return f.close(f.run.mux.End(), cause)
}

// Write takes the session's next unit. An error means that the session is of no use any more; the
// caller ends it.
func (f *Feed) Write(u Unit) ([]branchline.Item, error) {
	i := u.Track - 1
	if i < 0 || i >= len(f.tracks) {
		return nil, fmt.Errorf("write to track %d of %d: %w", u.Track, len(f.tracks), branchline.ErrInvalid)
	}
	if u.Data = withoutEmpty(u.Data); len(u.Data) == 0 {
		f.counters.Dropped++
		return nil, nil
	}
	u.Arrived, u.NTP = u.Arrived.Round(0), u.NTP.Round(0) // the time of day, without the monotonic clock
	if i == f.lead {
		return f.writeLead(u)
	}
	return f.writeOther(u)
}

func (f *Feed) writeLead(u Unit) (items []branchline.Item, err error) {
	t := &f.tracks[f.lead]
	key := !t.Video() || t.key(u.Data)
	changed := key && t.adopt(u.Data)
	if f.run != nil {
		if items, err = f.turn(u, key, changed); err != nil {
			return nil, err
		}
	}
	if f.run == nil {
		if err := f.open(u, key); err != nil || f.run == nil {
			return items, err
		}
	}
	more, err := f.run.write()
	if err != nil {
		return nil, err
	}
	f.counters.Frames++
	f.chain.End = f.run.mux.End()
	return append(items, more...), nil
}

// turn ends the run before a unit of the lead track that cannot be part of it.
func (f *Feed) turn(u Unit, key, changed bool) ([]branchline.Item, error) {
	r := f.run
	fits, clamped := r.place(u, key, f.tracks[f.lead])
	if clamped {
		f.counters.Clamped++
	}
	switch {
	case u.Lost || !fits || r.next.DTS-r.key > MaxSegment:
		return f.close(r.mux.End(), branchline.CauseDamaged)
	case changed:
		items, err := f.close(r.timeOf(u.PTS), "")
		f.follow = f.chain.End
		return items, err
	case key && r.parted:
		return f.close(r.mux.End(), branchline.CauseClockStep)
	}
	return nil, nil
}

// open starts a run at the unit, if it can start one.
func (f *Feed) open(u Unit, key bool) error {
	if f.since < 0 {
		f.since = u.PTS
	}
	start, ready := f.anchor(u)
	if !key || !ready || !f.complete() {
		f.counters.Dropped++
		if u.PTS-f.since > MaxKeyWait {
			return fmt.Errorf("wait for a random access point for %v: %w", u.PTS-f.since, branchline.ErrUnavailable)
		}
		return nil
	}
	mux, err := NewMuxer(MuxerConfig{
		Stream: f.cfg.Stream, Run: f.chain.Run + 1, Start: start, Tracks: append([]Track(nil), f.tracks...),
		SegmentLength: f.cfg.SegmentLength, FragmentLength: f.cfg.FragmentLength,
		Prev: f.chain.Prev, Format: f.cfg.Format,
	})
	if err != nil {
		return err
	}
	f.chain.Run++
	f.since, f.follow = -1, time.Time{}
	f.run = &run{mux: mux, start: start, zero: u.PTS}
	f.run.place(u, key, f.tracks[f.lead])
	return nil
}

// anchor returns the time at which a run starts with the unit, and whether it may start yet.
func (f *Feed) anchor(u Unit) (start time.Time, ready bool) {
	wall, _ := wallTime(u)
	if f.follow.Equal(f.chain.End) && !f.follow.IsZero() {
		return f.chain.End, true
	}
	ahead := f.chain.End.Sub(wall)
	return wall, ahead <= 0 || ahead > MaxCatchUp
}

func (f *Feed) complete() bool {
	for _, t := range f.tracks {
		if !t.complete() {
			return false
		}
	}
	return true
}

// close ends the run at the given time. Its last item is the RunEnd even if there is an error.
func (f *Feed) close(end time.Time, cause branchline.Cause) ([]branchline.Item, error) {
	mux := f.run.mux
	f.run = nil
	items, err := mux.closeAt(end, cause)
	if err != nil {
		last := &branchline.RunEnd{Run: mux.cfg.Run, At: mux.End(), Cause: cause}
		items = []branchline.Item{{RunEnd: last}}
	}
	f.chain.Prev = mux.cfg.Prev
	f.chain.End = items[len(items)-1].RunEnd.At
	return items, err
}

func (f *Feed) writeOther(u Unit) ([]branchline.Item, error) {
	r := f.run
	if r == nil || u.PTS < r.zero || f.tracks[u.Track-1].Video() {
		f.counters.Dropped++
		return nil, nil
	}
	at := u.PTS - r.zero
	switch {
	case at > r.next.DTS+MaxHole:
		f.counters.Dropped++
		return f.close(r.mux.End(), branchline.CauseDamaged)
	case at < r.next.DTS-MaxHole:
		f.counters.Dropped++
		return nil, nil
	}
	f.counters.Frames++
	return r.mux.Write(AccessUnit{Track: u.Track, PTS: at, DTS: at, Data: u.Data})
}

func withoutEmpty(au [][]byte) [][]byte {
	full := make([][]byte, 0, len(au))
	for _, nalu := range au {
		if len(nalu) > 0 {
			full = append(full, nalu)
		}
	}
	return full
}
