package link

import (
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
	// A trial is judged by what it brought in measureTime, after settleTime and settleTrips round trips: new
	// connections have to be made, and streams opened on them.
	measureTime = 500 * time.Millisecond
	settleTime  = 250 * time.Millisecond
	settleTrips = 4
	// So long no trial is made after one that brought nothing, doubled each time.
	firstHold = 10 * time.Second
	maxHold   = 2 * time.Minute
	// A bundle that has not been limited for idleAfter is halved, and again every halveEvery.
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
	// heavyLoss is the share lost from which on a trial goes far at once.
	heavyLoss = 0.003
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
// One more connection helps where random loss keeps every window small and no queue tells that the path is
// full. Whether it has helped is measured, and what brought nothing is taken back. That is also how it
// comes down from too many: now and then it tries with fewer.
type sizing struct {
	want int

	now    time.Duration // since the first step
	calm   time.Duration // for so long nothing was limited
	hungry time.Duration // for so long windows were what limited, and the path was not full
	best   int           // connections that last brought more than fewer did: where the next trial goes at once
	lossy  time.Duration // until when the last loss is remembered
	sent   float64       // measured bytes that arrived, over
	lost   float64       // meanwhile
	over   time.Duration
	since  time.Duration // the measuring begins
	from   int           // connections before the trial that goes on; 0: none does
	before float64       // bytes per second, with them
	hold   time.Duration // no trial before
	fewer  time.Duration // no trial with fewer before
	pause  time.Duration // the next hold
}

// step returns the decision after one more look at all connections.
func (s sizing) step(past time.Duration, conns []sample) sizing {
	s.want, s.pause = max(s.want, 1), max(s.pause, firstHold)
	s.now += past
	p := survey(conns)
	if p.lost > 0 {
		s.lossy = s.now + lossMemory
	}
	if p.limited {
		s.calm = 0
	} else {
		s.calm += past
	}
	if s.hungry += past; !p.limited || p.full {
		s.hungry = 0
	}
	if s.now > s.since {
		s.sent += p.arrived
		s.lost += p.lost
		s.over += past
	}
	least := 1
	if p.arrived/past.Seconds() >= busyRate && s.now < s.lossy {
		least = 2
	}
	switch {
	case s.calm >= idleAfter && s.want > least:
		s.from, s.calm = 0, idleAfter-halveEvery
		return s.to(max(s.want/2, least), p.rtt)
	case s.want < least && s.from == 0:
		return s.to(least, p.rtt)
	case s.from == 0 && p.limited && !p.full && s.want < s.best && s.over > 0 && s.now >= s.hold:
		return s.try(s.best, p.rtt) // it has been idle
	case s.over < measureTime:
		return s
	case s.from > 0:
		return s.judge(p)
	case !p.limited || s.now < s.hold:
		return s.measure(s.now)
	case !p.full && (s.now < s.lossy || s.hungry >= starvedAfter) && s.want < MaxConnections && len(conns) >= s.want:
		return s.try(min(max(s.times()*s.want, s.best), MaxConnections), p.rtt)
	case p.full && s.want > 2 && s.now >= s.fewer:
		return s.try(s.want*3/4, p.rtt)
	}
	return s.measure(s.now)
}

// times is how many times as many connections are tried.
func (s sizing) times() int {
	if s.lost > s.sent*heavyLoss {
		return 8
	}
	return 4
}

// try begins a trial with n connections.
func (s sizing) try(n int, rtt time.Duration) sizing {
	s.from, s.before = s.want, s.sent/s.over.Seconds()
	return s.to(n, rtt)
}

func (s sizing) to(n int, rtt time.Duration) sizing {
	s.want = n
	return s.measure(s.now + settleTime + settleTrips*rtt)
}

func (s sizing) measure(since time.Duration) sizing {
	s.since, s.sent, s.lost, s.over = since, 0, 0, 0
	return s
}

// judge ends the trial: more connections stay if each brought at least a tenth of what one had, fewer if
// nearly nothing was lost by it.
func (s sizing) judge(p path) sizing {
	gain := s.sent / s.over.Seconds() / max(s.before, 1)
	ratio := float64(s.want) / float64(s.from)
	from := s.from
	s.from = 0
	if ratio > 1 && gain >= 1+(ratio-1)/10 || ratio < 1 && gain >= 0.97 {
		s.best = s.want
		if ratio > 1 {
			s.pause, s.fewer = firstHold, s.now+firstHold
		} else {
			s.hold = s.now + firstHold
		}
		return s.measure(s.now)
	}
	s.best, s.hold = 0, s.now+s.pause
	s.pause = min(2*s.pause, maxHold)
	if ratio > 2 && gain >= 1.1 { // it was too much of a good thing
		from *= 2
	}
	return s.to(from, p.rtt)
}

// path is what all connections tell together.
type path struct {
	arrived, lost float64
	rtt           time.Duration // the median
	limited, full bool
}

func survey(conns []sample) path {
	var p path
	var best time.Duration
	limited := 0
	trips := make([]time.Duration, len(conns))
	for i, c := range conns {
		p.arrived += max(c.sent-c.lost, 0)
		p.lost += c.lost
		if c.limited {
			limited++
		}
		if trips[i] = c.rtt; c.best > 0 && (best == 0 || c.best < best) {
			best = c.best
		}
	}
	if len(conns) == 0 {
		return p
	}
	slices.Sort(trips)
	p.rtt = trips[len(trips)/2]
	p.limited = 2*limited >= len(conns)
	p.full = best > 0 && p.rtt > best+max(best/fullShare, fullDelay)
	return p
}
