package catalog_test

import (
	"testing"

	"github.com/branchline-video/branchline/hub/catalog"
)

// TestWhy: an outage keeps how it looked and who saw it, also over a crash of the hub; one that ends before that
// was decided was the link's.
func TestWhy(t *testing.T) {
	f := newFixture(t)
	suspect := catalog.Why{State: "suspect", Reason: "lost", By: "this hub"}
	oneWay := catalog.Why{State: "one-way", Reason: "nothing arrives", By: "the site"}
	f.check(f.catalog.Explain(site, oneWay)) // of a site never seen
	f.check(f.catalog.LinkUp(site, at(0)))
	f.check(f.catalog.Explain(site, oneWay)) // while it is up
	f.check(f.catalog.LinkDown(site, at(10), suspect))
	f.check(f.catalog.LinkUp(site, at(15)))
	f.check(f.catalog.LinkDown(site, at(20), suspect))
	f.check(f.catalog.Explain(site, oneWay))
	if l, err := f.catalog.Link(site); err != nil || l.Linked || l.Why != oneWay {
		t.Errorf("link %v, %v", l, err)
	}
	f.check(f.catalog.LinkUp(site, at(30)))
	f.now = at(40)
	f.crash()
	f.now = at(100)
	outages, err := f.catalog.Outages(site, span(0, 200))
	f.check(err)
	want := []catalog.Why{
		{State: "link-down", Reason: "lost", By: "this hub"}, oneWay,
		{State: "link-down", Reason: "this hub was not running", By: "this hub"},
	}
	if len(outages) != len(want) {
		t.Fatalf("%d outages: %v", len(outages), outages)
	}
	for i, o := range outages {
		if o.Why != want[i] {
			t.Errorf("outage %d: %q, want %q", i, o.Why, want[i])
		}
	}
}

// TestOutagesAfterAClockThatWasAhead: the clock of the hub was a year ahead for a while, and is right again. What was
// recorded meanwhile hides no outage that begins and ends afterwards.
func TestOutagesAfterAClockThatWasAhead(t *testing.T) {
	const ahead = 365 * 86400
	lost := catalog.Why{State: "link-down", Reason: "lost", By: "this hub"}
	for name, c := range map[string]struct {
		up, down, again float64 // before it was right again
	}{
		"an outage":                    {up: 0, down: ahead + 10, again: ahead + 15},
		"the link came up":             {up: 0, down: 10, again: ahead + 15},
		"the link was lost meanwhile":  {up: ahead, down: ahead + 10, again: 15},
		"it was all the time as it is": {up: 0, down: 10, again: 15},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			for i, seconds := range []float64{c.up, c.down, c.again, 100, 105, 200, 210} {
				if f.now = at(seconds); i%2 == 0 {
					f.check(f.catalog.LinkUp(site, f.now))
				} else {
					f.check(f.catalog.LinkDown(site, f.now, lost))
				}
			}
			f.now = at(300)
			outages, err := f.catalog.Outages(site, span(50, 300))
			f.check(err)
			// When the link came while the clock was ahead is not known, only that it was before it was lost again.
			if len(outages) == 3 && outages[0].Span == span(50, 100) && c.down < ahead && c.again > ahead {
				outages = outages[1:]
			}
			if len(outages) != 2 || outages[0].Open || outages[0].Span != span(100, 105) || outages[1].Open ||
				outages[1].Span != span(200, 210) {
				t.Errorf("outages %v", outages)
			}
		})
	}
}
