package hub

import (
	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// Carrier returns what carries the site's link by the network, "quic" or "tcp"; empty if there is none.
func (n *Node) Carrier(site branchline.SiteID) string {
	if n.peers == nil {
		return ""
	}
	remote, ok := n.peers.Remote(site)
	if !ok {
		return ""
	}
	return string(remote.Carrier())
}

func (n *Node) tcpLinkedSites() float64 {
	count := 0
	for _, l := range n.Links() {
		if l.Carrier == link.CarrierTCP {
			count++
		}
	}
	return float64(count)
}
