package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
)

// approvalLife is how long an edge has to come after it was approved.
const approvalLife = 7 * 24 * time.Hour

// errUnchanged says that an entry is as it was.
var errUnchanged = errors.New("unchanged")

// Waiting tells of a site that was off past the end of its certificate and has come back with it.
type Waiting struct {
	Since    time.Time // when it first came
	Expired  time.Time // when its certificate ended
	Addr     string
	Software string
	At       time.Time // when it last came, to within minutes
	Approved time.Time // it gets a certificate when it comes next
	Refused  time.Time
}

type waiting struct {
	Since    time.Time `json:"since"`
	Expired  time.Time `json:"expired"`
	Addr     string    `json:"addr"`
	Software string    `json:"software,omitempty"`
	At       time.Time `json:"at"`
	Approved time.Time `json:"approved,omitzero"`
	Refused  time.Time `json:"refused,omitzero"`
}

func (w *waiting) told() *Waiting {
	told := Waiting(*w)
	return &told
}

// Returning is what an edge shows whose certificate has ended.
type Returning struct {
	Leaf           []byte // the certificate, DER
	CSR            []byte // a request that proves that it holds the certificate's key, DER
	Addr, Software string
}

// Return gives a new certificate to an edge that was off past the end of its own, if an operator has approved.
// Until then it notes, durably, that the site waits, and returns [ErrWaiting], or [ErrRefused] if an operator
// has refused. Nobody waits who does not hold the key of the site's newest enrolment: [ErrForeign],
// [ErrRevoked]. Whose certificate is still good needs no approval.
func (a *Authority) Return(r Returning) (Certificate, error) {
	if a.org != nil {
		return Certificate{}, fmt.Errorf("take site back: %w", errOrganisation)
	}
	c, site, err := a.returning(r)
	if err != nil {
		return Certificate{}, fmt.Errorf("take site back: %w", err)
	}
	var got Certificate
	var why error
	err = a.change(site, func(e *record) error {
		now := a.clock.Now()
		if !e.good(publicKey(c)) {
			return ErrRevoked
		}
		if why = a.standsInTheWay(c, e); why != nil {
			return errUnchanged
		}
		_, err := a.Verify(r.Leaf)
		w := e.Waiting
		switch {
		case err == nil, errors.Is(err, ErrExpired) && w != nil && now.Sub(w.Approved) < approvalLife:
			e.Waiting = nil
			got, err = a.issue(e, publicKey(c))
			return err
		case !errors.Is(err, ErrExpired):
			return err
		case w != nil && !w.Refused.IsZero():
			why = ErrRefused
			return errUnchanged
		}
		why = ErrWaiting
		if w != nil && host(w.Addr) == host(r.Addr) && now.Sub(w.At) < time.Minute {
			return errUnchanged
		}
		next := waiting{Since: now, Expired: c.NotAfter, Addr: r.Addr, Software: r.Software, At: now}
		if w != nil {
			next.Since = w.Since
		}
		e.Waiting = &next
		return nil
	})
	if err = errors.Join(err, why); err != nil {
		return Certificate{}, fmt.Errorf("take site %s back: %w", site, err)
	}
	return got, nil
}

// standsInTheWay returns why the entry's site gets no certificate at all now.
func (a *Authority) standsInTheWay(c *x509.Certificate, e *record) error {
	switch {
	case e.Quarantine != nil && e.Quarantine.Ended.IsZero():
		return ErrQuarantined
	case older(c, *e):
		return ErrSuperseded
	}
	return nil
}

// returning checks that some authority of this hub issued the certificate, whenever, and that who shows it holds
// its key.
func (a *Authority) returning(r Returning) (*x509.Certificate, branchline.SiteID, error) {
	pub, err := parseRequest(r.CSR)
	if err != nil {
		return nil, "", err
	}
	c, err := x509.ParseCertificate(r.Leaf)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if !pub.Equal(c.PublicKey) {
		return nil, "", fmt.Errorf("the request is of another key than the certificate: %w", ErrForeign)
	}
	by, err := a.present()
	if err != nil {
		return nil, "", err
	}
	if _, err := by.verify(c, a.clock.Now()); err != nil && !errors.Is(err, ErrExpired) {
		return nil, "", err
	}
	site, _, err := a.admitted(c)
	return c, site, err
}

// Refuse keeps a site that waits for approval out, until it is approved after all or enrolled with a new token.
// Its error wraps [branchline.ErrNotFound] for a site that is not known and [branchline.ErrInvalid] for one that
// does not wait.
func (a *Authority) Refuse(site branchline.SiteID) error {
	err := a.change(site, func(r *record) error {
		if r.Waiting == nil {
			return fmt.Errorf("it does not wait for approval; to keep a site out, revoke it: %w", branchline.ErrInvalid)
		}
		r.Waiting.Refused, r.Waiting.Approved = a.clock.Now(), time.Time{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("refuse site %s: %w", site, err)
	}
	return nil
}

// ReturnTLS returns the edge's side of the handshake for coming back: only with a hub of an authority that it
// knows, or of one that such an authority named as its successor. It wraps [ErrNotEnrolled] for a node without
// a certificate.
func (n *Node) ReturnTLS() (*tls.Config, error) {
	now := n.clock.Now()
	n.mu.Lock()
	enrolled, trusted := n.cert != nil, n.trusted(now)
	n.mu.Unlock()
	if !enrolled {
		return nil, ErrNotEnrolled
	}
	return clientTLS(ProtocolEnrol, func(chain []*x509.Certificate) error {
		return verifyHubOf(trusted, chain, n.clock.Now())
	}), nil
}

// verifyHubOf checks that the chain is that of a hub of a trusted authority or of a successor of one.
func verifyHubOf(trusted, chain []*x509.Certificate, now time.Time) error {
	var err error
	for _, authority := range successors(trusted, chain) {
		this := verifyHub(chain[0], authority, now)
		if this == nil {
			return nil
		}
		if err == nil || errors.Is(err, ErrForeign) {
			err = this
		}
	}
	return err
}
