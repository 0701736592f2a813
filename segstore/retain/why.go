package retain

import (
	"fmt"
	"time"
)

// String says what the limit is and by how much it is passed, or will be.
func (d *pressure) String() string {
	verb, need := "is", d.need-d.ahead
	if need <= 0 { // not yet, but with what will be written until the next plan
		verb, need = "will be", d.need
	}
	switch {
	case d.volume != "" && verb == "is":
		return fmt.Sprintf("volume %s has %s free of %s wanted", d.volume, Bytes(d.limit-need), Bytes(d.limit))
	case d.volume != "":
		return fmt.Sprintf("volume %s will soon have %s free of %s wanted", d.volume, Bytes(max(d.limit-need, 0)),
			Bytes(d.limit))
	case d.camera != "":
		return fmt.Sprintf("camera %s %s over its quota of %s by %s", d.camera, verb, Bytes(d.limit), Bytes(need))
	}
	return fmt.Sprintf("store %s over its quota of %s by %s", verb, Bytes(d.limit), Bytes(need))
}

// why explains a victim of the rank, before it is counted.
func (d *pressure) why(r rank) string {
	what := "oldest of what no hub waits for"
	switch r {
	case unretrieved:
		what = "oldest of what no hub has retrieved yet, as nothing else is left"
	case held:
		what = "oldest of what a hub holds, as nothing else is left"
	}
	return d.String() + ": " + what
}

// whyNot explains why the pressure stays.
func (p *planner) whyNot(d *pressure) string {
	for s, l := range p.oldest(d, locked) {
		for _, lock := range l.Locks {
			if lock.Active(p.facts.Now) && lock.Span.Overlaps(s.Span) {
				return fmt.Sprintf("all that is left is locked as evidence, the oldest on %s by lock %q", l.ID, lock.ID)
			}
		}
	}
	return "no complete segment is left"
}

// tooOld explains why age removes the segment.
func (l *line) tooOld(s Segment, now time.Time) string {
	late := over(s, now, l.Rule.Keep)
	if l.rank(s) == unretrieved {
		return fmt.Sprintf("older than %s by %s: not yet retrieved, for which it was kept up to %s longer",
			Age(l.Rule.Keep), Age(late), Age(l.Rule.Extend))
	}
	return fmt.Sprintf("older than %s by %s", Age(l.Rule.Keep), Age(late))
}

// tooDetailed explains why age thins the segment.
func (l *line) tooDetailed(s Segment, now time.Time) string {
	return fmt.Sprintf("older than %s by %s: only key fragments stay", Age(l.Rule.ThinAfter),
		Age(over(s, now, l.Rule.ThinAfter)))
}

// Bytes writes an amount for people, in decimal units: "2.0 TB".
func Bytes(n int64) string {
	amount := float64(n)
	for _, unit := range []string{"bytes", "kB", "MB", "GB", "TB"} {
		if amount < 999.5 && amount > -999.5 {
			if unit == "bytes" {
				return fmt.Sprintf("%d bytes", n)
			}
			return fmt.Sprintf("%.1f %s", amount, unit)
		}
		amount /= 1000
	}
	return fmt.Sprintf("%.1f PB", amount)
}

// Age writes a duration for people: whole days from two days on, else hours, minutes and seconds.
func Age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day || d == day:
		if n := d / day; n != 1 {
			return fmt.Sprintf("%d days", n)
		}
		return "1 day"
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return d.Round(time.Millisecond).String()
}
