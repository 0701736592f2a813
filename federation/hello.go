package federation

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// helloTime bounds the greeting, from the connection to the answer.
	helloTime = 5 * time.Second
	// maxSoftware bounds the peer's description of itself.
	maxSoftware = 100
)

// greeting is what a link's greeting settled.
type greeting struct {
	version  version // that the link speaks
	above    []Way   // the ways up from the hub; on the side that dialled
	software string  // of the peer; on the side that accepted
}

// greetAs opens the link from the side that dialled, with all that hello tells of this node, of which it fills in
// the versions up to high. After it both sides may call each other.
func greetAs(ctx context.Context, conn link.Conn, hello *wire.HelloRequest, high version) (g greeting, err error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	hello.MinVersion, hello.MaxVersion = uint32(minVersion), uint32(high)
	c, err := ask(ctx, conn, link.KindControl, &wire.Request{Call: &wire.Request_Hello{Hello: hello}})
	if err != nil {
		return g, fmt.Errorf("greet hub: %w", err)
	}
	defer c.close()
	a, err := c.one()
	if err != nil {
		return g, fmt.Errorf("greet hub: %w", err)
	}
	g.version = version(a.GetHello().GetVersion())
	if err := chosen(g.version, high); err != nil {
		return g, fmt.Errorf("greet hub: %w", err)
	}
	g.above, err = decodeWays(a.GetHello().GetAbove())
	return g, err
}

// welcoming is how the side that accepts answers a greeting.
type welcoming struct {
	software string // of this node
	tier     *Tier
	high     version                        // the greatest to speak
	may      func(*wire.HelloRequest) error // decides who is let in; after the tier
}

// welcome answers the greeting, on the side that accepted. A node that may not be in the tier, or not by may, is
// told that error.
func (w welcoming) welcome(ctx context.Context, conn link.Conn) (g greeting, err error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	st, err := conn.AcceptStream(ctx)
	if err != nil {
		return g, fmt.Errorf("welcome: %w", callError(ctx, err))
	}
	stop := context.AfterFunc(ctx, func() { st.Reset(linkCode(wire.Code_CODE_INVALID)) })
	defer stop()
	kind, req, err := readRequest(newReceiver(st))
	if err == nil && (kind != link.KindControl || req.GetHello() == nil) {
		err = invalid("a link begins with a hello")
	}
	if err != nil {
		return g, fmt.Errorf("welcome: %w", callError(ctx, err))
	}
	a := &answer{ctx: ctx, out: &sender{w: st}, limit: maxControl}
	hello := req.GetHello()
	g.software = clipText(hello.GetSoftware(), maxSoftware)
	g.version, err = negotiate(hello, w.high)
	if err == nil {
		err = w.tier.admit(hello.GetHub())
	}
	if err == nil {
		err = w.may(hello)
	}
	if err == nil {
		err = a.send(&wire.Answer{Body: &wire.Answer_Hello{Hello: &wire.HelloAnswer{
			Version: uint32(g.version), Software: w.software, Above: encodeWays(w.tier.Ways()),
		}}})
	}
	a.end(st, err)
	st.Reset(linkCode(wire.Code_CODE_CANCELLED))
	return g, err
}
