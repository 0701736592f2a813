package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

// PathTest says which path is measured; Node and Hub must be set.
type PathTest struct {
	Node *identity.Node
	// Hub is host:port.
	Hub string
	// Token is what a node that is not enrolled yet proves the hub with; then only the way to the hub is
	// tried, and nothing is enrolled.
	Token string
	// Way is by which way this machine is left; the zero value leaves that to the system.
	Way link.Local
	// Reach tries only whether a link can be made, and measures nothing.
	Reach bool
	// For is how long each direction is filled; zero means 5 s, and more than 10 s is taken for that.
	For time.Duration
	// Begin and Done, if set, are told of each step as it begins and as it ends, one at a time.
	Begin func(step string)
	Done  func(PathStep)
	// ListenPacket and DialStream open the sockets; nil means the system's.
	ListenPacket func(addr string) (net.PacketConn, error)
	DialStream   func(ctx context.Context, addr string) (net.Conn, error)
}

// PathStep is one thing that was tried.
type PathStep struct {
	Name   string        `json:"name"` // as in the constants
	OK     bool          `json:"ok"`
	Took   time.Duration `json:"took_ns"`
	Found  string        `json:"found"`            // in words
	Advice string        `json:"advice,omitempty"` // what to do, or to ask the network people for
}

// The steps of a path's test, in their order. What fails ends it, but for UDP and TCP, which are both tried.
const (
	StepName = "name" // the hub's name has an address
	StepUDP  = "udp"  // the hub answers by UDP, and proves to be the hub
	StepTCP  = "tcp"  // the same by TCP
	StepSite = "site" // the hub accepts this site
	StepIdle = "idle" // round trip time while nothing else is sent
	StepUp   = "up"   // rate to the hub
	StepDown = "down" // rate from the hub
	StepMany = "many" // rate to the hub over several connections at once, as a link has them
)

// PathReport is what was found out about a path.
type PathReport struct {
	Hub     string            `json:"hub"`
	Site    branchline.SiteID `json:"site,omitempty"`
	Way     string            `json:"way,omitempty"`     // by which this machine was left
	Addr    string            `json:"addr,omitempty"`    // that answered
	Carrier link.Carrier      `json:"carrier,omitempty"` // that was measured
	Steps   []PathStep        `json:"steps"`
	RTT     time.Duration     `json:"rtt_ns"`      // idle, median
	Loaded  time.Duration     `json:"rtt_up_ns"`   // while the way to the hub was full, median
	Loss    float64           `json:"loss"`        // share of what was sent to the hub, estimated
	MTU     uint64            `json:"mtu"`         // bytes of the largest UDP datagram that passed to the hub
	Up      float64           `json:"up_kbit_s"`   // at the hub
	Down    float64           `json:"down_kbit_s"` // at this node
	Many    float64           `json:"many_kbit_s"` // at the hub, over all connections
	Conns   int               `json:"connections"` // these
	Clock   time.Duration     `json:"clock_ns"`    // how far the hub's clock is ahead of this one's; 0 if not known
	Reached bool              `json:"reached"`     // all steps that a link needs were good
	Ask     []string          `json:"ask"`         // what to ask the network people for
}

const (
	pathFor    = 5 * time.Second
	maxPathFor = 10 * time.Second
	pings      = 10
	// pingPause is between two pings while the path is filled.
	pingPause = 100 * time.Millisecond
	// More loss than lossy, as a share, and a round trip that a full path makes longer than by deepQueue,
	// are worth telling the network people.
	lossy     = 0.005
	deepQueue = 100 * time.Millisecond
	usualMTU  = 1400
	// wrongClock is how far two clocks may differ.
	wrongClock = 5 * time.Second
)

// Run tests the path. What is wrong with that stands in the report; the error is that of the test
// itself, or of ctx. A link of the node goes on beside it, and has to share what the path gives.
func (t PathTest) Run(ctx context.Context) (PathReport, error) {
	if t.For <= 0 {
		t.For = pathFor
	}
	t.For = min(t.For, maxPathFor)
	r := &pathRun{PathTest: t}
	r.report.Hub, r.report.Site, r.report.Steps = t.Hub, t.Node.Site(), []PathStep{}
	if t.Way != (link.Local{}) {
		r.report.Way = t.Way.String()
	}
	err := r.run(ctx)
	r.report.Ask = r.asks()
	if ctx.Err() != nil {
		return r.report, ctx.Err()
	}
	var failed *stepError
	if errors.As(err, &failed) {
		err = nil
	}
	return r.report, err
}

// pathRun is one test.
type pathRun struct {
	PathTest
	report PathReport
	conf   *tls.Config
	conn   link.Conn
	lost   []lost // what could not be reached
}

// lost is a carrier that does not reach the hub, and why.
type lost struct {
	carrier link.Carrier
	err     error
}

// stepError ends a test whose step has failed, which its report tells.
type stepError struct{ error }

// step does one step; its function returns what was found, and with an error an advice.
func (r *pathRun) step(name string, do func() (found, advice string, err error)) error {
	if r.Begin != nil {
		r.Begin(name)
	}
	began := clock.Clock{}.Now()
	found, advice, err := do()
	s := PathStep{Name: name, OK: err == nil, Took: clock.Clock{}.Now().Sub(began), Found: found, Advice: advice}
	if err != nil {
		if s.Found = strings.ReplaceAll(err.Error(), "\n", "; "); errors.Is(err, context.DeadlineExceeded) {
			s.Found = fmt.Sprintf("no answer within %v", link.HandshakeTimeout)
		}
	}
	r.report.Steps = append(r.report.Steps, s)
	if r.Done != nil {
		r.Done(s)
	}
	if err != nil {
		return &stepError{err}
	}
	return nil
}

func (r *pathRun) run(ctx context.Context) (err error) {
	conf, err := r.Node.TestTLS()
	if errors.Is(err, identity.ErrNotEnrolled) && r.Token != "" {
		var token identity.Token
		if token, err = identity.ParseToken(r.Token); err == nil {
			conf = r.Node.EnrolTLS(token)
		}
	}
	if err != nil {
		return fmt.Errorf("test path to %s: %w", r.Hub, err)
	}
	if conf.ServerName == "" && r.Node.Organisation() {
		conf.ServerName, _, _ = net.SplitHostPort(r.Hub) // the first step tells what is wrong with it
	}
	r.conf = conf
	if err := r.step(StepName, func() (string, string, error) { return r.resolve(ctx) }); err != nil {
		return err
	}
	udp := r.step(StepUDP, func() (string, string, error) { return r.dial(ctx, link.CarrierQUIC) })
	if r.conn != nil {
		defer func() { err = errors.Join(err, closeFor(r.conn, nil)) }()
	}
	tcp := r.step(StepTCP, func() (string, string, error) { return r.dial(ctx, link.CarrierTCP) })
	if udp != nil && tcp != nil {
		return udp
	}
	if udp != nil {
		defer func() { err = errors.Join(err, closeFor(r.conn, nil)) }()
	}
	if r.report.Site == "" && !r.Node.Organisation() {
		r.report.Reached = true
		return nil
	}
	return r.measure(ctx)
}

// dial connects by one carrier. The first that connects is measured.
func (r *pathRun) dial(ctx context.Context, carrier link.Carrier) (found, advice string, err error) {
	conn, err := r.connect(ctx, carrier)
	if err != nil {
		r.lost = append(r.lost, lost{carrier, err})
		return "", r.whyNot(carrier, err), err
	}
	found = "the hub answers at " + conn.Peer().Addr + " and is the one that this site belongs to"
	if r.conn != nil {
		return found, "", closeFor(conn, nil)
	}
	if r.conn, r.report.Carrier, r.report.Addr = conn, carrier, conn.Peer().Addr; carrier == link.CarrierTCP {
		advice = "a link goes over TCP while UDP fails: it works, and every lost packet holds up all that it carries"
	}
	return found, advice, nil
}

func (r *pathRun) connect(ctx context.Context, carrier link.Carrier) (link.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, link.HandshakeTimeout)
	defer cancel()
	return dialHub(ctx, r.Hub, link.Options{
		TLS: r.conf, Carriers: []link.Carrier{carrier}, ListenPacket: r.ListenPacket, DialStream: r.DialStream, Local: r.Way,
	})
}

func (r *pathRun) resolve(ctx context.Context) (found, advice string, err error) {
	host, _, err := net.SplitHostPort(r.Hub)
	if err != nil {
		return "", "write the hub's address as host:port", err
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", "check the name, and the name server of this machine; an IP address in place of the name does without", err
	}
	if len(addrs) == 1 && addrs[0] == host {
		return host + " is an address, no name", "", nil
	}
	return fmt.Sprintf("%s is %s", host, strings.Join(addrs, ", ")), "", nil
}

// measure measures the path over the connection.
func (r *pathRun) measure(ctx context.Context) error {
	err := r.step(StepSite, func() (string, string, error) {
		return r.accepted(ctx)
	})
	if err != nil {
		return err
	}
	if r.report.Reached = true; r.Reach {
		return nil
	}
	err = r.step(StepIdle, func() (found, advice string, err error) {
		if r.report.RTT, err = r.pings(ctx, pings, 0); err != nil {
			return "", "", err
		}
		return fmt.Sprintf("round trip in %v", r.report.RTT.Round(10*time.Microsecond)), "", nil
	})
	if err != nil {
		return err
	}
	if err := r.step(StepUp, func() (string, string, error) { return r.up(ctx) }); err != nil {
		return err
	}
	err = r.step(StepDown, func() (found, advice string, err error) {
		if r.report.Down, err = r.down(ctx); err != nil {
			return "", breaks, err
		}
		return fmt.Sprintf("%.0f kbit/s from the hub", r.report.Down), "", nil
	})
	if err != nil {
		return err
	}
	return r.step(StepMany, func() (string, string, error) { return r.many(ctx) })
}

// call makes a call and hands it over; a test's calls are quick, or end with ctx.
func (r *pathRun) call(ctx context.Context, conn link.Conn, what wire.TestRequest_What, length time.Duration) (
	*call, error,
) {
	return ask(ctx, conn, link.KindTest, &wire.Request{Call: &wire.Request_Test{Test: &wire.TestRequest{
		What: what, Milliseconds: uint32(length.Milliseconds()),
	}}})
}

// pings returns the median of several, at least one.
func (r *pathRun) pings(ctx context.Context, n int, pause time.Duration) (time.Duration, error) {
	var all []time.Duration
	for len(all) < n {
		took, _, err := r.ping(ctx)
		if err != nil {
			return 0, err
		}
		if all = append(all, took); pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// up fills the way to the hub, and pings meanwhile.
func (r *pathRun) up(ctx context.Context) (found, advice string, err error) {
	before := r.conn.Stats()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		r.report.Up, err = r.fill(ctx, r.conn)
		return err
	})
	g.Go(func() (err error) {
		r.report.Loaded, err = r.pings(ctx, max(1, int(r.For/pingPause/2)), pingPause)
		return err
	})
	if err := g.Wait(); err != nil {
		return "", breaks, err
	}
	after := r.conn.Stats()
	r.report.MTU = after.MTU
	if sent := after.Sent - before.Sent; sent > 0 {
		r.report.Loss = float64(after.Lost-before.Lost) / float64(sent)
	}
	found = fmt.Sprintf("%.0f kbit/s to the hub; round trip in %v meanwhile", r.report.Up,
		r.report.Loaded.Round(10*time.Microsecond))
	if r.report.Carrier == link.CarrierQUIC {
		found += fmt.Sprintf("; %.2f %% lost; datagrams of %d bytes pass", 100*r.report.Loss, r.report.MTU)
	}
	switch {
	case r.report.Loss > lossy && r.report.Loaded < r.report.RTT*3/2: // else it is the queue of a full line
		advice = "packets are lost on the way; a link makes up for that with several connections"
	case r.report.Loaded > r.report.RTT+deepQueue:
		advice = fmt.Sprintf("a deep queue on the way delays everything while the line is full: an uplink budget of about "+
			"%.0f kbit/s avoids that", 0.9*r.report.Up)
	case r.report.MTU > 0 && r.report.MTU < usualMTU:
		advice = "large packets do not pass, as in a tunnel: a link works, at a little cost"
	}
	return found, advice, nil
}

// fill sends for so long, and returns what arrived, in kbit/s.
func (r *pathRun) fill(ctx context.Context, conn link.Conn) (float64, error) {
	c, err := r.call(ctx, conn, wire.TestRequest_WHAT_UP, r.For)
	if err != nil {
		return 0, err
	}
	defer c.close()
	c.s.SetPriority(int8(PriorityBackfill))
	if err := pour(c.s, r.For); err != nil {
		return 0, callError(ctx, err)
	}
	if err := c.s.Close(); err != nil {
		return 0, callError(ctx, err)
	}
	a, err := c.one()
	if err != nil {
		return 0, err
	}
	return kbits(a.GetTest().GetBytes(), time.Duration(a.GetTest().GetElapsedNs())), nil
}

func (r *pathRun) down(ctx context.Context) (float64, error) {
	c, err := r.call(ctx, r.conn, wire.TestRequest_WHAT_DOWN, r.For)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if _, err := c.one(); err != nil {
		return 0, err
	}
	n, took, err := drain(c.in.r)
	if err != nil {
		return 0, callError(ctx, err)
	}
	return kbits(n, took), nil
}

// many fills the way to the hub over several connections.
func (r *pathRun) many(ctx context.Context) (found, advice string, err error) {
	conns := []link.Conn{r.conn}
	defer func() {
		for _, c := range conns[1:] {
			err = errors.Join(err, closeFor(c, nil))
		}
	}()
	for len(conns) < maxMeasuredConns {
		c, err := r.connect(ctx, r.report.Carrier)
		if err != nil {
			break // as many as there are will do
		}
		conns = append(conns, c)
	}
	rates, errs := make([]float64, len(conns)), make([]error, len(conns))
	var fills sync.WaitGroup
	for i, c := range conns {
		// The hub may still have connections of a test before.
		fills.Go(func() { rates[i], errs[i] = r.fill(ctx, c) })
	}
	fills.Wait()
	for i, rate := range rates {
		if errs[i] == nil {
			r.report.Conns++
			r.report.Many += rate
		}
	}
	if r.report.Conns == 0 {
		return "", breaks, errors.Join(errs...)
	}
	return fmt.Sprintf("%.0f kbit/s to the hub over %d connections", r.report.Many, r.report.Conns), "", nil
}

// kbits returns kbit/s.
func kbits(bytes int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(bytes) * 8 / took.Seconds() / 1000
}
