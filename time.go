package branchline

import "time"

// TimeRange is the half-open interval [Start, End) of the UTC time line.
type TimeRange struct{ Start, End time.Time }

// Empty reports whether the range holds no instant.
func (r TimeRange) Empty() bool { return !r.Start.Before(r.End) }

// Duration returns the length of the range, zero if it is empty.
func (r TimeRange) Duration() time.Duration { return max(r.End.Sub(r.Start), 0) }

// Contains reports whether t lies in the range.
func (r TimeRange) Contains(t time.Time) bool { return !t.Before(r.Start) && t.Before(r.End) }

// Overlaps reports whether the two ranges share an instant.
func (r TimeRange) Overlaps(o TimeRange) bool {
	return !r.Empty() && !o.Empty() && r.Start.Before(o.End) && o.Start.Before(r.End)
}

// Intersect returns what both ranges share; it may be empty.
func (r TimeRange) Intersect(o TimeRange) TimeRange {
	if o.Start.After(r.Start) {
		r.Start = o.Start
	}
	if o.End.Before(r.End) {
		r.End = o.End
	}
	return r
}

// ByteRange is the half-open interval [Start, End) of a segment's bytes; an End of zero means
// "to the end".
type ByteRange struct{ Start, End int64 }
