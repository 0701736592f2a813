package budget

import (
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
)

// Refusal is why a stream is not sent, in numbers. It wraps [branchline.ErrBusy].
type Refusal struct {
	Budget  Rate      // of the uplink now
	Until   time.Time // when the budget changes; zero if it does not
	Zone    string    // IANA name, in which people at the site tell the time
	Used    Rate      // by those who were let in before
	Viewers int       // how many they are
	Need    Rate      // of what was asked for; zero where that makes no difference
	Spent   bool      // the month's quota is used up
	// Instead is what would fit, the best first.
	Instead []Alternative
}

// Alternative is something less than what was refused.
type Alternative struct {
	Stream    branchline.StreamID
	KeyFrames bool // only those
	Need      Rate
}

// Error tells all but the alternatives in one sentence.
func (r *Refusal) Error() string {
	text := fmt.Sprintf("the uplink's budget now is %v", r.Budget)
	switch {
	case r.Spent:
		text = "the uplink's quota of this month is used up"
	case r.Budget == Nothing:
		text = "the uplink's budget now is for nothing but control"
	}
	if !r.Until.IsZero() {
		text += " until " + r.until()
	}
	if r.Viewers > 0 {
		text += fmt.Sprintf(", %v in use by %d %s", r.Used, r.Viewers, plural(r.Viewers, "viewer"))
	}
	if r.Need > 0 {
		text += fmt.Sprintf("; this stream needs %v", r.Need)
	}
	return text
}

// Unwrap lets callers that know no budgets try again later.
func (r *Refusal) Unwrap() error { return branchline.ErrBusy }

func (r *Refusal) until() string {
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		zone = time.UTC
	}
	t := r.Until.In(zone)
	form := "15:04"
	if r.Spent { // days away, mostly
		form = "2 January 15:04"
	}
	return t.Format(form) + " " + zone.String()
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
