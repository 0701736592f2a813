package hub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub/catalog"
)

const (
	// watchEvery is how often the hub looks how its sites stand.
	watchEvery = time.Second
	// namesFor is how long the list of sites is used before it is read again.
	namesFor = 2 * time.Second
)

// standings is what the hub has told of how its sites stand.
type standings struct {
	mu   sync.Mutex
	run  context.Context // Run's
	told map[branchline.SiteID]members.Peer

	names map[branchline.SiteID]bool // the list of sites, as it was read
	until time.Time                  // names is good
}

// gossip opens the hub's part in the gossip among its sites.
func (n *Node) gossip() (err error) {
	id := n.authority.ResetKey() // derived from the authority's key: it stays, and names tell nothing of it
	n.members, err = members.Open(members.Config{
		Hub: members.HubName(id[:]), Known: n.listed, Clock: n.cfg.Clock, Logger: n.log,
	})
	return err
}

// listed reports whether the site is in the list of sites.
func (n *Node) listed(site branchline.SiteID) bool {
	now := n.cfg.Clock.Now()
	n.stands.mu.Lock()
	names, good := n.stands.names, now.Before(n.stands.until)
	n.stands.mu.Unlock()
	if good {
		return names[site]
	}
	sites, err := n.authority.Sites()
	if err != nil {
		n.log.Warn("list of sites not read", "error", err)
		return names[site]
	}
	names = make(map[branchline.SiteID]bool, len(sites))
	for _, s := range sites {
		names[s.Name] = true
	}
	n.stands.mu.Lock()
	n.stands.names, n.stands.until = names, now.Add(namesFor)
	n.stands.mu.Unlock()
	return names[site]
}

// Peer returns how a site stands, its link and its member joined. It wraps [branchline.ErrNotFound] for
// a site that was never linked.
func (n *Node) Peer(site branchline.SiteID) (members.Peer, error) {
	l, err := n.catalog.Link(site)
	if err != nil {
		return members.Peer{}, fmt.Errorf("tell how a site stands: %w", err)
	}
	return n.standing(l), nil
}

// standing joins what the catalog says of a link, which is what outages are made of, with what the link
// itself and gossip say.
func (n *Node) standing(l catalog.SiteLink) members.Peer {
	facts, gossip := members.LinkFacts{}, members.GossipFacts{}
	known := false
	if n.members != nil {
		facts, known = n.members.Link(l.ID)
		gossip = n.members.Gossip(l.ID)
	}
	facts.Up, facts.Since = l.Linked, l.Since
	if !known && members.State(l.Why.State) == members.Left { // so it was seen in a former life of this hub
		if facts.Bye = l.Why.By == members.TheSite; !facts.Bye && gossip.Life == members.LifeUnknown {
			gossip.Life = members.LifeLeft
		}
	}
	if l.Linked {
		facts.Bye = false
	}
	s := members.Join(n.cfg.Clock.Now(), facts, gossip)
	if !known && s.State == members.LinkDown && l.Why.Reason != "" {
		s.Reason, s.By = l.Why.Reason, l.Why.By
	}
	return s
}

// why is how an outage looks that begins now.
func (n *Node) why(site branchline.SiteID) catalog.Why {
	n.stands.mu.Lock()
	run := n.stands.run
	n.stands.mu.Unlock()
	if run != nil && run.Err() != nil {
		return catalog.Why{State: string(members.LinkDown), Reason: "this hub was stopped", By: members.ThisHub}
	}
	return whyOf(n.standing(catalog.SiteLink{ID: site, Since: n.cfg.Clock.Now()}))
}

func whyOf(s members.Peer) catalog.Why {
	return catalog.Why{State: string(s.State), Reason: s.Reason, By: s.By}
}

// begin notes Run's context: when it has ended, outages are this hub's doing.
func (n *Node) begin(ctx context.Context) {
	n.stands.mu.Lock()
	defer n.stands.mu.Unlock()
	n.stands.run = ctx
}

// watch records how outages look and tells of sites that stand otherwise than before, until ctx ends.
func (n *Node) watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := n.look(); err != nil {
			n.log.Warn("sites not looked at", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Node) look() error {
	links, err := n.catalog.Links()
	if err != nil {
		return err
	}
	told := make(map[branchline.SiteID]members.Peer, len(links))
	n.stands.mu.Lock()
	before := n.stands.told
	n.stands.mu.Unlock()
	for _, l := range links {
		s := n.standing(l)
		told[l.ID] = s
		if !l.Linked && whyOf(s) != l.Why && len(l.ID.Way()) == 1 { // of those behind a hub that tells
			if err := n.catalog.Explain(l.ID, whyOf(s)); err != nil {
				return err
			}
		}
		if was, ok := before[l.ID]; ok && was.State != s.State {
			n.log.Info("site stands otherwise", "site", l.ID, "state", s.State, "was", was.State, "reason", s.Reason)
			if n.cfg.CatalogChanged != nil {
				n.cfg.CatalogChanged(catalog.Notice{Site: l.ID})
			}
		}
	}
	n.stands.mu.Lock()
	n.stands.told = told
	n.stands.mu.Unlock()
	return nil
}

// stand returns how many sites stand how, as they were last looked at.
func (n *Node) stand() map[members.State]int {
	n.stands.mu.Lock()
	defer n.stands.mu.Unlock()
	count := make(map[members.State]int)
	for _, s := range n.stands.told {
		count[s.State]++
	}
	return count
}
