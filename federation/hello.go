package federation

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// The versions of the protocol that this node speaks: the current one and the one before.
	minVersion = 1
	maxVersion = 1
	// helloTime bounds the greeting, from the connection to the answer.
	helloTime = 5 * time.Second
	// maxSoftware bounds the peer's description of itself.
	maxSoftware = 100
)

// negotiate returns the greatest version that both sides speak.
func negotiate(low, high uint32) (uint32, error) {
	if version := min(high, maxVersion); version >= max(low, minVersion) {
		return version, nil
	}
	return 0, fmt.Errorf("%w: the edge speaks %d to %d, the hub %d to %d; update the older one", ErrVersion,
		low, high, minVersion, maxVersion)
}

// greetAs opens the link from the side that dialled, with all that hello tells of this node, of which it fills in
// the versions, and returns the ways up from the peer. After it both sides may call each other.
func greetAs(ctx context.Context, conn link.Conn, hello *wire.HelloRequest) ([]Way, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	hello.MinVersion, hello.MaxVersion = minVersion, maxVersion
	c, err := ask(ctx, conn, link.KindControl, &wire.Request{Call: &wire.Request_Hello{Hello: hello}})
	if err != nil {
		return nil, fmt.Errorf("greet hub: %w", err)
	}
	defer c.close()
	a, err := c.one()
	if err != nil {
		return nil, fmt.Errorf("greet hub: %w", err)
	}
	if v := a.GetHello().GetVersion(); v < minVersion || v > maxVersion {
		return nil, fmt.Errorf("greet hub: %w: the hub chose %d", ErrVersion, v)
	}
	return decodeWays(a.GetHello().GetAbove())
}

// welcomeIf answers the greeting, on the side that accepted, and returns the peer's software. A node that may not
// be in the tier, or not by may, is told that error.
func welcomeIf(ctx context.Context, conn link.Conn, software string, tier *Tier,
	may func(*wire.HelloRequest) error) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		return "", fmt.Errorf("welcome: %w", callError(ctx, err))
	}
	stop := context.AfterFunc(ctx, func() { st.Reset(linkCode(wire.Code_CODE_INVALID)) })
	defer stop()
	in := newReceiver(st)
	kind, req, err := readRequest(in)
	if err == nil && (kind != link.KindControl || req.GetHello() == nil) {
		err = invalid("a link begins with a hello")
	}
	if err != nil {
		return "", fmt.Errorf("welcome: %w", callError(ctx, err))
	}
	a := &answer{ctx: ctx, out: &sender{w: st}, limit: maxControl}
	hello := req.GetHello()
	version, err := negotiate(hello.GetMinVersion(), hello.GetMaxVersion())
	if err == nil {
		err = tier.admit(hello.GetHub())
	}
	if err == nil {
		err = may(hello)
	}
	if err == nil {
		err = a.send(&wire.Answer{Body: &wire.Answer_Hello{Hello: &wire.HelloAnswer{
			Version: version, Software: software, Above: encodeWays(tier.Ways()),
		}}})
	}
	a.end(st, err)
	st.Reset(linkCode(wire.Code_CODE_CANCELLED))
	peer := hello.GetSoftware()
	return peer[:min(len(peer), maxSoftware)], err
}
