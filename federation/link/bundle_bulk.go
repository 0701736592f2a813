package link

import (
	"slices"
	"time"
)

// Over a short path, as within one building, processors are the limit and not the line, and TCP, which the kernel
// speaks, takes far less of them than QUIC does. So one connection over TCP joins the bundle there while much is sent,
// and takes the fetches; all else stays with QUIC, where no stream waits for another.
const (
	// nearTrip is the longest least round trip of a short path: there is no line of a branch in between.
	nearTrip = 2 * time.Millisecond
	// nearRate, in bytes per second, is from when it is worth it; nearIdle how long less than that is sent before it
	// is given up.
	nearRate = 8 << 20
	nearIdle = 10 * time.Second
)

// beside keeps a connection over TCP beside the others as long as it is of use, on the side that dialled. best is the
// least round trip of the others, 0 if it is not known, and rate what all send, in bytes per second.
func (w *watch) beside(now time.Time, all []*joined, best time.Duration, rate float64) {
	near, busy := best > 0 && best <= nearTrip, rate >= nearRate
	if busy {
		w.busy = now
	}
	if i := slices.IndexFunc(all, func(j *joined) bool { return j.bulk }); i >= 0 {
		if j := all[i]; !j.leaving && (!near || now.Sub(w.busy) >= nearIdle) {
			w.b.give(j)
		}
		return
	}
	if w.b.near == nil || !near || !busy || w.bulk.begin(now, 1) == 0 {
		return
	}
	w.next++
	number := w.next
	w.joins.Go(func() { w.bulk.made(w.join(w.b.near, number, false)) })
}
