package federation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// MaxTiers bounds the hubs above one another: with them a stream's identifier has five labels, for which
	// [branchline.MaxID] has room.
	MaxTiers = 3
	// maxWays bounds the ways up from one hub: two tiers of hubs with eight hubs above each.
	maxWays = 64
	// aboveEvery is how often a linked hub asks how things stand above: a loop that closes far away is
	// broken about as fast. Until then it is harmless, as no name fits that has more labels.
	aboveEvery = 10 * time.Second
)

// ErrLoop means that a hub would be above itself, or that too many hubs would be above one another.
var ErrLoop = errors.New("hubs in a loop")

// HubID is a hub as it names itself to others. It proves nothing: who lies about it only has links refused.
type HubID struct {
	ID   [16]byte
	Name string // for people, up to [branchline.MaxName] bytes
}

func (h HubID) String() string {
	if h.Name == "" {
		return fmt.Sprintf("%x", h.ID[:4])
	}
	return h.Name
}

// Way is a hub and those above it, one over the other.
type Way []HubID

func (w Way) String() string {
	names := make([]string, len(w))
	for i, h := range w {
		names[i] = h.String()
	}
	return strings.Join(names, " under ")
}

// Tier is a hub among other hubs: it knows which are above, those too whose link is down, so that no outage
// turns hubs upside down that are configured to be above each other. Methods may be called concurrently; those that
// are not exported may be called on nil, for a node that is no hub.
type Tier struct {
	self HubID

	mu    sync.Mutex
	above map[string][]Way // by the name of the hub above
}

// NewTier returns the tier of a hub with nothing above.
func NewTier(self HubID) *Tier {
	self.Name = clipText(self.Name, branchline.MaxName)
	return &Tier{self: self, above: make(map[string][]Way)}
}

// Ways returns the ways up from this hub, itself first, at least one; nothing for nil.
func (t *Tier) Ways() []Way {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var ways []Way
	for _, name := range slices.Sorted(maps.Keys(t.above)) {
		for _, w := range t.above[name] {
			ways = append(ways, append(Way{t.self}, w...))
		}
	}
	if len(ways) == 0 {
		ways = []Way{{t.self}}
	}
	return ways[:min(len(ways), maxWays)]
}

// enter notes the ways up from the hub with that name, to which this one is linked, unless that makes a loop.
func (t *Tier) enter(name string, ways []Way) error {
	if t == nil {
		return nil
	}
	for _, w := range ways {
		i := slices.IndexFunc(w, func(h HubID) bool { return h.ID == t.self.ID })
		switch {
		case i == 0:
			return fmt.Errorf("hub %s dials itself: %w", t.self, ErrLoop)
		case i > 0:
			return fmt.Errorf("%s: %w: take one of these hubs off the list of another", append(Way{t.self}, w[:i+1]...),
				ErrLoop)
		case len(w)+1 > MaxTiers:
			return fmt.Errorf("%s: %w: more than %d above one another", append(Way{t.self}, w...), ErrLoop, MaxTiers)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.above[name] = ways
	return nil
}

// admit decides whether a node that greets may be below this hub. Who is no hub may.
func (t *Tier) admit(w *wire.Hub) error {
	if t == nil || w == nil {
		return nil
	}
	peer, err := decodeHub(w)
	if err != nil {
		return err
	}
	for _, way := range t.Ways() {
		i := slices.IndexFunc(way, func(h HubID) bool { return h.ID == peer.ID })
		switch {
		case i == 0:
			return fmt.Errorf("hub %s dials itself: %w", t.self, ErrLoop)
		case i > 0:
			return fmt.Errorf("%s: %w: take one of these hubs off the list of another", append(Way{peer}, way[:i+1]...),
				ErrLoop)
		case len(way)+1 > MaxTiers:
			return fmt.Errorf("%s: %w: more than %d above one another", append(Way{peer}, way...), ErrLoop, MaxTiers)
		}
	}
	return nil
}

// hello returns how this hub names itself; nothing for a node that is none.
func (t *Tier) hello() *wire.Hub {
	if t == nil {
		return nil
	}
	return encodeHub(t.self)
}

// lookingUp keeps a hub's knowledge of what is above true, and returns an error when a loop has closed.
func (u *Uplink) lookingUp(ctx context.Context, conn link.Conn) error {
	tick := time.NewTicker(aboveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if u.cfg.Tier == nil {
			continue
		}
		ways, err := above(ctx, conn)
		if err == nil {
			if err = u.cfg.Tier.enter(u.cfg.Name, ways); err != nil {
				return errors.Join(err, closeFor(conn, err))
			}
		}
		if err != nil && ctx.Err() == nil {
			u.cfg.Logger.Debug("hubs above are not known", "error", err)
		}
	}
}

func above(ctx context.Context, conn link.Conn) ([]Way, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	c, err := ask(ctx, conn, link.KindControl, &wire.Request{Call: &wire.Request_Above{Above: &wire.AboveRequest{}}})
	if err != nil {
		return nil, err
	}
	defer c.close()
	a, err := c.one()
	if err != nil {
		return nil, err
	}
	return decodeWays(a.GetAbove().GetWays())
}

// greet opens the link, unless hubs would be in a loop by it. After it both sides may call each other.
func (u *Uplink) greet(ctx context.Context, conn link.Conn) error {
	g, err := greetAs(ctx, conn, u.hello(), most(u.cfg.most))
	if err != nil {
		return err
	}
	u.spoken = g.version
	if err := u.cfg.Tier.enter(u.cfg.Name, g.above); err != nil {
		return errors.Join(err, closeFor(conn, err))
	}
	return nil
}

func encodeHub(h HubID) *wire.Hub { return &wire.Hub{Id: h.ID[:], Name: h.Name} }

func decodeHub(w *wire.Hub) (HubID, error) {
	h := HubID{Name: w.GetName()}
	if len(w.GetId()) != len(h.ID) || len(h.Name) > branchline.MaxName {
		return h, invalid("hub with an identifier of %d bytes and a name of %d", len(w.GetId()), len(h.Name))
	}
	copy(h.ID[:], w.GetId())
	return h, nil
}

func encodeWays(ways []Way) []*wire.Way {
	var all []*wire.Way
	for _, way := range ways {
		w := &wire.Way{}
		for _, h := range way {
			w.Hubs = append(w.Hubs, encodeHub(h))
		}
		all = append(all, w)
	}
	return all
}

func decodeWays(all []*wire.Way) ([]Way, error) {
	if len(all) > maxWays {
		return nil, invalid("%d ways up", len(all))
	}
	var ways []Way
	for _, w := range all {
		if len(w.GetHubs()) > MaxTiers+1 {
			return nil, invalid("%d hubs above one another", len(w.GetHubs()))
		}
		var way Way
		for _, h := range w.GetHubs() {
			hub, err := decodeHub(h)
			if err != nil {
				return nil, err
			}
			way = append(way, hub)
		}
		ways = append(ways, way)
	}
	return ways, nil
}
