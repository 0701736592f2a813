package api

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
)

// withBelow adds the sites behind hubs that are linked here, or the one with the given name and those behind
// it: each after its hub, linked as far as the hub is.
func (a *API) withBelow(sites []Site, seen []catalog.SiteState, only branchline.SiteID) ([]Site, error) {
	for _, s := range seen {
		if !strings.Contains(string(s.ID), ".") || only != "" && !slices.Contains(s.ID.Way(), only) {
			continue
		}
		site := Site{
			Id: string(s.ID), Cameras: s.Cameras, LastContact: optional(s.LastContact), Since: optional(s.Since),
			State: SiteStateDown, Outages: []Outage{},
		}
		if s.Linked {
			site.State = SiteStateUp
		}
		if err := errors.Join(a.describeLink(&site), a.describePeer(&site)); err != nil {
			return nil, err
		}
		sites = append(sites, site)
	}
	slices.SortStableFunc(sites, func(x, y Site) int { return cmp.Compare(x.Id, y.Id) })
	return sites, nil
}
