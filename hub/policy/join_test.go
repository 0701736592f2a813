package policy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

// TestJoin: what a region makes the edge spare is what itself and the hubs above want.
func TestJoin(t *testing.T) {
	at := func(minutes int) time.Time {
		return time.Unix(1_800_000_000, 0).UTC().Add(time.Duration(minutes) * time.Minute)
	}
	spans := func(from, to int) branchline.Spans { return branchline.Spans{{Start: at(from), End: at(to)}} }
	hold := func(s branchline.Spans, known, until time.Time) branchline.Hold {
		return branchline.Hold{Stream: "berlin.door.main", Spans: s, Known: known, Until: until}
	}
	wanted := hold(spans(0, 10), at(5), at(200))
	none := hold(nil, policy.Considered(), at(100))
	for name, c := range map[string]struct {
		own   branchline.Hold
		above []branchline.Hold
		held  branchline.Spans
		want  branchline.Hold
	}{
		"nobody wants anything": {none, nil, nil, none},
		"only above":            {none, []branchline.Hold{wanted}, nil, wanted},
		"both": {hold(spans(20, 30), at(30), at(150)), []branchline.Hold{hold(spans(0, 10), at(40), at(120))}, nil,
			hold(append(spans(0, 10), spans(20, 30)...), at(30), at(150))},
		"held here":            {none, []branchline.Hold{wanted}, spans(0, 10), none},
		"held in part":         {none, []branchline.Hold{wanted}, spans(0, 4), hold(spans(4, 10), at(5), at(200))},
		"a lease that is over": {none, []branchline.Hold{hold(spans(0, 10), at(5), at(100))}, nil, none},
		"a release":            {none, []branchline.Hold{hold(nil, policy.Considered(), at(200))}, nil, none},
	} {
		if diff := cmp.Diff(c.want, policy.Join(c.own, c.above, c.held, at(100))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
