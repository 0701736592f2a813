package clock

import "time"

// Clock tells the time of day in UTC. The zero value reads the machine's clock.
type Clock struct {
	now func() time.Time
}

// New returns a clock that reads now, which must be safe for concurrent use.
func New(now func() time.Time) Clock { return Clock{now: now} }

// Now returns the time of day in UTC, with the monotonic reading where there is one.
func (c Clock) Now() time.Time {
	if c.now != nil {
		return c.now().UTC()
	}
	return time.Now().UTC()
}
