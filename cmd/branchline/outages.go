package main

import (
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"
)

// peer is how a site stands, as the API tells it.
type peer struct {
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
	Alarm  bool      `json:"alarm"`
}

type siteOutagesCommand struct {
	Name  string `arg:"" help:"The site's name."`
	Limit int    `help:"How many at most, the newest." default:"100"`
	onHub
}

// Run prints a line for each outage, the newest first.
func (c *siteOutagesCommand) Run(t *terminal) error {
	type outage struct {
		Start  time.Time `json:"start"`
		End    time.Time `json:"end,omitzero"`
		State  string    `json:"state,omitempty"`
		Reason string    `json:"reason,omitempty"`
		SeenBy string    `json:"seenBy,omitempty"`
	}
	var list struct {
		Outages []outage `json:"outages"`
	}
	path := fmt.Sprintf("/api/v1/sites/%s/outages?limit=%d", url.PathEscape(c.Name), c.Limit)
	if err := c.call(t.ctx, http.MethodGet, path, nil, &list); err != nil {
		return fmt.Errorf("list outages of %s: %w", c.Name, err)
	}
	if c.JSON {
		return printJSON(t.stdout, list.Outages)
	}
	if len(list.Outages) == 0 {
		_, err := fmt.Fprintf(t.stdout, "No outage of %s is on record.\n", c.Name)
		return err
	}
	tab := tabwriter.NewWriter(t.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tab, "FROM\tTO\tLASTED\tSTATE\tSEEN BY\tREASON")
	for _, o := range list.Outages {
		to, lasted := "goes on", ""
		if !o.End.IsZero() {
			to, lasted = readable(o.End), o.End.Sub(o.Start).Round(time.Second).String()
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\n", readable(o.Start), to, lasted, o.State, o.SeenBy, o.Reason)
	}
	return tab.Flush()
}
