package budget

import (
	"testing"
	"time"
)

// line is a line with a queue in front of it, in virtual time.
type line struct {
	rate  float64 // bytes a second
	idle  time.Duration
	queue float64 // bytes
	sent  float64
	at    time.Duration
	past  []time.Duration // round trip times by when the packet was sent
	seen  int             // of past, the newest that came back
}

// over runs the delay's rate over the line for a while, always with more to send, and returns the share of the
// line that was used and the longest and the mean round trip time as a multiple of the idle one.
func (l *line) over(d *delay, now *time.Time, for_ time.Duration) (used, worst, mean float64) {
	const step = 5 * time.Millisecond
	var through float64
	n := 0
	for t := time.Duration(0); t < for_; t += step {
		rate := d.now(*now)
		if rate == 0 {
			rate = 4 * l.rate // as a window does that opens as it likes
		}
		in, out := rate*step.Seconds(), l.rate*step.Seconds()
		l.sent += in
		l.queue += in
		out = min(out, l.queue)
		l.queue -= out
		through += out
		rtt := l.idle + time.Duration(l.queue/l.rate*float64(time.Second))
		l.past = append(l.past, rtt)
		*now = now.Add(step)
		l.at += step
		for l.seen+1 < len(l.past) && time.Duration(l.seen+1)*step+l.past[l.seen+1] <= l.at {
			l.seen++
		}
		d.observe(*now, l.past[l.seen], uint64(l.sent), true)
		worst = max(worst, float64(rtt)/float64(l.idle))
		mean += float64(rtt) / float64(l.idle)
		n++
	}
	return through / (l.rate * for_.Seconds()), worst, mean / float64(n)
}

func TestDelayFillsTheLineAndKeepsItsQueueShort(t *testing.T) {
	for _, c := range []struct {
		mbit float64
		idle time.Duration
	}{{1, 60 * time.Millisecond}, {2, 40 * time.Millisecond}, {20, 80 * time.Millisecond}, {100, 20 * time.Millisecond},
		{100, 200 * time.Millisecond}, {8, 600 * time.Millisecond}} {
		l := &line{rate: c.mbit * 1e6 / 8, idle: c.idle}
		var d delay
		now := time.Unix(1, 0)
		d.observe(now, c.idle, 0, false)
		l.over(&d, &now, 10*time.Second+30*c.idle)
		used, worst, mean := l.over(&d, &now, 2*time.Minute)
		t.Logf("%v Mbit/s, %v: used %.3f, round trip %.2f at most, %.2f on average", c.mbit, c.idle, used, worst, mean)
		if used < 0.9 || worst > 2 || mean > 1.6 {
			t.Errorf("%v Mbit/s, %v: used %.3f, round trip at most %.2f, on average %.2f of idle, want 0.9, 2, 1.6",
				c.mbit, c.idle, used, worst, mean)
		}
	}
}

func TestDelayStartsWithoutFlooding(t *testing.T) {
	for _, idle := range []time.Duration{40 * time.Millisecond, 80 * time.Millisecond, 200 * time.Millisecond} {
		l := &line{rate: 20e6 / 8, idle: idle}
		var d delay
		now := time.Unix(1, 0)
		d.observe(now, idle, 0, false)
		_, worst, _ := l.over(&d, &now, 5*time.Second)
		t.Logf("%v: %.2f", idle, worst)
		if worst > 2.2 {
			t.Errorf("%v: the round trip time reached %.2f of idle", idle, worst)
		}
	}
}

func TestDelayFollowsTheLine(t *testing.T) {
	l := &line{rate: 20e6 / 8, idle: 80 * time.Millisecond}
	var d delay
	now := time.Unix(1, 0)
	d.observe(now, l.idle, 0, false)
	l.over(&d, &now, 10*time.Second)
	l.rate = 5e6 / 8
	l.over(&d, &now, 4*time.Second)
	if used, worst, _ := l.over(&d, &now, 20*time.Second); used < 0.9 || worst > 2 {
		t.Errorf("thinner: used %.2f, %.2f of idle", used, worst)
	}
	l.rate = 50e6 / 8
	l.over(&d, &now, 15*time.Second)
	if used, worst, _ := l.over(&d, &now, 20*time.Second); used < 0.9 || worst > 2 {
		t.Errorf("wider: used %.2f, %.2f of idle", used, worst)
	}
	l.idle = 300 * time.Millisecond // another way, by satellite
	l.over(&d, &now, 60*time.Second)
	if used, worst, _ := l.over(&d, &now, 60*time.Second); used < 0.85 || worst > 2 {
		t.Errorf("longer: used %.2f, %.2f of idle", used, worst)
	}
}

func TestDelayLeavesLocalPathsAlone(t *testing.T) {
	var d delay
	now, sent := time.Unix(1, 0), uint64(0)
	d.observe(now, 9*time.Millisecond, sent, false) // of a handshake, which takes machines longer than the path
	for i := range 1000 {
		now, sent = now.Add(20*time.Millisecond), sent+10e6
		d.observe(now, 200*time.Microsecond+time.Duration(i%7)*3*time.Millisecond, sent, false)
		if r := d.now(now); r != 0 {
			t.Fatalf("rate %v after %d looks", r, i)
		}
	}
}
