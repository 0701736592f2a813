package federation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/internal/backoff"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// The pause between two attempts grows from firstPause up to maxPause: short enough that a site is
	// back within seconds of its network.
	firstPause = 200 * time.Millisecond
	maxPause   = 3 * time.Second
	// refusedPause is the pause after the hub has refused this node, which only a person changes.
	refusedPause = 15 * time.Second
	// A link that lived this long starts the pauses from the beginning.
	goodLink = 5 * time.Second
	// renewCheck is how often a linked node looks whether its certificate is due.
	renewCheck = time.Minute
	// renewAgain is the least time between a renewal and the next that the node's own clock asks for.
	renewAgain = time.Hour
)

// UplinkConfig says what an uplink needs; Node and Source must be set.
type UplinkConfig struct {
	Node   *identity.Node
	Source branchline.Source
	// Name is the hub's, as this node calls it; empty for the only or the first one. Holds and locks that
	// come over this link are of that name, so that two hubs never reach each other's.
	Name string
	// Tier, if set, says that this node is a hub itself.
	Tier *Tier
	// Restore, if set, gets back from the hub what its disk has lost and the hub holds.
	Restore Restorer
	// Feed, if set, returns the position of the source's newest change, so that the hub notices when an old
	// state of the store was put back.
	Feed func() (branchline.Position, error)
	// Budget, if set, decides how fast the source is sent, beside what others send with it. It stays the
	// caller's.
	Budget *budget.Budget
	// Hubs are host:port; empty means those that came with the token.
	Hubs []string
	// Token enrols the node, if it is not enrolled yet or the hub does not accept its certificate any
	// more; empty for none.
	Token string
	// Members, if set, is this node's part in the gossip, which stays the caller's.
	Members *members.Members
	// Software describes this node to the hub, for people.
	Software string
	// ListenPacket opens the sockets; nil means the system's.
	ListenPacket func(addr string) (net.PacketConn, error)
	// DialStream opens TCP sockets; nil means the system's, or none if ListenPacket is set.
	DialStream func(ctx context.Context, addr string) (net.Conn, error)
	// Uplinks are the ways by which this node reaches the network; none leaves that to the system.
	Uplinks []link.Uplink
	// Tap, if set, is where the link's connections are logged.
	Tap    *link.Tap
	Clock  clock.Clock
	Logger *slog.Logger // nil means none

	most version // that this node speaks; zero: all. For tests.
}

// Uplink keeps an edge linked to its hub and serves the edge's source there.
type Uplink struct {
	cfg   UplinkConfig
	again bool // the token was used up for a certificate that had become worthless; Run's
	names link.Names

	carrier link.Carrier     // to try first; Run's
	probe   *backoff.Backoff // pauses between attempts to get back to QUIC; Run's
	spoken  version          // of the link that greeted last; Run's

	mu      sync.Mutex
	state   UplinkState
	conn    link.Conn     // while up
	changed chan struct{} // closed and renewed when state changes
}

// UplinkState is how an uplink stands.
type UplinkState struct {
	Up    bool
	Since time.Time // of this Up or down; zero before the first attempt has ended
	Hub   string    // the address of the link, or of the last attempt
	Err   error     // why it is down

	Carrier link.Carrier // while up; by TCP where UDP does not get through
	Uplink  string       // while up, the names of those of UplinkConfig.Uplinks that it goes by, with commas
	Version uint32       // of the protocol, while up
}

// NewUplink returns an uplink that does nothing until it is run.
func NewUplink(cfg UplinkConfig) *Uplink {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Uplink{cfg: cfg, probe: backoff.New(firstProbe, maxProbe), changed: make(chan struct{})}
}

// State returns how the uplink stands.
func (u *Uplink) State() UplinkState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// Stats returns the figures of the present link, zero while there is none.
func (u *Uplink) Stats() link.Stats {
	u.mu.Lock()
	conn := u.conn
	u.mu.Unlock()
	if conn == nil {
		return link.Stats{}
	}
	return conn.Stats()
}

// States yields the present state and then each one that it sees follow, until ctx ends. A slow
// caller misses some, never the last.
func (u *Uplink) States(ctx context.Context) iter.Seq[UplinkState] {
	return func(yield func(UplinkState) bool) {
		for {
			u.mu.Lock()
			state, changed := u.state, u.changed
			u.mu.Unlock()
			if !yield(state) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Run keeps the link up until ctx ends, and returns ctx's error. Nothing that a network or a hub does
// ends it: what is wrong is in the state and, once, in the log.
func (u *Uplink) Run(ctx context.Context) error {
	pause := backoff.New(firstPause, maxPause)
	for next := 0; ctx.Err() == nil; next++ {
		began := u.cfg.Clock.Now()
		hub, err := u.once(ctx, next)
		if ctx.Err() != nil {
			break
		}
		good := u.State().Up && u.cfg.Clock.Now().Sub(began) > goodLink
		u.down(hub, err)
		if good {
			pause.Reset()
		}
		switch wait := pause.Next(); {
		case refused(err):
			u.pause(ctx, refusedPause, hub)
		case !good || !silent(err): // else the path has just gone dark, and may be back at any moment
			u.pause(ctx, wait, hub)
		}
	}
	u.set(UplinkState{Since: u.cfg.Clock.Now(), Err: ctx.Err()}, nil) // asked for, so no news
	return ctx.Err()
}

// pause waits, and no longer than until a hub that was silent answers.
func (u *Uplink) pause(ctx context.Context, wait time.Duration, hub string) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if silent(u.State().Err) && hub != "" && link.Knock(ctx, hub, u.options(nil)) == nil {
		return
	}
	<-ctx.Done()
}

// silent reports whether an attempt or a link has ended because nothing came from the hub or nothing could
// be sent to it, as when a node has no route for a while.
func silent(err error) bool {
	var failed syscall.Errno
	return isAny(err, link.ErrSilent, link.ErrStalled, context.DeadlineExceeded) || errors.As(err, &failed)
}

// refused reports whether trying again soon is of no use.
func refused(err error) bool {
	return spent(err) || worthless(err) || isAny(err, identity.ErrEarly, identity.ErrNotEnrolled, ErrVersion,
		identity.ErrQuarantined, ErrLoop)
}

// spent reports whether the token will never do: the hub that made it said so, or it is no token.
func spent(err error) bool {
	return isAny(err, identity.ErrTokenUsed, identity.ErrTokenUnknown, identity.ErrTokenExpired, branchline.ErrInvalid)
}

// worthless reports whether the certificate is why the hub refused this node: a new token helps.
func worthless(err error) bool {
	return isAny(err, identity.ErrRevoked, identity.ErrExpired, identity.ErrForeign, identity.ErrWaiting,
		identity.ErrRefused, identity.ErrSuperseded)
}

func isAny(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(e error) bool { return errors.Is(err, e) })
}

// once makes one attempt, with the next of the hub's addresses, and serves for as long as it lasts.
func (u *Uplink) once(ctx context.Context, next int) (hub string, err error) {
	known := u.cfg.Node.Certificate() != nil
	if u.cfg.Token != "" && (!known || worthless(u.State().Err) && !u.again) {
		err := enrol(ctx, u.cfg.Node, u.cfg.Token, u.options(nil))
		u.again = known && (err == nil || spent(err))
		if err != nil {
			return "", err
		}
		u.cfg.Logger.Info("enrolled", "site", u.cfg.Node.Site())
	}
	hubs := u.cfg.Hubs
	if len(hubs) == 0 {
		hubs = u.cfg.Node.Hubs()
	}
	if len(hubs) == 0 {
		return "", fmt.Errorf("link to hub: no address is known: %w", branchline.ErrInvalid)
	}
	hub = hubs[next%len(hubs)]
	if u.returns() {
		if err := u.comeBack(ctx, hub); err != nil {
			return hub, err
		}
	}
	conf, err := u.tls(hub)
	if err != nil {
		return hub, fmt.Errorf("link to hub: %w", err)
	}
	dialling, cancel := context.WithTimeout(ctx, u.dialTime())
	conn, err := dialHub(dialling, hub, u.options(conf))
	cancel()
	if err != nil {
		return hub, fmt.Errorf("link to hub: %w", err)
	}
	err = u.linked(ctx, hub, conn)
	return hub, errors.Join(err, closeFor(conn, nil))
}

// linked serves on the connection until it ends.
func (u *Uplink) linked(ctx context.Context, hub string, conn link.Conn) error {
	if err := u.greet(ctx, conn); err != nil {
		return whyEnded(conn, err)
	}
	return u.serving(ctx, hub, conn)
}

// serve serves on a connection that has greeted until it ends or next takes its place.
func (u *Uplink) serve(ctx context.Context, hub string, conn link.Conn) (next link.Conn, err error) {
	spoken := u.spoken
	gossip, err := gossipIn(u.cfg.Members, u.cfg.Node.Site(), conn, spoken)
	if err != nil {
		return nil, err
	}
	u.up(hub, conn, spoken)
	g, linked := errgroup.WithContext(ctx)
	due := make(chan struct{}, 1)
	g.Go(func() error {
		s := &server{conn: conn, src: u.cfg.Source, name: u.cfg.Name, budget: u.cfg.Budget, gossip: gossip,
			version: spoken, bars: barsOf(conn, u.cfg.Uplinks)}
		s.refresh = func() {
			select {
			case due <- struct{}{}:
			default: // it is to renew already
			}
		}
		return s.run(linked)
	})
	if gossip != nil {
		g.Go(func() error { return gossip.Run(linked, ctx) })
	}
	if spoken.speaks(version2) {
		g.Go(func() error { return u.lookingUp(linked, conn) })
	}
	g.Go(func() error { return u.renewing(linked, conn, due) })
	g.Go(func() error { return u.restoring(linked, conn) })
	g.Go(func() error { return u.roving(linked, hub, conn) })
	if len(u.better(conn.Peer(), link.Options{})) > 0 {
		g.Go(func() (err error) {
			next, err = u.returning(ctx, linked, hub, conn.Peer())
			return err
		})
	}
	err = g.Wait()
	return next, err
}

// whyEnded prefers the reason with which the hub closed the connection, if it did, to what a stream
// saw of that.
func whyEnded(conn link.Conn, err error) error {
	now, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var e *link.Error
	if _, closed := conn.AcceptStream(now); errors.As(closed, &e) && e.Conn && e.Remote {
		return fmt.Errorf("greet hub: %w", refusal(e))
	}
	return err
}

// renewing renews the certificate when it is due, or when the hub says so. Failing is no reason to give up the
// link: there are weeks left to try. A clock that is far ahead makes no storm of renewals.
func (u *Uplink) renewing(ctx context.Context, conn link.Conn, due <-chan struct{}) error {
	tick := time.NewTicker(renewCheck)
	defer tick.Stop()
	asked := false
	for last := (time.Time{}); ; {
		now, at := u.cfg.Clock.Now(), u.cfg.Node.RenewAt()
		if asked || !at.IsZero() && !now.Before(at) && now.Sub(last) >= renewAgain {
			err := u.renew(ctx, conn)
			if err == nil {
				last, asked = now, false
			} else if ctx.Err() == nil {
				u.cfg.Logger.Warn("certificate not renewed", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-due:
			asked = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (u *Uplink) renew(ctx context.Context, conn link.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	csr, err := u.cfg.Node.Request()
	if err != nil {
		return err
	}
	c, err := certificate(ctx, conn, &wire.Request{Call: &wire.Request_Renew{Renew: &wire.RenewRequest{Csr: csr}}})
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	return u.cfg.Node.Renewed(c)
}

func (u *Uplink) up(hub string, conn link.Conn, spoken version) {
	p := conn.Peer()
	by := uplinksOf(conn)
	u.set(UplinkState{
		Up: true, Since: u.cfg.Clock.Now(), Hub: hub, Carrier: p.Carrier, Uplink: by, Version: uint32(spoken),
	}, conn)
	u.cfg.Logger.Info("link up", "hub", hub, "carrier", p.Carrier, "uplink", by, "version", spoken)
}

// down notes the end of an attempt or link; what was down before and says the same is not news.
func (u *Uplink) down(hub string, err error) {
	was := u.State()
	since := was.Since
	if was.Up || since.IsZero() {
		since = u.cfg.Clock.Now()
	}
	u.set(UplinkState{Since: since, Hub: hub, Err: err}, nil)
	if was.Up || was.Err == nil || was.Err.Error() != err.Error() {
		u.cfg.Logger.Warn("link down", "hub", hub, "error", err)
	}
}

func (u *Uplink) set(s UplinkState, conn link.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state, u.conn = s, conn
	close(u.changed)
	u.changed = make(chan struct{})
}
