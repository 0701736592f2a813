package hub

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
)

// Link returns how the site's link to this hub stands, and whether it has one.
func (n *Node) Link(site branchline.SiteID) (federation.PeerState, bool) {
	if n.peers == nil {
		return federation.PeerState{}, false
	}
	return n.peers.Link(site)
}

// StartQlog logs the packets of the site's link for so long and up to so many bytes, as [link.Qlog.Start] does. The
// link is made anew, so that its connections are logged from their handshakes on.
func (n *Node) StartQlog(_ context.Context, site branchline.SiteID, length time.Duration, bytes int64) error {
	if err := site.Check(); err != nil {
		return err
	}
	if n.peers == nil {
		return fmt.Errorf("log link of %s: this hub has no links: %w", site, branchline.ErrUnavailable)
	}
	if err := n.qlog.Start(string(site), length, bytes); err != nil {
		return err
	}
	return n.peers.Relink(site)
}

// StopQlog ends that.
func (n *Node) StopQlog(site branchline.SiteID) { n.qlog.Stop(string(site)) }

// Qlog tells how the log of the site's link stands.
func (n *Node) Qlog(site branchline.SiteID) (link.QlogState, error) {
	if err := site.Check(); err != nil {
		return link.QlogState{}, err
	}
	return n.qlog.State(string(site))
}
