package catalog

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// MaxOutages bounds the outages that are remembered of a site, beside [Memory]: a link that comes and goes
// every few seconds makes some 10,000 a day. The oldest go first.
const MaxOutages = 10_000

// clockSlack is how long before a link came up its site may have been heard of last.
const clockSlack = time.Minute

// Outage is time in which a site was not linked. An open one goes on; its End is then the present.
type Outage struct {
	Span branchline.TimeRange
	Open bool
	Why  Why
}

// Why is how an outage looked, in the words of package members. It is empty for those of before it was kept.
type Why struct {
	State  string
	Reason string // for people
	By     string // who saw it
}

// States of package members, which is not known here: an outage that ended undecided was the link's.
const (
	undecided     = "suspect"
	linkDownState = "link-down"
)

func (w Why) cause() branchline.Cause {
	if w == (Why{}) {
		return ""
	}
	return branchline.Cause(strings.Join([]string{w.State, w.By, w.Reason}, "\x00"))
}

func whyOf(c branchline.Cause) Why {
	parts := strings.SplitN(string(c), "\x00", 3)
	if len(parts) != 3 {
		return Why{}
	}
	return Why{State: parts[0], By: parts[1], Reason: parts[2]}
}

// SiteLink is how a site's link stands. Why is set while it is down.
type SiteLink struct {
	ID     branchline.SiteID
	Linked bool
	Since  time.Time
	Why    Why
}

// LinkUp records that the site is linked from at on, which ends its outage.
func (c *Catalog) LinkUp(site branchline.SiteID, at time.Time) error {
	err := c.db.Update(func(tx *index.Tx) error { return c.linkUp(tx, site, at) })
	if err != nil {
		return fmt.Errorf("record link up of %s: %w", site, err)
	}
	c.changed(Notice{Site: site})
	return nil
}

func (c *Catalog) linkUp(tx *index.Tx, site branchline.SiteID, at time.Time) error {
	var rec siteRecord
	if err := load(tx, tableSite+string(site), &rec); ignoreNotFound(err) != nil {
		return err
	}
	prefix := rangePrefix(tableOutage, string(site))
	last, err := openOutage(tx, prefix)
	if err != nil {
		return err
	}
	switch {
	case last.Open && last.Start.After(at): // the clock was ahead then
		if err := remove(tx, prefix, last); err != nil {
			return err
		}
	case last.Open:
		last.Open, last.End = false, later(last.Start, at)
		if why := whyOf(last.Cause); why.State == undecided {
			why.State = linkDownState
			last.Cause = why.cause()
		}
		if err := put(tx, prefix, last); err != nil {
			return err
		}
	}
	rec.Linked, rec.Since = true, at
	return c.link(tx, site, rec)
}

// openOutage returns the outage that goes on; without one the result is not open.
func openOutage(tx *index.Tx, prefix []byte) (entry, error) {
	for key, value := range tx.ScanReverse(prefix, nil) {
		last, err := parseEntry(prefix, key, value)
		if err != nil || !last.Open {
			return entry{}, err
		}
		return last, nil
	}
	return entry{}, nil
}

// LinkDown records that the site was last heard of at the given time, which begins an outage. Without
// a link before it does nothing.
func (c *Catalog) LinkDown(site branchline.SiteID, at time.Time, why Why) error {
	err := c.db.Update(func(tx *index.Tx) error {
		var rec siteRecord
		if err := load(tx, tableSite+string(site), &rec); err != nil || !rec.Linked {
			return ignoreNotFound(err)
		}
		if rec.Since.Sub(at) < clockSlack { // else the clock was ahead when the link came
			at = later(rec.Since, at)
		}
		return c.linkDown(tx, site, at, why)
	})
	if err != nil {
		return fmt.Errorf("record link down of %s: %w", site, err)
	}
	c.changed(Notice{Site: site})
	return nil
}

func (c *Catalog) linkDown(tx *index.Tx, site branchline.SiteID, at time.Time, why Why) error {
	var rec siteRecord
	if err := load(tx, tableSite+string(site), &rec); ignoreNotFound(err) != nil {
		return err
	}
	prefix := rangePrefix(tableOutage, string(site))
	if err := forget(tx, prefix, at.Add(-Memory)); err != nil {
		return err
	}
	// What the clock recorded while it was ahead would stand behind this one, and hide that it goes on.
	ahead := branchline.TimeRange{Start: later(at, c.clock.Now()), End: time.Unix(0, math.MaxInt64)}
	if err := cut(tx, prefix, ahead); err != nil {
		return err
	}
	outage := entry{TimeRange: branchline.TimeRange{Start: at, End: at}, Open: true, Cause: why.cause()}
	if err := put(tx, prefix, outage); err != nil {
		return err
	}
	n, err := bound(tx, prefix, rec.Outages+1)
	if err != nil {
		return err
	}
	return c.link(tx, site, siteRecord{Since: at, Outages: n})
}

// bound deletes outages over the limit, the oldest, and returns how many there are. Counted is what was counted
// along: 1 if it never was, and too many where old ones were forgotten.
func bound(tx *index.Tx, prefix []byte, counted int) (int, error) {
	if counted > 1 && counted <= MaxOutages {
		return counted, nil
	}
	var keys [][]byte
	for key := range tx.Scan(prefix, nil) {
		keys = append(keys, bytes.Clone(key))
	}
	if len(keys) <= MaxOutages {
		return len(keys), nil
	}
	const room = MaxOutages / 10 // so that the next ones need not be counted all again
	for _, key := range keys[:len(keys)-MaxOutages+room] {
		if err := tx.Delete(key); err != nil {
			return 0, err
		}
	}
	return MaxOutages - room, nil
}

// Explain records how the site's outage looks now, if one goes on.
func (c *Catalog) Explain(site branchline.SiteID, why Why) error {
	changed := false
	err := c.db.Update(func(tx *index.Tx) error {
		prefix := rangePrefix(tableOutage, string(site))
		last, err := openOutage(tx, prefix)
		if err != nil || !last.Open || last.Cause == why.cause() {
			return err
		}
		changed = true
		last.Cause = why.cause()
		return put(tx, prefix, last)
	})
	if err != nil {
		return fmt.Errorf("record how the outage of %s looks: %w", site, err)
	}
	if changed {
		c.changed(Notice{Site: site})
	}
	return nil
}

// Link returns how the site's link stands. It wraps [branchline.ErrNotFound] for a site never linked.
func (c *Catalog) Link(site branchline.SiteID) (SiteLink, error) {
	var l SiteLink
	err := c.db.View(func(tx *index.Tx) error {
		var rec siteRecord
		if err := load(tx, tableSite+string(site), &rec); err != nil {
			return err
		}
		var err error
		l, err = c.linkOf(tx, site, rec)
		return err
	})
	if err != nil {
		return SiteLink{}, fmt.Errorf("look up link of %s: %w", site, err)
	}
	return l, nil
}

func (c *Catalog) linkOf(tx *index.Tx, site branchline.SiteID, rec siteRecord) (SiteLink, error) {
	l := SiteLink{ID: site, Linked: rec.Linked, Since: rec.Since}
	if rec.Linked {
		return c.linkOver(tx, l)
	}
	last, err := openOutage(tx, rangePrefix(tableOutage, string(site)))
	l.Why = whyOf(last.Cause)
	return l, err
}

// Links lists how the links stand of all sites that were ever linked, sorted.
func (c *Catalog) Links() ([]SiteLink, error) {
	var links []SiteLink
	err := c.db.View(func(tx *index.Tx) error {
		for key, rec := range scanJSON[siteRecord](tx, tableSite) {
			l, err := c.linkOf(tx, branchline.SiteID(key), rec)
			if err != nil {
				return err
			}
			links = append(links, l)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

func outages(
	tx *index.Tx, site branchline.SiteID, r branchline.TimeRange, now time.Time,
) ([]Outage, error) {
	rows, err := touching(tx, rangePrefix(tableOutage, string(site)), r)
	if err != nil {
		return nil, err
	}
	var found []Outage
	for _, e := range slices.Backward(rows) {
		if e.Open {
			e.End = later(e.Start, now)
		}
		if e.Overlaps(r) {
			found = append(found, Outage{e.Intersect(r), e.Open, whyOf(e.Cause)})
		}
	}
	return found, nil
}
