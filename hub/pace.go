package hub

import "time"

// behindLimit is how late a recorded stream may come to be watched as it comes.
const behindLimit = time.Second

// pace tells by how much a stream has fallen behind. It compares the clocks of two machines with what they were at its
// best.
type pace struct {
	since  time.Time     // it was asked for
	newest time.Time     // frame's decode time; zero: none has come
	gap    time.Duration // between the newest frames
	least  time.Duration // by which a frame came after its time
}

func (p *pace) see(now, frame time.Time) {
	if late := now.Sub(frame); p.newest.IsZero() || late < p.least {
		p.least = late
	}
	if !p.newest.IsZero() {
		p.gap = max(frame.Sub(p.newest), 0)
	}
	p.newest = frame
}

func (p *pace) behind(now time.Time) bool {
	if p.newest.IsZero() {
		return now.Sub(p.since) > behindLimit
	}
	return now.Sub(p.newest)-p.least-p.gap > behindLimit
}
