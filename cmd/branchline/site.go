package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/branchline-video/branchline"
)

// socketName is the Unix socket in the hub's directory. Who may open it is the administrator.
const socketName = "hub.sock"

// maxAnswer bounds what is read of one answer, in bytes: the list of 20,000 sites.
const maxAnswer = 64 << 20

type siteCommands struct {
	Add     siteAddCommand     `cmd:"" help:"Add a site, or let a known one enrol anew; prints a one-time token."`
	List    siteListCommand    `cmd:"" help:"List the sites, their links and when they were last heard of."`
	Outages siteOutagesCommand `cmd:"" help:"List when a site's link was down, how it looked and who saw it."`
	Revoke  siteRevokeCommand  `cmd:"" help:"End a site's link and refuse its certificate from now on."`

	Approve siteApproveCommand `cmd:"" help:"Let a site that waits come back, or a node of a quarantined one."`
	Refuse  siteRefuseCommand  `cmd:"" help:"Keep a site out that waits for approval."`
}

// onHub says which hub of this machine a command is for.
type onHub struct {
	Config string `help:"The hub's configuration file." type:"path" placeholder:"FILE" xor:"hub" required:""`
	Dir    string `help:"The hub's directory." type:"path" xor:"hub" required:""`
	JSON   bool   `help:"Print JSON."`
}

// call exchanges JSON with the hub over its socket.
func (h onHub) call(ctx context.Context, method, path string, body, into any) error {
	dir := h.Dir
	if h.Config != "" {
		var file hubFile
		if err := readConfig(h.Config, &file); err != nil {
			return err
		}
		dir = file.Dir
	}
	socket := filepath.Join(dir, socketName)
	dialer := &net.Dialer{}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("reach the hub at %s: %w; is it running, and may you open that socket?", socket, op.Err)
	}
	if err != nil {
		return fmt.Errorf("ask the hub: %w", err)
	}
	defer res.Body.Close()
	return readAnswer(res, into)
}

func readAnswer(res *http.Response, into any) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		var refused struct{ Error struct{ Message string } }
		if json.Unmarshal(text, &refused) != nil || refused.Error.Message == "" {
			return fmt.Errorf("the hub answered %s", res.Status)
		}
		return errors.New(refused.Error.Message)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

type siteAddCommand struct {
	Name string `arg:"" help:"The site's name: a-z, 0-9 and inner '-'."`
	onHub
}

// Run prints the token and what to do with it.
func (c *siteAddCommand) Run(t *terminal) error {
	if err := branchline.SiteID(c.Name).Check(); err != nil {
		return usageError{err}
	}
	var added struct {
		Site    string    `json:"site"`
		Token   string    `json:"token"`
		Expires time.Time `json:"expires"`
	}
	if err := c.call(t.ctx, http.MethodPost, "/api/v1/sites", map[string]string{"id": c.Name}, &added); err != nil {
		return fmt.Errorf("add site %s: %w", c.Name, err)
	}
	if c.JSON {
		return printJSON(t.stdout, added)
	}
	_, err := fmt.Fprintf(t.stdout, "Site %s may enrol once, until %s. At the branch:\n\n"+
		"  branchline edge --config edge.yaml --token %s\n", added.Site, added.Expires.Format(time.RFC3339), added.Token)
	return err
}

type siteListCommand struct{ onHub }

// Run prints a line for each site.
func (c *siteListCommand) Run(t *terminal) error {
	type site struct {
		ID          string    `json:"id"`
		State       string    `json:"state"`
		Since       time.Time `json:"since,omitzero"`
		LastContact time.Time `json:"lastContact,omitzero"`
		Cameras     int       `json:"cameras"`
		Peer        *peer     `json:"peer,omitempty"`

		CertificateUntil time.Time       `json:"certificateUntil,omitzero"`
		Waiting          *waitingSite    `json:"waiting,omitempty"`
		Quarantine       *quarantineSite `json:"quarantine,omitempty"`
	}
	var list struct {
		Sites []site `json:"sites"`
	}
	if err := c.call(t.ctx, http.MethodGet, "/api/v1/sites", nil, &list); err != nil {
		return fmt.Errorf("list sites: %w", err)
	}
	if c.JSON {
		return printJSON(t.stdout, list.Sites)
	}
	if len(list.Sites) == 0 {
		_, err := fmt.Fprintln(t.stdout, "No site yet. Add one with: branchline site add NAME")
		return err
	}
	tab := tabwriter.NewWriter(t.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tab, "SITE\tSTATE\tSINCE\tLAST CONTACT\tCAMERAS")
	for _, s := range list.Sites {
		if s.Peer != nil {
			s.State, s.Since = s.Peer.State, s.Peer.Since
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%d\n", s.ID, s.State, readable(s.Since), readable(s.LastContact), s.Cameras)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, s := range list.Sites {
		if err := printStanding(t.stdout, s.ID, s.Waiting, s.Quarantine); err != nil {
			return err
		}
	}
	return nil
}

type siteRevokeCommand struct {
	Name string `arg:"" help:"The site's name."`
	onHub
}

// Run revokes the site; what is held of it stays.
func (c *siteRevokeCommand) Run(t *terminal) error {
	path := "/api/v1/sites/" + url.PathEscape(c.Name) + "/revoke"
	if err := c.call(t.ctx, http.MethodPost, path, nil, nil); err != nil {
		return fmt.Errorf("revoke site %s: %w", c.Name, err)
	}
	if c.JSON {
		return printJSON(t.stdout, map[string]string{"revoked": c.Name})
	}
	_, err := fmt.Fprintf(t.stdout, "Site %s is revoked: its link ends now and its certificate is worthless. "+
		"Its recordings at the centre stay.\nTo let it in again: branchline site add %s\n", c.Name, c.Name)
	return err
}
