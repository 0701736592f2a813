package members

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

// What gossip costs and how fast it is. At 500 sites a site's link carries less than 1 kbit/s of it, both
// directions together; TestBudget prints the figure.
const (
	// probeInterval is how often a node probes another; each is probed as often by somebody.
	probeInterval = 5 * time.Second
	// probeTimeout is how long a node waits before it asks others and tries a stream: three links' round trips.
	probeTimeout = 2 * time.Second
	// indirectChecks is how many others are asked. One: a stream is tried too, which does not lose.
	indirectChecks = 1
	// Rumours go to gossipNodes members every gossipInterval, while there are any.
	gossipInterval = time.Second
	gossipNodes    = 3
	retransmits    = 4 // times the logarithm of the number of members
	// suspicion lasts suspicionMult probe intervals, times the logarithm of the number of members, and
	// maxSuspicion times that if few agree: a node that has no CPU for seconds can still object. That a link
	// is gone is known from the link, sooner.
	suspicionMult = 3
	maxSuspicion  = 2
	// pushPull is how often whole states are compared; memberlist stretches it fivefold at 500 members.
	pushPull = 5 * time.Minute
	// forget is how long a member that is gone is remembered.
	forget = time.Minute
	// maxMembers bounds the members that are remembered.
	maxMembers = 2000
	// handoff bounds the rumours that wait to be taken in.
	handoff = 256
)

// Config says what a node's part in the gossip needs.
type Config struct {
	// Hub is the name of this node if it is a hub, from [HubName]; empty at an edge.
	Hub string
	// Known reports, at a hub, whether a site is in its list.
	Known  func(branchline.SiteID) bool
	Clock  clock.Clock
	Logger *slog.Logger // nil means none
}

// Members is a node's part in the gossip: one member for each name that it has, a hub one, an edge one for
// all hubs that call it by the same name.
type Members struct {
	cfg    Config
	counts counts

	mu     sync.Mutex
	nodes  map[string]*node
	closed bool
}

type counts struct{ sent, received, sentBytes, receivedBytes, refused, dropped atomic.Uint64 }

// Stats counts what gossip did since Open.
type Stats struct {
	Sent, Received           uint64 // packets
	SentBytes, ReceivedBytes uint64 // of packets and streams, as the link got them
	Refused                  uint64 // packets and streams that broke a rule
	Dropped                  uint64 // packets and streams over a limit, or to nobody here
}

// Open starts a node's part in the gossip. The caller closes it after every [Link.Run] has returned.
func Open(cfg Config) (*Members, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Members{cfg: cfg, nodes: make(map[string]*node)}
	if cfg.Hub != "" {
		if _, ok := idOf(cfg.Hub); !ok {
			return nil, fmt.Errorf("open members: %q is no hub's name: %w", cfg.Hub, branchline.ErrInvalid)
		}
		if _, err := m.node(cfg.Hub); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Close ends the gossip. memberlist's own goroutines end on their own, at the latest after a probe.
func (m *Members) Close() error {
	m.mu.Lock()
	nodes := m.nodes
	m.nodes, m.closed = nil, true
	m.mu.Unlock()
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.ml.Shutdown())
	}
	return errors.Join(errs...)
}

// Stats returns the present counts.
func (m *Members) Stats() Stats {
	c := &m.counts
	return Stats{
		Sent: c.sent.Load(), Received: c.received.Load(), SentBytes: c.sentBytes.Load(),
		ReceivedBytes: c.receivedBytes.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(),
	}
}

// Alive returns how many nodes are alive as this one, a hub, sees it, itself included.
func (m *Members) Alive() int {
	n, err := m.node(m.cfg.Hub)
	if err != nil {
		return 0
	}
	return n.ml.NumMembers()
}

// Link returns what is known of the site's link here, at a hub; false if it never had one.
func (m *Members) Link(site branchline.SiteID) (LinkFacts, bool) {
	n, err := m.node(m.cfg.Hub)
	if err != nil {
		return LinkFacts{}, false
	}
	return n.linkFacts(string(site))
}

// Gossip returns what gossip says of the site, at a hub.
func (m *Members) Gossip(site branchline.SiteID) GossipFacts {
	n, err := m.node(m.cfg.Hub)
	if err != nil {
		return GossipFacts{}
	}
	return n.gossipFacts(string(site))
}

// node returns the member of the name, which it makes if there is none.
func (m *Members) node(name string) (*node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fmt.Errorf("gossip as %s: %w", name, branchline.ErrUnavailable)
	}
	if n := m.nodes[name]; n != nil {
		return n, nil
	}
	if !valid(name) {
		return nil, fmt.Errorf("gossip as %.80q: %w", name, branchline.ErrInvalid)
	}
	n := newNode(m, name)
	var err error
	if n.ml, err = memberlist.Create(n.config()); err != nil {
		return nil, fmt.Errorf("gossip as %s: %w", name, err)
	}
	m.nodes[name] = n
	return n, nil
}

// drop ends a member whose last link has said that the node stops.
func (m *Members) drop(n *node) {
	m.mu.Lock()
	mine := m.nodes[n.name] == n
	if mine {
		delete(m.nodes, n.name)
	}
	m.mu.Unlock()
	if mine {
		_ = n.ml.Shutdown() // of a transport of ours, which does not fail
	}
}

func (n *node) config() *memberlist.Config {
	c := memberlist.DefaultWANConfig()
	c.Name, c.Transport = n.name, &transport{n}
	c.BindPort, c.AdvertisePort = link.DefaultPort, link.DefaultPort
	c.RequireNodeNames = true
	c.UDPBufferSize = link.MaxPacket - 64 // for the frame
	c.EnableCompression = false           // of streams it is done here, once
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = false, false
	c.ProbeInterval, c.ProbeTimeout, c.IndirectChecks = probeInterval, probeTimeout, indirectChecks
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = gossipInterval, gossipNodes, retransmits
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, maxSuspicion
	c.PushPullInterval, c.TCPTimeout = pushPull, streamTime
	c.GossipToTheDeadTime, c.HandoffQueueDepth = forget, handoff
	c.AwarenessMaxMultiplier = 4
	c.Delegate, c.Events, c.Alive, c.Merge = n, n, n, n
	c.Logger = slog.NewLogLogger(n.m.cfg.Logger.Handler(), slog.LevelDebug)
	return c
}
