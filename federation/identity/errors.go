package identity

import (
	"errors"
	"fmt"

	"github.com/branchline-video/branchline"
)

// Why somebody is not let in. The texts are read by the operator of the edge.
var (
	// ErrTokenUnknown: this hub did not make the token, or a newer one has taken its place.
	ErrTokenUnknown = errors.New("the hub does not know this token; make one with `branchline site add NAME` " +
		"at the hub")
	// ErrTokenUsed: somebody has enrolled with the token already.
	ErrTokenUsed = errors.New("the token was already used; make a new one with `branchline site add NAME` at the hub")
	// ErrTokenExpired: the token is older than TokenLife.
	ErrTokenExpired = errors.New("the token has expired; make a new one with `branchline site add NAME` at the hub")
	// ErrForeign: the certificate is of another authority.
	ErrForeign = errors.New("the certificate was issued by another authority")
	// ErrRevoked: the site was revoked, or has enrolled anew with another key.
	ErrRevoked = errors.New("the site's certificate was revoked or replaced; enrol the site again with a new token")
	// ErrExpired: the certificate's time is over, or the clock of one side is ahead.
	ErrExpired = errors.New("the certificate has expired, or the clock is wrong")
	// ErrEarly: the certificate's time has not come, so the clock of one side is behind.
	ErrEarly = errors.New("the certificate is not valid yet: the clock is wrong")
	// ErrNotEnrolled: this node has no certificate yet.
	ErrNotEnrolled = errors.New("not enrolled: no certificate yet")
	// ErrQuarantined: two nodes have come with the site's identity, or one with an old state.
	ErrQuarantined = errors.New("quarantined: more than one node has this site's identity, or an old state was " +
		"put back; at the hub `branchline site approve NAME` lets one go on")
	// ErrSuperseded: another node of the same identity was approved.
	ErrSuperseded = errors.New("another node goes on as this site; enrol this one anew: remove its identity " +
		"directory and start it with a token of a site of its own")
	// ErrWaiting: the certificate has expired; an operator has to approve.
	ErrWaiting = errors.New("the certificate has expired, and this site waits for approval: at the hub " +
		"`branchline site approve NAME`")
	// ErrRefused: an operator has refused the approval.
	ErrRefused = errors.New("the hub's operator refused to let this site come back; " +
		"enrol it again with a new token")

	// errOrganisation: the authority is not the hub's own.
	errOrganisation = fmt.Errorf("certificates of this hub come from the organisation's authority: %w",
		branchline.ErrDenied)
)
