package catalog

import (
	"fmt"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Followed returns how far the site's feed has been followed, durably; zero if nothing of it was, or if it is
// being followed anew.
func (c *Catalog) Followed(site branchline.SiteID) (at branchline.Position, err error) {
	err = c.db.View(func(tx *index.Tx) error {
		feed, err := readFeed(tx, site)
		if err != nil {
			return err
		}
		return ignoreNotFound(load(tx, feed.followed().positions()+string(site), &at))
	})
	if err != nil {
		return branchline.Position{}, fmt.Errorf("look up how far site %s was followed: %w", site, err)
	}
	return at, nil
}
