package hub

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub/onward"
	"github.com/branchline-video/branchline/segstore/index"
)

// Above is a hub above this one, to which this one is what a site's edge is: it dials, and serves what all of
// its own sites have.
type Above struct {
	Name  string   // that this hub has for it, one label
	Hubs  []string // host:port; empty: those of the token
	Token string   // enrols this hub there; empty once it is enrolled
}

// Allow says what this hub lets those above do beyond looking and fetching, here and, as far as their sites
// allow it, there. The zero Allow is nothing.
type Allow struct {
	Hold bool // keep footage from retention, for a while, until it has been fetched
	Lock bool // place and take off evidence locks
}

// allowed returns nothing, or this hub's refusal with the key by which its administrator changes that.
func allowed(yes bool, key string) error {
	if yes {
		return nil
	}
	return fmt.Errorf("the region does not allow it (allow.%s in its configuration): %w", key, branchline.ErrDenied)
}

// uplink is the link to a hub above.
type uplink struct {
	*federation.Uplink

	name   string
	linked bool // it has enrolled, or has a token for that
}

// openOnward opens the feed for the hubs above, if there are any.
func (n *Node) openOnward() (err error) {
	if len(n.cfg.Above) == 0 {
		return onward.Lapse(n.db)
	}
	n.onward, err = onward.Open(onward.Options{DB: n.db, Sum: n.sum, Past: !n.db.Fresh()})
	return err
}

// openAbove opens this hub's identities towards those above.
func (n *Node) openAbove() error {
	self, err := n.self()
	if err != nil {
		return err
	}
	n.tier = federation.NewTier(self)
	for _, a := range n.cfg.Above {
		who, err := identity.OpenNode(filepath.Join(n.cfg.Dir, "above", a.Name), n.cfg.Clock)
		if err != nil {
			return fmt.Errorf("open identity for hub %s: %w", a.Name, err)
		}
		if err := who.CountOpen(filepath.Join(n.cfg.Dir, "store")); err != nil {
			n.log.Warn("a hub above cannot tell this one from a copy of it", "to", a.Name, "error", err)
		}
		n.above = append(n.above, uplink{name: a.Name, linked: who.Site() != "" || a.Token != "",
			Uplink: federation.NewUplink(federation.UplinkConfig{
				Node: who, Source: n.Upward(), Feed: n.onward.Head, Name: a.Name, Tier: n.tier, Hubs: a.Hubs, Token: a.Token,
				Software: n.cfg.Software, ListenPacket: n.cfg.ListenPacket, Clock: n.cfg.Clock,
				Logger: n.log.With("to", a.Name),
			})})
	}
	return nil
}

// self returns how this hub names itself to others.
func (n *Node) self() (federation.HubID, error) {
	self := federation.HubID{Name: n.cfg.Name}
	key := []byte("hub/id")
	err := n.db.Update(func(tx *index.Tx) error {
		value, err := tx.Get(key)
		if errors.Is(err, branchline.ErrNotFound) {
			rand.Read(self.ID[:])
			return tx.Set(key, self.ID[:])
		}
		copy(self.ID[:], value)
		return err
	})
	if err != nil {
		return self, fmt.Errorf("look up the hub's identifier: %w", err)
	}
	return self, nil
}

// runAbove keeps the links to the hubs above until ctx ends.
func (n *Node) runAbove(ctx context.Context, group *errgroup.Group) {
	for _, u := range n.above {
		if !u.linked {
			n.log.Warn("not enrolled at a hub above; make a token there with branchline site add", "to", u.name)
			continue
		}
		group.Go(func() error { return u.Run(ctx) })
	}
	if n.onward != nil {
		group.Go(func() error { return n.persist(ctx, func() error { return n.followRemovals(ctx) }) })
	}
}

// Above tells how the links to the hubs above stand, in the order of the configuration.
func (n *Node) Above() []federation.AboveState {
	all := make([]federation.AboveState, 0, len(n.above))
	for _, u := range n.above {
		all = append(all, federation.AboveState{Name: u.name, UplinkState: u.State(), Stats: u.Stats()})
	}
	return all
}

// passOn tells the hubs above of what the catalog stores. What this hub holds is not gone when its site
// removes it.
type passOn struct{ *Node }

// Tell implements [catalog.Onward].
func (p passOn) Tell(tx *index.Tx, c branchline.Change) error {
	switch {
	case c.Site != nil:
		c.Site.Keys = p.keys.list(c.Site.Site)
	case c.Removed != nil && !c.Removed.Span.Empty():
		held, err := p.store.Held(c.Removed.Stream, c.Removed.Span)
		if err != nil && !errors.Is(err, branchline.ErrNotFound) {
			return err
		}
		return p.removed(tx, *c.Removed, branchline.NewSpans(held...))
	}
	return p.onward.Tell(tx, c)
}

// Anew implements [catalog.Onward].
func (p passOn) Anew(tx *index.Tx) error { return p.onward.Anew(tx) }

// removed tells of a removal as far as nothing else has the footage.
func (n *Node) removed(tx *index.Tx, gone branchline.Removal, left branchline.Spans) error {
	for _, span := range (branchline.Spans{gone.Span}).Minus(left) {
		gone.Span = span
		if err := n.onward.Tell(tx, branchline.Change{Removed: &gone}); err != nil {
			return err
		}
	}
	return nil
}

// keyRemovals is the position up to which the store's own removals have been told.
const keyRemovals = "hub/removals"

// followRemovals tells the hubs above of what this hub removes and its site no longer has.
func (n *Node) followRemovals(ctx context.Context) error {
	var at branchline.Position
	if err := n.db.View(func(tx *index.Tx) error { return loadJSON(tx, keyRemovals, &at) }); err != nil {
		return err
	}
	for c, err := range n.store.Changes(ctx, at) {
		if errors.Is(err, branchline.ErrGone) {
			return errors.Join(err, n.db.Update(func(tx *index.Tx) error {
				return errors.Join(n.onward.Anew(tx), storeJSON(tx, keyRemovals, branchline.Position{}))
			}))
		}
		if err != nil {
			return err
		}
		if c.Removed == nil || c.Removed.Span.Empty() {
			continue
		}
		left, err := n.catalog.Available(c.Removed.Stream, c.Removed.Span)
		if err != nil {
			return err
		}
		err = n.db.Update(func(tx *index.Tx) error {
			return errors.Join(n.removed(tx, *c.Removed, left), storeJSON(tx, keyRemovals, c.At))
		})
		if err != nil {
			return err
		}
		n.onward.Wake()
	}
	return ctx.Err()
}

// sum yields what is known below this hub, for who begins to follow it.
func (n *Node) sum(ctx context.Context) iter.Seq2[branchline.Change, error] {
	return func(yield func(branchline.Change, error) bool) {
		if err := n.sumTo(ctx, func(c branchline.Change) bool { return yield(c, nil) }); err != nil {
			yield(branchline.Change{}, err)
		}
	}
}

func (n *Node) sumTo(ctx context.Context, yield func(branchline.Change) bool) error {
	sites, err := n.catalog.Sites()
	if err != nil {
		return err
	}
	for _, s := range sites {
		if !yield(branchline.Change{Site: &branchline.SiteLink{
			Site: s.ID, Linked: s.Linked, Since: s.Since, Keys: n.keys.list(s.ID),
		}}) {
			return nil
		}
	}
	cameras, err := n.catalog.Cameras()
	if err != nil {
		return err
	}
	for _, cam := range cameras {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !yield(branchline.Change{Camera: &cam}) {
			return nil
		}
		sum, err := n.catalog.Sum(cam)
		if err != nil {
			return err
		}
		for _, s := range cam.Streams {
			held, err := n.store.Held(s.ID, forever())
			if err != nil && !errors.Is(err, branchline.ErrNotFound) {
				return err
			}
			for _, span := range held {
				sum = append(sum, branchline.Change{Recorded: &branchline.Recorded{Stream: s.ID, Span: span}})
			}
		}
		for _, c := range sum {
			if !yield(c) {
				return nil
			}
		}
	}
	return nil
}

// forever is all the time that recordings can be of.
func forever() branchline.TimeRange {
	return branchline.TimeRange{Start: time.Unix(0, 0).UTC(), End: time.Unix(1<<33, 0).UTC()}
}

// vouching is a linked site that may be a hub: what that says of the keys of its own sites is learned before
// anything that they have signed.
type vouching struct {
	branchline.Source

	n    *Node
	site branchline.SiteID
}

func (v vouching) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return func(yield func(branchline.Change, error) bool) {
		for c, err := range v.Source.Changes(ctx, after) {
			if err == nil && c.Site != nil {
				err = v.learn(*c.Site)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (v vouching) learn(told branchline.SiteLink) error {
	site := told.Site.Under(v.site)
	if site.Check() != nil {
		return nil //nolint:nilerr // the catalog leaves it out
	}
	for _, key := range told.Keys {
		if err := v.n.keys.learn(site, key); err != nil {
			return err
		}
	}
	return nil
}

func loadJSON(tx *index.Tx, key string, into any) error {
	value, err := tx.Get([]byte(key))
	if errors.Is(err, branchline.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(value, into)
}

func storeJSON(tx *index.Tx, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Set([]byte(key), value)
}
