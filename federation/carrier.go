package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// While a link is carried by TCP the pause between two attempts to carry it by QUIC grows from firstProbe
	// to maxProbe: the site is well served, and a firewall changes seldom.
	firstProbe = 5 * time.Second
	maxProbe   = 5 * time.Minute
	// steadyLink is how long a link lives before it counts as working: some networks let UDP begin
	// and then throttle it.
	steadyLink = time.Minute
)

// errMoved ends the serving of a link whose place a better one has taken.
var errMoved = errors.New("the link goes on over another carrier")

// tls returns this node's side of the handshake with the hub at the address.
func (u *Uplink) tls(hub string) (*tls.Config, error) {
	conf, err := u.cfg.Node.TLS()
	if err == nil && u.cfg.Node.Organisation() {
		conf.ServerName, _, err = net.SplitHostPort(hub)
	}
	return conf, err
}

// options returns how to dial the hub.
func (u *Uplink) options(conf *tls.Config) link.Options {
	opt := link.Options{
		TLS: conf, ListenPacket: u.cfg.ListenPacket, DialStream: u.cfg.DialStream, Uplinks: u.cfg.Uplinks,
		Small: errors.Is(u.State().Err, link.ErrStalled), Join: identity.ProtocolJoin, Bulk: true,
		Names: &u.names, Tap: u.cfg.Tap,
	}
	if u.carrier == link.CarrierTCP {
		opt.Carriers = []link.Carrier{link.CarrierTCP, link.CarrierQUIC}
	}
	return opt
}

// remember notes how a link went for the next attempt. A short one says nothing: on a path that has just healed
// either carrier may be the first.
func (u *Uplink) remember(carrier link.Carrier, lived time.Duration) {
	switch {
	case lived < steadyLink:
	case carrier == link.CarrierTCP: // all attempts to get back to QUIC were in vain
		u.carrier = carrier
	default:
		u.carrier = ""
		u.probe.Reset()
	}
}

// serving serves on connections, of which each takes the place of the one before, and closes them.
func (u *Uplink) serving(ctx context.Context, hub string, conn link.Conn) error {
	for {
		began := u.cfg.Clock.Now()
		next, err := u.serve(ctx, hub, conn)
		u.remember(conn.Peer().Carrier, u.cfg.Clock.Now().Sub(began))
		err = errors.Join(err, closeFor(conn, nil))
		if next == nil {
			return err
		}
		u.cfg.Logger.Debug("link moved", "hub", hub, "because", err)
		conn = next
	}
}

// dialTime is how long the hub may take to answer.
func (u *Uplink) dialTime() time.Duration {
	return link.HandshakeTimeout + time.Duration(max(len(u.cfg.Uplinks)-1, 0))*link.UplinkStagger
}

// better returns how to dial for a better link than the present one, the best first: by an uplink that is to
// be used before the present one, or over QUIC in place of TCP. A link over QUIC moves by itself.
func (u *Uplink) better(present link.Peer, opt link.Options) []link.Options {
	if present.Carrier != link.CarrierTCP {
		return nil
	}
	var all []link.Options
	if uplinks := link.BetterUplinks(u.cfg.Uplinks, present.Uplink); len(uplinks) > 0 {
		all = append(all, opt)
		all[0].Uplinks = uplinks
	}
	opt.Carriers = []link.Carrier{link.CarrierQUIC}
	opt.Uplinks = slices.DeleteFunc(slices.Clone(u.cfg.Uplinks), func(l link.Uplink) bool {
		return l.Name != present.Uplink
	})
	return append(all, opt)
}

// returning tries to make a better link than the present one, such as over QUIC again, and returns the
// connection with which that worked and errMoved. The hub has put it in the place of the present one, so from
// the greeting on it does not depend on that, whose context is linked.
func (u *Uplink) returning(ctx, linked context.Context, hub string, present link.Peer) (link.Conn, error) {
	for {
		if err := u.probe.Wait(linked); err != nil {
			return nil, err
		}
		conf, err := u.tls(hub)
		if err != nil {
			return nil, fmt.Errorf("link to hub: %w", err)
		}
		for _, opt := range u.better(present, u.options(conf)) {
			conn, err := u.probing(ctx, linked, hub, opt)
			if err == nil {
				return conn, errMoved
			}
			u.cfg.Logger.Debug("no better link yet", "hub", hub, "error", err)
		}
	}
}

func (u *Uplink) probing(ctx, linked context.Context, hub string, opt link.Options) (link.Conn, error) {
	dialling, cancel := context.WithTimeout(linked, u.dialTime())
	defer cancel()
	conn, err := dialHub(dialling, hub, opt)
	if err != nil {
		return nil, err
	}
	if err := u.greet(ctx, conn); err != nil {
		return nil, errors.Join(err, closeFor(conn, nil))
	}
	return conn, nil
}

// Carrier returns what carries the link to the site.
func (r *Remote) Carrier() link.Carrier { return r.conn.Peer().Carrier }
