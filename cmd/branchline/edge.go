package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore"
)

type edgeCommand struct {
	Config string   `help:"The edge's configuration file." type:"path" required:"" placeholder:"FILE"`
	Token  []string `help:"One-time token of the hub, or NAME=TOKEN of one of several hubs." env:"BRANCHLINE_TOKEN"`
	Hub    []string `help:"Dial these hub addresses instead of those of the token." placeholder:"[NAME=]HOST:PORT"`
	JSON   bool     `help:"Print one JSON line when recording has begun."`
}

// garbage is how much memory an edge may have to collect, in percent of what it uses: less than the usual 100, as
// nearly all is frames, which cost nothing to look through, and the box is small. GOGC says otherwise.
const garbage = 40

// Run records until the terminal's context ends. Nothing about hub, token or link ends it.
func (c *edgeCommand) Run(t *terminal) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	var file edgeFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	homes, err := homesOf(file.Hubs, c.Token, c.Hub)
	if err != nil {
		return err
	}
	storage, err := file.options()
	if err != nil {
		return err
	}
	branch, err := openBranch(branchConfig{
		dir: file.Dir, storage: storage, cameras: file.cameras(), segment: file.segment,
		allow: file.Allow.allow(), uplink: file.Budget, homes: homes, uplinks: file.uplinks, log: t.log,
		organisation: file.Identity.organisation(),
	})
	if err != nil {
		return err
	}
	if err := c.announce(t, branch, len(file.Cameras)); err != nil {
		return errors.Join(err, branch.close())
	}
	var metrics sync.WaitGroup
	ctx, cancel := context.WithCancel(t.ctx)
	if file.Listen != "" {
		metrics.Go(func() {
			if err := serveHTTP(ctx, file.Listen, edgeHandler(branch)); err != nil {
				t.log.Error("no metrics; recording goes on", "error", err)
			}
		})
	}
	metrics.Go(func() {
		if err := serveSocket(ctx, branch); err != nil {
			t.log.Error("branchline link qlog does not work; recording goes on", "error", err)
		}
	})
	err = errors.Join(branch.run(ctx), branch.close())
	cancel()
	metrics.Wait()
	return err
}

func (c *edgeCommand) announce(t *terminal, b *branch, cameras int) error {
	site := b.identity.Site()
	t.log.Info("edge is recording", "cameras", cameras, "dir", b.dir, "site", site)
	if !slices.ContainsFunc(b.uplinks, func(u uplink) bool { return u.linked }) {
		t.log.Warn("this edge is not enrolled: it records, and no hub sees it; " +
			"make a token with `branchline site add NAME` at the hub and start the edge with --token")
	}
	if c.JSON {
		return printJSON(t.stdout, map[string]any{"site": site, "cameras": cameras, "dir": b.dir})
	}
	return nil
}

func (c *edgeFile) cameras() []edge.CameraConfig {
	var all []edge.CameraConfig
	for _, f := range c.Cameras {
		all = append(all, edge.CameraConfig{
			ID: branchline.CameraID(f.ID), Name: f.Name, URL: f.URL, SubURL: f.Sub, Audio: f.Audio == nil || *f.Audio,
		})
	}
	return all
}

func (a allowFile) allow() edge.Allow {
	return edge.Allow{Hold: a.Hold == nil || *a.Hold, Lock: a.Lock == nil || *a.Lock}
}

// branchConfig says what an edge with its uplink needs.
type branchConfig struct {
	dir     string
	storage segstore.Options
	cameras []edge.CameraConfig
	segment time.Duration
	allow   edge.Allow
	uplink  uplinkFile
	homes   []home
	token   string   // of the only hub, without homes
	hubs    []string // the same
	uplinks []link.Uplink
	listen  func(addr string) (net.PacketConn, error) // nil: the system's
	log     *slog.Logger

	organisation *identity.Organisation // whose certificate the edge has; nil: that of its hub
}

// branch is an edge node with its identity and its uplinks.
type branch struct {
	dir      string
	identity *identity.Node
	node     *edge.Node
	budget   *budget.Budget
	members  *members.Members
	qlog     *link.Qlog
	log      *slog.Logger
	uplinks  []uplink
}

// openBranch opens what is kept at dir: identity/ and store/.
func openBranch(c branchConfig) (*branch, error) {
	who, err := identity.OpenNode(filepath.Join(c.dir, "identity"), clock.Clock{})
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	if c.organisation != nil {
		who.UseOrganisation(*c.organisation)
	}
	node, err := edge.Open(edge.Config{
		Dir: filepath.Join(c.dir, "store"), Storage: c.storage, Cameras: c.cameras, SegmentLength: c.segment,
		Signer: who.Key(), Allow: c.allow, Logger: c.log,
	})
	if err != nil {
		return nil, err
	}
	within, err := budget.Open(budget.Config{
		Schedule: c.uplink.schedule, Quota: c.uplink.quota, Capacity: c.uplink.capacity, Streams: streamRates{node},
		Path: filepath.Join(c.dir, "uplink.json"), Logger: c.log,
	})
	if err != nil {
		return nil, errors.Join(err, node.Close())
	}
	gossip, err := members.Open(members.Config{Logger: c.log})
	if err != nil {
		return nil, errors.Join(err, within.Close(), node.Close())
	}
	b := &branch{dir: c.dir, identity: who, node: node, budget: within, members: gossip, log: c.log}
	b.qlog = link.NewQlog(filepath.Join(c.dir, "qlog"), clock.Clock{})
	if b.uplinks, err = openUplinks(b, c); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// run records and keeps the links until ctx ends. A failed uplink never ends the recording.
func (b *branch) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.node.Run(ctx) })
	for _, u := range b.uplinks {
		if !u.linked {
			continue
		}
		group.Go(func() error {
			if err := u.Run(ctx); ctx.Err() == nil {
				return fmt.Errorf("keep the uplink: %w", err)
			}
			return nil
		})
	}
	group.Go(func() error {
		_ = b.budget.Run(ctx) // it ends with the rest
		return nil
	})
	return group.Wait()
}

func (b *branch) close() error {
	return errors.Join(b.members.Close(), b.qlog.Close(), b.budget.Close(), b.node.Close())
}

// serveHTTP answers at the address until ctx ends.
func serveHTTP(ctx context.Context, address string, h http.Handler) error {
	server := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
