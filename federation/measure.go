package federation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// A hub measures the path for so many sites at once, and for each over so many connections: measuring takes
	// what the network gives.
	maxMeasured      = 4
	maxMeasuredConns = 8
	// measuredLife bounds such a connection, and maxTransfer each transfer on it.
	measuredLife = 2 * time.Minute
	maxTransfer  = 15 * time.Second
	// maxMeasures bounds the calls on it at once.
	maxMeasures = 80
	// measurePiece is what is sent at once.
	measurePiece = 32 << 10
)

// measured are the sites whose path is being measured. The zero value has none.
type measured struct {
	mu    sync.Mutex
	sites map[branchline.SiteID]int // connections of each
}

func (m *measured) enter(site branchline.SiteID) (leave func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.sites[site]; n >= maxMeasuredConns || n == 0 && len(m.sites) >= maxMeasured {
		return nil, fmt.Errorf("the paths of %d sites are being measured, try again in a minute: %w", len(m.sites),
			branchline.ErrBusy)
	}
	if m.sites == nil {
		m.sites = make(map[branchline.SiteID]int)
	}
	m.sites[site]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.sites[site]--; m.sites[site] == 0 {
			delete(m.sites, site)
		}
	}, nil
}

// measure serves a connection that a site made to measure the path.
func (p *Peers) measure(ctx context.Context, conn link.Conn) error {
	leave, err := p.measured.enter(conn.Peer().Site)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, measuredLife)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxMeasures)
	for {
		st, err := conn.AcceptStream(ctx)
		if err != nil {
			return errors.Join(callError(ctx, err), g.Wait())
		}
		g.Go(func() error {
			answerMeasure(ctx, st)
			return nil
		})
	}
}

func answerMeasure(ctx context.Context, st link.Stream) {
	ctx, cancel := context.WithTimeout(ctx, maxTransfer)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { st.Reset(linkCode(wire.Code_CODE_CANCELLED)) })
	defer stop()
	in := newReceiver(st)
	kind, err := link.ReadKind(in.r)
	var req wire.Request
	if err == nil {
		err = in.message(&req, maxRequest)
	}
	test := req.GetTest()
	if err == nil && (kind != link.KindTest || test == nil) {
		err = invalid("nothing but measuring goes here")
	}
	a := &answer{ctx: ctx, out: &sender{w: st}, limit: maxFetch}
	if err == nil {
		err = a.measure(in.r, test)
	}
	a.end(st, err)
	st.Reset(linkCode(wire.Code_CODE_CANCELLED))
}

func (a *answer) measure(r io.Reader, test *wire.TestRequest) error {
	tell := func(m *wire.TestAnswer) error { return a.send(&wire.Answer{Body: &wire.Answer_Test{Test: m}}) }
	switch test.GetWhat() {
	case wire.TestRequest_WHAT_PING:
		return tell(&wire.TestAnswer{NowUnixNs: clock.Clock{}.Now().UnixNano()})
	case wire.TestRequest_WHAT_UP:
		n, took, err := drain(r)
		if err != nil {
			return err
		}
		return tell(&wire.TestAnswer{Bytes: n, ElapsedNs: int64(took)})
	case wire.TestRequest_WHAT_DOWN:
		if err := tell(&wire.TestAnswer{}); err != nil {
			return err
		}
		a.raw = true
		return pour(a.out.w, min(time.Duration(test.GetMilliseconds())*time.Millisecond, maxTransfer-time.Second))
	}
	return invalid("unknown way to measure")
}

// drain reads to the end, and returns how much that was, and the time from the first byte to the last.
func drain(r io.Reader) (n int64, took time.Duration, err error) {
	buf := make([]byte, measurePiece)
	var first, last time.Time
	for {
		k, err := r.Read(buf)
		if n += int64(k); k > 0 {
			last = clock.Clock{}.Now()
			if first.IsZero() {
				first = last
			}
		}
		if errors.Is(err, io.EOF) {
			return n, last.Sub(first), nil
		}
		if err != nil {
			return n, last.Sub(first), err
		}
	}
}

// pour writes bytes that nothing on the way can compress, for so long.
func pour(w io.Writer, length time.Duration) error {
	piece := make([]byte, measurePiece)
	if _, err := rand.Read(piece); err != nil {
		return err
	}
	end := time.NewTimer(length)
	defer end.Stop()
	for {
		select {
		case <-end.C:
			return nil
		default:
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
}
