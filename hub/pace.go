package hub

import "time"

// behindLimit is how late a recorded stream may come to be watched as it comes.
const behindLimit = time.Second

// pace tells by how much a stream has fallen behind. It compares the clocks of two machines with what they were at its
// best, within a run.
type pace struct {
	run    uint64
	ended  bool          // the run has
	known  bool          // least is
	least  time.Duration // by which a frame came after its time
	since  time.Time     // the present subscription began
	newest time.Time     // frame's decode time; zero: none has come in it
	gap    time.Duration // between the newest frames
}

// begin notes a subscription. One that is watched waits for nothing, so that its clocks can be compared anew.
func (p *pace) begin(now time.Time, watched bool) {
	p.since, p.newest, p.gap = now, time.Time{}, 0
	p.known = p.known && !watched
}

// start notes a segment. The clock of another run may be another one.
func (p *pace) start(run uint64) {
	if run != p.run {
		*p = pace{run: run, since: p.since}
	}
	p.ended = false
}

func (p *pace) see(now, frame time.Time) {
	if late := now.Sub(frame); !p.known || late < p.least {
		p.least = late
	}
	if !p.newest.IsZero() {
		p.gap = max(frame.Sub(p.newest), 0)
	}
	p.known, p.newest = true, frame
}

func (p *pace) behind(now time.Time) bool {
	switch {
	case p.ended:
		return false
	case p.newest.IsZero():
		return now.Sub(p.since) > behindLimit
	}
	return now.Sub(p.newest)-p.least-p.gap > behindLimit
}
