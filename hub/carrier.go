package hub

import (
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// Path returns the round trip time of a site's link by the network, zero while it is not known, and what
// carries that, "quic" or "tcp"; empty if there is none.
func (n *Node) Path(site branchline.SiteID) (rtt time.Duration, carrier string) {
	if n.peers == nil {
		return 0, ""
	}
	remote, ok := n.peers.Remote(site)
	if !ok {
		return 0, ""
	}
	return remote.Stats().RTT, string(remote.Carrier())
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
