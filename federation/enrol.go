package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// enrolTime bounds an enrolment, on either side, from the connection to the certificate.
	enrolTime = 15 * time.Second
	// Those who want to enrol are nobody yet. So many may be at it at once, and so many of them from one
	// network, as several edges may be set up in one office: a stranger takes neither the places of the
	// sites nor all of the others'.
	maxEnrolling     = 64
	maxEnrollingFrom = 8
)

// Enrol makes node a site of the hub that made the token, trying the hub's addresses in turn, and
// stores the certificate durably. The hub proves itself before anything of the token is sent. The
// errors on which an operator acts are those of package identity; [branchline.ErrInvalid] is for text
// that is no token. The listen function opens the socket; nil means the system's.
func Enrol(ctx context.Context, node *identity.Node, token string,
	listen func(addr string) (net.PacketConn, error),
) error {
	return enrol(ctx, node, token, link.Options{ListenPacket: listen})
}

// enrol is [Enrol], with the options for dialling but for their TLS.
func enrol(ctx context.Context, node *identity.Node, token string, opt link.Options) error {
	t, err := identity.ParseToken(token)
	if err != nil {
		return fmt.Errorf("enrol site: %w", err)
	}
	if len(t.Hubs) == 0 {
		return fmt.Errorf("enrol site: no address of a hub in the token: %w", branchline.ErrInvalid)
	}
	var failed error
	for _, hub := range t.Hubs {
		c, err := enrolAt(ctx, hub, node, t, opt)
		if err == nil {
			return node.Enrolled(t, c)
		}
		failed = errors.Join(failed, fmt.Errorf("enrol site at %s: %w", hub, err))
	}
	return failed
}

func enrolAt(ctx context.Context, hub string, node *identity.Node, t identity.Token, opt link.Options) (
	c identity.Certificate, err error,
) {
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	csr, err := node.Request()
	if err != nil {
		return c, err
	}
	opt.TLS = node.EnrolTLS(t)
	conn, err := dialHub(ctx, hub, opt)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, closeFor(conn, nil)) }()
	return certificate(ctx, conn, &wire.Request{Call: &wire.Request_Enrol{Enrol: &wire.EnrolRequest{
		Secret: t.Secret[:], Csr: csr,
	}}})
}

// certificate asks for one.
func certificate(ctx context.Context, conn link.Conn, req *wire.Request) (identity.Certificate, error) {
	c, err := ask(ctx, conn, link.KindControl, req)
	if err != nil {
		return identity.Certificate{}, err
	}
	defer c.close()
	a, err := c.one()
	if err != nil {
		return identity.Certificate{}, err
	}
	return decodeCertificate(a.GetCertificate()), nil
}

// admit answers the only call of the enrolment protocol and waits until the edge has hung up.
func admit(ctx context.Context, conn link.Conn, give func(*wire.Request) (identity.Certificate, error)) error {
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		return fmt.Errorf("admit site: %w", callError(ctx, err))
	}
	stop := context.AfterFunc(ctx, func() { st.Reset(linkCode(wire.Code_CODE_INVALID)) })
	defer stop()
	kind, req, err := readRequest(newReceiver(st))
	if err == nil && (kind != link.KindControl || req.GetEnrol() == nil && req.GetReturn() == nil) {
		err = invalid("nothing but enrolment goes here")
	}
	if err != nil {
		return fmt.Errorf("admit site: %w", callError(ctx, err))
	}
	a := &answer{ctx: ctx, out: &sender{w: st}, limit: maxControl}
	c, err := give(req)
	if err == nil {
		err = a.send(&wire.Answer{Body: &wire.Answer_Certificate{Certificate: encodeCertificate(c)}})
	}
	a.end(st, err)
	_, gone := conn.AcceptStream(ctx) // ends with the connection; closing it here could lose the answer
	if gone == nil {
		err = errors.Join(err, invalid("a second call on an enrolment"))
	}
	return err
}
