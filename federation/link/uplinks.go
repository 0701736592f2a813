package link

import (
	"cmp"
	"slices"
	"time"
)

// UplinkKind says when an uplink carries connections.
type UplinkKind string

// The kinds of uplinks.
const (
	UplinkPrefer  UplinkKind = "prefer"  // whenever it is up, and then no other
	UplinkBoth    UplinkKind = "both"    // whenever it is up, beside others of its kind
	UplinkStandby UplinkKind = "standby" // while none of those before is up
	UplinkMetered UplinkKind = "metered" // while no other is up, and then only for what is urgent
)

const (
	// MaxUplinks bounds the uplinks of a node.
	MaxUplinks = 4
	// UplinkStagger is how long an uplink has for itself before the next is tried beside it: enough for both
	// carriers.
	UplinkStagger = carrierStagger + time.Second
)

// Uplink is one of the ways by which a node reaches the network, such as a fibre or LTE.
type Uplink struct {
	Local
	Kind UplinkKind
}

// Use is what an uplink is to carry.
type Use int

// The uses, from nothing to everything.
const (
	UseNone   Use = iota // no connection: it costs money
	UseWarm              // a connection that is kept alive, so that it can take over at once
	UseUrgent            // control, live and requests, no bulk
	UseAll
)

// String returns the use's name.
func (u Use) String() string {
	switch u {
	case UseNone:
		return "none"
	case UseWarm:
		return "warm"
	case UseUrgent:
		return "urgent"
	}
	return "all"
}

// PlanUplinks decides what each uplink is to carry now, given which are up: those through which the hub can
// be reached or has not been tried. Where none is up nothing is carried, and all are to be tried.
func PlanUplinks(uplinks []Uplink, up []bool) []Use {
	uses := make([]Use, len(uplinks))
	best := -1
	for i, l := range uplinks {
		if up[i] && (best < 0 || l.Kind.rank() < uplinks[best].Kind.rank()) {
			best = i
		}
	}
	for i, l := range uplinks {
		switch together := best >= 0 && l.Kind == uplinks[best].Kind && l.Kind.rank() <= UplinkBoth.rank(); {
		case !up[i]:
		case i == best && l.Kind == UplinkMetered:
			uses[i] = UseUrgent
		case i == best || together:
			uses[i] = UseAll
		case l.Kind != UplinkMetered:
			uses[i] = UseWarm
		}
	}
	return uses
}

// rank orders the kinds, the one to use first first.
func (k UplinkKind) rank() int {
	return slices.Index([]UplinkKind{UplinkPrefer, UplinkBoth, UplinkStandby, UplinkMetered}, cmp.Or(k, UplinkBoth))
}

// OrderUplinks returns the uplinks in the order in which to try them for one connection.
func OrderUplinks(uplinks []Uplink) []Uplink {
	return slices.SortedStableFunc(slices.Values(uplinks), func(a, b Uplink) int {
		return cmp.Compare(a.Kind.rank(), b.Kind.rank())
	})
}

// BetterUplinks returns the uplinks of kinds that are to be used before that of the named one.
func BetterUplinks(uplinks []Uplink, name string) []Uplink {
	i := slices.IndexFunc(uplinks, func(l Uplink) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(uplinks), func(l Uplink) bool {
		return l.Kind.rank() >= uplinks[i].Kind.rank()
	})
}
