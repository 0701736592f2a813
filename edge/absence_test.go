package edge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore"
)

// TestAbsenceAfterAPowerCut opens a node whose newest segments a power cut has taken, while gaps that came
// after them were durable. The time line up to now, which is second 60 after the camera was added, must be
// covered, and once only.
func TestAbsenceAfterAPowerCut(t *testing.T) {
	for _, c := range []struct{ name, gaps, want string }{
		{"nothing is known", "", "0-"},
		{"a gap that ended", "0-10 unreachable", "0-10 10-"},
		{"a hole before it", "5-10 unreachable", "0-5 5-10 10-"},
		{"holes between", "5-10 unreachable, 20-30 stopped", "0-5 5-10 10-20 20-30 30-"},
		{"an open one behind a hole", "20-30 unreachable open", "0-20 20-30 30-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			added := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			now := added
			cfg := edge.Config{Dir: t.TempDir(), Signer: signer(), Clock: clock.New(func() time.Time { return now }),
				Cameras: []edge.CameraConfig{{ID: "door", URL: "rtsp://127.0.0.1:1/main"}}}
			s, err := segstore.Open(cfg.Dir, segstore.Options{Signer: signer()})
			must(t, err)
			must(t, s.PutCamera(branchline.Camera{ID: "door", Name: "door", Added: added,
				Streams: []branchline.Stream{{ID: "door.main"}}}))
			for _, text := range strings.Split(c.gaps, ", ") {
				var from, to int
				var cause, open string
				if n, _ := fmt.Sscanf(text, "%d-%d %s %s", &from, &to, &cause, &open); n < 3 {
					continue
				}
				at := func(n int) time.Time { return added.Add(time.Duration(n) * time.Second) }
				must(t, s.RecordGap(branchline.Gap{Stream: "door.main", Span: branchline.TimeRange{Start: at(from), End: at(to)},
					Cause: map[string]branchline.Cause{"unreachable": branchline.CauseUnreachable,
						"stopped": branchline.CauseStopped}[cause], Open: open != ""}))
			}
			must(t, s.Close())
			now = added.Add(time.Minute)
			node, err := edge.Open(cfg)
			must(t, err)
			defer node.Close()
			if got := gapLine(t, node, added); got != c.want {
				t.Errorf("gaps %s, want %s", got, c.want)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// gapLine returns all gaps in seconds since the start, in order; of an open one not its end.
func gapLine(t *testing.T, node *edge.Node, start time.Time) string {
	t.Helper()
	var gaps []branchline.Gap
	head := node.Store().Stats().Changes
	for ch, err := range node.Changes(t.Context(), branchline.Position{}) {
		must(t, err)
		if ch.Gap != nil {
			gaps = append(gaps, *ch.Gap)
		}
		if ch.At.Seq >= head {
			break
		}
	}
	slices.SortFunc(gaps, func(a, b branchline.Gap) int { return a.Span.Start.Compare(b.Span.Start) })
	var out []string
	for _, g := range gaps {
		text := fmt.Sprintf("%v-", g.Span.Start.Sub(start).Seconds())
		if !g.Open {
			text += fmt.Sprint(g.Span.End.Sub(start).Seconds())
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}
