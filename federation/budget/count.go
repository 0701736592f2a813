package budget

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// keepEvery is how often what was counted is kept, and keepShare of the quota, or four seconds' worth, how
	// much may be sent in between: the file says that much more than was counted, so that a crash never makes it
	// less.
	keepEvery = 10 * time.Second
	keepShare = 1000
	// The capacity is the most that was sent in a second in which the line was full, of the last
	// capacityBuckets of capacityBucket each in which there was one. The first is known when that has ceased to grow.
	measureTime     = time.Second
	settleRounds    = 3 // so many in which it does not grow make the first capacity
	capacityBucket  = 5 * time.Minute
	capacityBuckets = 4
	// Where something has waited for its share of the capacity for doubtAfter, and the line was never full, the line
	// may be another by now: there is no limit until its capacity has ceased to grow, for at most anewTime.
	doubtAfter = capacityBuckets * capacityBucket
	anewTime   = 10 * time.Second
	// mostBehind is how long the clock may be before the month that is counted.
	mostBehind = 31 * 24 * time.Hour
	// newsFrom is by what share the capacity has to change to be kept.
	newsFrom = 0.05
)

// count is what was sent, by the quota's month, and how fast the uplink was found to be. The budget's mutex
// guards it.
type count struct {
	quota Quota
	zone  *time.Location

	total  uint64 // bytes since it was opened
	most   int64  // by which total was ever more than what had passed
	idle   time.Time
	passed uint64

	start, end time.Time // of the month
	used       int64     // in it
	behind     time.Time // the clock is before that month since then, as it tells itself
	former     month     // after which the clock has left out one or more; zero: it went from month to month

	full    bool // the line was, since began
	began   time.Time
	at      uint64 // total then
	best    Rate   // measured, before the capacity was known
	steady  int    // measurements since
	buckets [capacityBuckets]Rate
	turned  time.Time
	seen    time.Time // when the line was last full
	anew    time.Time // since then it is found out what the line can do by now; zero: it is not

	kept record // as in the file
	when time.Time
	then int64 // used, at when
}

// record is the file.
type record struct {
	Capacity Rate      `json:"capacityBits"`        // bits a second
	Month    time.Time `json:"month,omitzero"`      // its beginning
	Used     int64     `json:"usedBytes,omitempty"` // in it; after a crash up to a thousandth of the quota too much
	Former   month     `json:"former,omitzero"`     // see count
}

// month is what was sent in one of the quota's.
type month struct {
	Start time.Time `json:"month"`
	Used  int64     `json:"usedBytes"`
}

// open reads the file and begins to count.
func (c *count) open(path string, now time.Time) error {
	c.start, c.end = c.quota.Month(now, c.zone)
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c.kept)
	}
	if err != nil {
		return fmt.Errorf("read what the uplink has sent from %s: %w; without the file it counts from zero", path, err)
	}
	c.buckets[0], c.turned = c.kept.Capacity, now
	if !c.kept.Month.IsZero() { // whatever the clock says of a box without a battery that has just started
		c.start, c.end = c.quota.Month(c.kept.Month, c.zone)
		c.used, c.former = c.kept.Used, c.kept.Former
		c.turn(now)
	}
	return nil
}

// turn begins the next month when it is time. While the clock is before the month it goes on with that, so that a
// clock that is behind for a while forgets nothing; for at most mostBehind, as the clock may have been ahead. That it
// was is sure if it had left out a month and is back in the one before: that goes on.
func (c *count) turn(now time.Time) {
	if !c.former.Start.IsZero() {
		if start, end := c.quota.Month(now, c.zone); c.former.Start.Equal(start) {
			c.start, c.end = start, end
			c.used, c.former = c.used+c.former.Used, month{}
		}
	}
	switch {
	case !now.Before(c.start):
		c.behind = time.Time{}
	case c.behind.IsZero() || now.Before(c.behind):
		c.behind = now
	}
	if now.Before(c.end) && (c.behind.IsZero() || now.Sub(c.behind) < mostBehind) {
		return
	}
	before, end := month{c.start, c.used}, c.end
	c.start, c.end = c.quota.Month(now, c.zone)
	c.used, c.behind, c.former = 0, time.Time{}, month{}
	if c.start.After(end) {
		c.former = before
	}
}

// sent counts bytes that were sent.
func (c *count) sent(now time.Time, bytes uint64) {
	c.total += bytes
	c.turn(now)
	c.used += int64(bytes)
}

func (c *count) spent() bool { return c.quota.Bytes > 0 && c.used >= c.quota.Bytes }

// beyond returns how much more was sent than had passed, since it was last asked.
func (c *count) beyond(now time.Time, passed uint64) int {
	more := int64(c.total - passed)
	if passed != c.passed || c.idle.IsZero() {
		c.idle, c.passed = now, passed
	}
	if now.Sub(c.idle) >= time.Second { // all that passed is sent, or given up
		c.most = more
		return 0
	}
	extra := max(more-c.most, 0)
	c.most += extra
	return int(extra)
}

// measure looks how fast the line is while it is full.
func (c *count) measure(now time.Time, full bool) {
	if !full {
		c.full = false
		return
	}
	if !c.full {
		c.full, c.began, c.at = true, now, c.total
		return
	}
	took := now.Sub(c.began)
	if took < measureTime {
		return
	}
	rate := Rate(float64(c.total-c.at) * 8 / took.Seconds())
	if now.Sub(c.turned) >= capacityBucket {
		copy(c.buckets[1:], c.buckets[:])
		c.buckets[0], c.turned = 0, now
	}
	c.began, c.at, c.seen = now, c.total, now
	switch {
	case !c.anew.IsZero():
		if c.settled(rate) {
			c.anew = time.Time{}
		}
	case c.capacity() == 0 && !c.settled(rate):
		return
	}
	c.buckets[0] = max(c.buckets[0], rate)
}

// doubt has it found out anew what the line can do, if that was not seen for long because something waits for nothing
// but its share of what the line once could.
func (c *count) doubt(now time.Time, shared bool) {
	switch {
	case c.seen.IsZero():
		c.seen = now
	case !c.anew.IsZero():
		if now.Sub(c.anew) >= anewTime {
			c.anew, c.seen = time.Time{}, now
		}
	case shared && c.capacity() > 0 && now.Sub(c.seen) >= doubtAfter:
		c.anew, c.best, c.steady = now, 0, 0
	}
}

// settled reports whether the rate has ceased to grow. Before that it is not the line's: a share of it would be the
// limit, below which nobody sees what the line can do.
func (c *count) settled(rate Rate) bool {
	if float64(rate) > (1+newsFrom)*float64(c.best) {
		c.best, c.steady = rate, 0
		return false
	}
	c.steady++
	return c.steady >= settleRounds
}

func (c *count) capacity() (most Rate) {
	for _, b := range c.buckets {
		most = max(most, b)
	}
	return most
}

// due returns the record to keep, if it is time. last is when nothing more will be counted.
func (c *count) due(now time.Time, last bool) (record, bool) {
	r := record{Capacity: c.capacity()}
	changed := float64(max(r.Capacity, c.kept.Capacity)) > (1+newsFrom)*float64(min(r.Capacity, c.kept.Capacity))
	if c.quota.Bytes > 0 {
		r.Month, r.Used, r.Former = c.start, c.used, c.former
		lately := max(c.used-c.then, 0) // since the last look, a second ago
		if !last {
			r.Used += max(c.quota.Bytes/keepShare, 4*lately)
		}
		changed = changed || c.used+2*lately > c.kept.Used || !r.Month.Equal(c.kept.Month) ||
			now.Sub(c.when) >= keepEvery && c.used != c.then
	}
	c.then = c.used
	if !changed && (!last || r == c.kept) {
		return r, false
	}
	c.kept, c.when = r, now
	return r, true
}

// keep writes the file, if it is time and there is one.
func (b *Budget) keep(last bool) error {
	if b.cfg.Path == "" {
		return nil
	}
	b.file.Lock()
	defer b.file.Unlock()
	b.mu.Lock()
	r, due := b.count.due(b.cfg.Clock.Now(), last)
	b.mu.Unlock()
	if !due {
		return nil
	}
	text, err := json.Marshal(r)
	if err == nil {
		err = replace(b.cfg.Path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep what the uplink has sent: %w", err)
	}
	return nil
}

// replace makes text the file's content, durably, or leaves the file as it was.
func replace(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
