package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
)

// defaultOutages is how many outages a list has unless more are asked for.
const defaultOutages = 1000

// ListOutages lists a site's outages, newest first.
func (s strictServer) ListOutages(_ context.Context, req ListOutagesRequestObject) (ListOutagesResponseObject, error) {
	id := branchline.SiteID(req.Site)
	admitted, err := s.sites(id)
	if err != nil {
		return nil, err
	}
	if len(admitted) == 0 {
		return nil, fmt.Errorf("list outages of %.80q: %w", req.Site, branchline.ErrNotFound)
	}
	limit := defaultOutages
	if req.Params.Limit != nil {
		limit = *req.Params.Limit
	}
	if limit < 1 || limit > catalog.MaxOutages {
		return nil, fmt.Errorf("list outages: limit is 1 to %d: %w", catalog.MaxOutages, branchline.ErrInvalid)
	}
	now := s.Clock.Now()
	all, err := s.Catalog.Outages(id, branchline.TimeRange{Start: now.Add(-catalog.Memory), End: now})
	if err != nil {
		return nil, err
	}
	list := []Outage{}
	for _, o := range slices.Backward(all[max(0, len(all)-limit):]) {
		list = append(list, outage(o))
	}
	return ListOutages200JSONResponse{Outages: list}, nil
}

func outage(o catalog.Outage) Outage {
	out := Outage{Start: stamp(o.Span.Start)}
	if !o.Open {
		out.End = optional(o.Span.End)
	}
	if o.Why != (catalog.Why{}) {
		state := PeerState(o.Why.State)
		out.State, out.Reason, out.SeenBy = &state, &o.Why.Reason, &o.Why.By
	}
	return out
}

// describePeer tells how a site stands that is or was linked.
func (a *API) describePeer(site *Site) error {
	if site.State != SiteStateUp && site.State != SiteStateDown {
		return nil
	}
	s, err := a.Hub.Peer(branchline.SiteID(site.Id))
	if errors.Is(err, branchline.ErrNotFound) {
		return nil // enrolled, and not linked yet
	}
	if err != nil {
		return err
	}
	site.Peer = &Peer{State: PeerState(s.State), Since: stamp(s.Since), Reason: s.Reason, Alarm: s.Alarm()}
	return nil
}
