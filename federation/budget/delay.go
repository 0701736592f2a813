package budget

import (
	"math"
	"time"
)

const (
	// A rate is looked at anew once a round: an idle round trip, but not more often than shortRound; sooner
	// when the queue is too long.
	shortRound = 25 * time.Millisecond
	// firstRate is that of an uplink of which nothing is known. It doubles every firstTrips idle round trips and two
	// shortRound, while it is what limits, until there is a queue of firstShare of what is aimed at: as much again
	// and more is under way then. Rounds are shorter meanwhile, firstParts in a round trip.
	firstRate  = 2e6 / 8
	firstTrips = 1.4
	firstShare = 1.0 / 3
	firstParts = 4
	// Later a rate grows by leastGain to mostGain at a time, and by afterGain at first. That is every other round, as
	// each step is waited for to be seen. leastRate is always tried, so that a rate comes back after the worst.
	leastRate = 64e3 / 8
	leastGain = 0.05
	afterGain = 0.15
	mostGain  = 0.35
	// nearLine is how near a rate is to what the line took when there was a queue last, as a share of that: there it
	// grows by leastGain, as the next queue is to be expected.
	nearLine = 0.25
	// Delay is aimed at queueShare of the idle round trip time, and never at less than leastQueue: below that
	// it is the noise of machines. On a path shorter than localPath there is no line of a branch in between:
	// it is let go without a rate until a queue of localQueue.
	queueShare = 0.3
	leastQueue = 4 * time.Millisecond
	localPath  = 2 * time.Millisecond
	localQueue = 25 * time.Millisecond
	// A rate above freeRate is no limit any more.
	freeRate = 2e9 / 8
	// The idle round trip time is the least of the last idleBuckets of idleBucket each. So that it is seen at
	// all, the rate is halved for two round trips every drainEvery.
	idleBucket  = 30 * time.Second
	idleBuckets = 4
	drainEvery  = 15 * time.Second
	// After so many rounds of slowing down in vain the path itself has become longer.
	longerAfter = 16
	// maxPast bounds what is remembered of the last moments: looks, some 20 ms apart, for a round trip of seconds.
	maxPast = 200
)

// delay finds the rate at which the queue in front of a line stays short, from what senders see: the round
// trip time and what was sent. It is in the spirit of LEDBAT, with a model in place of its gain: how fast the
// what had been sent a round trip ago has arrived, so the line's own rate is known. It is for one goroutine at a time.
type delay struct {
	rate   float64          // bytes a second; 0 while nothing limits
	gain   float64          // by which it grows next
	known  bool             // rate was set at the first sight of a path
	young  bool             // no queue has been seen yet
	at     time.Time        // of the last sight
	last   [3]time.Duration // the newest round trip times
	line   float64          // bytes a second that the line took when its queue was last too long
	full   float64          // the same when it began to be
	past   []point          // what was sent by when, of the last moments
	rounds [2]start         // this one and the one before
	took   float64          // bytes a second that the line took in the round before
	hold   time.Time        // until then the last change of the rate cannot be seen
	vain   int              // rounds of slowing down one after the other
	drain  time.Time        // when the rate was last halved to see the idle round trip time
	busy   bool             // the rate was what limited in this round
	idle   idleTime
}

// point is how many bytes had been sent at a time.
type point struct {
	at   time.Time
	sent uint64
}

// start is when a round began, and how many bytes had arrived by then.
type start struct {
	at   time.Time
	done float64
}

// idleTime is the least round trip time of a while.
type idleTime struct {
	buckets [idleBuckets]time.Duration // zero: nothing seen
	turned  time.Time
}

func (i *idleTime) see(now time.Time, rtt time.Duration) {
	if now.Sub(i.turned) >= idleBucket {
		copy(i.buckets[1:], i.buckets[:])
		i.buckets[0], i.turned = 0, now
	}
	if i.buckets[0] == 0 || rtt < i.buckets[0] {
		i.buckets[0] = rtt
	}
}

func (i *idleTime) least() (least time.Duration) {
	for _, b := range i.buckets {
		if b > 0 && (least == 0 || b < least) {
			least = b
		}
	}
	return least
}

// aim returns the delay that is aimed at beyond the idle round trip time.
func aim(idle time.Duration) time.Duration {
	if idle < localPath {
		return localQueue
	}
	return max(leastQueue, time.Duration(queueShare*float64(idle)))
}

// observe takes in the present round trip time, zero for not known, and all that was sent so far, in bytes on
// the wire. starved tells that something waited for the rate since the last call.
func (d *delay) observe(now time.Time, rtt time.Duration, sent uint64, starved bool) {
	if rtt <= 0 {
		return
	}
	d.idle.see(now, rtt)
	if !d.known {
		d.begin(now, rtt)
	}
	if d.young && d.idle.least() < localPath { // the first sight was of a busy machine
		d.young, d.rate = false, 0
	}
	if d.young && starved {
		twice := firstTrips*d.idle.least().Seconds() + 2*shortRound.Seconds()
		d.rate *= math.Exp2(min(now.Sub(d.at).Seconds()/twice, 1))
	}
	d.at = now
	d.busy = d.busy || starved
	copy(d.last[1:], d.last[:])
	d.last[0] = rtt
	took := now.Sub(d.rounds[0].at)
	last := point{now, sent}
	if n := len(d.past); n == 0 || sent < d.past[n-1].sent || now.Sub(d.past[n-1].at) > time.Second {
		d.past = append(d.past[:0], last) // nobody looked: it was idle
		d.round(now, float64(sent))
		d.rounds[1] = d.rounds[0]
		return
	}
	if d.past = append(d.past, last); len(d.past) > maxPast {
		d.past = append(d.past[:0], d.past[1:]...)
	}
	idle := d.idle.least()
	urgent := rtt-idle > aim(idle) && !now.Before(d.hold)
	least := idle
	if d.young {
		least = idle / firstParts
	}
	if took < shortRound || took < least && !urgent {
		return
	}
	done := d.sentAt(now.Add(-rtt)) // an answer is to what was sent a round trip ago
	line := max(done-d.rounds[0].done, 0) / took.Seconds()
	if took < least { // in a short while it is what senders make of it
		line = max(done-d.rounds[1].done, 0) / now.Sub(d.rounds[1].at).Seconds()
	}
	if d.young {
		d.leave(now, max(line, d.took), float64(sent)-done)
	} else {
		d.adjust(now, max(line, d.took)) // in one round there may have been a pause
	}
	d.took = line
	d.round(now, done)
}

// begin chooses the first rate, unless one is remembered.
func (d *delay) begin(now time.Time, rtt time.Duration) {
	d.known, d.drain = true, now
	if d.rate == 0 && rtt >= localPath {
		d.rate, d.young = firstRate, true
	}
	if d.gain == 0 {
		d.gain = mostGain
	}
}

func (d *delay) round(now time.Time, done float64) {
	d.rounds = [2]start{{now, done}, d.rounds[0]}
	d.busy = false
}

// adjust ends a round of a length in which the line took bytes at the given rate, in bytes a second.
func (d *delay) adjust(now time.Time, line float64) {
	idle := d.idle.least()
	target := aim(idle)
	queue := d.trip() - idle
	if now.Before(d.hold) {
		return // what was changed last cannot be seen yet
	}
	switch {
	case queue > target && !d.busy && line < d.rate/2 || queue > target && line < leastRate:
		// It is the queue of others: nothing was sent that could be less. Unless it is what another limit let through,
		// on a line that is slower by now: then this one is to bind again.
		if line >= leastRate {
			d.rate = 2 * line
		}
	case queue > target:
		d.slow(now, line, queue-target/2)
	case d.vain > 0: // the queue is gone
		d.vain, d.rate = 0, max(d.rate, d.line*0.97)
	case d.rate == 0 || !d.busy || d.drained(now):
	default:
		d.grow(now, line, float64(queue)/float64(target))
	}
	if d.rate > freeRate {
		d.rate = 0
	}
}

// leave ends the first growth if there is a queue. What is under way, in bytes, beyond what the line takes in an idle
// round trip is going to be one.
func (d *delay) leave(now time.Time, line, under float64) {
	idle := d.idle.least()
	switch queue := min(d.last[0], d.last[1]) - idle; {
	case float64(queue) > firstShare*float64(aim(idle)) && d.busy:
		excess := under/max(line, leastRate) - idle.Seconds()
		d.slow(now, line, max(time.Duration(excess*float64(time.Second)), 0))
		d.rate, d.gain = max(d.rate, firstRate), afterGain // of the first moments little is known
	case queue > aim(idle):
		d.young = false
	}
	if d.rate > freeRate {
		d.rate = 0
	}
}

// trip returns the round trip time without what is late by chance.
func (d *delay) trip() time.Duration {
	return max(min(d.last[0], d.last[1], d.last[2]), d.idle.least())
}

// grow raises the rate, the faster the longer no queue is seen. With one, of which the length is a share of the
// aim, the line's rate is known, and there is no going far beyond it.
func (d *delay) grow(now time.Time, line, share float64) {
	idle := d.idle.least()
	d.hold = now.Add(idle + idle/4)
	if share < 0.15 {
		d.rate *= 1 + d.gain
		if near := d.rate / max(d.line, 1); near > 1-nearLine && near < 1+nearLine {
			d.gain = leastGain
		} else {
			d.gain = min(d.gain*1.4, mostGain)
		}
		return
	}
	d.gain = leastGain
	// What was taken in a round in which pictures paused says nothing of the line: it does not lower the rate.
	d.rate = max(d.rate, min(d.rate*(1+leastGain*(1-share)), line*(1+leastGain)))
}

// slow lowers the rate so far below the line's that the excess of the queue is gone within two round trips.
func (d *delay) slow(now time.Time, line float64, excess time.Duration) {
	within := max(2*d.trip(), 100*time.Millisecond)
	share := min(max(excess.Seconds()/within.Seconds(), 0.02), 0.6)
	if d.vain == 0 {
		d.full = line
	}
	d.line, d.young = line, false
	d.rate = max(line*(1-share), leastRate)
	d.gain, d.hold = leastGain, now.Add(d.trip())
	if d.vain++; d.vain > longerAfter {
		d.idle = idleTime{}
		d.idle.see(now, d.last[0])
		d.vain, d.rate = 0, max(d.rate, d.full)
	}
}

// sentAt returns how much had been sent at a time of the last moments, in bytes.
func (d *delay) sentAt(t time.Time) float64 {
	for i := len(d.past) - 1; i > 0; i-- {
		from, to := d.past[i-1], d.past[i]
		if t.Before(from.at) {
			continue
		}
		share := min(t.Sub(from.at).Seconds()/to.at.Sub(from.at).Seconds(), 1)
		return float64(from.sent) + share*float64(to.sent-from.sent)
	}
	return float64(d.past[0].sent)
}

// drained reports whether what is seen is of a rate that was halved, which says nothing of the whole one.
func (d *delay) drained(now time.Time) bool {
	since := now.Sub(d.drain)
	return d.gain < mostGain && (since >= drainEvery || since < d.trip()+shortRound)
}

// now returns the rate to send at, in bytes a second; 0: nothing limits.
func (d *delay) now(now time.Time) float64 {
	if d.rate == 0 || d.gain == mostGain {
		return d.rate
	}
	since := now.Sub(d.drain)
	pause := max(2*d.last[0], 2*shortRound)
	switch {
	case since >= drainEvery+pause:
		d.drain = now
	case since >= drainEvery:
		return d.rate / 2
	}
	return d.rate
}
