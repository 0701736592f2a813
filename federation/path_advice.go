package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

// breaks advises where a path carries a little and not much.
const breaks = "the path breaks when it is full: ask for what limits or inspects this traffic on the way"

// setClock advises where a certificate is not valid yet, or not any more, by a clock.
func setClock() string {
	return "here it is " + clock.Clock{}.Now().UTC().Format("2006-01-02 15:04 UTC") +
		": if that is wrong, set this machine's clock, best by NTP"
}

// whyNot advises somebody whose carrier does not reach the hub.
func (r *pathRun) whyNot(carrier link.Carrier, err error) string {
	_, port, _ := net.SplitHostPort(r.Hub)
	switch {
	case errors.Is(err, link.ErrIntercepted):
		return "" // the error says what to ask for
	case errors.Is(err, identity.ErrForeign):
		return "a hub answers, but not the one that this site belongs to: is the address right? If the hub was set up " +
			"anew, make a token there with `branchline site add NAME`"
	case isAny(err, identity.ErrEarly, identity.ErrExpired):
		return setClock()
	case isAny(err, syscall.ENETUNREACH, syscall.EHOSTUNREACH):
		return "this machine has no route to the hub: check its cable, address and gateway (ip route)"
	case isAny(err, syscall.EADDRNOTAVAIL, syscall.ENODEV):
		return "this machine has no such interface or address now: check uplinks: in the configuration, and the cable"
	case isAny(err, syscall.EPERM, syscall.EACCES):
		return "this machine does not let the program send: check its own firewall, and for an interface the right " +
			"CAP_NET_RAW"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the machine is reached, and nobody listens: is the hub running there, and does its `listen` name port " +
			port + "?"
	case carrier == link.CarrierQUIC:
		return "no answer by UDP: a firewall on the way, or the hub does not run"
	case errors.Is(err, context.DeadlineExceeded) && r.conn == nil:
		return "packets vanish: no route, a firewall drops them, or the hub's machine is off"
	case errors.Is(err, context.DeadlineExceeded):
		return "UDP is enough; TCP would do where UDP fails"
	case r.conn == nil:
		return "is the hub running there, and does its `listen` name port " + port + "?"
	}
	return "UDP is enough; TCP port " + port + " would do where UDP fails"
}

// accepted asks the hub whether it knows this site, and what time it is there.
func (r *pathRun) accepted(ctx context.Context) (found, advice string, err error) {
	before := clock.Clock{}.Now()
	took, there, err := r.ping(ctx)
	if err != nil {
		return "", siteAdvice(err), err
	}
	found = "the hub knows this site as " + string(r.report.Site)
	if !there.IsZero() {
		r.report.Clock = there.Sub(before.Add(took / 2))
		if off := r.report.Clock.Abs(); off > wrongClock {
			advice = fmt.Sprintf("the clocks of this machine and of the hub differ by %v: recordings are found by the time, "+
				"so set both by NTP", off.Round(time.Second))
		}
	}
	return found, advice, nil
}

func siteAdvice(err error) string {
	switch {
	case errors.Is(err, identity.ErrEarly):
		return "the hub's clock or this one is wrong: set both by NTP"
	case errors.Is(err, identity.ErrExpired):
		return "start the edge: it comes back by itself and an operator approves it. " + setClock()
	case isAny(err, identity.ErrWaiting):
		return "an operator has to approve this site at the hub: `branchline site approve NAME`"
	case worthless(err):
		return "make a new token at the hub with `branchline site add NAME` and start the edge with it"
	case errors.Is(err, branchline.ErrBusy):
		return "try again in a minute"
	}
	return "is the hub as new as this program? One that cannot measure hangs up here"
}

// ping returns the round trip time of a call, and the hub's time of day, zero if it does not tell it.
func (r *pathRun) ping(ctx context.Context) (took time.Duration, there time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, link.HandshakeTimeout)
	defer cancel()
	began := clock.Clock{}.Now()
	c, err := r.call(ctx, r.conn, wire.TestRequest_WHAT_PING, 0)
	if err != nil {
		return 0, there, whyEnded(r.conn, err)
	}
	defer c.close()
	a, err := c.one()
	if err != nil {
		return 0, there, whyEnded(r.conn, err)
	}
	if ns := a.GetTest().GetNowUnixNs(); ns != 0 {
		there = time.Unix(0, ns)
	}
	return clock.Clock{}.Now().Sub(began), there, nil
}

// asks returns what to ask the network people for, in sentences that can be sent to them as they are.
func (r *pathRun) asks() []string {
	all := []string{}
	_, port, _ := net.SplitHostPort(r.report.Hub)
	blocked, answers := []string{}, false
	for _, l := range r.lost {
		switch {
		case errors.Is(l.err, link.ErrIntercepted):
			all = append(all, fmt.Sprintf("Exempt TCP and UDP to %s from TLS inspection and from proxies: the connection has "+
				"to reach the hub as it is (TLS 1.3, ALPN branchline/1).", r.report.Hub))
			return all
		case errors.Is(l.err, syscall.ECONNREFUSED), errors.Is(l.err, identity.ErrForeign),
			isAny(l.err, identity.ErrEarly, identity.ErrExpired):
			answers = true
		case !isAny(l.err, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.ENODEV):
			blocked = append(blocked, map[link.Carrier]string{link.CarrierQUIC: "UDP", link.CarrierTCP: "TCP"}[l.carrier])
		}
	}
	if udp := len(blocked) > 0 && blocked[0] == "UDP"; udp && !answers {
		all = append(all, fmt.Sprintf("At the branch: let %s go out from %s to %s, any source port, and let the answers "+
			"back in (stateful). Keep that state (NAT, firewall) for at least 30 s without traffic; the link sends something "+
			"every second. Nothing has to be opened from outside.", strings.Join(blocked, " and "), r.from(), r.report.Hub),
			fmt.Sprintf("At the hub: forward %s port %s from outside to the hub's machine.",
				strings.Join(blocked, " and "), port))
	}
	if r.report.MTU > 0 && r.report.MTU < usualMTU {
		all = append(all, fmt.Sprintf("UDP datagrams of more than %d bytes do not reach %s. Let ICMP \"fragmentation "+
			"needed\" (type 3 code 4; for IPv6 type 2) pass in both directions, and tell the MTU of the line or tunnel.",
			r.report.MTU, r.report.Hub))
	}
	if r.lossHurts() {
		all = append(all, fmt.Sprintf("%.1f %% of the UDP packets to %s are lost while the line is full. Have the line "+
			"measured for loss, and look for policers on UDP.", 100*r.report.Loss, r.report.Hub))
	}
	return all
}

// lossHurts reports whether packets are lost otherwise than in the queue of a line that is full.
func (r *pathRun) lossHurts() bool {
	if r.report.Loss <= lossy {
		return false
	}
	if r.report.Many > 0 {
		return r.report.Many > 1.5*r.report.Up // one connection does not fill the line
	}
	return r.report.Loaded < r.report.RTT*3/2
}

// from names this machine as the network sees it, as far as that is known here.
func (r *pathRun) from() string {
	if r.Way.Addr.IsValid() {
		return r.Way.Addr.String()
	}
	c, err := net.Dial("udp", r.report.Hub) // which sends nothing
	if err != nil {
		return "this machine"
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return "this machine"
	}
	return host
}
