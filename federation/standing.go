package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// deniedBurst and deniedEvery bound what a site's node can write into the hub's audit log.
	deniedBurst = 100
	deniedEvery = 10 * time.Second
	// refreshAgain is the pause before an edge that was asked to renew is asked again.
	refreshAgain = time.Minute
	// renewBurst and renewEvery bound how often a site's certificate is renewed: each time the hub's list of sites is
	// written as a whole and synced. An edge renews once in weeks, and again when an answer was lost.
	renewBurst = 10
	renewEvery = 10 * time.Second
	// maxDenied bounds the text of a denied call, in bytes.
	maxDenied = 300
)

// Denial is a call that a site's node made and that was not its to make. Nothing was given, stored or changed
// for it.
type Denial struct {
	Site   branchline.SiteID // by its certificate; empty for one that has none yet
	Addr   string
	Call   string // as in the protocol: "fetch", "lock", …
	Object string // what it was to be done to, as the node said
	Err    error
	Missed int // denials of the site before this one that were not told
}

// ErrOthers means that a site asks for what another site has. The peer is told that it is not found.
var ErrOthers = errors.New("it is another site's")

// denials counts what is told of a site's denied calls.
type denials struct {
	limit  *rate.Limiter
	missed int
}

// checked looks at why a call failed: what is not the peer's to ask is told here, and what the peer must not
// learn is taken out.
func (s *server) checked(req *wire.Request, err error) error {
	if err == nil || s.denied == nil {
		return err
	}
	others := errors.Is(err, ErrOthers)
	if others || errors.Is(err, branchline.ErrDenied) || errors.Is(err, identity.ErrRevoked) {
		s.denied(req, err)
	}
	if others {
		return fmt.Errorf("no such segment: %w", branchline.ErrNotFound)
	}
	return err
}

// deny tells of a denied call, as often as is allowed.
func (p *Peers) deny(peer link.Peer, req *wire.Request, err error) {
	call, object := describe(req)
	p.Deny(Denial{Site: peer.Site, Addr: peer.Addr, Call: call, Object: object, Err: err})
}

// Deny tells of what a site's node was denied, as often as is allowed; whoever uses the links and finds something
// calls it.
func (p *Peers) Deny(d Denial) {
	if p.cfg.Denied == nil {
		return
	}
	now := p.cfg.Clock.Now()
	p.mu.Lock()
	of := p.denials[d.Site]
	if of == nil {
		of = &denials{limit: rate.NewLimiter(rate.Every(deniedEvery), deniedBurst)}
		p.denials[d.Site] = of
	}
	allowed := of.limit.AllowN(now, 1)
	d.Missed = of.missed
	of.missed++
	if allowed {
		of.missed = 0
	}
	if l := p.links[d.Site]; d.Addr == "" && l != nil {
		d.Addr = l.conn.Peer().Addr
	}
	p.mu.Unlock()
	if allowed {
		p.cfg.Denied(d)
	}
}

// describe returns a call's name in the protocol and what it says, without secrets.
func describe(req *wire.Request) (call, object string) {
	m := req.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("call"))
	if field == nil {
		return "none", ""
	}
	switch call := req.GetCall().(type) {
	case *wire.Request_Enrol, *wire.Request_Renew:
		return string(field.Name()), ""
	case *wire.Request_Return:
		return string(field.Name()), "certificate of " + string(claimed(call.Return))
	case *wire.Request_Fetch:
		id := call.Fetch.GetSegment()
		return string(field.Name()), fmt.Sprintf("segment %x", id[:min(len(id), 16)])
	}
	text := strings.Join(strings.Fields(fmt.Sprint(m.Get(field).Message().Interface())), " ")
	return string(field.Name()), clipText(text, maxDenied)
}

// greeted decides, by what a node tells of itself, whether it may link.
func (p *Peers) greeted(l *peer, hello *wire.HelloRequest) error {
	site, software := l.conn.Peer().Site, hello.GetSoftware()
	l.instance = hello.GetInstance()
	if key := hello.GetSigner(); p.cfg.Authority.Organisation() && len(key) == ed25519.PublicKeySize {
		l.remote.signer = key
	}
	g := identity.Greeting{
		Leaf: l.conn.Peer().Leaf, Addr: l.conn.Peer().Addr, Software: clipText(software, maxSoftware),
		Life: identity.Life{
			Instance: hello.GetInstance(), Opens: hello.GetOpens(), Feed: decodePosition(hello.GetFeed()),
		},
		Since: l.since,
	}
	_, g.Linked = p.Remote(site)
	if p.cfg.Followed != nil {
		at, err := p.cfg.Followed(site)
		if err != nil {
			p.cfg.Logger.Warn("a store with an old state would not be noticed", "site", site, "error", err)
		}
		g.Followed = at
	}
	err := p.cfg.Authority.Greet(g)
	if errors.Is(err, identity.ErrQuarantined) || errors.Is(err, identity.ErrSuperseded) {
		p.cfg.Logger.Warn("link refused", "site", site, "addr", g.Addr, "instance",
			identity.InstanceText(g.Life.Instance), "opens", g.Life.Opens, "error", err)
	}
	p.stands(site)
	return err
}

func (p *Peers) stands(site branchline.SiteID) {
	if p.cfg.Standing != nil && site != "" {
		p.cfg.Standing(site)
	}
}

// admit answers whoever has no good certificate, and tells of those that then wait.
func (p *Peers) admit(ctx context.Context, conn link.Conn) error {
	return admit(ctx, conn, func(req *wire.Request) (identity.Certificate, error) {
		back := req.GetReturn()
		if back == nil {
			return p.cfg.Authority.Enrol(req.GetEnrol().GetSecret(), req.GetEnrol().GetCsr())
		}
		software := back.GetSoftware()
		c, err := p.cfg.Authority.Return(identity.Returning{
			Leaf: back.GetCertificate(), CSR: back.GetCsr(), Addr: conn.Peer().Addr,
			Software: clipText(software, maxSoftware),
		})
		if errors.Is(err, identity.ErrForeign) || errors.Is(err, identity.ErrRevoked) {
			p.deny(conn.Peer(), req, err)
		}
		p.stands(claimed(back))
		return c, err
	})
}

// claimed returns the site that the certificate of one who comes back names, whoever that is.
func claimed(back *wire.ReturnRequest) branchline.SiteID {
	c, err := x509.ParseCertificate(back.GetCertificate())
	if err != nil {
		return ""
	}
	site, _ := identity.SiteOf(c)
	return site
}

// renew gives the linked node a fresh certificate, by which the link is judged from now on: a long-lived link
// outlives the certificate with which it was made. It gives none to a node that was quarantined just now, and to none
// too often.
func (p *Peers) renew(l *peer, csr []byte) (identity.Certificate, error) {
	if !p.mayRenew(l.remote.Site()) {
		return identity.Certificate{}, fmt.Errorf("renew certificate: asked for too often: %w", branchline.ErrBusy)
	}
	if err := p.cfg.Authority.Good(p.leafOf(l), l.instance); err != nil {
		return identity.Certificate{}, err // the link is about to end
	}
	c, err := p.cfg.Authority.Renew(l.remote.Site(), csr)
	if err == nil {
		p.mu.Lock()
		l.leaf = c.Leaf
		p.mu.Unlock()
	}
	return c, err
}

func (p *Peers) mayRenew(site branchline.SiteID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.renewals[site]
	if limit == nil {
		limit = rate.NewLimiter(rate.Every(renewEvery), renewBurst)
		p.renewals[site] = limit
	}
	return limit.AllowN(p.cfg.Clock.Now(), 1)
}

func (p *Peers) leafOf(l *peer) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.leaf
}

// asking is when a node was asked to renew which certificate.
type asking struct {
	at   time.Time
	leaf []byte
}

// refresh asks the node to renew its certificate if that is due and the node was not asked just now. It returns
// the last asking.
func (p *Peers) refresh(ctx context.Context, l *peer, last asking) asking {
	now, leaf := p.cfg.Clock.Now(), p.leafOf(l)
	if !l.version.speaks(version2) {
		return last // it renews when its own clock says so
	}
	if bytes.Equal(leaf, last.leaf) && now.Sub(last.at) < refreshAgain || !p.cfg.Authority.Due(leaf) {
		return last
	}
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	err := l.remote.command(ctx, &wire.Request{Call: &wire.Request_Refresh{Refresh: &wire.RefreshRequest{}}})
	if err != nil && ctx.Err() == nil {
		p.cfg.Logger.Warn("site does not renew its certificate when asked", "site", l.remote.Site(), "error", err)
	}
	return asking{now, leaf}
}

func encodeCertificate(c identity.Certificate) *wire.CertificateAnswer {
	w := &wire.CertificateAnswer{Certificate: c.Leaf, Authority: c.Authority}
	for _, f := range c.Former {
		w.Former = append(w.Former, &wire.FormerAuthority{Certificate: f.Certificate, UntilNs: encodeTime(f.Until)})
	}
	return w
}

func decodeCertificate(w *wire.CertificateAnswer) identity.Certificate {
	c := identity.Certificate{Leaf: w.GetCertificate(), Authority: w.GetAuthority()}
	for _, f := range w.GetFormer() {
		c.Former = append(c.Former, identity.FormerAuthority{
			Certificate: f.GetCertificate(), Until: decodeTime(f.GetUntilNs()),
		})
	}
	return c
}
