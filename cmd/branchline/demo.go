package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/internal/testcam"
	"github.com/branchline-video/branchline/segstore"
)

// demoSegment is shorter than on a real site, so that a visitor sees segments being sealed.
const demoSegment = 20 * time.Second

type demoCommand struct {
	HTTP string        `help:"Address of the page." default:"127.0.0.1:8480"`
	Dir  string        `help:"Keep the data in this directory; without it, it is deleted at the end." type:"path"`
	For  time.Duration `help:"End after this time with a summary; 0: run until interrupted."`
	JSON bool          `help:"Print JSON: a line when ready and a line at the end."`
}

// demoSite is a branch of the demonstration.
type demoSite struct {
	name    branchline.SiteID
	cameras []demoCamera
	cable   *link.Cuttable
	branch  *branch
}

type demoCamera struct {
	id, name, keep string
	camera         *testcam.Camera
}

func demoSites() []*demoSite {
	return []*demoSite{
		{name: "berlin", cable: &link.Cuttable{}, cameras: []demoCamera{
			{id: "entrance", name: "Main entrance", keep: "always"},
			{id: "yard", name: "Yard, north gate", keep: "backfill"},
		}},
		{name: "lyon", cable: &link.Cuttable{}, cameras: []demoCamera{
			{id: "counter", name: "Counter", keep: "always"},
			{id: "depot", name: "Depot", keep: "never"},
		}},
	}
}

// demo is the whole demonstration in one process.
type demo struct {
	sites  []*demoSite
	centre *centre
}

// Run opens everything, tells how to look at it, and closes it again.
func (c *demoCommand) Run(t *terminal) (err error) {
	if err := checkFor(c.For); err != nil {
		return err
	}
	dir := c.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "branchline-demo-"); err != nil {
			return fmt.Errorf("make a directory for the demo: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	d := &demo{sites: demoSites()}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(t, dir, c.HTTP); err != nil {
		return err
	}
	if err := c.announce(t, d, dir); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(t.ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.centre.run(ctx) })
	for _, s := range d.sites {
		group.Go(func() error { return s.branch.run(ctx) })
	}
	wait(ctx, c.For)
	summary, sumErr := d.summary()
	stop()
	if err := errors.Join(group.Wait(), sumErr); err != nil {
		return err
	}
	return c.report(t, d.recorded(summary))
}

func (d *demo) open(t *terminal, dir, http string) (err error) {
	file := hubFile{StorageFile: StorageFile{Dir: filepath.Join(dir, "hub")}, Listen: "127.0.0.1:0", HTTP: http}
	for _, s := range d.sites {
		for _, c := range s.cameras {
			pattern := string(branchline.CameraID(c.id).Under(s.name).Stream(edge.Main))
			file.Policies = append(file.Policies, policyFile{Streams: pattern, Keep: c.keep})
		}
	}
	if d.centre, err = openCentre(centreConfig{hubFile: file, demo: d, log: t.log}); err != nil {
		return err
	}
	if d.centre.password == "" { // the directory is of an earlier demo, whose password nobody remembers
		d.centre.password, err = d.centre.access.SetUser(t.ctx, access.Administrator, access.RoleAdministrator)
		if err != nil {
			return err
		}
	}
	number := uint16(0)
	for _, s := range d.sites {
		if err := s.openCameras(t, &number); err != nil {
			return err
		}
		if err := s.openBranch(t, filepath.Join(dir, string(s.name)), d.centre); err != nil {
			return err
		}
	}
	return nil
}

func (s *demoSite) openCameras(t *terminal, number *uint16) (err error) {
	for i := range s.cameras {
		*number++
		c := &s.cameras[i]
		c.camera, err = testcam.Open(testcam.Config{Number: *number, Name: c.name, Tone: true, Logger: t.log})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *demoSite) openBranch(t *terminal, dir string, hub *centre) error {
	var cameras []edge.CameraConfig
	for _, c := range s.cameras {
		cameras = append(cameras, edge.CameraConfig{
			ID: branchline.CameraID(c.id), Name: c.name, URL: c.camera.URL(), Audio: true,
		})
	}
	address := hub.node.Addr().String()
	token, err := hub.node.Authority().AddSite(s.name, []string{address})
	if err != nil {
		return err
	}
	s.branch, err = openBranch(branchConfig{
		dir: dir, cameras: cameras, segment: demoSegment, token: token,
		allow: edge.Allow{Hold: true, Lock: true}, hubs: []string{address},
		listen: s.cable.ListenPacket, log: t.log.With("site", s.name),
	})
	return err
}

func (d *demo) close() error {
	var errs []error
	for _, s := range d.sites {
		if s.branch != nil {
			errs = append(errs, s.branch.close())
		}
		for _, c := range s.cameras {
			if c.camera != nil {
				errs = append(errs, c.camera.Close())
			}
		}
	}
	if d.centre != nil {
		errs = append(errs, d.centre.close())
	}
	return errors.Join(errs...)
}

func (d *demo) site(name branchline.SiteID) *demoSite {
	for _, s := range d.sites {
		if s.name == name {
			return s
		}
	}
	return nil
}

// SetCut cuts or heals the cable of a site.
func (d *demo) SetCut(name branchline.SiteID, cut bool) error {
	s := d.site(name)
	switch {
	case s == nil:
		return fmt.Errorf("cut the link of %s: %w", name, branchline.ErrNotFound)
	case cut:
		s.cable.Cut()
	default:
		s.cable.Heal()
	}
	return nil
}

// IsCut reports whether the cable of a site is cut, and whether there is one.
func (d *demo) IsCut(name branchline.SiteID) (cut, known bool) {
	s := d.site(name)
	return s != nil && s.cable.IsCut(), s != nil
}

func (c *demoCommand) announce(t *terminal, d *demo, dir string) error {
	if c.JSON {
		facts := d.centre.facts()
		facts["dir"] = dir
		return printJSON(t.stdout, facts)
	}
	_, err := fmt.Fprintf(t.stdout, `A hub, two branches and four cameras are running.

  Open       %s
  User       %s
  Password   %s

Cut the link of a site in its page: the branch goes on recording, the time line shows the cut, and
after healing the missing part comes over. Data: %s. End with Ctrl-C.
`, d.centre.url, access.Administrator, d.centre.password, dir)
	return err
}

// demoSummary tells what a demonstration did.
type demoSummary struct {
	Sites []demoStore `json:"sites"`
	Hub   demoStore   `json:"hub"`
}

type demoStore struct {
	Name     string `json:"name"`
	Cameras  int    `json:"cameras"`
	Linked   *bool  `json:"linked,omitempty"` // of a site
	Segments int    `json:"segments"`         // sealed
	Bytes    int64  `json:"bytes"`
}

// summary tells of sites and links while they are up; what was recorded is added when all is sealed.
func (d *demo) summary() (demoSummary, error) {
	all := demoSummary{Hub: demoStore{Name: "hub"}}
	for _, s := range d.sites {
		state, err := d.centre.node.Catalog().Site(s.name)
		if err != nil && !errors.Is(err, branchline.ErrNotFound) {
			return all, fmt.Errorf("sum up: %w", err)
		}
		all.Hub.Cameras += state.Cameras
		all.Sites = append(all.Sites, demoStore{Name: string(s.name), Cameras: state.Cameras, Linked: &state.Linked})
	}
	return all, nil
}

func (d *demo) recorded(all demoSummary) demoSummary {
	add := func(to *demoStore, store *segstore.Store) {
		stats := store.Stats()
		to.Segments, to.Bytes = int(stats.Segments), stats.Bytes
	}
	for i, s := range d.sites {
		add(&all.Sites[i], s.branch.node.Store())
	}
	add(&all.Hub, d.centre.node.Store())
	return all
}

func (c *demoCommand) report(t *terminal, s demoSummary) error {
	if c.JSON {
		return printJSON(t.stdout, s)
	}
	tab := tabwriter.NewWriter(t.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tab, "\nNODE\tCAMERAS\tLINKED\tSEGMENTS\tMB")
	for _, n := range append(s.Sites, s.Hub) {
		linked := "-"
		if n.Linked != nil {
			linked = fmt.Sprint(*n.Linked)
		}
		fmt.Fprintf(tab, "%s\t%d\t%s\t%d\t%.1f\n", n.Name, n.Cameras, linked, n.Segments, float64(n.Bytes)/1e6)
	}
	return tab.Flush()
}
