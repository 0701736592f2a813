package members

import (
	"fmt"
	"strings"
	"time"
)

// State says how a site stands: its link and its member joined.
type State string

// The states of a site that has been linked.
const (
	Online      State = "online"
	Suspect     State = "suspect"     // silent, or its link was just lost; it is not decided yet
	LinkDown    State = "link-down"   // nobody can reach it
	Unreachable State = "unreachable" // from this hub; another one has it
	OneWay      State = "one-way"     // bytes pass in one direction only
	Left        State = "left"        // it said that it stops
)

// States returns all states.
func States() []State { return []State{Online, Suspect, LinkDown, Unreachable, OneWay, Left} }

const (
	// silentAfter is how long a link may bring nothing before its site is suspect: more than two keep-alives
	// and their repetitions, so that lost packets alone do not show.
	silentAfter = 3 * time.Second
	// oneWayAfter is how long bytes must have gone on coming in while nothing that was sent was acknowledged.
	// Both sides send every second and repeat what is lost; a peer that hears nothing goes on for 3.8 s.
	oneWayAfter = 2 * time.Second
	// decideWithin is how long after the loss of a link gossip may take to tell of another way. A link is
	// lost within 4.5 s of the site's death, so the dead are shown within 15 s.
	decideWithin = 10 * time.Second
)

// LinkFacts is what a hub's link says of a site. Zero times mean never.
type LinkFacts struct {
	Up    bool
	Since time.Time // of Up, or of down
	Heard time.Time // when something last came from the site
	// Unanswered is when something first came after the site had last acknowledged anything; zero if it
	// acknowledges what is sent, or if the link does not tell.
	Unanswered time.Time
	Bye        bool // the site said that it stops
}

// Life says what gossip thinks of a member.
type Life string

// What gossip can think. It knows nothing of a node that never joined.
const (
	LifeUnknown Life = ""
	LifeAlive   Life = "alive"
	LifeSuspect Life = "suspect"
	LifeDead    Life = "dead"
	LifeLeft    Life = "left"
)

// GossipFacts is what gossip says of a site.
type GossipFacts struct {
	Life  Life
	Since time.Time // of Life
	// Told is when the member's own word of how it is linked came here last.
	Told time.Time
	// Hubs are the other hubs to which it says that it is linked.
	Hubs []string
	// Unheard: it says that what it sends does not arrive here, and that what this hub sends does arrive.
	Unheard bool
	// Others reports whether any member says that it is linked to another hub, so that there may be
	// another way to the site.
	Others bool
}

// Peer is a site's link and member joined into one state, in words.
type Peer struct {
	State  State
	Since  time.Time
	Reason string // for people
	By     string // who saw it: ThisHub, TheSite, or Gossip
}

// Who can have seen how a site stands.
const (
	ThisHub = "this hub"
	TheSite = "the site"
	Gossip  = "gossip"
)

// Alarm reports whether somebody should look after the site. A site that left raises none if it said so to this
// hub: what other members say of that may be a lie.
func (p Peer) Alarm() bool {
	switch p.State {
	case Online, Suspect:
		return false
	case Left:
		return p.By != TheSite
	}
	return true
}

// Join puts together what link and gossip say of a site at the time now. It is a pure function.
func Join(now time.Time, l LinkFacts, g GossipFacts) Peer {
	if l.Up {
		return joinUp(now, l)
	}
	lost := l.Since
	told := !g.Told.IsZero() && g.Told.After(lost) && g.Life != LifeDead && g.Life != LifeLeft
	switch {
	case l.Bye:
		return Peer{Left, lost, "the site said that it stops", TheSite}
	case g.Life == LifeLeft:
		return Peer{Left, lost, "the site told other members that it stops", Gossip}
	case told && g.Unheard:
		return Peer{OneWay, lost, "what the site sends does not arrive here; what this hub sends arrives there", TheSite}
	case told && len(g.Hubs) > 0:
		return Peer{Unreachable, lost,
			"the site works and is linked to " + strings.Join(g.Hubs, ", ") + "; only the way to this hub is broken", TheSite}
	case oneWay(l):
		return Peer{OneWay, lost,
			"when the link was lost, bytes came from the site and it got nothing of what this hub sends", ThisHub}
	case g.Others && g.Life != LifeDead && now.Sub(lost) < decideWithin:
		return Peer{Suspect, lost, "the link was lost; other hubs may still reach the site", ThisHub}
	case g.Life == LifeDead:
		return Peer{LinkDown, lost, "the link was lost, and no other member reaches the site", Gossip}
	}
	return Peer{LinkDown, lost, "nothing comes from the site", ThisHub}
}

func joinUp(now time.Time, l LinkFacts) Peer {
	silent := now.Sub(l.Heard)
	switch {
	case l.Heard.IsZero() || silent < silentAfter && !oneWay(l):
		return Peer{Online, l.Since, "the link is up", ThisHub}
	case oneWay(l) && silent < silentAfter:
		return Peer{OneWay, l.Unanswered, "bytes come from the site, and it gets nothing of what this hub sends", ThisHub}
	}
	return Peer{Suspect, l.Heard, fmt.Sprintf("nothing came from the site for %d s", int(silent/time.Second)), ThisHub}
}

// oneWay reports whether bytes went on coming in while nothing that was sent was acknowledged.
func oneWay(l LinkFacts) bool {
	return !l.Unanswered.IsZero() && l.Heard.Sub(l.Unanswered) >= oneWayAfter
}
