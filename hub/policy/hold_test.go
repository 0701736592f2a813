package policy_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

func TestHold(t *testing.T) {
	const now, end = 1000, 1000 + 7*24*3600
	always := policy.Policy{Streams: "*", Kind: policy.Always, Since: time.Unix(100, 0)}
	backfill := policy.Policy{Streams: "*", Kind: policy.Backfill, Since: time.Unix(100, 0)}
	future := policy.Policy{Streams: "*", Kind: policy.Always, Since: time.Unix(980, 0)}
	const considered, released = -1, -2
	for _, c := range []struct {
		name          string
		policy        policy.Policy
		outages, jobs string // beside what the policy wants
		exists, held  string
		told          int64
		spans         string
		known         int64
	}{
		{name: "never", policy: policy.Policy{Kind: policy.Never}, exists: "0-950", told: 950, spans: "", known: released},
		{name: "never, nothing told", policy: policy.Policy{Kind: policy.Never}, spans: "", known: released},
		{name: "always, nothing held", policy: always, exists: "0-950", told: 950, spans: "100-end", known: 950},
		{name: "always, all held", policy: always, exists: "0-950", held: "0-950", told: 950, spans: "950-end", known: 950},
		{name: "always, held live beyond what was told", policy: always, exists: "0-997", held: "100-997", told: 940,
			spans: "997-end", known: 940},
		{name: "always, a hole", policy: always, exists: "0-950", held: "100-300 400-950", told: 950,
			spans: "300-400 950-end", known: 950},
		{name: "always, what does not exist", policy: always, exists: "0-200 600-950", told: 950,
			spans: "100-200 600-end", known: 950},
		{name: "always, the feed is behind", policy: always, exists: "0-300", held: "100-300", told: 300,
			spans: "300-end", known: 300},
		{name: "always, only just begun", policy: future, exists: "0-950", told: 950, spans: "980-end", known: 950},
		{name: "backfill, no outage", policy: backfill, exists: "0-950", told: 950, spans: "950-end", known: 950},
		{name: "backfill, an outage", policy: backfill, outages: "300-400", exists: "0-950", told: 950,
			spans: "295-405 950-end", known: 950},
		{name: "backfill, half brought", policy: backfill, outages: "300-400", exists: "0-950", held: "290-350", told: 950,
			spans: "350-405 950-end", known: 950},
		{name: "never, a job", policy: policy.Policy{Kind: policy.Never}, jobs: "200-300", exists: "0-950", told: 950,
			spans: "200-300", known: considered},
		{name: "never, a job half done", policy: policy.Policy{Kind: policy.Never}, jobs: "200-300", exists: "0-950",
			held: "0-250", told: 950, spans: "250-300", known: considered},
		{name: "never, a job done", policy: policy.Policy{Kind: policy.Never}, jobs: "200-300", exists: "0-950",
			held: "0-950", told: 950, spans: "", known: released},
		{name: "never, a job for what is gone", policy: policy.Policy{Kind: policy.Never}, jobs: "0-100",
			exists: "400-950", told: 950, spans: "", known: released},
		{name: "never, a job beyond what was told", policy: policy.Policy{Kind: policy.Never}, jobs: "200-300 900-990",
			exists: "0-950", held: "200-300", told: 930, spans: "900-990", known: considered},
		{name: "never, a job that reaches into the future", policy: policy.Policy{Kind: policy.Never}, jobs: "900-5000",
			exists: "0-950", told: 950, spans: "900-5000", known: considered},
		{name: "always and a job from before", policy: always, jobs: "20-40", exists: "0-950", held: "100-950", told: 950,
			spans: "20-40 950-end", known: 950},
	} {
		f := policy.Facts{Stream: stream, Exists: spans(c.exists), Held: spans(c.held), Outages: spans(c.outages),
			Settled: time.Unix(now-3, 0), Told: time.Unix(c.told, 0)}
		wants := policy.Wants([]policy.Policy{c.policy}, f)
		for _, j := range spans(c.jobs) {
			wants = append(wants, policy.Want{Stream: stream, Span: j}, policy.Want{Stream: "other.door.main", Span: j})
		}
		h := policy.Hold(c.policy, wants, f, time.Unix(now, 0))
		want, until := spans(strings.ReplaceAll(c.spans, "end", "605800")), time.Unix(end, 0)
		known := time.Unix(c.known, 0)
		switch c.known {
		case released:
			until, known = time.Unix(now, 0), policy.Considered()
		case considered:
			known = policy.Considered()
		}
		if text(h.Spans) != text(want) || !h.Known.Equal(known) || !h.Until.Equal(until) || h.Stream != stream {
			t.Errorf("%s: %s, known %v, until %v, of %s; expected %s, known %v, until %v", c.name,
				text(h.Spans), h.Known, h.Until, h.Stream, text(want), known, until)
		}
	}
}

// TestHoldHasFewSpans draws sets of any size: no hold has more spans than one may have, and none leaves
// out what is wanted.
func TestHoldHasFewSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 3*branchline.MaxHoldSpans).Draw(t, "spans")
		var exists branchline.Spans
		at := time.Unix(0, 0)
		for i := range n {
			hole := time.Duration(1+(i*i*7919)%977) * time.Second
			exists = append(exists, branchline.TimeRange{Start: at.Add(hole), End: at.Add(hole + time.Second)})
			at = at.Add(hole + time.Second)
		}
		f := policy.Facts{Stream: stream, Exists: exists, Told: at}
		h := policy.Hold(policy.Policy{Kind: policy.Never},
			[]policy.Want{{Stream: stream, Span: branchline.TimeRange{Start: time.Unix(0, 0), End: at}}}, f, at)
		if want := min(n, branchline.MaxHoldSpans); len(h.Spans) != want {
			t.Fatalf("%d spans of %d, want %d", len(h.Spans), n, want)
		}
		if left := exists.Minus(h.Spans); len(left) > 0 {
			t.Fatalf("not spared: %v", left)
		}
		h.Holder = "hub"
		if err := h.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDue(t *testing.T) {
	const end = 700_000
	type hold struct {
		spans string
		known int64
	}
	const considered = 1 << 33
	for _, c := range []struct {
		name       string
		next, sent hold
		ago        int64 // seconds since sent was told; 0 if it was not
		due        bool
	}{
		{name: "nothing wanted, nothing told", next: hold{"", considered}, due: false},
		{name: "wanted, nothing told", next: hold{"1-2", considered}, due: true},
		{name: "the same", next: hold{"1-2", 50}, sent: hold{"1-2", 50}, ago: 3600, due: false},
		{name: "half the lease is over", next: hold{"1-2", 50}, sent: hold{"1-2", 50}, ago: 302400, due: true},
		{name: "more wanted", next: hold{"1-3", 50}, sent: hold{"1-2", 50}, ago: 1, due: true},
		{name: "more wanted, after what was known", next: hold{"1-2 60-70", 80}, sent: hold{"1-2", 50}, ago: 1, due: false},
		{name: "more wanted by a job", next: hold{"1-2 60-70", considered}, sent: hold{"1-2", considered}, ago: 1, due: true},
		{name: "released", next: hold{"", considered}, sent: hold{"1-2", 50}, ago: 60, due: true},
		{name: "released, too soon", next: hold{"", considered}, sent: hold{"1-2", 50}, ago: 59, due: false},
		{name: "released already", next: hold{"", considered}, sent: hold{"", considered}, ago: 900000, due: false},
		{name: "known for longer", next: hold{"1-2", 650}, sent: hold{"1-2", 50}, ago: 60, due: true},
		{name: "known for longer, too soon", next: hold{"1-2", 650}, sent: hold{"1-2", 50}, ago: 59, due: false},
		{name: "known a little longer", next: hold{"1-2", 649}, sent: hold{"1-2", 50}, ago: 900, due: false},
		{name: "much was brought", next: hold{"1-2", 5000}, sent: hold{"1-700", 5000}, ago: 60, due: true},
		{name: "little was brought", next: hold{"1-200", 5000}, sent: hold{"1-700", 5000}, ago: 60, due: false},
		{name: "wanted longer than the lease lasts", next: hold{"1-800000", considered}, sent: hold{"1-700000", considered},
			ago: 900, due: false},
	} {
		make := func(h hold) branchline.Hold {
			return branchline.Hold{Stream: stream, Spans: spans(h.spans), Known: time.Unix(h.known, 0), Until: time.Unix(end, 0)}
		}
		now, at := time.Unix(600_000, 0), time.Time{}
		if c.ago > 0 {
			at = now.Add(-time.Duration(c.ago) * time.Second)
		}
		if got := policy.Due(make(c.next), make(c.sent), at, now); got != c.due {
			t.Errorf("%s: due %v, expected %v", c.name, got, c.due)
		}
	}
}
