package access

import (
	"fmt"
	"net"
)

// SiteDenied is a call of a site's node that the hub denied.
type SiteDenied struct {
	Site    string // by its certificate; empty for a node without a good one
	Address string // host and port
	Call    string
	Object  string
	Reason  error
	Missed  int // so many of the site before this one are not in the log
}

// RecordDenied appends an entry for a denied call. The user is the site, as "site:NAME".
func (s *Store) RecordDenied(d SiteDenied) error {
	host, _, err := net.SplitHostPort(d.Address)
	if err != nil {
		host = d.Address
	}
	object := fmt.Sprintf("%s %s: %v", d.Call, d.Object, d.Reason)
	if d.Missed > 0 {
		object = fmt.Sprintf("(%d before this were not recorded) %s", d.Missed, object)
	}
	return s.Record(Entry{User: "site:" + d.Site, Address: host, Action: ActionSiteDenied, Object: object})
}
