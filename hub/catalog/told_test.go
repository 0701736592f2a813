package catalog_test

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// TestTold shows up to when a feed has told of a stream, whatever range is asked for.
func TestTold(t *testing.T) {
	for _, c := range []struct {
		feed string
		want time.Time
	}{
		{"camera", time.Time{}},
		{"camera; open a 0", at(0)},
		{"camera; open a 0; seal a 0-60", at(60)},
		{"camera; open a 0; seal a 0-60; open b 60", at(60)},
		{"camera; open a 0; seal a 0-60; open b 61", at(61)},
		{"camera; open a 0; seal a 0-60; gap 60 camera unreachable", at(60)},
		{"camera; open a 0; seal a 0-60; gap 60-90 camera unreachable", at(90)},
		{"camera; open a 0; seal a 0-60; open b 60; seal b 60-120; remove a 0-60 expired", at(120)},
	} {
		f := newFixture(t)
		f.check(f.catalog.LinkUp(site, at(0)))
		f.follow(&feed{changes: changes(c.feed)})
		for _, r := range []branchline.TimeRange{{}, span(-100, 1000), span(10, 20)} {
			facts, err := f.catalog.Facts(stream, r)
			f.check(err)
			if !facts.Told.Equal(c.want) {
				t.Errorf("%s: told up to %v, want %v", c.feed, facts.Told, c.want)
			}
		}
	}
}
