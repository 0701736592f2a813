package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/branchline-video/branchline/federation/identity"
)

// waitingSite and quarantineSite are what the hub tells of sites about which an operator has to decide.
type waitingSite struct {
	Since    time.Time `json:"since"`
	Expired  time.Time `json:"expired"`
	Address  string    `json:"address"`
	Software string    `json:"software,omitempty"`
	Approved time.Time `json:"approved,omitzero"`
	Refused  time.Time `json:"refused,omitzero"`
}

type quarantineSite struct {
	Since time.Time `json:"since"`
	Cause string    `json:"cause"`

	Approved time.Time `json:"approved,omitzero"`

	Nodes []struct {
		Instance string    `json:"instance"`
		Opens    int       `json:"opens"`
		Address  string    `json:"address"`
		Software string    `json:"software,omitempty"`
		At       time.Time `json:"at"`
	} `json:"nodes"`
}

// printStanding says, below the list of sites, what is to be decided about one.
func printStanding(out io.Writer, site string, w *waitingSite, q *quarantineSite) error {
	if w != nil {
		what := "waits for approval since " + readable(w.Since)
		switch {
		case !w.Approved.IsZero():
			what = "was approved " + readable(w.Approved) + " and gets a certificate when it comes next"
		case !w.Refused.IsZero():
			what = "was refused " + readable(w.Refused)
		}
		fmt.Fprintf(out, "\n%s %s: its certificate ended %s, it comes from %s (%s).\n"+
			"  branchline site approve %s   or   branchline site refuse %s\n",
			site, what, readable(w.Expired), w.Address, w.Software, site, site)
	}
	if q == nil {
		return nil
	}
	cause := "two nodes have its identity"
	if q.Cause == identity.CauseRolledBack {
		cause = "a node came with an older state than was seen of it"
	}
	fmt.Fprintf(out, "\n%s is quarantined since %s: %s. Its nodes record on; none is linked.\n", site,
		readable(q.Since), cause)
	if !q.Approved.IsZero() {
		fmt.Fprintf(out, "A node was approved %s and has not come since.\n", readable(q.Approved))
	}
	tab := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tab, "  INSTANCE\tSTARTS\tADDRESS\tLAST CAME\tSOFTWARE")
	for _, n := range q.Nodes {
		fmt.Fprintf(tab, "  %s\t%d\t%s\t%s\t%s\n", n.Instance, n.Opens, n.Address, readable(n.At), n.Software)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "  branchline site approve %s --instance INSTANCE\n", site)
	return err
}

type siteApproveCommand struct {
	Name     string `arg:"" help:"The site's name."`
	Instance string `help:"Which node of a quarantined site goes on, as in 'site list'; not needed if only one is there."`
	onHub
}

// Run approves the site.
func (c *siteApproveCommand) Run(t *terminal) error {
	if c.Instance != "" {
		if _, err := identity.ParseInstance(c.Instance); err != nil {
			return usageError{err}
		}
	}
	path := "/api/v1/sites/" + url.PathEscape(c.Name) + "/approve"
	if err := c.call(t.ctx, http.MethodPost, path, map[string]string{"instance": c.Instance}, nil); err != nil {
		return fmt.Errorf("approve site %s: %w", c.Name, err)
	}
	if c.JSON {
		return printJSON(t.stdout, map[string]string{"approved": c.Name})
	}
	_, err := fmt.Fprintf(t.stdout, "Site %s is approved: it links within seconds, if its node is there.\n", c.Name)
	return err
}

type siteRefuseCommand struct {
	Name string `arg:"" help:"The site's name."`
	onHub
}

// Run refuses the site.
func (c *siteRefuseCommand) Run(t *terminal) error {
	path := "/api/v1/sites/" + url.PathEscape(c.Name) + "/refuse"
	if err := c.call(t.ctx, http.MethodPost, path, nil, nil); err != nil {
		return fmt.Errorf("refuse site %s: %w", c.Name, err)
	}
	if c.JSON {
		return printJSON(t.stdout, map[string]string{"refused": c.Name})
	}
	_, err := fmt.Fprintf(t.stdout, "Site %s stays out. To let it in after all: branchline site approve %s, "+
		"or branchline site add %s for a new token.\n", c.Name, c.Name, c.Name)
	return err
}

type authorityCommands struct {
	Show   authorityShowCommand   `cmd:"" help:"Tell of the authority that issues the sites' certificates."`
	Rotate authorityRotateCommand `cmd:"" help:"Make a new authority; the old certificates stay good for an overlap."`
}

// authorityFacts is what the hub tells of its authority.
type authorityFacts struct {
	Fingerprint  string    `json:"fingerprint"`
	From         time.Time `json:"from"`
	Until        time.Time `json:"until"`
	Certificate  string    `json:"certificate"`
	Organisation bool      `json:"organisation"`
	Problem      string    `json:"problem,omitempty"`
	Sites        int       `json:"sites"`
	Behind       int       `json:"behind"`
	Former       []struct {
		Fingerprint string    `json:"fingerprint"`
		Until       time.Time `json:"until"`
	} `json:"former"`
}

func (f authorityFacts) print(t *terminal, asJSON bool) error {
	if asJSON {
		return printJSON(t.stdout, f)
	}
	what := "The hub's own authority"
	if f.Organisation {
		what = "Certificates are the organisation's; the hub's own"
	}
	fmt.Fprintf(t.stdout, "%s: SHA-256 %s, good until %s\nSites with a certificate: %d\n", what, f.Fingerprint,
		readable(f.Until), f.Sites)
	if f.Problem != "" {
		fmt.Fprintf(t.stdout, "The files have changed and cannot be used: %s\n", f.Problem)
	}
	for _, o := range f.Former {
		fmt.Fprintf(t.stdout, "Former authority: SHA-256 %s, its certificates are good until %s\n", o.Fingerprint,
			readable(o.Until))
	}
	if f.Behind > 0 {
		fmt.Fprintf(t.stdout, "Sites that still have a certificate of a former authority: %d. They renew as soon as they "+
			"are linked; those that stay off past its end have to be approved.\n", f.Behind)
	}
	return nil
}

type authorityShowCommand struct{ onHub }

// Run prints how the authority stands.
func (c *authorityShowCommand) Run(t *terminal) error {
	var facts authorityFacts
	if err := c.call(t.ctx, http.MethodGet, "/api/v1/authority", nil, &facts); err != nil {
		return fmt.Errorf("show authority: %w", err)
	}
	return facts.print(t, c.JSON)
}

type authorityRotateCommand struct {
	Overlap time.Duration `help:"How long certificates of the present authority stay good." default:"2160h"`
	onHub
}

// Run makes a new authority.
func (c *authorityRotateCommand) Run(t *terminal) error {
	if c.Overlap < 0 || c.Overlap > identity.MaxOverlap {
		return usageError{fmt.Errorf("--overlap: %v is not within 0s and %v", c.Overlap, identity.MaxOverlap)}
	}
	var facts authorityFacts
	body := map[string]float64{"overlapHours": c.Overlap.Hours()}
	if err := c.call(t.ctx, http.MethodPost, "/api/v1/authority/rotate", body, &facts); err != nil {
		return fmt.Errorf("rotate authority: %w", err)
	}
	return facts.print(t, c.JSON)
}
