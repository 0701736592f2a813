package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/catalog"
)

// What a site's entry tells of outages: those of a week, at most so many, the newest.
const (
	outageMemory = 7 * 24 * time.Hour
	maxOutages   = 100
)

func (s strictServer) ListSites(context.Context, ListSitesRequestObject) (ListSitesResponseObject, error) {
	sites, err := s.sites("")
	if err != nil {
		return nil, err
	}
	return ListSites200JSONResponse{Sites: sites}, nil
}

// sites returns all sites, or the one with the given name.
func (a *API) sites(only branchline.SiteID) ([]Site, error) {
	admitted, err := a.Authority.Sites()
	if err != nil {
		return nil, err
	}
	seen, err := a.Catalog.Sites()
	if err != nil {
		return nil, err
	}
	sites := []Site{}
	for _, entry := range admitted {
		if only != "" && entry.Name != only {
			continue
		}
		i := slices.IndexFunc(seen, func(s catalog.SiteState) bool { return s.ID == entry.Name })
		site := Site{Id: string(entry.Name), Outages: []Outage{}}
		if i >= 0 {
			site.Cameras, site.LastContact = seen[i].Cameras, optional(seen[i].LastContact)
		}
		if i >= 0 && seen[i].Linked && entry.Quarantine != nil && !entry.Quarantine.Approved.IsZero() {
			entry.Quarantine = nil // the node that was approved is there
		}
		describeStanding(&site, entry)
		site.State, site.Since = siteState(entry, seen[max(i, 0):i+1])
		if err := errors.Join(a.describeLink(&site), a.describePeer(&site)); err != nil {
			return nil, err
		}
		sites = append(sites, site)
	}
	return a.withBelow(sites, seen, only)
}

// siteState tells a site's state from its admission and from its link, if it ever had one.
func siteState(entry identity.Site, link []catalog.SiteState) (SiteState, *time.Time) {
	switch {
	case !entry.Revoked.IsZero() && !entry.Enrolled.After(entry.Revoked) && entry.TokenUntil.IsZero():
		return SiteStateRevoked, optional(entry.Revoked)
	case entry.Quarantine != nil:
		return SiteStateQuarantined, optional(entry.Quarantine.Since)
	case entry.Enrolled.IsZero() || entry.Revoked.After(entry.Enrolled):
		return SiteStateEnrolling, optional(entry.Added)
	case entry.Waiting != nil && (len(link) == 0 || !link[0].Linked):
		return SiteStateWaiting, optional(entry.Waiting.Since)
	case len(link) == 0:
		return SiteStateDown, optional(entry.Enrolled)
	case link[0].Linked:
		return SiteStateUp, optional(link[0].Since)
	}
	return SiteStateDown, optional(link[0].Since)
}

func (a *API) describeLink(site *Site) error {
	id, now := branchline.SiteID(site.Id), a.Clock.Now()
	outages, err := a.Catalog.Outages(id, branchline.TimeRange{Start: now.Add(-outageMemory), End: now})
	if err != nil {
		return err
	}
	for _, o := range outages[max(0, len(outages)-maxOutages):] {
		site.Outages = append(site.Outages, outage(o))
	}
	rtt, by := a.Hub.Path(id)
	if rtt > 0 {
		ms := float64(rtt) / float64(time.Millisecond)
		site.RttMs = &ms
	}
	if carrier := SiteCarrier(by); carrier != "" {
		site.Carrier = &carrier
	}
	if a.Demo != nil {
		if cut, known := a.Demo.IsCut(id); known {
			site.Cut = &cut
		}
	}
	return nil
}

func (s strictServer) AddSite(ctx context.Context, req AddSiteRequestObject) (AddSiteResponseObject, error) {
	id := branchline.SiteID(req.Body.Id)
	if strings.Contains(req.Body.Id, ".") {
		return nil, fmt.Errorf("add site %.80q: its name is one label, without dots: %w", id, branchline.ErrInvalid)
	}
	if err := s.record(ctx, access.ActionSiteAdd, req.Body.Id); err != nil {
		return nil, err
	}
	token, err := s.Authority.AddSite(id, s.Addresses)
	if err != nil {
		return nil, err
	}
	s.Feed.Site(id)
	expires := stamp(s.Clock.Now().Add(identity.TokenLife))
	return AddSite201JSONResponse{Site: req.Body.Id, Token: token, Expires: expires}, nil
}

func (s strictServer) RevokeSite(ctx context.Context, req RevokeSiteRequestObject) (RevokeSiteResponseObject, error) {
	if err := s.record(ctx, access.ActionSiteRevoke, req.Site); err != nil {
		return nil, err
	}
	if err := s.Authority.Revoke(branchline.SiteID(req.Site)); err != nil {
		return nil, err
	}
	s.Feed.Site(branchline.SiteID(req.Site))
	return RevokeSite204Response{}, nil
}

func (s strictServer) SetDemoLink(
	_ context.Context, req SetDemoLinkRequestObject,
) (SetDemoLinkResponseObject, error) {
	if s.Demo == nil {
		return nil, errNoPath
	}
	id := branchline.SiteID(req.Site)
	if err := s.Demo.SetCut(id, req.Body.Cut); err != nil {
		return nil, err
	}
	s.Feed.Site(id)
	return SetDemoLink204Response{}, nil
}
