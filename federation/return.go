package federation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	wire "github.com/branchline-video/branchline/proto"
)

// hello is what this node tells of itself.
func (u *Uplink) hello() *wire.HelloRequest {
	life := u.cfg.Node.Life()
	if u.cfg.Feed != nil {
		at, err := u.cfg.Feed()
		if err != nil {
			u.cfg.Logger.Warn("the hub is not told how far the feed is", "error", err)
		}
		life.Feed = at
	}
	h := &wire.HelloRequest{
		Software: u.cfg.Software, Instance: life.Instance, Opens: life.Opens, Feed: encodePosition(life.Feed),
		Hub: u.cfg.Tier.hello(),
	}
	if u.cfg.Node.Organisation() {
		h.Signer = u.cfg.Node.Key().Public().(ed25519.PublicKey)
	}
	return h
}

// returns reports whether the certificate has ended, by this node's clock or as the hub said, so that only coming
// back helps.
func (u *Uplink) returns() bool {
	if u.cfg.Node.Organisation() {
		return false
	}
	last := u.State().Err
	var told *remoteError
	ended := isAny(last, identity.ErrExpired, identity.ErrWaiting, identity.ErrRefused) && errors.As(last, &told)
	return ended || u.cfg.Node.Expired()
}

// comeBack asks the hub for a new certificate in place of one that has ended. It returns nil if there is one, and
// also if the hub does not know of this; then the hub says what is wrong with the old one.
func (u *Uplink) comeBack(ctx context.Context, hub string) error {
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	err := u.askBack(ctx, hub)
	if errors.Is(err, branchline.ErrInvalid) || errors.Is(err, branchline.ErrDenied) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("come back to hub: %w", err)
	}
	u.cfg.Logger.Info("came back with a new certificate", "site", u.cfg.Node.Site(), "hub", hub)
	return nil
}

func (u *Uplink) askBack(ctx context.Context, hub string) (err error) {
	conf, err := u.cfg.Node.ReturnTLS()
	if err != nil {
		return err
	}
	csr, err := u.cfg.Node.Request()
	if err != nil {
		return err
	}
	conn, err := dialHub(ctx, hub, u.options(conf))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFor(conn, nil)) }()
	c, err := certificate(ctx, conn, &wire.Request{Call: &wire.Request_Return{Return: &wire.ReturnRequest{
		Certificate: u.cfg.Node.Certificate().Raw, Csr: csr, Software: u.cfg.Software,
	}}})
	if err != nil {
		return err
	}
	return u.cfg.Node.Renewed(c)
}
