package federation

import (
	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
)

// gossipIn gives the link to or from the site its part in the gossip, if this node gossips at all and the peer
// may.
func gossipIn(m *members.Members, site branchline.SiteID, conn link.Conn, spoken version) (*members.Link, error) {
	if m == nil || !spoken.speaks(version2) {
		return nil, nil
	}
	return m.Attach(string(site), conn)
}
