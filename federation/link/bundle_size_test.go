package link

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// road is a path as the sizing sees it: what NewReno makes of it, by the formula of Mathis.
type road struct {
	rate float64 // bytes per second that pass; 0: the sender has that little to send
	loss float64
	rtt  time.Duration
	send float64 // bytes per second to send, 0 for any
	drop bool    // what is beyond the rate is dropped, and never waits
}

// drive runs the sizing over the road for a time and returns the connections wanted at each second.
func (r road) drive(s *sizing, last time.Duration) []int {
	var wanted []int
	for at := time.Duration(0); at < last; at += sizeEvery {
		*s = s.step(sizeEvery, r.samples(max(s.want, 1)))
		if at%time.Second == 0 {
			wanted = append(wanted, s.want)
		}
	}
	return wanted
}

func (r road) samples(n int) []sample {
	const packet = 1400
	each := math.Inf(1)
	if r.loss > 0 {
		each = 1.22 * packet / r.rtt.Seconds() / math.Sqrt(r.loss)
	}
	rtt, share := r.rtt, r.rate/float64(n)
	limited := r.rate > 0
	if r.send > 0 && r.send < r.rate {
		share, limited = r.send/float64(n), each < r.send/float64(n)
	}
	loss := r.loss
	if each > share {
		each = share
		switch {
		case r.drop: // as much as keeps every window at its share
			loss = math.Pow(1.22*packet/r.rtt.Seconds()/each, 2)
		case limited:
			rtt = 2 * r.rtt // the queue
		}
	}
	list := make([]sample, n)
	for i := range list {
		sent := each * sizeEvery.Seconds()
		list[i] = sample{sent: sent, lost: sent * loss, window: each * rtt.Seconds(), rtt: rtt, best: r.rtt}
		list[i].limited = limited
	}
	return list
}

func TestSizing(t *testing.T) {
	const mbit = 1e6 / 8
	long := 80 * time.Millisecond
	for _, c := range []struct {
		name       string
		road       road
		then       road
		most       int // connections in the first minute
		want, rest [2]int
	}{
		{"a clean path needs one", road{rate: 100 * mbit, rtt: long}, road{}, 1, [2]int{1, 1}, [2]int{1, 1}},
		{"at 3 % loss all are needed", road{rate: 100 * mbit, loss: 0.03, rtt: long}, road{}, 128, [2]int{90, 128},
			[2]int{1, 1}},
		{"at 1 % loss half of them", road{rate: 100 * mbit, loss: 0.01, rtt: long}, road{}, 100, [2]int{45, 100},
			[2]int{1, 1}},
		{"at 0.1 % loss some", road{rate: 100 * mbit, loss: 0.001, rtt: long}, road{}, 64, [2]int{18, 40},
			[2]int{1, 1}},
		{"a thin path is full soon", road{rate: 2 * mbit, loss: 0.01, rtt: long}, road{}, 16, [2]int{1, 2}, [2]int{1, 1}},
		{"a path that drops what is too much needs no more", road{rate: 20 * mbit, rtt: long, drop: true}, road{}, 32,
			[2]int{1, 16}, [2]int{1, 1}},
		{"a picture over a lossy path has two", road{rate: 100 * mbit, loss: 0.01, rtt: long, send: 0.5 * mbit}, road{}, 2,
			[2]int{2, 2}, [2]int{1, 1}},
		{"a picture over a clean path has one", road{rate: 100 * mbit, rtt: long, send: 0.5 * mbit}, road{}, 1,
			[2]int{1, 1}, [2]int{1, 1}},
		{"when the loss ends fewer do", road{rate: 100 * mbit, loss: 0.01, rtt: long},
			road{rate: 100 * mbit, rtt: long}, 128, [2]int{45, 100}, [2]int{1, 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s sizing
			first := c.road.drive(&s, time.Minute)
			got := first[len(first)-1]
			t.Log(strings.Trim(fmt.Sprint(first), "[]"))
			if slices.Max(first) > c.most || got < c.want[0] || got > c.want[1] {
				t.Errorf("%d connections after a minute, %d at most", got, slices.Max(first))
			}
			after := c.then.drive(&s, 10*time.Minute)
			if got := after[len(after)-1]; got < c.rest[0] || got > c.rest[1] {
				t.Errorf("%d connections in the end", got)
			}
		})
	}
}

// TestSizingGrowsSoon: a branch's bulk does not wait long for its connections.
func TestSizingGrowsSoon(t *testing.T) {
	var s sizing
	r := road{rate: 100e6 / 8, loss: 0.01, rtt: 80 * time.Millisecond}
	wanted := r.drive(&s, 12*time.Second)
	if s.want < 50 {
		t.Errorf("the connections were %v", wanted)
	}
	idle := road{}
	for at, n := range idle.drive(&s, 15*time.Second) {
		if at >= 12 && n != 1 {
			t.Errorf("%d connections %d s after the bulk", n, at)
		}
	}
}
