package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// A site may be a hub itself, with sites of its own behind it. It tells of their links, and of their cameras
// under names that begin with the site's, so all that is known of a camera is found as for any other.

// MaxBelow bounds the sites behind one linked hub, and MaxCamerasBelow their cameras together.
const (
	MaxBelow        = 1000
	MaxCamerasBelow = 10_000
)

// Onward passes on what the catalog stores to the hubs above this one. Both methods are called in the update
// that stores it.
type Onward interface {
	// Tell tells of a change, under the names of this hub.
	Tell(tx *index.Tx, c branchline.Change) error
	// Anew says that what was told before is no longer what is known.
	Anew(tx *index.Tx) error
}

// applyAndTell stores a change and tells the hubs above of it. It returns nothing for one that is left out.
func (f *follower) applyAndTell(tx *index.Tx, change branchline.Change) (*Notice, error) {
	g := f.feed.followed()
	news := f.c.onward != nil && !f.feed.Building
	if change.Camera != nil && news {
		qualified := change.Camera.Under(f.site)
		stored, err := tx.Get([]byte(g.cameras() + string(qualified.ID)))
		if ignoreNotFound(err) != nil {
			return nil, err
		}
		as, err := json.Marshal(qualified)
		if err != nil {
			return nil, err
		}
		news = !bytes.Equal(stored, as) // every link begins with all cameras
	}
	n, err := applyChange(tx, g, f.site, change)
	if err != nil || n.Camera == "" && n.Site == "" {
		return nil, err
	}
	if n.Site == "" {
		n.Site = f.site
	}
	if news {
		err = f.c.onward.Tell(tx, change.Under(f.site))
	}
	return &n, err
}

// link stores how a site's link stands and tells the hubs above.
func (c *Catalog) link(tx *index.Tx, site branchline.SiteID, rec siteRecord) error {
	if err := store(tx, tableSite+string(site), rec); err != nil || c.onward == nil {
		return err
	}
	return c.onward.Tell(tx, branchline.Change{Site: &branchline.SiteLink{
		Site: site, Linked: rec.Linked, Since: rec.Since,
	}})
}

// applySite stores how the link of a site behind a hub stands.
func applySite(tx *index.Tx, hub branchline.SiteID, told branchline.SiteLink) (Notice, error) {
	site := told.Site.Under(hub)
	if site.Check() != nil {
		return Notice{}, nil //nolint:nilerr // names that do not fit are left out
	}
	var rec siteRecord
	err := load(tx, tableSite+string(site), &rec)
	if ignoreNotFound(err) != nil {
		return Notice{}, err
	}
	if err != nil {
		n := 0
		for range tx.Scan([]byte(tableSite+string(hub)+"."), nil) {
			n++
		}
		if n >= MaxBelow {
			return Notice{}, nil
		}
	}
	n := Notice{Site: site}
	if err == nil && rec.Linked == told.Linked && rec.Since.Equal(told.Since) {
		return n, nil
	}
	quiet := &Catalog{} // the change itself goes on to the hubs above
	if err := quiet.linkUp(tx, site, told.Since); err != nil || told.Linked {
		return n, err
	}
	way := site.Way()
	return n, quiet.linkDown(tx, site, told.Since, behind(way[len(way)-2]))
}

// behind says why a site is not linked that is behind a hub.
func behind(hub branchline.SiteID) Why {
	return Why{State: linkDownState, Reason: fmt.Sprintf("%s is not linked to it", hub), By: string(hub)}
}

// linkOver corrects how the link stands of a site behind hubs that are dark.
func (c *Catalog) linkOver(tx *index.Tx, l SiteLink) (SiteLink, error) {
	way := l.ID.Way()
	for _, hub := range way[:len(way)-1] {
		var rec siteRecord
		if err := load(tx, tableSite+string(hub), &rec); ignoreNotFound(err) != nil {
			return l, err
		}
		if !rec.Linked {
			reason := fmt.Sprintf("%s, by which it is reached, is not linked", hub)
			l.Linked, l.Since, l.Why = false, rec.Since, Why{linkDownState, reason, "this hub"}
			break
		}
	}
	return l, nil
}

// applyRecorded stores that a span is recorded.
func applyRecorded(tx *index.Tx, g generation, stream branchline.StreamID, span branchline.TimeRange) error {
	if span.Empty() {
		return nil
	}
	if err := cutGaps(tx, g.gaps(stream), span); err != nil {
		return err
	}
	return join(tx, g.spans(stream), entry{TimeRange: span})
}

// room reports whether one more camera of that name fits: in its own site, and in all behind one link.
func room(tx *index.Tx, g generation, id branchline.CameraID) bool {
	branch := id.Branch()
	direct, all := 0, 0
	for key := range tx.Scan([]byte(g.cameras()+string(id.Site())+"."), nil) {
		all++
		if branchline.CameraID(key[len(g.cameras()):]).Branch() == branch {
			direct++
		}
	}
	return direct < MaxCameras && all < MaxCamerasBelow
}

// over corrects the state of a site behind a hub by those of the hubs on the way to it: nothing is known of it
// while one of them is dark.
func (c *Catalog) over(tx *index.Tx, state *SiteState, now time.Time) error {
	way := state.ID.Way()
	for _, site := range way[:len(way)-1] {
		var rec siteRecord
		if err := load(tx, tableSite+string(site), &rec); ignoreNotFound(err) != nil {
			return err
		}
		hub := rec.state(site, now, 0)
		if hub.LastContact.Before(state.LastContact) {
			state.LastContact = hub.LastContact
		}
		if !hub.Linked && state.Linked {
			state.Linked, state.Since = false, hub.Since
		}
	}
	return nil
}

// Sum yields what is known of a camera's recordings, for who has not followed how it came about: gaps, then
// what is recorded, then what is growing, each stream in turn, under the hub's names.
func (c *Catalog) Sum(cam branchline.Camera) ([]branchline.Change, error) {
	var sum []branchline.Change
	err := c.db.View(func(tx *index.Tx) error {
		feed, err := readFeed(tx, cam.ID.Site())
		if err != nil {
			return err
		}
		for _, s := range cam.Streams {
			if sum, err = sumStream(tx, feed.Shown, s.ID, sum); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sum up %s: %w", cam.ID, err)
	}
	return sum, nil
}

func sumStream(tx *index.Tx, g generation, stream branchline.StreamID, sum []branchline.Change) (
	[]branchline.Change, error,
) {
	for i, prefix := range [][]byte{g.gaps(stream), g.spans(stream)} {
		for key, value := range tx.Scan(prefix, nil) {
			e, err := parseEntry(prefix, key, value)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				gap := branchline.Gap{Stream: stream, Span: e.TimeRange, Cause: e.Cause, Open: e.Open}
				sum = append(sum, branchline.Change{Gap: &gap})
			} else {
				sum = append(sum, branchline.Change{Recorded: &branchline.Recorded{Stream: stream, Span: e.TimeRange}})
			}
		}
	}
	var now growing
	err := load(tx, g.growing()+string(stream), &now)
	if err == nil {
		span := branchline.TimeRange{Start: now.Start, End: now.Start}
		sum = append(sum, branchline.Change{Opened: &branchline.Segment{ID: now.ID, Stream: stream, Span: span}})
	}
	return sum, ignoreNotFound(err)
}
