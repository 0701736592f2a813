package branchline

// Under returns the change as a hub tells it that has it from the linked site: every name begins with the
// site's. The position stays, and so does the original.
func (c Change) Under(site SiteID) Change {
	switch {
	case c.Opened != nil:
		seg := *c.Opened
		seg.Stream = seg.Stream.Under(site)
		c.Opened = &seg
	case c.Sealed != nil:
		seg := *c.Sealed
		seg.Stream = seg.Stream.Under(site)
		c.Sealed = &seg
	case c.Removed != nil:
		gone := *c.Removed
		gone.Stream = gone.Stream.Under(site)
		c.Removed = &gone
	case c.Gap != nil:
		gap := *c.Gap
		gap.Stream = gap.Stream.Under(site)
		c.Gap = &gap
	case c.Camera != nil:
		cam := c.Camera.Under(site)
		c.Camera = &cam
	case c.Recorded != nil:
		rec := *c.Recorded
		rec.Stream = rec.Stream.Under(site)
		c.Recorded = &rec
	case c.Site != nil:
		link := *c.Site
		link.Site = link.Site.Under(site)
		c.Site = &link
	}
	return c
}

// Under returns the camera as it is known one tier up, at the hub to which site is linked.
func (c Camera) Under(site SiteID) Camera {
	c.ID = c.ID.Under(site)
	streams := make([]Stream, len(c.Streams))
	for i, s := range c.Streams {
		s.ID = s.ID.Under(site)
		streams[i] = s
	}
	c.Streams = streams
	return c
}
