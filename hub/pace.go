package hub

import "time"

// behindLimit is how late a recorded stream may come to be watched as it comes.
const behindLimit = time.Second

// pace tells by how much a stream has fallen behind. It compares the clocks of two machines with what they were at its
// best, within a run.
type pace struct {
	ended  bool          // the run has; the next one's clock may be another
	known  bool          // least is
	least  time.Duration // by which a frame came after its time
	since  time.Time     // the present subscription began
	newest time.Time     // frame's decode time; zero: none has come in it
	gap    time.Duration // between the newest frames
}

func (p *pace) begin(now time.Time) { p.since, p.newest, p.gap = now, time.Time{}, 0 }

func (p *pace) see(now, frame time.Time) {
	if late := now.Sub(frame); !p.known || late < p.least {
		p.least = late
	}
	if !p.newest.IsZero() {
		p.gap = max(frame.Sub(p.newest), 0)
	}
	p.ended, p.known, p.newest = false, true, frame
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
