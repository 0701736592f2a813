package branchline

import "slices"

// Spans is a set of instants as ranges: sorted, none empty, none touching another. The zero value is
// the empty set. Its methods never change the receiver.
type Spans []TimeRange

// NewSpans returns the set that the ranges cover together, in whatever order they come.
func NewSpans(ranges ...TimeRange) Spans {
	sorted := slices.DeleteFunc(slices.Clone(ranges), TimeRange.Empty)
	slices.SortFunc(sorted, func(a, b TimeRange) int { return a.Start.Compare(b.Start) })
	var set Spans
	for _, r := range sorted {
		last := len(set) - 1
		switch {
		case last < 0 || r.Start.After(set[last].End):
			set = append(set, r)
		case r.End.After(set[last].End):
			set[last].End = r.End
		}
	}
	return set
}

// Union returns what lies in either set.
func (s Spans) Union(o Spans) Spans { return NewSpans(slices.Concat(s, o)...) }

// Intersect returns what lies in both sets.
func (s Spans) Intersect(o Spans) Spans {
	var both Spans
	for i, j := 0, 0; i < len(s) && j < len(o); {
		if r := s[i].Intersect(o[j]); !r.Empty() {
			both = append(both, r)
		}
		if s[i].End.Before(o[j].End) {
			i++
		} else {
			j++
		}
	}
	return both
}

// Minus returns what lies in s and not in o.
func (s Spans) Minus(o Spans) Spans {
	var left Spans
	j := 0
	for _, r := range s {
		for j < len(o) && !o[j].End.After(r.Start) {
			j++
		}
		for k := j; k < len(o) && o[k].Start.Before(r.End); k++ {
			if before := (TimeRange{r.Start, o[k].Start}); !before.Empty() {
				left = append(left, before)
			}
			r.Start = o[k].End
		}
		if !r.Empty() {
			left = append(left, r)
		}
	}
	return left
}

// Covers reports whether all of r lies in the set.
func (s Spans) Covers(r TimeRange) bool { return len(Spans{r}.Minus(s)) == 0 }
