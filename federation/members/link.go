package members

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// lookEvery is how often a link is asked whether bytes pass.
	lookEvery = 500 * time.Millisecond
	// doubtAfter is how long nothing may be acknowledged before the peer is asked for an echo, asksAtOnce how many
	// times at a look, as ask and answer may be lost by chance.
	doubtAfter = 1500 * time.Millisecond
	asksAtOnce = 2
	// stoodAfter is how long nothing may come before what comes next is of a peer that stood still, and may have to
	// answer yet.
	stoodAfter = 1500 * time.Millisecond
	// byeTime is how long a node that stops waits for its hub to have heard so.
	byeTime = time.Second
	// Packets a second that a peer may send, and at once. A site sends one or two.
	packetRate  = 20
	packetBurst = 100
	// waitingOut bounds the packets that wait for a slow link.
	waitingOut = 64
	// greetTime bounds the greeting.
	greetTime = 5 * time.Second
)

// Link is a node's gossip in one of its links. At most one of a name is in use at a time.
type Link struct {
	n    *node
	conn link.Conn
	life context.Context // ends when Run has said all
	end  context.CancelFunc
	out  chan outgoing

	packets *rate.Limiter // that come in
	streams *rate.Limiter
	busy    chan struct{} // a token for each stream

	mu     sync.Mutex
	peer   string      // the name at the other end; empty at an edge before the greeting
	stream link.Stream // of packets; nil before the greeting
	seen   LinkFacts
	in     uint64        // packets at the last look
	rtt    time.Duration // at the last look
	acked  time.Time     // when something was last acknowledged
	bye    chan struct{} // closed when the peer ended the stream of packets
}

type outgoing struct {
	bye bool
	b   []byte
}

// Attach gives a link its part in the gossip: name is the site in the certificate at whichever end is the
// edge's. The caller runs it, and passes on the streams of gossip that the peer opens.
func (m *Members) Attach(name string, conn link.Conn) (*Link, error) {
	self := name
	if m.cfg.Hub != "" {
		self = m.cfg.Hub
	}
	n, err := m.node(self)
	if err != nil {
		return nil, err
	}
	now := n.now()
	l := &Link{
		n: n, conn: conn, out: make(chan outgoing, waitingOut), busy: make(chan struct{}, maxStreams),
		packets: rate.NewLimiter(packetRate, packetBurst), streams: rate.NewLimiter(streamRate, streamBurst),
		seen: LinkFacts{Up: true, Since: now}, bye: make(chan struct{}),
	}
	l.life, l.end = context.WithCancel(context.Background())
	if n.hub() {
		l.peer = name
		n.enter(l, name)
	}
	return l, nil
}

func (l *Link) peerName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer
}

func (l *Link) facts() LinkFacts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// Run gossips until ctx ends or the connection does, and returns ctx's error; that a peer knows no gossip
// does not end it. If stop has ended by then the node itself is stopping, and the hub is told that it
// leaves. It gives back all that the link has opened.
func (l *Link) Run(ctx, stop context.Context) error {
	var work sync.WaitGroup
	work.Go(l.writing)
	work.Go(l.receiving)
	work.Go(l.looking)
	if !l.n.hub() {
		work.Go(func() { l.gossiping(ctx) })
	}
	<-ctx.Done()
	if stop.Err() != nil && !l.n.hub() {
		l.sayBye()
	}
	l.end()
	work.Wait()
	if name := l.peerName(); name != "" {
		l.n.leave(l, name)
	}
	if stop.Err() != nil && !l.n.hub() {
		l.n.m.drop(l.n)
	}
	return ctx.Err()
}

// sayBye tells the hub, and if there are others the members, that this node stops.
func (l *Link) sayBye() {
	if l.packetStream() == nil {
		return
	}
	l.n.mu.Lock()
	several := len(l.n.word) > 1 && !l.n.leaving // only once, though each link says bye to its hub
	l.n.leaving = true
	l.n.mu.Unlock()
	if several {
		_ = l.n.ml.Leave(byeTime) // what is not heard of it is found out
	}
	late := time.NewTimer(byeTime)
	defer late.Stop()
	select {
	case l.out <- outgoing{bye: true}:
	case <-late.C:
		return
	}
	select {
	case <-l.bye:
	case <-late.C:
	}
}

func (l *Link) packetStream() link.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}

// gossiping greets the hub and joins the members, at an edge.
func (l *Link) gossiping(ctx context.Context) {
	st, r, life, err := l.greet(ctx)
	if err != nil {
		if l.life.Err() == nil {
			l.n.m.cfg.Logger.Debug("hub does not gossip", "error", err)
		}
		return
	}
	reset := context.AfterFunc(l.life, func() { st.Reset(codeGossip) })
	defer reset()
	var work sync.WaitGroup
	work.Go(func() { l.joining(life) })
	l.reading(r)
	work.Wait()
	st.Reset(codeGossip)
}

// greet opens the stream of packets. Both sides tell a name, and the hub a number that is another in each of
// its lives.
func (l *Link) greet(ctx context.Context) (st link.Stream, r *bufio.Reader, life uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	st, err = l.conn.OpenStream(ctx, link.KindGossip)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("greet in gossip: %w", err)
	}
	late := context.AfterFunc(ctx, func() { st.Reset(codeGossip) })
	r = bufio.NewReaderSize(st, 2*link.MaxPacket)
	var name string
	if _, err = st.Write([]byte{streamPackets}); err == nil {
		if name, err = readName(r); err == nil {
			err = binary.Read(r, binary.BigEndian, &life)
		}
	}
	late()
	if _, hub := idOf(name); err == nil && !hub {
		err = fmt.Errorf("%.80q is no hub's name: %w", name, branchline.ErrInvalid)
	}
	if err != nil {
		st.Reset(codeGossip)
		return nil, nil, 0, fmt.Errorf("greet in gossip: %w", err)
	}
	l.mu.Lock()
	l.peer, l.stream = name, st
	l.mu.Unlock()
	l.n.enter(l, name)
	return st, r, life, nil
}

func readName(r *bufio.Reader) (string, error) {
	n, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	if int(n) > maxName {
		return "", fmt.Errorf("name of %d bytes: %w", n, branchline.ErrTooLarge)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// Serve deals with a stream of gossip that the peer opened, whose kind has been read; r reads it. It gives
// the stream back when it returns.
func (l *Link) Serve(ctx context.Context, st link.Stream, r *bufio.Reader) {
	quit := context.AfterFunc(ctx, func() { st.Reset(codeGossip) })
	defer quit()
	kind, err := r.ReadByte()
	switch {
	case err != nil:
	case kind == streamPackets && l.n.hub():
		l.welcome(st, r)
	case kind == streamState:
		if l.admit() {
			defer func() { <-l.busy }()
			l.exchange(ctx, st, r)
			return
		}
	default:
		l.n.m.counts.refused.Add(1)
	}
	st.Reset(codeGossip)
}

// admit takes a token for a stream, if the peer has not begun too many.
func (l *Link) admit() bool {
	if l.streams.Allow() {
		select {
		case l.busy <- struct{}{}:
			return true
		default:
		}
	}
	l.n.m.counts.dropped.Add(1)
	return false
}

// welcome answers an edge's greeting and reads its packets.
func (l *Link) welcome(st link.Stream, r *bufio.Reader) {
	b := append([]byte{byte(len(l.n.name))}, l.n.name...)
	if _, err := st.Write(binary.BigEndian.AppendUint64(b, l.n.life)); err != nil {
		return
	}
	l.mu.Lock()
	first := l.stream == nil
	if first {
		l.stream = st
	}
	l.mu.Unlock()
	if first {
		l.reading(r)
		_ = st.Close() // the answer to a bye
	}
}

// reading takes packets from the stream until it ends.
func (l *Link) reading(r *bufio.Reader) {
	defer close(l.bye)
	for {
		size, err := binary.ReadUvarint(r)
		if err != nil || size > link.MaxPacket {
			return
		}
		if size == 0 { // bye
			if l.n.hub() {
				l.mu.Lock()
				l.seen.Bye = true
				l.mu.Unlock()
			}
			return
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		l.take(b)
	}
}

// receiving takes packets from a link that carries some.
func (l *Link) receiving() {
	p, ok := l.conn.(link.Packets)
	if !ok {
		return
	}
	for {
		b, err := p.ReceivePacket(l.life)
		if err != nil {
			return
		}
		l.take(b)
	}
}

// take deals with a frame that came in.
func (l *Link) take(b []byte) {
	c := &l.n.m.counts
	c.received.Add(1)
	c.receivedBytes.Add(uint64(len(b)))
	if !l.packets.Allow() {
		c.dropped.Add(1)
		return
	}
	switch {
	case len(b) == 1 && b[0] == echoAsk:
		l.send([]byte{echoTell})
		return
	case len(b) == 1 && b[0] == echoTell:
		l.mu.Lock()
		l.acked, l.seen.Unanswered = l.n.now(), time.Time{}
		l.mu.Unlock()
		return
	}
	name, payload, err := unframe(b)
	if err != nil {
		c.refused.Add(1)
		return
	}
	from, self := l.peerName(), name == ""
	if !l.n.hub() {
		self = true
		if name != "" {
			from = name
		}
	}
	if from == "" {
		return // before the greeting
	}
	if payload = l.n.screen().pass(from, payload); payload == nil {
		c.refused.Add(1)
		return
	}
	if self {
		l.n.heard(from, l)
		l.n.deliver(from, payload)
		return
	}
	by, _ := l.n.to(name)
	if len(by) == 0 {
		c.dropped.Add(1)
		return
	}
	by[0].send(frame(from, payload))
}

// sendTo sends one of this node's own packets to the node with the name.
func (l *Link) sendTo(name string, b []byte) {
	// A hub that this edge has no link to cannot be reached, but the rumours in the packet are as good here.
	if _, hub := idOf(name); hub || l.n.hub() {
		name = ""
	}
	l.send(frame(name, b))
}

// send queues a frame. What a slow link has no room for is lost.
func (l *Link) send(frame []byte) {
	select {
	case l.out <- outgoing{b: frame}:
	default:
		l.n.m.counts.dropped.Add(1)
	}
}

// writing sends what is queued.
func (l *Link) writing() {
	p, _ := l.conn.(link.Packets)
	for {
		select {
		case o := <-l.out:
			l.write(p, o)
		case <-l.life.Done():
			return
		}
	}
}

func (l *Link) write(p link.Packets, o outgoing) {
	st := l.packetStream()
	if st == nil {
		return // the peer knows no gossip, or not yet
	}
	if o.bye {
		_, _ = st.Write([]byte{0}) // what fails is seen by the reader
		_ = st.Close()
		return
	}
	c := &l.n.m.counts
	c.sent.Add(1)
	c.sentBytes.Add(uint64(len(o.b)))
	if p != nil && len(o.b) <= link.MaxPacket && !errors.Is(p.SendPacket(o.b), link.ErrNoPackets) {
		return
	}
	_, _ = st.Write(append(binary.AppendUvarint(nil, uint64(len(o.b))), o.b...))
}

// looking keeps watch on whether bytes pass.
func (l *Link) looking() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if l.look(l.conn.Stats(), l.n.now()) {
			for range asksAtOnce {
				l.send([]byte{echoAsk})
			}
		}
		select {
		case <-tick.C:
		case <-l.life.Done():
			return
		}
	}
}

// look takes the link's figures at the time now and reports whether to ask for an echo. Each packet that
// the peer acknowledges changes the measured round trip time, or else the echo tells.
func (l *Link) look(s link.Stats, now time.Time) (doubt bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.PacketsIn == 0 {
		return false // a link without figures
	}
	heard, acked := s.PacketsIn != l.in, s.RTT != l.rtt
	l.in, l.rtt = s.PacketsIn, s.RTT
	if heard {
		if now.Sub(l.seen.Heard) > stoodAfter {
			l.seen.Unanswered = time.Time{}
		}
		l.seen.Heard = now
	}
	switch {
	case acked:
		l.acked, l.seen.Unanswered = now, time.Time{}
	case heard && l.seen.Unanswered.IsZero() && l.stream != nil: // without gossip no echo tells for certain
		l.seen.Unanswered = now
	}
	return now.Sub(l.acked) > doubtAfter
}
