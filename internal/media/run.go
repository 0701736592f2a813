package media

import (
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"

	"github.com/branchline-video/branchline"
)

// The limits of a run's time line.
const (
	// MaxDrift is how far media clock and wall clock may part inside a run.
	MaxDrift = 500 * time.Millisecond
	// MaxSkew is how far a sender report may be from this machine's clock to be believed.
	MaxSkew = 3 * time.Second
	// MaxCatchUp is how much is dropped where a run would start before the end of the last one,
	// until wall time has caught up. A clock that is back by more was wrong before, so the new run
	// starts at once, by the new time; where both recorded a time, runs are told apart by their number.
	MaxCatchUp = 10 * time.Second
	// driftWindow is how long arrivals must be late to mean the clock and not the network.
	driftWindow = 5 * time.Second
)

// run is a muxer with its place on the time line.
type run struct {
	mux    *Muxer
	start  time.Time     // wall time of the run's time zero
	zero   time.Duration // session time of the same
	dts    extractor
	placed bool          // next is set
	next   AccessUnit    // what place made of the lead track's newest unit
	key    time.Duration // when the newest random access point was

	arrival, ntp drift
	parted       bool // media clock and wall clock have parted; the run ends at the next key
}

// timeOf returns where a session time lies on the run's time line.
func (r *run) timeOf(pts time.Duration) time.Time { return r.start.Add(pts - r.zero) }

// place makes an access unit of the lead track's next unit. It reports whether that can be part of
// the run, and whether its decode time had to be corrected.
func (r *run) place(u Unit, key bool, t Track) (fits, clamped bool) {
	pts := u.PTS - r.zero
	dts, ok := r.dts.extract(t, u.Data, key, pts)
	if r.placed && dts <= r.next.DTS {
		dts, ok = r.next.DTS+time.Millisecond, false
	}
	fits = !r.placed || dts-r.next.DTS <= MaxHole && (dts-pts).Abs() <= MaxReorder
	if key {
		r.key = dts
	}
	wall, byCamera := wallTime(u)
	if r.arrival.observe(u.Arrived.Sub(r.start)-dts, dts) ||
		byCamera && r.ntp.observe(wall.Sub(r.start)-pts, dts) {
		r.parted = true
	}
	r.placed = true
	r.next = AccessUnit{Track: u.Track, PTS: pts, DTS: dts, Key: key && t.Video(), Data: u.Data, Wall: wall}
	return fits, !ok
}

// write gives the unit that place made to the muxer.
func (r *run) write() ([]branchline.Item, error) { return r.mux.Write(r.next) }

// wallTime returns the time of capture: by the camera's sender reports where they are sane, else by
// the arrival here.
func wallTime(u Unit) (wall time.Time, byCamera bool) {
	if !u.NTP.IsZero() && u.NTP.Sub(u.Arrived).Abs() <= MaxSkew {
		return u.NTP, true
	}
	return u.Arrived, false
}

// drift watches the distance between a wall clock and a run's time line.
type drift struct {
	set       bool
	base, low time.Duration // distance at first, and the least one of the window
	until     time.Duration // end of the window
}

// observe takes a distance at a time of the run, and reports whether the clocks have parted. A distance
// shrinks only by a clock; it grows by a slow network too, for which a whole window must be over.
func (d *drift) observe(distance, at time.Duration) bool {
	if !d.set {
		*d = drift{set: true, base: distance, low: distance, until: at + driftWindow}
	}
	if distance < d.base-MaxDrift {
		return true
	}
	d.low = min(d.low, distance)
	if at < d.until {
		return false
	}
	parted := d.low > d.base+MaxDrift
	d.low, d.until = distance, at+driftWindow
	return parted
}

// extractor finds decode times. The zero value is ready.
type extractor struct {
	h264 *h264.DTSExtractor
	h265 *h265.DTSExtractor
}

// extract returns the decode time of an access unit that is shown at pts, and whether it could be
// found; if not it is pts. The library wants parameter sets in band, which many cameras send only in
// the session description.
func (e *extractor) extract(t Track, au [][]byte, key bool, pts time.Duration) (time.Duration, bool) {
	if key {
		au = append(t.parameters(), au...)
	}
	var dts int64
	var err error
	switch t.Codec {
	case H264:
		if e.h264 == nil {
			e.h264 = &h264.DTSExtractor{}
			e.h264.Initialize()
		}
		dts, err = e.h264.Extract(au, ticks(pts, VideoClockRate))
	case H265:
		if e.h265 == nil {
			e.h265 = &h265.DTSExtractor{}
			e.h265.Initialize()
		}
		dts, err = e.h265.Extract(au, ticks(pts, VideoClockRate))
	default:
		return pts, true
	}
	if err != nil {
		return pts, false
	}
	return time.Duration(dts/VideoClockRate)*time.Second +
		time.Duration(dts%VideoClockRate)*time.Second/VideoClockRate, true
}
