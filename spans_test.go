package branchline_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
)

// TestSpansAreSets holds the set operations against sets of instants, one for each second.
func TestSpansAreSets(t *testing.T) {
	second := func(n int) time.Time { return time.Unix(int64(n), 0) }
	draw := rapid.Custom(func(t *rapid.T) []branchline.TimeRange {
		var ranges []branchline.TimeRange
		for range rapid.IntRange(0, 6).Draw(t, "ranges") {
			start := rapid.IntRange(0, 20).Draw(t, "start")
			length := rapid.IntRange(-1, 8).Draw(t, "length")
			ranges = append(ranges, branchline.TimeRange{Start: second(start), End: second(start + length)})
		}
		return ranges
	})
	in := func(ranges []branchline.TimeRange, n int) bool {
		for _, r := range ranges {
			if r.Contains(second(n)) {
				return true
			}
		}
		return false
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		sa, sb := branchline.NewSpans(a...), branchline.NewSpans(b...)
		union, both, minus := sa.Union(sb), sa.Intersect(sb), sa.Minus(sb)
		for _, set := range []branchline.Spans{sa, sb, union, both, minus} {
			for i, r := range set {
				if r.Empty() || i > 0 && !set[i-1].End.Before(r.Start) {
					t.Fatalf("%v is not sorted, disjoint and joined", set)
				}
			}
		}
		for n := range 30 {
			if in(sa, n) != in(a, n) {
				t.Fatalf("second %d of %v is wrong in %v", n, a, sa)
			}
			if in(union, n) != (in(a, n) || in(b, n)) || in(both, n) != (in(a, n) && in(b, n)) ||
				in(minus, n) != (in(a, n) && !in(b, n)) {
				t.Fatalf("second %d is wrong:\n a %v\n b %v\n union %v\n both %v\n minus %v",
					n, sa, sb, union, both, minus)
			}
		}
		for _, r := range b {
			if covered := len(branchline.NewSpans(r).Minus(sa)) == 0; sa.Covers(r) != covered && !r.Empty() {
				t.Fatalf("%v covers %v: %v", sa, r, !covered)
			}
		}
	})
}
