package federation

import (
	"fmt"

	wire "github.com/branchline-video/branchline/proto"
)

// version is a version of the protocol, as docs/reference/protocol.md tells them apart.
type version uint32

const (
	// version1 is the protocol of the first release.
	version1 version = 1
	// version2 has what came since: all calls from sinceSecond on, and live on several streams.
	version2 version = 2

	// The versions that this node speaks: the current one and the one before.
	minVersion = version1
	maxVersion = version2

	// sinceSecond is the lowest field number of the calls of the second version.
	sinceSecond = 100
)

// speaks reports whether a link of version v has what came with since. The zero version is the current one: in
// memory nobody greets.
func (v version) speaks(since version) bool { return v == 0 || v >= since }

// most returns the greatest version to speak: as wanted, which only tests do, or all that there are.
func most(wanted version) version {
	if wanted == 0 {
		return maxVersion
	}
	return wanted
}

// sinceOf returns the version with which a call came.
func sinceOf(req *wire.Request) version {
	m := req.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("call"))
	if field != nil && field.Number() >= sinceSecond {
		return version2
	}
	return version1
}

// negotiate returns the greatest version that both sides speak, on the side that accepted and speaks up to high.
func negotiate(hello *wire.HelloRequest, high version) (version, error) {
	least, greatest := version(hello.GetMinVersion()), version(hello.GetMaxVersion())
	v := min(greatest, high)
	switch {
	case least == 0 || least > greatest:
		return 0, fmt.Errorf("%w: the edge's greeting makes no sense: it speaks %d to %d", ErrVersion, least, greatest)
	case v < minVersion:
		return 0, fmt.Errorf("%w: the edge speaks %d to %d, the hub %d to %d: update the edge", ErrVersion,
			least, greatest, minVersion, high)
	case v < least:
		return 0, fmt.Errorf("%w: the edge speaks %d to %d, the hub %d to %d: update the hub", ErrVersion,
			least, greatest, minVersion, high)
	}
	return v, nil
}

// chosen checks the version that the other side chose, on the side that dialled and speaks up to high.
func chosen(v, high version) error {
	switch {
	case v < minVersion:
		return fmt.Errorf("%w: the hub chose %d, the edge speaks %d to %d: update the hub", ErrVersion, v, minVersion, high)
	case v > high:
		return fmt.Errorf("%w: the hub chose %d, the edge speaks %d to %d: update the edge", ErrVersion, v, minVersion, high)
	}
	return nil
}
