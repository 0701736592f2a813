package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/e2e/network"
)

// What the branch has recorded before a measurement: so many cameras with so many kbit/s each, together more
// than the link can carry, so that a span of footage takes longer to bring than to record.
const (
	bulkCameras = 16
	bulkKbits   = 10_000
)

// archive is a world with footage that no retrieval has brought yet.
type archive struct {
	*network.World
	next, end time.Time // of what has not been asked for
}

// record starts a world, has its cameras record for so long, and ends the cameras.
func (b *bench) record(ctx context.Context, during time.Duration, p network.Plan) (*archive, error) {
	p.Binary, p.Dir, p.Seed = b.binary, b.dir, 1
	p.Cameras, p.Kbits, p.Segment = bulkCameras, bulkKbits, 10*time.Second
	progress("recording %v of %d Mbit/s", during, bulkCameras*bulkKbits/1000)
	w, err := network.OpenWorld(p)
	if err != nil {
		return nil, err
	}
	a := &archive{World: w, next: time.Now().Add(8 * time.Second)}
	if _, err = w.Linked(ctx, 1, 20*time.Second); err == nil {
		err = wait(ctx, time.Until(a.next.Add(during)))
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s%w", err, w.Logs(), w.Close())
	}
	a.end = time.Now().Add(-2 * time.Second)
	w.Cameras.Kill()
	return a, wait(ctx, 5*time.Second) // the last segments are sealed
}

// bring orders the next footage of all cameras, more than can come in the time, and returns at what rate it
// became durable at the hub, in Mbit/s.
func (a *archive) bring(ctx context.Context, during time.Duration, most float64) (float64, error) {
	span := time.Duration(during.Seconds() * most / (bulkCameras * bulkKbits / 1000) * float64(time.Second))
	from := a.next
	a.next = from.Add(span)
	if a.next.After(a.end) {
		return 0, fmt.Errorf("the footage is used up")
	}
	var streams []string
	for i := range bulkCameras {
		streams = append(streams, network.Site+"."+network.Camera(i)+".main")
	}
	type retrieval struct {
		ID, State, Cause string
	}
	var r retrieval
	order := map[string]any{"streams": streams, "from": from.UTC(), "to": a.next.UTC()}
	before, err := a.Metric(network.Centre, "branchline_hub_fetched_bytes_total")
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := a.Call("POST", "/api/v1/retrievals", order, &r); err != nil {
		return 0, err
	}
	var late bool
	_, err = network.Until(ctx, 20*time.Millisecond, 2*during+time.Minute, func() bool {
		if late = time.Since(began) > during; late {
			return true
		}
		err := a.Call("GET", "/api/v1/retrievals/"+r.ID, nil, &r)
		return err == nil && r.State != "waiting" && r.State != "retrieving"
	})
	took := time.Since(began)
	after, e := a.Metric(network.Centre, "branchline_hub_fetched_bytes_total")
	if err != nil || e != nil {
		return 0, fmt.Errorf("retrieval: %w %w", err, e)
	}
	if late { // it is the same as long as bytes come all the time
		err = a.Call("DELETE", "/api/v1/retrievals/"+r.ID, nil, nil)
	} else if r.State != "done" {
		err = fmt.Errorf("the retrieval is %s: %s", r.State, r.Cause)
	}
	return (after - before) * 8 / mega / took.Seconds(), err
}

// relink starts the edge anew, so that its link knows nothing but the path as it is now, and lets it come to rest.
func (a *archive) relink(ctx context.Context) error {
	a.Edge.Stop()
	if err := a.StartEdge(); err != nil {
		return err
	}
	if _, err := a.Linked(ctx, 1, time.Minute); err != nil {
		return err
	}
	return wait(ctx, 3*time.Second)
}

const bulkRate = 100 // Mbit/s

// plainFor is for how long plain connections and loopback are measured at most: they have nothing to find out.
const plainFor = 8 * time.Second

func bulk(ctx context.Context, b *bench) error {
	cells := len(b.rtts) * len(b.losses) * b.rounds
	// At most what the link carries is brought in a measurement.
	need := time.Duration(float64(cells) * 1.1 * b.seconds.Seconds() * bulkRate / (bulkCameras * bulkKbits / 1000) *
		float64(time.Second))
	a, err := b.record(ctx, need+15*time.Second, network.Plan{})
	if err != nil {
		return err
	}
	defer a.Close()
	for _, rtt := range b.rtts {
		for _, loss := range b.losses {
			if err := b.cell(ctx, a, rtt, loss); err != nil {
				return fmt.Errorf("%w\n%s", err, a.Logs())
			}
		}
	}
	b.note("Each transfer for %v, %d times; of one plain connection for %v at most. The project's is a retrieval of %d "+
		"cameras of %d kbit/s by a real hub from a real edge, counted from the order on, in bytes that are verified and on "+
		"the hub's disk. TCP is iperf3 -C bbr, one connection; quic-go is one stream of one connection, discarded on "+
		"arrival. Queue of the link: 100 ms.", b.seconds, b.rounds, plainFor, bulkCameras, bulkKbits)
	return nil
}

// cell measures peers and project at one round trip time and loss.
func (b *bench) cell(ctx context.Context, a *archive, rtt time.Duration, loss float64) error {
	l := a.Links[0]
	l.Change(func(s *network.Settings) { *s = network.Settings{Rate: bulkRate * mega, Delay: rtt / 2, Loss: loss} })
	name := fmt.Sprintf("RTT %v, loss %g %%", rtt, loss*100)
	share := 0.9
	switch {
	case rtt > 100*time.Millisecond:
		share = 0.5
	case loss > 0.02:
		share = 0.8
	}
	project := report.Figure{What: name, Unit: "Mbit/s", Name: "TCP BBR", Limit: share, More: true}
	plain := report.Figure{What: name + ": quic-go, one connection", Unit: "Mbit/s", Name: "TCP BBR", More: true}
	during := min(b.seconds, plainFor)
	for range b.rounds {
		t, err := bbr(ctx, a.Network, b.seconds)
		if err != nil {
			return err
		}
		hub := net.JoinHostPort(l.Addr(network.Centre).String(), "7900")
		q, err := plainQUIC(ctx, a.ListenPacket(network.Branch), a.ListenPacket(network.Centre), hub, during)
		if err != nil {
			return err
		}
		if err := a.relink(ctx); err != nil {
			return err
		}
		p, err := a.bring(ctx, b.seconds, bulkRate)
		if err != nil {
			return err
		}
		progress("%s: TCP BBR %.1f, quic-go %.1f, project %.1f Mbit/s", name, t, q, p)
		project.Got, project.Peer = append(project.Got, p), append(project.Peer, t)
		plain.Got, plain.Peer = append(plain.Got, q), append(plain.Peer, t)
	}
	b.figures = append(b.figures, project, plain)
	return nil
}

// loopback compares disk to disk with raw quic-go where nothing but the machine is the limit.
func loopback(ctx context.Context, b *bench) error {
	const most = 2600 // Mbit/s that the project may reach
	during := min(b.seconds, plainFor)
	need := time.Duration(float64(b.rounds) * during.Seconds() * most / (bulkCameras * bulkKbits / 1000) *
		float64(time.Second))
	a, err := b.record(ctx, need+15*time.Second, network.Plan{Loopback: true})
	if err != nil {
		return err
	}
	defer a.Close()
	f := report.Figure{
		What: "disk to disk, hashed and synced", Unit: "Mbit/s", Name: "raw quic-go", Limit: 0.6, More: true,
	}
	for range b.rounds {
		listen := a.ListenPacket(network.Centre)
		q, err := plainQUIC(ctx, func(string) (net.PacketConn, error) { return listen("127.0.0.1:0") }, listen,
			"127.0.0.1:7900", during)
		if err != nil {
			return err
		}
		p, err := a.bring(ctx, during, most)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, a.Logs())
		}
		progress("loopback: quic-go %.0f, project %.0f Mbit/s", q, p)
		f.Got, f.Peer = append(f.Got, p), append(f.Peer, q)
	}
	b.figures = append(b.figures, f)
	b.note("One stream of one connection of quic-go, discarded on arrival, both ends in one process; the project with " +
		"edge and hub as two processes on the same disk.")
	return nil
}
