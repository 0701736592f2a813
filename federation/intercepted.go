package federation

import (
	"context"
	"errors"
	"fmt"

	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
)

// dialHub dials the hub at the address. Where something on the way answers in its place the error is
// [link.ErrIntercepted], and says what it is and what to ask for.
func dialHub(ctx context.Context, hub string, opt link.Options) (link.Conn, error) {
	conn, err := link.Dial(ctx, hub, opt)
	if err != nil {
		return nil, explain(hub, err)
	}
	return conn, nil
}

// explain tells a connection that is intercepted from one to another hub.
func explain(hub string, err error) error {
	const ask = "nothing was sent to it, no token and no certificate. Ask the network people to let TCP and UDP " +
		"to %s pass as they are, without TLS inspection"
	var shown *link.CertificateError
	switch {
	case errors.As(err, &shown) && errors.Is(err, identity.ErrForeign) && len(shown.Chain) > 0 &&
		!identity.LooksLikeHub(shown.Chain[0]):
		c := shown.Chain[0]
		return fmt.Errorf("%w: in place of the hub's it shows the certificate of %q, issued by %q; "+ask,
			link.ErrIntercepted, c.Subject, c.Issuer, hub)
	case errors.Is(err, link.ErrIntercepted):
		return fmt.Errorf("%w; "+ask, err, hub)
	}
	return err
}
