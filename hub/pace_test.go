package hub

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const (
		delay = 100 * time.Millisecond
		ahead = time.Hour // the site's clock is, of this one's
	)
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	frames := func(n int, every, stall time.Duration) (pace, time.Time) {
		p, now := pace{since: began}, began
		for i := range n {
			made := began.Add(time.Duration(i) * every)
			now = made.Add(delay)
			if i == n-1 {
				now = now.Add(stall)
			}
			p.see(now, made.Add(ahead))
		}
		return p, now
	}
	for _, c := range []struct {
		what         string
		n            int
		every, stall time.Duration
		later        time.Duration // it is asked so long after the last frame came
		want         bool
	}{
		{"nothing has come yet", 0, 0, 0, behindLimit, false},
		{"nothing comes", 0, 0, 0, behindLimit + 1, true},
		{"just come", 50, 40 * time.Millisecond, 0, 40 * time.Millisecond, false},
		{"silence", 50, 40 * time.Millisecond, 0, 2 * time.Second, true},
		{"late", 50, 40 * time.Millisecond, 3 * time.Second, 0, true},
		{"a picture in 10 s", 5, 10 * time.Second, 0, 9 * time.Second, false},
		{"none in 12 s instead", 5, 10 * time.Second, 0, 12 * time.Second, true},
	} {
		p, now := frames(c.n, c.every, c.stall)
		if got := p.behind(now.Add(c.later)); got != c.want {
			t.Errorf("%s: behind: %v", c.what, got)
		}
	}
	p := pace{since: began}
	for i := range 50 { // the first are those since the last key frame
		p.see(began.Add(time.Duration(i)*4*time.Millisecond), began.Add(time.Duration(i-50)*40*time.Millisecond))
	}
	if p.behind(began.Add(200 * time.Millisecond)) {
		t.Error("the frames since the last key frame count as late")
	}
	again := began.Add(time.Minute)
	p.begin(again, false) // and everything comes late from the first on
	for i := range 50 {
		made := time.Duration(i) * 40 * time.Millisecond
		p.see(again.Add(20*time.Second+made), again.Add(made))
	}
	if !p.behind(again.Add(22 * time.Second)) {
		t.Error("what is late from the beginning of a subscription on does not count as late")
	}
	p.start(2) // by another clock
	p.see(again.Add(22*time.Second), again)
	if p.behind(again.Add(22 * time.Second)) {
		t.Error("what comes by another clock counts as late")
	}
	if p = (pace{ended: true}); p.behind(again.Add(time.Hour)) {
		t.Error("a camera that is off counts as late")
	}
}
