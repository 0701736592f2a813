package catalog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
)

func ranges(text string) []branchline.TimeRange {
	var all []branchline.TimeRange
	for _, word := range strings.Fields(text) {
		all = append(all, times(word))
	}
	return all
}

func line(spans []catalog.Span) string {
	var words []string
	for _, s := range spans {
		word := fmt.Sprintf("%s %s %s%s", seconds(s.TimeRange), s.State, s.Reason, s.Cause)
		words = append(words, strings.TrimSpace(word))
	}
	return strings.Join(words, ", ")
}

func TestTimeline(t *testing.T) {
	for _, c := range []struct {
		name                                           string
		held, edge, coming, wanted, gaps, down, expect string
		unknown                                        bool
		to                                             float64
	}{
		{name: "a site never seen", unknown: true, expect: "0-100 unknown"},
		{name: "nothing told yet", expect: "0-10 gap not scheduled, 10-100 gap waiting"},
		{name: "held before edge", held: "20-50", edge: "10-100", expect: "0-10 gap not scheduled, " +
			"10-20 edge, 20-50 held, 50-100 edge"},
		{name: "coming before wanted", edge: "10-100", coming: "30-50", wanted: "20-80",
			expect: "0-10 gap not scheduled, 10-20 edge, 20-30 wanted why, 30-50 coming why, 50-80 wanted why, " +
				"80-100 edge"},
		{name: "what does not exist is not on its way", edge: "10-40", wanted: "20-80", gaps: "40-100",
			expect: "0-10 gap not scheduled, 10-20 edge, 20-40 wanted why, 40-100 gap disk full"},
		{name: "the edge's cause before the link's", edge: "10-30", gaps: "30-50", down: "20-80",
			expect: "0-10 gap not scheduled, 10-30 edge, 30-50 gap disk full, 50-80 gap link down, 80-100 gap waiting"},
		{name: "held of what the edge has no more", held: "20-50", gaps: "10-60", edge: "60-100",
			expect: "0-10 gap not scheduled, 10-20 gap disk full, 20-50 held, 50-60 gap disk full, 60-100 edge"},
		{name: "no future", edge: "0-200", to: 200, expect: "0-100 edge"},
		{name: "only the range", edge: "0-200", held: "0-200", to: 50, expect: "0-50 held"},
	} {
		to := c.to
		if to == 0 {
			to = 100
		}
		facts := catalog.StreamFacts{Known: !c.unknown, Added: at(10)}
		facts.Available = branchline.NewSpans(ranges(c.edge)...)
		for _, r := range ranges(c.gaps) {
			facts.Gaps = append(facts.Gaps, catalog.Gap{Span: r, Cause: branchline.CauseDiskFull})
		}
		for _, r := range ranges(c.down) {
			facts.Outages = append(facts.Outages, catalog.Outage{Span: r})
		}
		var transfers []catalog.Transfer
		for _, r := range ranges(c.wanted) {
			transfers = append(transfers, catalog.Transfer{Span: r, Reason: "why"})
		}
		for _, r := range ranges(c.coming) {
			transfers = append(transfers, catalog.Transfer{Span: r, Active: true, Share: 0.5, Reason: "why"})
		}
		got := line(catalog.Timeline(span(0, to), at(100), facts, branchline.NewSpans(ranges(c.held)...), transfers))
		if got != c.expect {
			t.Errorf("%s:\n got  %s\n want %s", c.name, got, c.expect)
		}
	}
}

// TestTimelineCoversTheRange: whatever is known, the spans cover the range up to now, once.
func TestTimelineCoversTheRange(t *testing.T) {
	some := rapid.Custom(func(t *rapid.T) []branchline.TimeRange {
		var all []branchline.TimeRange
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			from := rapid.Float64Range(0, 100).Draw(t, "from")
			all = append(all, span(from, from+rapid.Float64Range(0.1, 40).Draw(t, "length")))
		}
		return all
	})
	rapid.Check(t, func(t *rapid.T) {
		facts := catalog.StreamFacts{Known: rapid.Bool().Draw(t, "known"), Added: at(5),
			Available: branchline.NewSpans(some.Draw(t, "edge")...)}
		for _, r := range some.Draw(t, "gaps") {
			facts.Gaps = append(facts.Gaps, catalog.Gap{Span: r, Cause: branchline.CauseDiskSlow})
		}
		var transfers []catalog.Transfer
		for _, r := range some.Draw(t, "transfers") {
			transfers = append(transfers, catalog.Transfer{Span: r, Active: rapid.Bool().Draw(t, "active")})
		}
		held := branchline.NewSpans(some.Draw(t, "held")...)
		whole := span(0, rapid.Float64Range(1, 150).Draw(t, "to"))
		a := catalog.Timeline(whole, at(100), facts, held, transfers)
		b := catalog.Timeline(whole, at(100), catalog.StreamFacts{}, held, nil)
		for _, spans := range [][]catalog.Span{a, b, catalog.Best(a, b), catalog.Best(b, a)} {
			next := whole.Start
			for _, s := range spans {
				if !s.Start.Equal(next) || s.Empty() || s.State == "" {
					t.Fatalf("not one state at each time: %s", line(spans))
				}
				next = s.End
			}
			if want := whole.Intersect(span(0, 100)).End; !next.Equal(want) {
				t.Fatalf("%s ends at %v, not %v", line(spans), next, want)
			}
		}
	})
}

func TestBest(t *testing.T) {
	main := []catalog.Span{{TimeRange: span(0, 50), State: catalog.Edge},
		{TimeRange: span(50, 100), State: catalog.Missing, Cause: branchline.CauseDiskFull}}
	sub := []catalog.Span{{TimeRange: span(0, 20), State: catalog.Unknown},
		{TimeRange: span(20, 80), State: catalog.Held},
		{TimeRange: span(80, 100), State: catalog.Wanted, Reason: "why"}}
	want := "0-20 edge, 20-80 held, 80-100 wanted why"
	if got := line(catalog.Best(main, sub)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := line(catalog.Best(slices.Clone(sub), main)); got != want {
		t.Errorf("the other way round: %s", got)
	}
}
