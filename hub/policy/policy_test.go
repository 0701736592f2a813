package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

// spans reads "0-10 20-30": seconds.
func spans(text string) branchline.Spans {
	var ranges []branchline.TimeRange
	for _, field := range strings.Fields(text) {
		var from, to int64
		if _, err := fmt.Sscanf(field, "%d-%d", &from, &to); err != nil {
			panic(err)
		}
		ranges = append(ranges, branchline.TimeRange{Start: time.Unix(from, 0), End: time.Unix(to, 0)})
	}
	return branchline.NewSpans(ranges...)
}

func text(s branchline.Spans) string {
	var fields []string
	for _, r := range s {
		fields = append(fields, fmt.Sprintf("%d-%d", r.Start.Unix(), r.End.Unix()))
	}
	return strings.Join(fields, " ")
}

func TestMissing(t *testing.T) {
	for _, c := range []struct{ name, want, have, missing string }{
		{name: "nothing held", want: "0-30", have: "", missing: "0-30"},
		{name: "all held", want: "0-30", have: "0-30", missing: ""},
		{name: "more held", want: "10-20", have: "0-30", missing: ""},
		{name: "hole in the middle", want: "0-30", have: "0-10 20-30", missing: "10-20"},
		{name: "both ends", want: "0-30", have: "10-20", missing: "0-10 20-30"},
		{name: "held over the end", want: "0-30 50-60", have: "20-55", missing: "0-20 55-60"},
		{name: "touching is not holding", want: "0-10", have: "10-20", missing: "0-10"},
	} {
		if got := text(policy.Missing(spans(c.want), spans(c.have))); got != c.missing {
			t.Errorf("%s: want %s, have %s: missing %q, expected %q", c.name, c.want, c.have, got, c.missing)
		}
	}
}

const stream = "berlin.entrance.main"

func TestWants(t *testing.T) {
	since := time.Unix(100, 0)
	for _, c := range []struct {
		name     string
		policies []policy.Policy
		outages  string
		dropped  string
		settled  int64
		want     string
	}{
		{name: "no policy", settled: 300, want: ""},
		{name: "always, since it began", policies: []policy.Policy{{"*", policy.Always, since}},
			settled: 300, want: "100-300"},
		{name: "always, but only just begun", policies: []policy.Policy{{"*", policy.Always, since}},
			settled: 90, want: ""},
		{name: "the first that matches", settled: 300, want: "",
			policies: []policy.Policy{{"berlin.*", policy.Never, since}, {"*", policy.Always, since}}},
		{name: "another stream's policy", settled: 300, want: "",
			policies: []policy.Policy{{"paris.*", policy.Always, since}}},
		{name: "outages with margin", policies: []policy.Policy{{"*.main", policy.Backfill, since}},
			outages: "150-160 200-210", settled: 300, want: "145-165 195-215"},
		{name: "outages close together", policies: []policy.Policy{{"*", policy.Backfill, since}},
			outages: "150-160 170-180", settled: 300, want: "145-185"},
		{name: "an outage from before the policy", policies: []policy.Policy{{"*", policy.Backfill, since}},
			outages: "50-60 80-120", settled: 125, want: "100-125"},
		{name: "not what was dropped", policies: []policy.Policy{{"*", policy.Always, since}},
			dropped: "0-150 200-210", settled: 300, want: "150-200 210-300"},
		{name: "not what was dropped of an outage", policies: []policy.Policy{{"*", policy.Backfill, since}},
			outages: "150-160", dropped: "100-150", settled: 300, want: "150-165"},
		{name: "no outage", policies: []policy.Policy{{"*", policy.Backfill, since}}, settled: 300, want: ""},
	} {
		wants := policy.Wants(c.policies, policy.Facts{
			Stream: stream, Outages: spans(c.outages), Dropped: spans(c.dropped), Settled: time.Unix(c.settled, 0)})
		var got []branchline.TimeRange
		for _, w := range wants {
			got = append(got, w.Span)
			if w.Stream != stream || w.Priority != policy.Bulk || w.Reason == "" {
				t.Errorf("%s: want %+v", c.name, w)
			}
		}
		if text(got) != c.want {
			t.Errorf("%s: wants %q, expected %q", c.name, text(got), c.want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		want    bool
	}{
		{"*", true}, {"berlin.*", true}, {"*.main", true}, {"berlin.entrance.main", true},
		{"*.sub", false}, {"berlin", false}, {"", false}, {"[", false},
	} {
		p := policy.Policy{Streams: c.pattern, Kind: policy.Always}
		if p.Matches(stream) != c.want {
			t.Errorf("%q matches %s: %v", c.pattern, stream, !c.want)
		}
	}
	if (policy.Policy{Streams: "[", Kind: policy.Always}).Valid() || (policy.Policy{Streams: "*"}).Valid() {
		t.Error("a malformed pattern or no kind is valid")
	}
}

// TestPlanOrder writes a plan as "stream span reason" by line.
func TestPlanOrder(t *testing.T) {
	facts := []policy.Facts{
		{Stream: "a.x.main", Exists: spans("0-100"), Held: spans("20-30")},
		{Stream: "b.x.main", Exists: spans("0-100"), Keep: time.Hour},
	}
	wants := []policy.Want{
		{"a.x.main", spans("0-60")[0], policy.Bulk, "always"},
		{"b.x.main", spans("50-60")[0], policy.Bulk, "always"},
		{"a.x.main", spans("10-40")[0], policy.Request, "request"},
		{"c.x.main", spans("0-60")[0], policy.Bulk, "always"},
		{"a.x.main", spans("90-120")[0], policy.Bulk, "always"},
	}
	var got []string
	for _, w := range policy.Plan(wants, facts) {
		got = append(got, fmt.Sprint(w.Stream, " ", text(branchline.Spans{w.Span}), " ", w.Reason))
	}
	expected := []string{
		"a.x.main 10-20 request", "a.x.main 30-40 request", // urgent first, without what is held
		"b.x.main 50-60 always",                         // deleted first
		"a.x.main 0-10 always", "a.x.main 40-60 always", // without what the request brings
		"a.x.main 90-100 always", // as far as it exists
	}
	if !slices.Equal(got, expected) {
		t.Errorf("plan:\n%s\nexpected:\n%s", strings.Join(got, "\n"), strings.Join(expected, "\n"))
	}
}

// TestPlanProperties: what is planned and what is held cover all that is wanted and exists, nothing of
// it is held or planned twice, and carrying it out leaves nothing to plan.
func TestPlanProperties(t *testing.T) {
	set := rapid.Custom(func(t *rapid.T) branchline.Spans {
		var ranges []branchline.TimeRange
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			from := rapid.Int64Range(0, 100).Draw(t, "from")
			ranges = append(ranges, branchline.TimeRange{
				Start: time.Unix(from, 0), End: time.Unix(from+rapid.Int64Range(1, 30).Draw(t, "length"), 0)})
		}
		return branchline.NewSpans(ranges...)
	})
	rapid.Check(t, func(t *rapid.T) {
		var facts []policy.Facts
		var wants []policy.Want
		wanted := make(map[branchline.StreamID]branchline.Spans)
		for _, id := range []branchline.StreamID{"a.x.main", "b.x.main"} {
			facts = append(facts, policy.Facts{Stream: id, Exists: set.Draw(t, "exists"), Held: set.Draw(t, "held"),
				Keep: time.Duration(rapid.IntRange(0, 3).Draw(t, "keep")) * time.Minute})
			for range rapid.IntRange(0, 4).Draw(t, "wants") {
				for _, span := range set.Draw(t, "want") {
					p := policy.Priority(rapid.IntRange(int(policy.Request), int(policy.Bulk)).Draw(t, "priority"))
					wants = append(wants, policy.Want{Stream: id, Span: span, Priority: p})
					wanted[id] = wanted[id].Union(branchline.Spans{span})
				}
			}
		}
		plan := policy.Plan(wants, facts)
		for i := range facts {
			f := &facts[i]
			covered := f.Held
			for _, w := range plan {
				if w.Stream != f.Stream {
					continue
				}
				piece := branchline.NewSpans(w.Span)
				if len(piece.Intersect(covered)) > 0 || len(piece.Minus(f.Exists)) > 0 {
					t.Fatalf("piece %v of %s is planned twice, held, or does not exist", w.Span, f.Stream)
				}
				covered = covered.Union(piece)
			}
			if left := wanted[f.Stream].Intersect(f.Exists).Minus(covered); len(left) > 0 {
				t.Fatalf("%s: %v is wanted and exists, and is neither held nor planned", f.Stream, left)
			}
			f.Held = covered
		}
		if again := policy.Plan(wants, facts); len(again) > 0 {
			t.Fatalf("carried out, there is still a plan: %v", again)
		}
	})
}
