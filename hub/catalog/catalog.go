package catalog

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

// Options are what a catalog needs.
type Options struct {
	DB     *index.DB // stays the caller's
	Clock  clock.Clock
	Logger *slog.Logger
	// Onward, if set, is told of every change for the hubs above, in the update that stores it.
	Onward Onward
	// Changed, if set, is told of every change after it is stored, in the order of each site's feed.
	// It is called without locks held and must return at once.
	Changed func(Notice)
}

// Notice tells what part of the catalog changed.
type Notice struct {
	Site   branchline.SiteID
	Camera branchline.CameraID // empty when the site's own state changed
	Stream branchline.StreamID // empty when the camera itself changed
	Span   branchline.TimeRange
	Opened *branchline.Segment // if a segment begins to grow at the edge
	Sealed *branchline.Segment // if a segment is now complete at the edge; without fragments
}

// SiteState is what the hub knows of a site.
type SiteState struct {
	ID          branchline.SiteID
	Linked      bool
	Since       time.Time // since when it is linked, or not
	LastContact time.Time // now, while it is linked
	Cameras     int       // configured, without removed ones
}

// Gap is time of a stream without recording, as the edge told it.
type Gap struct {
	Span  branchline.TimeRange
	Cause branchline.Cause
	Open  bool // still went on when the edge was last heard of
}

// siteRecord is a site's stored state. Linked is what held when it was written: a hub that finds it
// set when it opens died with the link up.
type siteRecord struct {
	Linked  bool
	Since   time.Time
	Outages int `json:",omitempty"` // rows; 0 where they were never counted
}

// growing is a segment that began and of whose end nothing is known yet.
type growing struct {
	ID    branchline.SegmentID
	Start time.Time
}

// Catalog answers what exists where. Its methods may be called concurrently; what one returns is
// durable.
type Catalog struct {
	db      *index.DB
	clock   clock.Clock
	log     *slog.Logger
	onward  Onward // may be nil
	changed func(Notice)
}

// Open returns the catalog that is kept in opt.DB. Sites that were linked when the hub last lived
// count as dark since its last sign of life.
func Open(opt Options) (*Catalog, error) {
	c := &Catalog{db: opt.DB, clock: opt.Clock, log: opt.Logger, onward: opt.Onward, changed: opt.Changed}
	if c.changed == nil {
		c.changed = func(Notice) {}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.db.Update(c.closeOutlived); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	return c, nil
}

// closeOutlived ends the links that a former life of the hub left open. What another hub told of links behind
// it stays as it told.
func (c *Catalog) closeOutlived(tx *index.Tx) error {
	var alive time.Time
	if err := load(tx, keyAlive, &alive); err != nil && !errors.Is(err, branchline.ErrNotFound) {
		return err
	}
	outlived := make(map[branchline.SiteID]time.Time)
	for key, value := range tx.Scan([]byte(tableSite), nil) {
		var rec siteRecord
		if err := json.Unmarshal(value, &rec); err != nil {
			return fmt.Errorf("parse site %q: %w", key, err)
		}
		if rec.Linked && !bytes.ContainsRune(key[len(tableSite):], '.') {
			outlived[branchline.SiteID(key[len(tableSite):])] = later(rec.Since, alive)
		}
	}
	why := Why{State: linkDownState, Reason: "this hub was not running", By: "this hub"}
	for site, last := range outlived {
		if err := c.linkDown(tx, site, last, why); err != nil {
			return err
		}
	}
	return nil
}

// AliveEvery is how often the hub stores its sign of life, and so the most by which an outage that
// began with the hub's own crash is dated too early.
const AliveEvery = 5 * time.Second

// Run stores the hub's sign of life until ctx ends, as far as the disk takes it: an outage that begins
// with the hub's own end is dated from the last one stored.
func (c *Catalog) Run(ctx context.Context) error {
	tick := time.NewTicker(AliveEvery)
	defer tick.Stop()
	failed := false
	for {
		now := c.clock.Now()
		err := c.db.Update(func(tx *index.Tx) error { return store(tx, keyAlive, now) })
		switch {
		case err != nil && !failed:
			c.log.Error("hub's sign of life is not stored until the disk takes it", "error", err)
		case err == nil && failed:
			c.log.Info("hub's sign of life is stored again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Sites lists all sites that were ever linked, here or to a hub that is, sorted. A site behind a hub is
// linked as far as that is.
func (c *Catalog) Sites() ([]SiteState, error) {
	var sites []SiteState
	err := c.db.View(func(tx *index.Tx) error {
		cameras := make(map[branchline.SiteID]int)
		all, err := shownCameras(tx, "")
		if err != nil {
			return err
		}
		for _, cam := range all {
			if !cam.Removed {
				for _, site := range cam.ID.Branch().Way() {
					cameras[site]++
				}
			}
		}
		now := c.clock.Now()
		for key, rec := range scanJSON[siteRecord](tx, tableSite) {
			site := branchline.SiteID(key)
			state := rec.state(site, now, cameras[site])
			if err := c.over(tx, &state, now); err != nil {
				return err
			}
			sites = append(sites, state)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	return sites, nil
}

// Site returns one site's state. It wraps [branchline.ErrNotFound] for a site never linked.
func (c *Catalog) Site(site branchline.SiteID) (SiteState, error) {
	var state SiteState
	err := c.db.View(func(tx *index.Tx) error {
		var rec siteRecord
		if err := load(tx, tableSite+string(site), &rec); err != nil {
			return err
		}
		cameras := 0
		all, err := shownCameras(tx, string(site)+".")
		if err != nil {
			return err
		}
		for _, cam := range all {
			if !cam.Removed {
				cameras++
			}
		}
		now := c.clock.Now()
		state = rec.state(site, now, cameras)
		return c.over(tx, &state, now)
	})
	if err != nil {
		return SiteState{}, fmt.Errorf("look up site %s: %w", site, err)
	}
	return state, nil
}

func (rec siteRecord) state(site branchline.SiteID, now time.Time, cameras int) SiteState {
	s := SiteState{ID: site, Linked: rec.Linked, Since: rec.Since, LastContact: rec.Since, Cameras: cameras}
	if rec.Linked {
		s.LastContact = later(rec.Since, now)
	}
	return s
}

// Cameras lists all cameras of all sites, removed ones too, sorted by ID.
func (c *Catalog) Cameras() ([]branchline.Camera, error) { return c.cameras("") }

// SiteCameras lists the cameras of one site, removed ones too, sorted by ID.
func (c *Catalog) SiteCameras(site branchline.SiteID) ([]branchline.Camera, error) {
	return c.cameras(string(site) + ".")
}

func (c *Catalog) cameras(prefix string) ([]branchline.Camera, error) {
	var cameras []branchline.Camera
	err := c.db.View(func(tx *index.Tx) (err error) {
		cameras, err = shownCameras(tx, prefix)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list cameras: %w", err)
	}
	return cameras, nil
}

// shownCameras returns the cameras whose names begin with prefix, sorted by ID.
func shownCameras(tx *index.Tx, prefix string) ([]branchline.Camera, error) {
	var cameras []branchline.Camera
	shown := make(map[branchline.SiteID]generation)
	for _, g := range []generation{"", generation("").other()} {
		for _, cam := range scanJSON[branchline.Camera](tx, g.cameras()+prefix) {
			site := cam.ID.Site()
			if _, known := shown[site]; !known {
				feed, err := readFeed(tx, site)
				if err != nil {
					return nil, err
				}
				shown[site] = feed.Shown
			}
			if shown[site] == g {
				cameras = append(cameras, cam)
			}
		}
	}
	slices.SortFunc(cameras, func(a, b branchline.Camera) int { return cmp.Compare(a.ID, b.ID) })
	return cameras, nil
}

// Camera returns one camera. It wraps [branchline.ErrNotFound] if no feed ever told of it.
func (c *Catalog) Camera(id branchline.CameraID) (branchline.Camera, error) {
	var cam branchline.Camera
	err := c.db.View(func(tx *index.Tx) error {
		feed, err := readFeed(tx, id.Site())
		if err != nil {
			return err
		}
		return load(tx, feed.Shown.cameras()+string(id), &cam)
	})
	if err != nil {
		return branchline.Camera{}, fmt.Errorf("look up camera %s: %w", id, err)
	}
	return cam, nil
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func ignoreNotFound(err error) error {
	if errors.Is(err, branchline.ErrNotFound) {
		return nil
	}
	return err
}

func load(tx *index.Tx, key string, into any) error {
	value, err := tx.Get([]byte(key))
	if err != nil {
		return err
	}
	return json.Unmarshal(value, into)
}

func store(tx *index.Tx, key string, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return tx.Set([]byte(key), encoded)
}

// scanJSON yields the rows of a table of JSON values with the rest of the key after the table's name.
// A row that cannot be read is left out: it is of a later version of this program.
func scanJSON[T any](tx *index.Tx, table string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for key, value := range tx.Scan([]byte(table), nil) {
			var v T
			if json.Unmarshal(value, &v) == nil && !yield(string(key[len(table):]), v) {
				return
			}
		}
	}
}
