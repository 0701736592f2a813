package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/hub/onward"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/live"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/index"
)

// Config is what a hub needs. Only Dir must be set.
type Config struct {
	Dir      string
	Storage  segstore.Options // how recordings are kept; the node sets Clock, Logger and Trust
	Listen   string           // UDP address for the sites; empty: links come by Attach alone
	Policies []policy.Policy  // the first that matches a stream counts; a zero Since is when the hub first had it
	Software string           // told to the sites, for people
	Name     string           // told to other hubs, for people
	Above    []Above          // the hubs above this one
	Allow    Allow            // what those may do
	// ListenPacket opens the socket; nil means the system's.
	ListenPacket func(addr string) (net.PacketConn, error)
	// CatalogChanged and JobChanged, if set, are told what lists of sites, cameras and jobs and what
	// time lines should show anew. They must return at once.
	CatalogChanged func(catalog.Notice)
	JobChanged     func(fetch.Job)
	LockChanged    func(evidence.Lock) // the same for evidence locks
	// SiteChanged, if set, is told that a site waits for approval or is quarantined, or that this is over. It must
	// return at once.
	SiteChanged func(branchline.SiteID)
	// Denied, if set, is told of calls of a site that are not its to make, for the audit.
	Denied func(federation.Denial)
	// Organisation, if set, says where the certificates of the organisation's authority are, which then takes
	// the place of the hub's own.
	Organisation *identity.Organisation
	Registry     prometheus.Registerer // optional; for the metrics of docs/reference/metrics.md
	Clock        clock.Clock
	Logger       *slog.Logger // optional
}

// Node is a hub. Its methods may be called concurrently, between Open and Close.
type Node struct {
	cfg       Config
	log       *slog.Logger
	db        *index.DB
	store     *segstore.Store
	catalog   *catalog.Catalog
	fetcher   *fetch.Fetcher
	locks     *evidence.Locks
	authority *identity.Authority
	peers     *federation.Peers // nil without Listen
	tier      *federation.Tier
	qlog      *link.Qlog
	above     []uplink
	onward    *onward.Log      // nil without hubs above
	members   *members.Members // nil without Listen
	stands    standings
	cameras   chan struct{} // holds a token when a camera was added or changed
	origins   origins
	keys      *keys
	memory    *live.Budget // of the live streams

	life context.Context // of what readers of live streams start; ends with Close
	stop context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex
	closed bool
	failed error                                   // why Run ended, if it should not have
	links  map[branchline.SiteID]branchline.Source // the linked sites
	linked chan struct{}                           // closed when links changes
	feeds  map[feedKey]*feed                       // live streams with readers, or lately without
}

// Open opens the hub that is kept in cfg.Dir, and makes a new one there if there is none. Nothing is
// linked and recorded until Run.
func Open(cfg Config) (*Node, error) {
	n := &Node{
		cfg: cfg, log: cfg.Logger, cameras: make(chan struct{}, 1),
		links: make(map[branchline.SiteID]branchline.Source), linked: make(chan struct{}),
		feeds: make(map[feedKey]*feed), memory: live.NewBudget(liveBytes),
	}
	n.qlog = link.NewQlog(filepath.Join(cfg.Dir, "qlog"), cfg.Clock)
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.life, n.stop = context.WithCancel(context.Background())
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open hub: %w", err), n.Close())
	}
	return n, nil
}

func (n *Node) open() (err error) {
	dir := func(name string) string { return filepath.Join(n.cfg.Dir, name) }
	if o := n.cfg.Organisation; o != nil {
		n.authority, err = identity.OpenOrganisation(dir("authority"), *o, n.cfg.Clock)
	} else {
		n.authority, err = identity.OpenAuthority(dir("authority"), n.cfg.Clock)
	}
	if err != nil {
		return err
	}
	if n.db, err = index.Open(dir("state"), index.Options{Logger: n.log}); err != nil {
		return err
	}
	if n.keys, err = openKeys(n.db); err != nil {
		return err
	}
	storage := n.cfg.Storage
	storage.Clock, storage.Logger, storage.Trust = n.cfg.Clock, n.log, n.keys.trust
	n.store, err = segstore.Open(dir("store"), storage)
	if err != nil {
		return err
	}
	if err := n.openOnward(); err != nil {
		return err
	}
	told := catalog.Options{DB: n.db, Clock: n.cfg.Clock, Logger: n.log, Changed: n.catalogChanged}
	if n.onward != nil {
		told.Onward = passOn{n}
	}
	n.catalog, err = catalog.Open(told)
	if err != nil {
		return err
	}
	policies, err := n.begun(n.cfg.Policies)
	if err != nil {
		return err
	}
	n.fetcher, err = fetch.Open(fetch.Options{
		DB: n.db, Store: n.store, Catalog: n.catalog, Policies: policies, Clock: n.cfg.Clock, Logger: n.log,
		LiveAt: n.liveAt, Revoked: n.revoked, Changed: n.cfg.JobChanged, Moved: n.moved,
	})
	if err != nil {
		return err
	}
	n.locks, err = evidence.Open(evidence.Options{
		DB: n.db, Store: n.store, Known: n.fetcher.Known, Clock: n.cfg.Clock, Logger: n.log,
		Revoked: n.revoked, Changed: n.cfg.LockChanged,
	})
	if err != nil {
		return err
	}
	if err := n.openAbove(); err != nil {
		return err
	}
	if n.cfg.Registry != nil {
		if err := n.register(n.cfg.Registry); err != nil {
			return err
		}
	}
	return n.listen()
}

// listen opens the socket for sites, if there is to be one.
func (n *Node) listen() (err error) {
	if n.cfg.Listen == "" {
		return nil
	}
	if err := n.gossip(); err != nil {
		return err
	}
	n.peers, err = federation.OpenPeers(federation.PeersConfig{
		Addr: n.cfg.Listen, Authority: n.authority, Software: n.cfg.Software, Members: n.members,
		ListenPacket: n.cfg.ListenPacket, Clock: n.cfg.Clock, Logger: n.log,
		Linked: n.linkUp, Copies: n.copyFor, Tier: n.tier, Followed: n.catalog.Followed, Standing: n.cfg.SiteChanged,
		Denied: n.cfg.Denied, Qlog: n.qlog,
	})
	return err
}

// begun gives each policy that says no other beginning the moment at which this hub first had it.
func (n *Node) begun(policies []policy.Policy) ([]policy.Policy, error) {
	policies = slices.Clone(policies)
	err := n.db.Update(func(tx *index.Tx) error {
		for i := range policies {
			p := &policies[i]
			if !p.Since.IsZero() {
				continue
			}
			key := []byte("hub/policy/" + string(p.Kind) + "/" + p.Streams)
			value, err := tx.Get(key)
			switch {
			case err == nil:
				err = json.Unmarshal(value, &p.Since)
			case errors.Is(err, branchline.ErrNotFound):
				p.Since = n.cfg.Clock.Now()
				if value, err = json.Marshal(p.Since); err == nil {
					err = tx.Set(key, value)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up when policies began: %w", err)
	}
	return policies, nil
}

// Run links the sites, records and fetches until ctx ends, and returns its error, or earlier the
// error that made going on impossible. All links have ended when it returns.
func (n *Node) Run(ctx context.Context) error {
	n.begin(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.catalog.Run(ctx) })
	group.Go(func() error { return n.record(ctx) })
	group.Go(func() error { return n.watch(ctx) })
	if n.peers != nil {
		group.Go(func() error { return n.peers.Run(ctx) })
	}
	n.runAbove(ctx, group)
	err := group.Wait()
	n.mu.Lock()
	n.failed = err
	n.mu.Unlock()
	return fmt.Errorf("run hub: %w", err)
}

// Close ends live streams and waits for them, then closes the socket, the store and the database. Run
// and every Attach must have returned, or never have been called. Only the first call has an effect.
func (n *Node) Close() error {
	n.mu.Lock()
	was := n.closed
	n.closed = true
	n.mu.Unlock()
	if was {
		return nil
	}
	n.stop()
	n.work.Wait()
	var errs []error
	if n.peers != nil {
		errs = append(errs, n.peers.Close())
	}
	errs = append(errs, n.qlog.Close())
	if n.members != nil {
		errs = append(errs, n.members.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close hub: %w", err)
	}
	return nil
}

// Attach makes src, the source of a site under its own identifiers, the site's link until ctx ends.
// The sites that dial in come this way; in one process a source can be attached directly. A site has
// one link at a time: the next Attach for it comes after this one has returned.
func (n *Node) Attach(ctx context.Context, site branchline.SiteID, src branchline.Source) {
	if err := n.attach(ctx, site, src); err != nil && ctx.Err() == nil {
		n.log.Error("work at a site failed", "site", site, "error", err)
	}
}

// linkUp attaches a site that has dialled in, and remembers its key.
func (n *Node) linkUp(ctx context.Context, site branchline.SiteID, src *federation.Remote) {
	if err := n.keys.learn(site, src.Key()); err != nil {
		n.log.Error("footers of a site may be refused", "site", site, "error", err)
	}
	n.Attach(ctx, site, src)
}

func (n *Node) attach(ctx context.Context, site branchline.SiteID, src branchline.Source) error {
	if err := n.catalog.LinkUp(site, n.cfg.Clock.Now()); err != nil {
		return err
	}
	n.setLink(site, src)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return n.persist(ctx, func() error { return n.catalog.Follow(ctx, site, vouching{src, n, site}) })
	})
	group.Go(func() error {
		return n.persist(ctx, func() error { return n.fetcher.Serve(ctx, site, src) })
	})
	group.Go(func() error {
		return n.persist(ctx, func() error { return n.locks.Serve(ctx, site, src) })
	})
	err := group.Wait()
	n.setLink(site, nil)
	return errors.Join(err, n.catalog.LinkDown(site, n.cfg.Clock.Now(), n.why(site)))
}

// tryAgain is the pause before work at a linked site is taken up again after an error.
const tryAgain = time.Second

// persist does work again and again until ctx ends.
func (n *Node) persist(ctx context.Context, work func() error) error {
	for {
		err := work()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.log.Warn("work at a site begins again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tryAgain):
		}
	}
}

func (n *Node) setLink(site branchline.SiteID, src branchline.Source) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if src == nil {
		delete(n.links, site)
	} else {
		n.links[site] = &patient{src, make(chan struct{}, listsAtOnce)}
	}
	close(n.linked)
	n.linked = make(chan struct{})
}

// link returns the site's source, nil while it is dark, and a channel that is closed at the next change
// of any link.
func (n *Node) link(site branchline.SiteID) (branchline.Source, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[site], n.linked
}

func (n *Node) catalogChanged(notice catalog.Notice) {
	for _, seg := range []*branchline.Segment{notice.Opened, notice.Sealed} {
		if seg != nil && !n.origins.add(*seg) {
			n.log.Warn("a site tells of a segment of another", "site", notice.Site, "segment", seg.ID)
			if n.peers != nil {
				n.peers.Deny(federation.Denial{Site: notice.Site, Call: "changes", Object: fmt.Sprintf("segment %x", seg.ID),
					Err: federation.ErrOthers})
			}
			return
		}
	}
	n.fetcher.Notice(notice)
	if notice.Camera != "" && notice.Stream == "" {
		select {
		case n.cameras <- struct{}{}:
		default:
		}
	}
	if n.onward != nil {
		n.onward.Wake()
	}
	if n.cfg.CatalogChanged != nil {
		n.cfg.CatalogChanged(notice)
	}
}

// moved tells that a stream's time line changed by what the hub did.
func (n *Node) moved(stream branchline.StreamID, span branchline.TimeRange) {
	if n.cfg.CatalogChanged != nil {
		n.cfg.CatalogChanged(catalog.Notice{
			Site: stream.Site(), Camera: stream.Camera(), Stream: stream, Span: span})
	}
}

// Catalog tells what the sites have. It is closed with the node.
func (n *Node) Catalog() *catalog.Catalog { return n.catalog }

// Jobs takes and lists retrievals. It is closed with the node.
func (n *Node) Jobs() *fetch.Fetcher { return n.fetcher }

// Locks places and lists evidence locks. It is closed with the node.
func (n *Node) Locks() *evidence.Locks { return n.locks }

// Store is where the hub's recordings are. It is closed with the node.
func (n *Node) Store() *segstore.Store { return n.store }

// DB is the database for a hub's state; others may keep tables of their own in it. It is closed with
// the node.
func (n *Node) DB() *index.DB { return n.db }

// Authority admits sites.
func (n *Node) Authority() *identity.Authority { return n.authority }

// Addr returns the address at which sites link, nil if the hub has none.
func (n *Node) Addr() net.Addr {
	if n.peers == nil {
		return nil
	}
	return n.peers.Addr()
}

// Links lists the sites that are linked by the network, sorted by name.
func (n *Node) Links() []federation.PeerState {
	if n.peers == nil {
		return nil
	}
	return n.peers.Links()
}

// Health returns why the hub does not work, or nil.
func (n *Node) Health() error {
	n.mu.Lock()
	closed, failed := n.closed, n.failed
	n.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("the hub is closed: %w", branchline.ErrUnavailable)
	case failed != nil:
		return fmt.Errorf("the hub stopped: %w", failed)
	}
	if suspect := n.store.Stats().Suspect; suspect > 0 {
		return fmt.Errorf("the disk failed for %d segments: %w", suspect, branchline.ErrUnavailable)
	}
	return nil
}

// Timeline says where the footage of a stream is, as [catalog.Timeline] describes it.
func (n *Node) Timeline(stream branchline.StreamID, r branchline.TimeRange) ([]catalog.Span, error) {
	now := n.cfg.Clock.Now() // before the facts are read, so that they reach as far
	transfers, err := n.fetcher.Transfers(stream, r)
	if err != nil {
		return nil, fmt.Errorf("draw time line: %w", err)
	}
	facts, err := n.catalog.Facts(stream, r)
	if err != nil {
		return nil, fmt.Errorf("draw time line: %w", err)
	}
	held, err := n.store.Held(stream, r)
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		return nil, fmt.Errorf("draw time line: %w", err)
	}
	return catalog.Timeline(r, now, facts, branchline.NewSpans(held...), transfers), nil
}
