package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/api"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/web"
)

type hubCommand struct {
	Config        string   `help:"The hub's configuration file." type:"path" required:"" placeholder:"FILE"`
	Token         []string `help:"One-time token of a hub above: TOKEN or NAME=TOKEN." env:"BRANCHLINE_HUB_TOKEN"`
	Hub           []string `help:"Dial these addresses of a hub above." placeholder:"[NAME=]HOST:PORT"`
	ResetPassword bool     `help:"Make a new password for the administrator and print it."`
	JSON          bool     `help:"Print one JSON line when ready."`
}

// Run serves sites and operators until the terminal's context ends.
func (c *hubCommand) Run(t *terminal) error {
	var file hubFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	above, err := file.above(c.Token, c.Hub)
	if err != nil {
		return err
	}
	centre, err := openCentre(centreConfig{hubFile: file, above: above, log: t.log})
	if err != nil {
		return err
	}
	if c.ResetPassword {
		centre.password, err = centre.access.SetUser(t.ctx, access.Administrator, access.RoleAdministrator)
	}
	if err == nil {
		err = c.announce(t, centre)
	}
	if err != nil {
		return errors.Join(err, centre.close())
	}
	return errors.Join(centre.run(t.ctx), centre.close())
}

func (c *hubCommand) announce(t *terminal, h *centre) error {
	if c.JSON {
		return printJSON(t.stdout, h.facts())
	}
	fmt.Fprintf(t.stdout, "Page and API: %s\nSites dial:   %s (UDP and TCP)\n", h.url, h.node.Addr())
	if h.password != "" {
		fmt.Fprintf(t.stdout, "User:         %s\nPassword:     %s   (shown this once)\n", access.Administrator, h.password)
	}
	return nil
}

// centreConfig says what a hub with its page needs.
type centreConfig struct {
	hubFile
	above []hub.Above
	demo  api.Demo // optional
	log   *slog.Logger
}

// centre is a hub with its API, its page and its sockets.
type centre struct {
	node     *hub.Node
	access   *access.Store
	api      *api.API
	log      *slog.Logger
	password string // of the administrator, if it was made just now
	url      string
	page     net.Listener
	socket   net.Listener
}

// facts are what a script wants to know of a hub that is ready.
func (h *centre) facts() map[string]string {
	facts := map[string]string{"http": h.url, "link": h.node.Addr().String()}
	if h.password != "" {
		facts["user"], facts["password"] = access.Administrator, h.password
	}
	return facts
}

func openCentre(c centreConfig) (_ *centre, err error) {
	h := &centre{log: c.log}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	// What is in the directory is for its owner alone: recordings, keys, and the administrator's socket.
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the hub's directory: %w", err)
	}
	if err := os.Chmod(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("protect the hub's directory: %w", err)
	}
	registry, feed := prometheus.NewRegistry(), &api.Feed{}
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	storage, err := c.options()
	if err != nil {
		return nil, err
	}
	h.node, err = hub.Open(hub.Config{
		Dir: c.Dir, Storage: storage, Listen: c.Listen, Policies: c.policies(), Software: "branchline " + version,
		CatalogChanged: feed.Catalog, JobChanged: feed.Job, LockChanged: feed.Lock, Registry: registry, Logger: c.log,
		Name: c.called(), Above: c.above, Allow: hub.Allow(c.Allow.allow()),
		SiteChanged: feed.Site, Denied: h.denied, Organisation: c.organisation(),
	})
	if err != nil {
		return nil, err
	}
	registry.MustRegister(hubLinks{h.node})
	registry.MustRegister(retained{"hub", h.node.Retention})
	registry.MustRegister(scrubCollector{"branchline_hub_scrub_", h.node.Store().ScrubStats})
	if err := h.listen(c); err != nil {
		return nil, err
	}
	// After everything that may fail: the first password is told only once.
	h.access, h.password, err = access.Open(h.node.DB(), access.Options{Logger: c.log})
	if err != nil {
		return nil, err
	}
	public := c.Public
	if len(public) == 0 {
		public = guessAddresses(h.node.Addr())
	}
	h.api = api.New(api.Config{
		Source: h.node, Catalog: h.node.Catalog(), Jobs: h.node.Jobs(), Locks: h.node.Locks(),
		Authority: h.node.Authority(),
		Access:    h.access, Feed: feed, Hub: h.node, Links: h.node, Addresses: public, Page: web.Page(), Demo: c.demo,
		Registry: registry, Logger: c.log,
	})
	return h, nil
}

func (c centreConfig) policies() []policy.Policy {
	var all []policy.Policy
	for _, p := range c.Policies {
		all = append(all, policy.Policy{Streams: p.Streams, Kind: policy.Kind(p.Keep)})
	}
	return all
}

// listen opens the page's address and the administrator's socket.
func (h *centre) listen(c centreConfig) (err error) {
	if h.page, err = net.Listen("tcp", c.HTTP); err != nil {
		return fmt.Errorf("serve the page: %w", err)
	}
	h.url = "http://" + h.page.Addr().String()
	if c.TLS != nil {
		pair, err := tls.LoadX509KeyPair(c.TLS.Certificate, c.TLS.Key)
		if err != nil {
			return usageError{fmt.Errorf("load the page's certificate: %w", err)}
		}
		h.page = tls.NewListener(h.page, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"}}) // WebSocket needs HTTP/1.1
		h.url = "https" + h.url[len("http"):]
	}
	path := filepath.Join(c.Dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a crash; we hold the store's lock
		return fmt.Errorf("serve the administrator's socket: %w", err)
	}
	if h.socket, err = net.Listen("unix", path); err != nil {
		return fmt.Errorf("serve the administrator's socket: %w", err)
	}
	return nil
}

// guessAddresses names the hub where the configuration does not: this machine, by its name, on the
// link's port.
func guessAddresses(link net.Addr) []string {
	host, port, err := net.SplitHostPort(link.String())
	if err != nil {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return []string{link.String()}
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return []string{net.JoinHostPort(name, port)}
}

func (h *centre) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := h.node.Run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	})
	group.Go(func() error { return h.api.Run(ctx) })
	group.Go(func() error { return api.Serve(ctx, h.page, h.api.Handler(false), h.log) })
	group.Go(func() error { return api.Serve(ctx, h.socket, h.api.Handler(true), h.log) })
	return group.Wait()
}

func (h *centre) close() error {
	var errs []error
	for _, l := range []net.Listener{h.page, h.socket} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if h.node != nil {
		errs = append(errs, h.node.Close())
	}
	return errors.Join(errs...)
}
