package link

import (
	"math"
	"slices"
	"time"
)

const (
	// sizeEvery is how often a bundle is looked at.
	sizeEvery = 250 * time.Millisecond
	// limitedShare is the share of its window that a connection has to use for the window to be what
	// limits it.
	limitedShare = 0.5
	// A path is full when packets wait in a queue of it: when the round trip takes longer than the best by a
	// third and by at least fullDelay. More connections would only make the queue longer.
	fullDelay = 15 * time.Millisecond
	fullShare = 3
	// New connections carry what they can settleTime and settleTrips round trips after they were made, which is
	// waited for so long as joinPatience, for three of four.
	settleTime   = 50 * time.Millisecond
	settleTrips  = 2
	joinPatience = 3 * time.Second
	// A single connection is joined by as many more at first, at a share lost from heavyLoss on so many; but by no
	// more than so many that their handshakes, of joinCost bytes each, are what the path brings in joinShare.
	firstTimes = 4
	heavyTimes = 16
	heavyLoss  = 0.003
	fewPackets = 3 // lost, which say nothing yet
	joinCost   = 4 << 10
	joinShare  = 500 * time.Millisecond
	// burstLoss is the share of what was sent, and burstPackets how many, that are not lost at once by chance.
	// There is no growth for cutHold after one, as windows are small then and grow by themselves.
	burstLoss    = 0.1
	burstPackets = 8
	cutHold      = 3 * time.Second
	fullHold     = time.Second
	// mathis is how many packets a window has on average at a loss of one: the square root of 3/2, as in Mathis
	// et al., The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm, 1997. spare is what the
	// connections should be able to carry of what the path was seen to bring at most, as that shrinks by topLoss
	// a second.
	mathis  = 1.22
	spare   = 1.25
	topLoss = 0.03
	// rateTime and lossTime are over what rate and loss are averaged.
	rateTime = 500 * time.Millisecond
	lossTime = 8 * time.Second
	// Loss that has grown by worseTimes and worseLoss with more connections, which brought less than worseGain,
	// is not by chance: the path drops what is beyond its rate, without a queue. So they are taken back, and
	// there are no more for firstHold, doubled each time.
	worseTimes = 2
	worseLoss  = 0.005
	worseGain  = 1.25
	firstHold  = 10 * time.Second
	maxHold    = 2 * time.Minute
	// Of connections that are not needed a third is given up every trimEvery. A bundle that has not been limited
	// for idleAfter is halved, and again every halveEvery.
	trimEvery  = 3 * time.Second
	idleAfter  = 3 * time.Second
	halveEvery = time.Second
	// busyRate, in bytes per second, is what a picture needs at least. While so much is sent over a path that
	// has lost something within lossMemory there are two connections, so that the loss of one does not hold up
	// the other.
	busyRate   = 16 << 10
	lossMemory = 30 * time.Second
	// starvedAfter is how long windows may be what limits a path that is not full, and loses nothing now: a
	// window that was once cut grows by a packet in a round trip, and a fresh one doubles.
	starvedAfter = 2 * time.Second
)

// sample is what went over one connection between two looks.
type sample struct {
	sent, lost, window float64 // bytes
	rtt, best          time.Duration
	limited            bool // its window was what limited it
}

// sizing decides how many connections a bundle should have. It is a value: step returns the next one, and
// depends on nothing else. The zero value wants one connection, from the first step on.
//
// Loss by chance keeps every window small, and no queue tells that the path is full. How much one connection
// carries then is known, and so is what the path has brought at most: that many are made.
type sizing struct {
	want int

	now    time.Duration // since the first step
	calm   time.Duration // for so long nothing was limited
	hungry time.Duration // for so long windows were what limited, and the path was not full
	lossy  time.Duration // until when the last loss is remembered
	rate   float64       // at which bytes arrive, a second
	top    float64       // the most of it
	sent   float64       // bytes of late
	lost   float64       // of them
	next   time.Duration // no change before: the last one has still to be seen
	late   time.Duration // until when connections are waited for
	best   int           // connections that it had before it was idle
	from   int           // connections before the last growth; 0: that was good
	before float64       // the rate then
	share  float64       // lost, then
	hold   time.Duration // no growth before
	pause  time.Duration // the next hold
}

// step returns the decision after one more look at all connections.
func (s sizing) step(past time.Duration, conns []sample) sizing {
	s.want, s.pause = max(s.want, 1), max(s.pause, firstHold)
	p := survey(conns)
	s = s.see(past, p)
	least := 1
	if p.arrived/past.Seconds() >= busyRate && s.now < s.lossy {
		least = 2
	}
	made := len(conns) >= s.want-s.want/4
	if !made && s.now < s.late {
		s.next = s.now + settled(p.rtt)
	}
	switch {
	case s.calm >= idleAfter && s.want > least:
		s.calm, s.from, s.best = idleAfter-halveEvery, 0, max(s.best, s.want)
		return s.to(max(s.want/2, least), p.rtt)
	case s.want < least && !p.limited:
		return s.to(least, p.rtt)
	case s.want < s.best && s.now < s.lossy && p.limited && !p.full:
		return s.to(s.best, p.rtt)
	case s.now < s.next:
		return s
	case s.from > 0 && s.worse(p):
		s.hold, s.best = s.now+s.pause, 0
		s.pause = min(2*s.pause, maxHold)
		from := s.from
		s.from = 0
		return s.to(from, p.rtt)
	}
	if s.from > 0 {
		s.from, s.pause = 0, firstHold
	}
	need := s.need(p)
	switch {
	case made && s.more(p, need):
		s.from, s.before, s.share, s.hungry, s.best = s.want, s.rate, s.lossShare(), 0, 0
		s.sent, s.lost = s.sent/10, s.lost/10 // from now on it may be another
		return s.to(s.further(need), p.rtt)
	case s.want > max(need+need/2, least) && (p.full || s.now >= s.lossy):
		s = s.to(max(need, s.want*2/3, least), p.rtt)
		s.next = s.now + trimEvery
	}
	return s
}

// see takes in what was seen since the last look.
func (s sizing) see(past time.Duration, p path) sizing {
	s.now += past
	s.calm += past
	s.hungry += past
	if p.limited {
		s.calm = 0
	}
	if !p.limited || p.full {
		s.hungry = 0
	}
	// A burst is of a path that was cut, and not by chance.
	burst := p.lost > burstLoss*(p.arrived+p.lost) && p.lost > burstPackets*packetSize
	switch {
	case burst && p.full: // of the last growth
		s.hungry, s.hold = 0, max(s.hold, s.now+fullHold)
	case burst:
		s.hungry, s.hold = 0, max(s.hold, s.now+cutHold)
	case p.lost > 0:
		s.lossy = s.now + lossMemory
	}
	overflow := p.full && p.lost > (worseTimes*s.lossShare()+worseLoss)*p.arrived
	if !burst && !overflow {
		keep := math.Exp(-past.Seconds() / lossTime.Seconds())
		s.sent, s.lost = s.sent*keep+p.arrived+p.lost, s.lost*keep+p.lost
	}
	s.rate += (p.arrived/past.Seconds() - s.rate) * (1 - math.Exp(-past.Seconds()/rateTime.Seconds()))
	s.top = max(s.top*(1-topLoss*past.Seconds()), s.rate)
	return s
}

func (s sizing) lossShare() float64 { return s.lost / max(s.sent, 1) }

// need is how many connections carry what the path brings.
func (s sizing) need(p path) int {
	each := mathis * packetSize / p.best.Seconds() / math.Sqrt(s.lossShare())
	return int(min(math.Ceil(spare*s.top/max(each, 1)), MaxConnections))
}

// more reports whether more connections would bring more.
func (s sizing) more(p path, need int) bool {
	why := s.hungry >= starvedAfter || s.now < s.lossy && (s.want < need || !s.known())
	return p.limited && !p.full && s.now >= s.hold && why && s.want < MaxConnections
}

// known reports whether enough was lost to tell what a connection carries.
func (s sizing) known() bool { return s.lost > fewPackets*packetSize }

// further is how many connections there are after a growth.
func (s sizing) further(need int) int {
	n := 2 * s.want
	switch heavy := s.known() && s.lossShare() >= heavyLoss; {
	case heavy && s.want == 1:
		n = heavyTimes
	case heavy && s.want <= heavyTimes || s.want == 1:
		n = firstTimes * s.want
	case s.want > heavyTimes && need > s.want: // it has been seen what the path brings
		return need
	}
	affordable := int(s.top * joinShare.Seconds() / joinCost)
	return min(max(min(max(n, need), affordable), 2*s.want), MaxConnections)
}

// worse reports whether the last growth did nothing but make the path lose more.
func (s sizing) worse(p path) bool {
	share := s.lossShare()
	return !p.full && share > worseTimes*s.share && share > s.share+worseLoss && s.rate < worseGain*s.before
}

func (s sizing) to(n int, rtt time.Duration) sizing {
	s.want, s.late, s.next = n, s.now+joinPatience, s.now+settled(rtt)
	return s
}

// settled is how long it takes until new connections carry what they can.
func settled(rtt time.Duration) time.Duration { return settleTime + settleTrips*rtt }

// path is what all connections tell together.
type path struct {
	arrived, lost float64
	rtt, best     time.Duration // the median, and the least
	limited, full bool
}

func survey(conns []sample) path {
	var p path
	limited := 0
	trips := make([]time.Duration, 0, len(conns))
	for _, c := range conns {
		p.arrived += max(c.sent-c.lost, 0)
		p.lost += c.lost
		if c.limited {
			limited++
		}
		if c.best == 0 {
			continue // not measured yet
		}
		if trips = append(trips, c.rtt); p.best == 0 || c.best < p.best {
			p.best = c.best
		}
	}
	if len(trips) == 0 {
		return p
	}
	slices.Sort(trips)
	p.rtt = trips[len(trips)/2]
	p.limited = 2*limited >= len(conns)
	p.full = p.rtt > p.best+max(p.best/fullShare, fullDelay)
	return p
}
