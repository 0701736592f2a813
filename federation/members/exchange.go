package members

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline/federation/link"
)

// exchange serves one exchange of memberlist's that the peer began.
func (l *Link) exchange(ctx context.Context, st link.Stream, r *bufio.Reader) {
	name, err := readName(r)
	if err != nil || name != "" && !valid(name) {
		l.n.m.counts.refused.Add(1)
		st.Reset(codeGossip)
		return
	}
	if l.n.hub() && name != "" {
		l.relay(ctx, st, r, name)
		return
	}
	if name == "" {
		name = l.peerName()
	}
	c := newStreamConn(l, name)
	c.take(st, r)
	select {
	case l.n.streams <- c:
	default:
		l.n.m.counts.dropped.Add(1)
		_ = c.Close()
	}
	late := time.NewTimer(streamTime)
	defer late.Stop()
	select {
	case <-c.done:
	case <-late.C:
	case <-ctx.Done():
	}
	_ = c.Close()
}

// relay passes an exchange on to another site, both ways, as far as it is a ping.
func (l *Link) relay(ctx context.Context, st link.Stream, r *bufio.Reader, to string) {
	defer st.Reset(codeGossip)
	by, _ := l.n.to(to)
	if len(by) == 0 {
		l.n.m.counts.dropped.Add(1)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, streamTime)
	defer cancel()
	other, err := by[0].conn.OpenStream(ctx, link.KindGossip)
	if err != nil {
		return
	}
	defer other.Reset(codeGossip)
	stop := context.AfterFunc(ctx, func() {
		st.Reset(codeGossip)
		other.Reset(codeGossip)
	})
	defer stop()
	from := l.peerName()
	if _, err := other.Write(append([]byte{streamState, byte(len(from))}, from...)); err != nil {
		return
	}
	var g errgroup.Group
	g.Go(func() error { return pass(other, r) })
	g.Go(func() error { return pass(st, other) })
	_ = g.Wait() // the two ends know
}

// pass copies what a hub passes on and ends the direction.
func pass(to link.Stream, from io.Reader) error {
	_, err := io.Copy(struct{ io.Writer }{to}, io.LimitReader(from, maxRelay))
	return errors.Join(err, to.Close())
}
