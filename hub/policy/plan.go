package policy

import (
	"cmp"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

// Missing returns what the wants cover and held does not, without regard to streams.
func Missing(wants, held branchline.Spans) branchline.Spans { return wants.Minus(held) }

// Plan returns what to fetch, in the order in which to fetch it: for each stream its wants, less what
// is held, as far as it exists. Urgent wants come first, then what the edge will delete first, then
// the older, then by stream. Wants of streams without facts are left out. The arguments are not
// changed.
func Plan(wants []Want, facts []Facts) []Want {
	of := make(map[branchline.StreamID]Facts, len(facts))
	taken := make(map[branchline.StreamID]branchline.Spans, len(facts))
	for _, f := range facts {
		of[f.Stream], taken[f.Stream] = f, f.Held
	}
	sorted := slices.Clone(wants)
	slices.SortStableFunc(sorted, func(a, b Want) int { return cmp.Compare(a.Priority, b.Priority) })
	var plan []Want
	for _, w := range sorted {
		exists := of[w.Stream].Exists.Intersect(branchline.NewSpans(w.Span))
		for _, span := range Missing(exists, taken[w.Stream]) {
			plan = append(plan, Want{Stream: w.Stream, Span: span, Priority: w.Priority, Reason: w.Reason})
		}
		taken[w.Stream] = taken[w.Stream].Union(exists)
	}
	slices.SortStableFunc(plan, func(a, b Want) int {
		return cmp.Or(
			cmp.Compare(a.Priority, b.Priority),
			expiry(a, of[a.Stream].Keep).Compare(expiry(b, of[b.Stream].Keep)),
			a.Span.Start.Compare(b.Span.Start),
			cmp.Compare(a.Stream, b.Stream))
	})
	return plan
}

// expiry returns when the edge will delete the start of what is wanted. An edge of which nothing is
// known counts as one that keeps for ever.
func expiry(w Want, keep time.Duration) time.Time {
	if keep <= 0 {
		return time.Unix(1<<40, 0)
	}
	return w.Span.Start.Add(keep)
}
