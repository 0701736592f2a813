package budget

import (
	"fmt"
	"time"
)

// Rate is in bits a second.
type Rate int64

const (
	// Unlimited is no limit.
	Unlimited Rate = 0
	// Nothing lets nothing pass but control.
	Nothing Rate = -1
)

// Megabit is a convenient unit.
const Megabit Rate = 1_000_000

// String writes the rate for people: "2.0 Mbit/s".
func (r Rate) String() string {
	switch {
	case r == Unlimited:
		return "unlimited"
	case r < 0:
		return "nothing"
	case r < Megabit:
		return fmt.Sprintf("%d kbit/s", (r+500)/1000)
	case r < 100*Megabit:
		return fmt.Sprintf("%.1f Mbit/s", float64(r)/float64(Megabit))
	}
	return fmt.Sprintf("%.0f Mbit/s", float64(r)/float64(Megabit))
}

// bytes returns the rate in bytes a second.
func (r Rate) bytes() float64 { return float64(r) / 8 }

// Limit is a rate, or a share of the measured capacity of the uplink. The zero Limit is none.
type Limit struct {
	Rate    Rate
	Percent int // of the capacity, 1 to 100; it limits nothing while that is not known
}

// in returns the rate that the limit means while the capacity is as measured, zero for not known.
func (l Limit) in(capacity Rate) Rate {
	if l.Percent > 0 {
		return capacity * Rate(l.Percent) / 100
	}
	return l.Rate
}

// Rule limits some hours of some days.
type Rule struct {
	Days     [7]bool // by time.Weekday
	From, To int     // hours of the day, [From, To), To up to 24; From >= To goes on into the next day
	Limit    Limit
}

// Schedule is a week's limits by hour, in the time of a zone. The zero Schedule limits nothing.
type Schedule struct {
	zone  *time.Location
	cells [7][24]Limit
}

// NewSchedule lays out the rules; where several cover an hour the first counts, where none does there is no
// limit. A nil zone is UTC.
func NewSchedule(zone *time.Location, rules []Rule) Schedule {
	s := Schedule{zone: zone}
	var set [7][24]bool
	for _, r := range rules {
		for day := range 7 {
			if !r.Days[day] {
				continue
			}
			to := r.To
			if r.From >= to {
				to += 24
			}
			for h := r.From; h < to; h++ {
				d, hour := (day+h/24)%7, h%24
				if !set[d][hour] {
					s.cells[d][hour], set[d][hour] = r.Limit, true
				}
			}
		}
	}
	return s
}

// Zone returns the zone of the schedule's hours.
func (s Schedule) Zone() *time.Location {
	if s.zone == nil {
		return time.UTC
	}
	return s.zone
}

// At returns the limit at t, and when the next one begins that is different: zero if none does.
func (s Schedule) At(t time.Time) (now Limit, until time.Time) {
	t = t.In(s.Zone())
	now = s.cell(t)
	end := t.Add(8 * 24 * time.Hour) // a week, and what daylight saving may add
	for t.Before(end) {
		t = next(t)
		if s.cell(t) != now {
			return now, t
		}
	}
	return now, time.Time{}
}

func (s Schedule) cell(t time.Time) Limit { return s.cells[t.Weekday()][t.Hour()] }

// next returns when the local hour ends: after an hour, or sooner where the clock is changed in it.
func next(t time.Time) time.Time {
	into := time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second +
		time.Duration(t.Nanosecond())
	hour := t.Add(time.Hour - into)
	if _, end := t.ZoneBounds(); !end.IsZero() && end.Before(hour) {
		return end.In(t.Location())
	}
	return hour
}
