package link

import (
	"cmp"
	"math"
	"sync"
	"time"
)

// freshTime is how long the newest round trip time of one connection is as good as that of another.
const freshTime = 50 * time.Millisecond

// trip is the newest round trip time of a connection, when it was first seen, and the least of the last while.
type trip struct {
	time, least time.Duration
	at          time.Time
	way         *endpoint
}

// trips remembers a connection's. Its method may be called concurrently.
type trips struct {
	mu    sync.Mutex
	last  trip
	least [2]time.Duration // of this leastTime and of the one before
	since time.Time        // this one began
}

// newest takes in what the connection tells as its newest round trip time.
func (t *trips) newest(now time.Time, told time.Duration) trip {
	t.mu.Lock()
	defer t.mu.Unlock()
	if told == t.last.time || told == 0 {
		return t.last
	}
	if now.Sub(t.since) >= leastTime {
		t.least, t.since = [2]time.Duration{told, t.least[0]}, now
	}
	t.least[0] = min(t.least[0], told)
	t.last = trip{time: told, least: min(t.least[0], cmp.Or(t.least[1], t.least[0])), at: now}
	return t.last
}

// latest returns the newest round trip time of a bundle: the least of its ways', with the shortest queue of those
// connections that have something new to tell. Others know only what it was when they carried something.
func latest(all []trip) time.Duration {
	var newest time.Time
	for _, t := range all {
		if t.time > 0 && t.at.After(newest) {
			newest = t.at
		}
	}
	ways := make(map[*endpoint]time.Duration, 1)
	for _, t := range all {
		if of := ways[t.way]; t.time > 0 && newest.Sub(t.at) < 2*leastTime && (of == 0 || t.least < of) {
			ways[t.way] = t.least
		}
	}
	var least time.Duration
	for _, of := range ways {
		if least == 0 || of < least {
			least = of
		}
	}
	queue := time.Duration(math.MaxInt64)
	for _, t := range all {
		if t.time > 0 && newest.Sub(t.at) <= freshTime {
			queue = min(queue, t.time-ways[t.way])
		}
	}
	if least == 0 {
		return 0
	}
	return least + queue
}
