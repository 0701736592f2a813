package members

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/link"
)

// TestLook holds what a hub sees of a link against a record of half seconds: + something came and something was
// acknowledged, - something came, . nothing. A site that stood still has still to answer and is not one-way.
func TestLook(t *testing.T) {
	for record, want := range map[string]State{
		"++++++++":      Online,
		"+-+-+-+-":      Online,
		"++----":        Online,
		"++-----":       OneWay,
		"+-.-.-.-.-":    OneWay, // keep-alives alone come once a second
		"+-.....-":      Online, // all that was on the way, at once
		"+-.....----":   Online,
		"+-.....-----":  OneWay,
		"+-.....---+":   Online,
		"+-.....":       Online,
		"+-......":      Suspect,
		"+-------+":     Online,
		"++-----+.-.-.": Online,
	} {
		began := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
		at, seen := began, link.Stats{PacketsIn: 1, RTT: time.Millisecond}
		l := &Link{stream: nothing{}}
		l.seen.Up, l.seen.Heard, l.acked = true, began, began
		for _, what := range record {
			at = at.Add(lookEvery)
			switch what {
			case '+':
				seen.RTT++
				fallthrough
			case '-':
				seen.PacketsIn++
			}
			l.look(seen, at)
		}
		if got := Join(at, l.seen, GossipFacts{}); got.State != want {
			t.Errorf("%s: %+v, want %s", record, got, want)
		}
	}
}

// nothing is a stream that is not used.
type nothing struct{ link.Stream }
