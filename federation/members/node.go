package members

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/branchline-video/branchline"
)

// node is one member: what this node is under one name.
type node struct {
	m       *Members
	name    string
	ml      *memberlist.Memberlist
	packets chan *memberlist.Packet
	streams chan net.Conn
	life    uint64 // another for each that was made

	mu      sync.Mutex
	links   map[string]*Link     // by the name at the other end
	routes  map[string]*Link     // at an edge: by which link a node was heard of
	facts   map[string]fact      // by member
	past    map[string]LinkFacts // of links that have ended
	joined  map[string]joining   // at an edge, by hub
	word    word                 // of this node's own links
	others  bool                 // some member is linked to another hub
	told    time.Time            // when this node last told of itself,
	last    []byte               // and what,
	left    int                  // and how often that is still to be told
	leaving bool
	lone    time.Time // since when it has no link at all; zero while it has
	back    bool      // it was without for so long that others may have given it up
}

// fact is what gossip says of a member.
type fact struct {
	life  Life
	since time.Time
	told  time.Time
	left  time.Time // when it was heard that the member itself says that it leaves
	word  []byte
}

// joining is when this node joined by a hub, in which of the hub's lives.
type joining struct {
	life uint64
	at   time.Time
}

const (
	// What waits for memberlist.
	waitingPackets = 128
	waitingStreams = 16
)

func newNode(m *Members, name string) *node {
	return &node{
		m: m, name: name, packets: make(chan *memberlist.Packet, waitingPackets),
		streams: make(chan net.Conn, waitingStreams), life: rand.Uint64(),
		links: make(map[string]*Link), routes: make(map[string]*Link),
		facts: make(map[string]fact), past: make(map[string]LinkFacts), joined: make(map[string]joining), word: word{},
	}
}

func (n *node) now() time.Time { return n.m.cfg.Clock.Now() }

func (n *node) hub() bool { return n.m.cfg.Hub == n.name }

// known reports whether the name may be a member's: at a hub its own and those in its list, at an edge,
// which gets what its hub lets pass, every one that is a name.
func (n *node) known(name string) bool {
	if !n.hub() {
		return valid(name)
	}
	site := branchline.SiteID(name)
	return name == n.name || site.Check() == nil && n.m.cfg.Known(site)
}

func (n *node) screen() screen { return screen{known: n.known, saw: n.saw} }

// saw takes notice of a message about a member: memberlist does not tell its users of suspicion, and not
// whether a member left or died.
func (n *node) saw(kind byte, m message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.facts[m.Node]
	if !ok {
		return
	}
	now := n.now()
	switch {
	case kind == msgSuspect && f.life == LifeAlive:
		f.life, f.since = LifeSuspect, now
	case kind == msgAlive && f.life == LifeSuspect:
		f.life, f.since = LifeAlive, now
	case kind == msgDead && m.From == m.Node:
		f.left = now
	}
	n.facts[m.Node] = f
}

// NotifyJoin is memberlist's word that a member is new or alive again.
func (n *node) NotifyJoin(m *memberlist.Node) {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts[m.Name] = fact{life: LifeAlive, since: now, told: now, word: bytes.Clone(m.Meta)}
	n.look()
}

// NotifyUpdate is memberlist's word that a member told something new of itself.
func (n *node) NotifyUpdate(m *memberlist.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.facts[m.Name]
	f.told, f.word = n.now(), bytes.Clone(m.Meta)
	n.facts[m.Name] = f
	n.look()
}

// NotifyLeave is memberlist's word that a member is gone.
func (n *node) NotifyLeave(m *memberlist.Node) {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.facts[m.Name]
	switch {
	case !ok:
		return
	case !n.hub(): // nobody asks an edge
		delete(n.facts, m.Name)
		delete(n.routes, m.Name)
		return
	}
	life := LifeDead
	if !f.left.IsZero() && now.Sub(f.left) < forget {
		life = LifeLeft
	}
	f.life, f.since = life, now
	n.facts[m.Name] = f
	n.look()
}

// look finds out whether a member is linked to another hub. The caller holds mu.
func (n *node) look() {
	n.others = false
	for _, f := range n.facts {
		if f.life == LifeDead || f.life == LifeLeft {
			continue
		}
		for hub, t := range decodeWord(f.word) {
			n.others = n.others || hub != n.name && t == tieUp
		}
	}
}

// NotifyAlive refuses members that are not known, are too many, or come with an address that is not theirs.
func (n *node) NotifyAlive(m *memberlist.Node) error {
	if !n.known(m.Name) || !sound(m.Name, m.Addr, m.Port, m.Meta) {
		n.m.counts.refused.Add(1)
		return fmt.Errorf("member %.80q is not known here: %w", m.Name, branchline.ErrDenied)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.facts[m.Name]; !ok && len(n.facts) >= maxMembers {
		return fmt.Errorf("more than %d members: %w", maxMembers, branchline.ErrTooLarge)
	}
	return nil
}

// NotifyMerge refuses a state that nobody honest sends. What is merely not known is left out by NotifyAlive.
func (n *node) NotifyMerge(all []*memberlist.Node) error {
	if len(all) > maxMembers || slices.ContainsFunc(all, func(m *memberlist.Node) bool { return !valid(m.Name) }) {
		n.m.counts.refused.Add(1)
		return fmt.Errorf("join of %d members: %w", len(all), branchline.ErrInvalid)
	}
	return nil
}

// NodeMeta is this node's word of its links.
func (n *node) NodeMeta(int) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.word.encode()
}

// Gossip carries nothing but liveness.

// NotifyMsg takes no messages.
func (n *node) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (n *node) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is empty.
func (n *node) LocalState(bool) []byte { return nil }

// MergeRemoteState takes none.
func (n *node) MergeRemoteState([]byte, bool) {}

func (n *node) linkFacts(site string) (LinkFacts, bool) {
	n.mu.Lock()
	l, past := n.links[site], n.past[site]
	n.mu.Unlock()
	if l != nil {
		return l.facts(), true
	}
	return past, !past.Since.IsZero()
}

func (n *node) gossipFacts(site string) GossipFacts {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.facts[site]
	g := GossipFacts{Life: f.life, Since: f.since, Told: f.told, Others: n.others}
	for hub, t := range decodeWord(f.word) {
		if hub == n.name {
			g.Unheard = t == tieUnheard
		} else if t == tieUp {
			g.Hubs = append(g.Hubs, strings.Replace(hub, ":", " ", 1))
		}
	}
	slices.Sort(g.Hubs)
	return g
}

// enter makes l the link to the node at its other end.
func (n *node) enter(l *Link, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[name] = l
	if !n.lone.IsZero() && n.now().Sub(n.lone) > tellAfter {
		n.back = true
	}
	n.lone = time.Time{}
	if !n.hub() {
		n.word[name] = tieUp
	}
}

// leave forgets l and remembers how it ended.
func (n *node) leave(l *Link, name string) {
	end := l.facts()
	end.Up, end.Since = false, n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[name] != l {
		return
	}
	delete(n.links, name)
	if len(n.links) == 0 {
		n.lone = end.Since
	}
	for to, by := range n.routes {
		if by == l {
			delete(n.routes, to)
		}
	}
	if n.hub() {
		n.past[name] = end
		return
	}
	n.word[name] = tieDown
	if oneWay(end) {
		n.word[name] = tieUnheard
	}
}

// tell tells the members how this node is linked, if that is news.
func (n *node) tell() {
	now := n.now()
	n.mu.Lock()
	word := n.word.encode()
	if n.back || !bytes.Equal(word, n.last) {
		n.back, n.last, n.left = false, word, wordTimes
	}
	news := n.left > 0 && now.Sub(n.told) >= wordEvery
	if news {
		n.told = now
		n.left--
	}
	n.mu.Unlock()
	if news {
		_ = n.ml.UpdateNode(time.Millisecond) // it is queued; when it is sent does not matter here
	}
}

// to returns the links by which a packet for the name goes, and whether this node has any link at all.
func (n *node) to(name string) (by []*Link, linked bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.links[name]; l != nil {
		return []*Link{l}, true
	}
	if n.hub() {
		return nil, len(n.links) > 0
	}
	if l := n.routes[name]; l != nil {
		return []*Link{l}, true
	}
	for _, l := range n.links {
		by = append(by, l)
	}
	return by, len(by) > 0
}

// heard notes by which link the node with the name is reached.
func (n *node) heard(name string, by *Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.facts[name]; ok && !n.hub() {
		n.routes[name] = by
	}
}
