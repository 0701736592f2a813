package members

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestJoin has a case a line, times in seconds: the link (up or down @ since, h: heard, u: unanswered since, bye),
// gossip (life, t: told, hubs, unheard, others), and what they make together at the time 100.
func TestJoin(t *testing.T) {
	const cases = `
		up@10 h99             |                            | online@10 this hub
		up@10                 |                            | online@10 this hub     a link without figures
		up@10 h99             | dead t5                    | online@10 this hub     hearsay counts less than a link
		up@10 h99             | suspect t5 unheard         | online@10 this hub
		up@10 h97.5           |                            | online@10 this hub     two packets lost
		up@10 h96             |                            | suspect@96 this hub
		up@10 h99.5 u97       |                            | one-way@97 this hub    bytes come, none of ours arrive
		up@10 h99.5 u98       |                            | online@10 this hub
		up@10 h96.5 u94       |                            | suspect@96.5 this hub  and now none come either
		up@10 h99             |                            | online@10 this hub     no gossip, so no echo
		down@95 h92           |                            | link-down@95 this hub  as today: no other hub is known
		down@95 h92           | alive t5                   | link-down@95 this hub
		down@95 h92           | alive t5 others            | suspect@95 this hub    others may have it
		down@95 h92           | suspect t5 others          | suspect@95 this hub
		down@95 h92           | dead t5 others             | link-down@95 gossip
		down@90 h87           | alive t5 others            | link-down@90 this hub  decided within 10 s
		down@90 h87           | alive t95 hub-b others     | unreachable@90 the site
		down@90 h87           | suspect t95 hub-b others   | unreachable@90 the site
		down@90 h87           | alive t80 hub-b others     | link-down@90 this hub  it said so before
		down@90 h87           | dead t95 hub-b others      | link-down@90 gossip    it died since
		down@90 h87           | alive t95 hub-b unheard    | one-way@90 the site
		down@90 h90 u86       |                            | one-way@90 this hub    it ended so
		down@90 h90 u86       | alive t95 hub-b            | unreachable@90 the site
		down@90 h90 u89       |                            | link-down@90 this hub
		down@90 bye           |                            | left@90 the site
		down@90 bye           | dead t95                   | left@90 the site
		down@90 h87           | left t80                   | left@90 gossip
		up@10 h99             | left t80                   | online@10 this hub     a link that is up counts more`
	for line := range strings.Lines(strings.TrimSpace(cases)) {
		part := strings.Split(strings.TrimSpace(line), "|")
		l, g := readLink(t, part[0]), readGossip(t, part[1])
		s := Join(time.Unix(100, 0), l, g)
		got := fmt.Sprintf("%s@%v %s", s.State, float64(s.Since.UnixNano())/1e9, s.By)
		if !strings.HasPrefix(strings.TrimSpace(part[2]), got) {
			t.Errorf("%s: got %s (%s)", strings.TrimSpace(line), got, s.Reason)
		}
		if s.Reason == "" {
			t.Errorf("%s: no reason", line)
		}
	}
}

func second(t *testing.T, s string) time.Time {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(0, int64(f*1e9))
}

func readLink(t *testing.T, text string) (l LinkFacts) {
	t.Helper()
	for i, w := range strings.Fields(text) {
		switch {
		case i == 0:
			state, since, _ := strings.Cut(w, "@")
			l.Up, l.Since = state == "up", second(t, since)
		case w == "bye":
			l.Bye = true
		case w[0] == 'h':
			l.Heard = second(t, w[1:])
		default:
			l.Unanswered = second(t, w[1:])
		}
	}
	return l
}

func readGossip(t *testing.T, text string) (g GossipFacts) {
	t.Helper()
	for i, w := range strings.Fields(text) {
		switch {
		case i == 0:
			g.Life = Life(w)
		case w == "unheard":
			g.Unheard = true
		case w == "others":
			g.Others = true
		case strings.HasPrefix(w, "hub"):
			g.Hubs = append(g.Hubs, w)
		default:
			g.Told = second(t, w[1:])
		}
	}
	return g
}

// TestAlarm: nothing that only other members say takes an alarm away.
func TestAlarm(t *testing.T) {
	for _, c := range []struct {
		link, gossip string
		want         bool
	}{
		{"up@10 h99", "left t80", false},
		{"up@10 h96", "", false},
		{"up@10 h99.5 u97", "", true},
		{"down@95 h92", "alive t5 others", false},
		{"down@90 h87", "alive t5 others", true},
		{"down@90 h87", "", true},
		{"down@90 h87", "alive t95 hub-b others", true},
		{"down@90 bye", "", false},
		{"down@90 bye", "left t95", false},
		{"down@90 h87", "left t95", true},
		{"down@90 h87", "left t95 others", true},
	} {
		p := Join(time.Unix(100, 0), readLink(t, c.link), readGossip(t, c.gossip))
		if p.Alarm() != c.want {
			t.Errorf("%s | %s: %s by %s has alarm %v", c.link, c.gossip, p.State, p.By, p.Alarm())
		}
	}
}
