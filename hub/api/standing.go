package api

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub/access"
)

// describeStanding tells what of a site's identity an operator has to know or to decide.
func describeStanding(site *Site, entry identity.Site) {
	site.CertificateUntil = optional(entry.Until)
	if w := entry.Waiting; w != nil {
		site.Waiting = &Waiting{
			Since: stamp(w.Since), Expired: stamp(w.Expired), Address: w.Addr, Software: optionalText(w.Software),
			Approved: optional(w.Approved), Refused: optional(w.Refused),
		}
	}
	if q := entry.Quarantine; q != nil {
		site.Quarantine = &Quarantine{Since: stamp(q.Since), Cause: QuarantineCause(q.Cause), Nodes: []SeenNode{},
			Approved: optional(q.Approved)}
		for _, n := range q.Nodes {
			site.Quarantine.Nodes = append(site.Quarantine.Nodes, SeenNode{
				Instance: identity.InstanceText(n.Instance), Opens: int(n.Opens), Address: n.Addr,
				Software: optionalText(n.Software), At: stamp(n.At),
			})
		}
	}
}

func (s strictServer) ApproveSite(
	ctx context.Context, req ApproveSiteRequestObject,
) (ApproveSiteResponseObject, error) {
	var instance uint64
	object := req.Site
	if text := req.Body.Instance; text != nil && *text != "" {
		var err error
		if instance, err = identity.ParseInstance(*text); err != nil {
			return nil, err
		}
		object += " instance " + *text
	}
	if err := s.record(ctx, access.ActionSiteApprove, object); err != nil {
		return nil, err
	}
	if err := s.Authority.Approve(branchline.SiteID(req.Site), instance); err != nil {
		return nil, err
	}
	s.Feed.Site(branchline.SiteID(req.Site))
	return ApproveSite204Response{}, nil
}

func (s strictServer) RefuseSite(ctx context.Context, req RefuseSiteRequestObject) (RefuseSiteResponseObject, error) {
	if err := s.record(ctx, access.ActionSiteRefuse, req.Site); err != nil {
		return nil, err
	}
	if err := s.Authority.Refuse(branchline.SiteID(req.Site)); err != nil {
		return nil, err
	}
	s.Feed.Site(branchline.SiteID(req.Site))
	return RefuseSite204Response{}, nil
}

func (s strictServer) GetAuthority(context.Context, GetAuthorityRequestObject) (GetAuthorityResponseObject, error) {
	told, err := s.authority()
	return GetAuthority200JSONResponse(told), err
}

func (a *API) authority() (Authority, error) {
	state, err := a.Authority.State()
	if err != nil {
		return Authority{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: state.Certificate})
	told := Authority{
		Fingerprint: hex.EncodeToString(state.Fingerprint[:]), From: stamp(state.From), Until: stamp(state.Until),
		Certificate: string(text), Organisation: state.Organisation, Problem: optionalText(state.Problem),
		Sites: state.Sites, Behind: state.Behind, Former: []FormerAuthority{},
	}
	for _, f := range state.Former {
		told.Former = append(told.Former, FormerAuthority{
			Fingerprint: hex.EncodeToString(f.Fingerprint[:]), Until: stamp(f.Until),
		})
	}
	return told, nil
}

func (s strictServer) RotateAuthority(
	ctx context.Context, req RotateAuthorityRequestObject,
) (RotateAuthorityResponseObject, error) {
	overlap := identity.DefaultOverlap
	if hours := req.Body.OverlapHours; hours != nil {
		overlap = time.Duration(*hours * float64(time.Hour))
	}
	if err := s.record(ctx, access.ActionAuthorityRotate, "overlap "+overlap.String()); err != nil {
		return nil, err
	}
	if err := s.Authority.Rotate(overlap); err != nil {
		return nil, err
	}
	told, err := s.authority()
	return RotateAuthority200JSONResponse(told), err
}
