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
