package budget

import "time"

// Quota bounds what a metered uplink sends in a month. The zero Quota bounds nothing.
type Quota struct {
	Bytes int64
	Day   int // of the month on which a month begins, 1 to 31; in shorter months its last day
	// Then is what may be sent when the quota is used up. The zero Limit: what somebody waits for, which is live
	// pictures that are watched and requests, at the schedule's rate. Else everything, at this rate.
	Then Limit
}

// Month returns the month of the quota in which t is, in the zone.
func (q Quota) Month(t time.Time, zone *time.Location) (start, end time.Time) {
	t = t.In(zone)
	start = q.begin(t.Year(), t.Month(), zone)
	if t.Before(start) {
		return q.begin(t.Year(), t.Month()-1, zone), start
	}
	return start, q.begin(t.Year(), t.Month()+1, zone)
}

// begin returns when the quota's month begins that starts in the calendar's month, which may be 0 or 13.
func (q Quota) begin(year int, month time.Month, zone *time.Location) time.Time {
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, zone).Day()
	return time.Date(year, month, min(max(q.Day, 1), last), 0, 0, 0, 0, zone)
}
