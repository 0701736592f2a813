package federation

import (
	"errors"
	"fmt"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// errLogged closes a link that is to be made anew, so that it is logged from its first packet on.
var errLogged = fmt.Errorf("the hub logs this link from now on, it is to be made anew: %w", branchline.ErrUnavailable)

// AboveState is how the link to a hub above stands, under the name that this hub has for it.
type AboveState struct {
	Name string
	UplinkState
	Stats link.Stats
}

// Link tells how the link of a site stands, and whether it has one.
func (p *Peers) Link(site branchline.SiteID) (PeerState, bool) {
	p.mu.Lock()
	l := p.links[site]
	p.mu.Unlock()
	if l == nil {
		return PeerState{}, false
	}
	return l.state(), true
}

func (l *peer) state() PeerState {
	return PeerState{
		Site: l.remote.Site(), Addr: l.conn.Peer().Addr, Carrier: l.conn.Peer().Carrier, Since: l.since,
		Software: l.software, Version: uint32(l.version), Stats: l.conn.Stats(),
	}
}

// Relink ends the link of a site, if it has one, whose edge makes a new one at once.
func (p *Peers) Relink(site branchline.SiteID) error {
	p.mu.Lock()
	l := p.links[site]
	p.mu.Unlock()
	if l == nil {
		return nil
	}
	if err := closeFor(l.conn, errLogged); err != nil && !errors.Is(err, branchline.ErrUnavailable) {
		return fmt.Errorf("end link of %s: %w", site, err)
	}
	return nil
}
