package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// maxLinks bounds the sites that are linked to one hub at once.
	maxLinks = 1000
	// maxPending bounds the connections of sites that have not greeted yet. It is more than maxLinks, as
	// all may come at once after a restart.
	maxPending = 1200
	// maxPendingOf bounds those of one site: its network may have gone and come a few times meanwhile.
	maxPendingOf = 16
	// verifyEvery is how often each link's certificate is verified again, so that revoking a site ends
	// its link within seconds, from whatever process it was revoked.
	verifyEvery = 2 * time.Second
)

// PeersConfig says what a hub's links need; Addr, Authority and Linked must be set.
type PeersConfig struct {
	// Addr is the address to listen on, by UDP and TCP.
	Addr      string
	Authority *identity.Authority
	// Linked is called, on a goroutine of its own, for each link that comes up, and is to return when its
	// context ends, which is when the link does. For one site it is never called again before it has
	// returned.
	Linked func(ctx context.Context, site branchline.SiteID, src *Remote)
	// Copies, if set, gives sites back what they have lost.
	Copies CopyFunc
	// Tier is this hub among those above and below it; nil for one that knows of none.
	Tier *Tier
	// Members, if set, is this hub's part in the gossip, which stays the caller's.
	Members *members.Members
	// Followed, if set, tells how far a site's feed has been followed, so that a store with an old state shows.
	Followed func(site branchline.SiteID) (branchline.Position, error)
	// Denied, if set, is told of calls that a site's node makes and that are not its to make, for the audit.
	// Of one site it is told at most deniedBurst at once and then one every deniedEvery.
	Denied func(Denial)
	// Standing, if set, is told when a site waits for approval or is quarantined, and when that is over. It must
	// return at once.
	Standing func(site branchline.SiteID)
	// Software describes this node to its sites, for people.
	Software string
	// ListenPacket opens the socket; nil means the system's.
	ListenPacket func(addr string) (net.PacketConn, error)
	// Qlog, if set, is where links are logged, by their sites' names.
	Qlog   *link.Qlog
	Clock  clock.Clock
	Logger *slog.Logger // nil means none

	most version // that this node speaks; zero: all. For tests.
}

// Peers is a hub's links to its sites. A site has one link: a newer one takes the place of the older,
// as that is what a site makes when its network has changed. (Two nodes that hold one identity would
// take turns.)
type Peers struct {
	cfg       PeersConfig
	l         *link.Listener
	pending   *places[branchline.SiteID] // connections that have not greeted
	enrolling *places[netip.Prefix]
	measured  measured

	mu       sync.Mutex
	links    map[branchline.SiteID]*peer
	denials  map[branchline.SiteID]*denials
	renewals map[branchline.SiteID]*rate.Limiter
}

type peer struct {
	remote   *Remote
	conn     link.Conn
	since    time.Time
	software string
	version  version       // that the link speaks
	instance uint64        // of the node's process, 0 if it did not tell
	leaf     []byte        // the newest certificate of its key, DER; guarded by Peers.mu
	done     chan struct{} // closed when Linked has returned and the link is forgotten
}

// PeerState is how the link of a site stands.
type PeerState struct {
	Site     branchline.SiteID
	Addr     string
	Carrier  link.Carrier
	Since    time.Time
	Software string
	Version  uint32 // of the protocol
	Stats    link.Stats
}

// OpenPeers opens the socket. Connections wait until Run.
func OpenPeers(cfg PeersConfig) (*Peers, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Peers{cfg: cfg, links: make(map[branchline.SiteID]*peer), denials: make(map[branchline.SiteID]*denials),
		renewals:  make(map[branchline.SiteID]*rate.Limiter),
		pending:   newPlaces[branchline.SiteID](maxPending, maxPendingOf),
		enrolling: newPlaces[netip.Prefix](maxEnrolling, maxEnrollingFrom)}
	l, err := link.Listen(cfg.Addr, link.Options{
		TLS: cfg.Authority.TLS(), Verify: p.verify, ListenPacket: cfg.ListenPacket, ResetKey: cfg.Authority.ResetKey(),
		Join: identity.ProtocolJoin, Single: identity.ProtocolEnrol, Qlog: cfg.Qlog,
	})
	if err != nil {
		return nil, fmt.Errorf("open links to sites: %w", err)
	}
	p.l = l
	if err := l.TCP(); err != nil {
		cfg.Logger.Warn("no links over TCP: sites whose network blocks UDP cannot link", "addr", l.Addr(), "error", err)
	}
	return p, nil
}

// Addr returns the address of the socket.
func (p *Peers) Addr() net.Addr { return p.l.Addr() }

// Close closes the socket and all links.
func (p *Peers) Close() error { return p.l.Close() }

// Remote returns the linked site's source, and whether it is linked.
func (p *Peers) Remote(site branchline.SiteID) (*Remote, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.links[site]
	if !ok {
		return nil, false
	}
	return l.remote, true
}

// Links lists the linked sites, sorted by name.
func (p *Peers) Links() []PeerState {
	p.mu.Lock()
	links := make([]*peer, 0, len(p.links))
	for _, l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	states := make([]PeerState, 0, len(links))
	for _, l := range links {
		states = append(states, l.state())
	}
	slices.SortFunc(states, func(a, b PeerState) int { return strings.Compare(string(a.Site), string(b.Site)) })
	return states
}

// verify decides who a peer is. Those who want to enrol are nobody yet.
func (p *Peers) verify(state tls.ConnectionState) (branchline.SiteID, *link.Error) {
	if state.NegotiatedProtocol == identity.ProtocolEnrol {
		return "", nil
	}
	var chain [][]byte
	for _, c := range state.PeerCertificates[1:] {
		chain = append(chain, c.Raw)
	}
	site, err := p.cfg.Authority.Verify(state.PeerCertificates[0].Raw, chain...)
	if err != nil {
		p.cfg.Logger.Warn("link refused", "error", err)
		return "", &link.Error{Code: linkCode(codeOf(err)), Reason: err.Error(), Conn: true}
	}
	return site, nil
}

// Run accepts links and enrolments until ctx ends, and returns when every Linked has. It returns ctx's
// error, or that of the socket.
func (p *Peers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			conn, err := p.l.Accept(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("accept links: %w", err)
			}
			g.Go(func() error { return p.serve(ctx, conn) })
		}
	})
	return g.Wait()
}

// serve deals with one connection. Whatever happens to it is no error of Run.
func (p *Peers) serve(ctx context.Context, conn link.Conn) error {
	var err error
	switch conn.Peer().Protocol {
	case identity.ProtocolEnrol:
		err = p.enrolment(ctx, conn)
	case identity.ProtocolTest:
		err = p.measure(ctx, conn)
	default:
		err = p.link(ctx, conn)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("the hub is stopping: %w", branchline.ErrUnavailable)
	}
	if err := closeFor(conn, err); err != nil {
		p.cfg.Logger.Debug("connection closed", "error", err)
	}
	return nil
}

func (p *Peers) enrolment(ctx context.Context, conn link.Conn) error {
	from := link.Network(conn.Peer().Addr)
	leave, ok := p.enrolling.enter(from)
	if !ok {
		return fmt.Errorf("too many enrolments are under way, or too many of them from %s: %w", from, branchline.ErrBusy)
	}
	defer leave()
	err := p.admit(ctx, conn)
	if err != nil {
		p.cfg.Logger.Warn("enrolment refused", "addr", conn.Peer().Addr, "error", err)
		return err
	}
	p.cfg.Logger.Info("enrolment", "addr", conn.Peer().Addr)
	return nil
}

// link serves a site's link from its greeting to its end.
func (p *Peers) link(ctx context.Context, conn link.Conn) error {
	l, err := p.welcome(ctx, conn)
	if err != nil {
		return err
	}
	defer p.forget(l)
	site := l.remote.Site()
	gossip, err := gossipIn(p.cfg.Members, site, conn, l.version)
	if err != nil {
		return err
	}
	p.cfg.Logger.Info("link up", "site", site, "addr", conn.Peer().Addr, "carrier", conn.Peer().Carrier,
		"version", l.version)
	stop := ctx
	g, ctx := errgroup.WithContext(ctx)
	if gossip != nil {
		g.Go(func() error { return gossip.Run(ctx, stop) })
	}
	g.Go(func() error {
		s := &server{
			conn: conn, version: l.version, tier: p.cfg.Tier, gossip: gossip,
			renew:  func(csr []byte) (identity.Certificate, error) { return p.renew(l, csr) },
			denied: func(req *wire.Request, err error) { p.deny(conn.Peer(), req, err) },
		}
		if p.cfg.Copies != nil {
			s.copies = func(ctx context.Context, id branchline.SegmentID, b branchline.ByteRange) (io.ReadCloser, error) {
				return p.cfg.Copies(ctx, site, id, b)
			}
		}
		return s.run(ctx)
	})
	g.Go(func() error { return p.verifying(ctx, l) })
	g.Go(func() error {
		p.cfg.Linked(ctx, site, l.remote)
		return nil
	})
	err = g.Wait()
	p.cfg.Logger.Info("link down", "site", site, "error", err)
	return err
}

func (p *Peers) welcome(ctx context.Context, conn link.Conn) (*peer, error) {
	leave, ok := p.pending.enter(conn.Peer().Site)
	if !ok {
		return nil, fmt.Errorf("too many connections are waiting, or %d of this site: %w", maxPendingOf, branchline.ErrBusy)
	}
	defer leave()
	l := &peer{remote: NewRemote(conn), conn: conn, since: p.cfg.Clock.Now(), leaf: conn.Peer().Leaf,
		done: make(chan struct{})}
	g, err := welcoming{
		software: p.cfg.Software, tier: p.cfg.Tier, high: most(p.cfg.most),
		may: func(hello *wire.HelloRequest) error { return p.greeted(l, hello) },
	}.welcome(ctx, conn)
	if err != nil {
		if isAny(err, ErrLoop, ErrVersion) {
			p.cfg.Logger.Warn("link refused", "site", conn.Peer().Site, "software", g.software, "error", err)
		}
		return nil, err
	}
	l.software, l.version, l.remote.version = g.software, g.version, g.version
	return l, p.claim(ctx, l)
}

// claim makes l the link of its site, after an older one has ended.
func (p *Peers) claim(ctx context.Context, l *peer) error {
	for {
		old, err := p.put(l)
		if old == nil {
			return err
		}
		if err := closeFor(old.conn, ErrReplaced); err != nil {
			p.cfg.Logger.Debug("replaced link closed", "error", err)
		}
		select {
		case <-old.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// put enters l unless its site has a link, which it returns.
func (p *Peers) put(l *peer) (old *peer, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	site := l.remote.Site()
	if old, ok := p.links[site]; ok {
		return old, nil
	}
	if len(p.links) >= maxLinks {
		return nil, fmt.Errorf("more than %d sites are linked: %w", maxLinks, branchline.ErrBusy)
	}
	p.links[site] = l
	return nil, nil
}

func (p *Peers) forget(l *peer) {
	p.mu.Lock()
	delete(p.links, l.remote.Site())
	p.mu.Unlock()
	close(l.done)
}

// verifying returns an error when the certificate of the link is no longer good.
func (p *Peers) verifying(ctx context.Context, l *peer) error {
	conn := l.conn
	tick := time.NewTicker(verifyEvery)
	defer tick.Stop()
	var asked asking
	for {
		asked = p.refresh(ctx, l, asked)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := p.cfg.Authority.Good(p.leafOf(l), l.instance)
		if code := codeOf(err); err != nil && code != wire.Code_CODE_INTERNAL {
			// At once: whoever uses the link may take its time to stop.
			return errors.Join(err, closeFor(conn, err))
		}
		if err != nil {
			p.cfg.Logger.Warn("certificate not verified", "site", conn.Peer().Site, "error", err)
		}
	}
}
