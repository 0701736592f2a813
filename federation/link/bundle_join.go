package link

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

// A connection joins a bundle with a stream of kind join, which is the first on it: the ticket and the
// connection's number. The hub answers with one byte. Each side ends its direction when it is to put
// no more streams on the connection, the hub only after the edge and with its last stream; then the edge
// closes the connection.

// ticketSize is the size of what a bundle is known by.
const ticketSize = 32

// ticket names a bundle to those who are at its two ends and to nobody else.
type ticket [ticketSize]byte

const (
	// joinLabel makes a ticket of the secrets of the first connection's TLS handshake (RFC 8446, 7.5): it
	// never crosses the network in the clear or before the second connection has proved who it is.
	joinLabel = "EXPORTER-branchline-bundle"
	// joinedAnswer says that the connection belongs to the bundle.
	joinedAnswer = 1
	// maxJoining bounds the connections to a listener that are about to join, as all bundles may grow at once.
	maxJoining = 512
	// maxJoined bounds the connections of all bundles of a listener beyond the first of each: 64 sites in
	// full transfer at a high loss. Each costs some tens of kilobytes, one over TCP some 200, and what is under way on it.
	maxJoined = 4096
	// maxJoinedOf bounds those of one site, so that it takes nobody's place: of its link, and of one that has not been
	// noticed to be gone.
	maxJoinedOf = 2 * MaxConnections
	// The reasons to refuse, as in the wire format.
	codeDenied Code = 4
	codeBusy   Code = 7
)

func newTicket(s tls.ConnectionState) (t ticket, err error) {
	key, err := s.ExportKeyingMaterial(joinLabel, nil, ticketSize)
	if err != nil {
		return t, fmt.Errorf("make the ticket of a bundle: %w", err)
	}
	copy(t[:], key)
	return t, nil
}

// join makes a fresh connection one of the bundle, on the side that dialled. It takes the connection.
func (b *bundle) join(ctx context.Context, c Conn, number uint32, small bool) error {
	s, err := askToJoin(ctx, c, b.key, number)
	if err == nil {
		j := &joined{conn: c, number: number, small: small, control: s}
		if err = b.add(j); err == nil {
			b.work.Go(func() { b.leave(j) })
			return nil
		}
	}
	return errors.Join(fmt.Errorf("join a bundle: %w", err), c.Close(CodeLeft, ""))
}

func askToJoin(ctx context.Context, c Conn, key ticket, number uint32) (Stream, error) {
	s, err := c.OpenStream(ctx, KindJoin)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset(codeBusy) })
	defer stop()
	if _, err := s.Write(binary.BigEndian.AppendUint32(key[:], number)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(s, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != joinedAnswer {
		return nil, fmt.Errorf("the hub answers %d", answer[0])
	}
	return s, nil
}

// leave closes a connection that dialled once the other side puts no more streams on it.
func (b *bundle) leave(j *joined) {
	if _, err := io.ReadFull(j.control, make([]byte, 1)); !errors.Is(err, io.EOF) {
		return // the connection has ended, or the hub does what nobody understands
	}
	for {
		select {
		case <-time.After(drainTime):
		case <-b.closing:
			return
		}
		if j.open.Load() == 0 {
			_ = j.conn.Close(CodeLeft, "")
			return
		}
	}
}

// passes returns the bytes of the largest datagram that is known to pass on the oldest connection, 0 if that is not
// known. Further ones need not find that out again, which takes long where probes are lost.
func (b *bundle) passes() uint16 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.conns {
		if !j.bulk {
			return uint16(j.conn.Stats().MTU)
		}
	}
	return 0
}

// give begins to give up a connection, on the side that dialled.
func (b *bundle) give(j *joined) {
	b.mu.Lock()
	j.leaving = true
	b.mu.Unlock()
	_ = j.control.Close()
}

// drain waits, on the side that accepted, until the peer needs the connection no more, and then for the
// end of its streams.
func (b *bundle) drain(j *joined) {
	if _, err := io.ReadFull(j.control, make([]byte, 1)); !errors.Is(err, io.EOF) {
		return
	}
	b.mu.Lock()
	j.leaving = true
	drained := j.open.Load() == 0
	b.mu.Unlock()
	if drained {
		_ = j.control.Close()
	}
}

// bundles are those of a listener.
type bundles struct {
	joins joins
	work  sync.WaitGroup

	mu       sync.Mutex
	of       map[ticket]*bundle
	joined   int
	joinedOf map[branchline.SiteID]int
}

// found makes the first connection of a peer a bundle.
func (l *bundles) found(c Conn, key ticket) *bundle {
	b := newBundle(c, key, false, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.of, key)
	}
	if len(b.conns) > 0 {
		l.of[key] = b
		b.work.Go(b.watch)
	}
	return b
}

// take lets a connection join the bundle that it asks for, and closes it if it may not.
func (l *bundles) take(c Conn) {
	leave, ok := l.joins.enter(c.Peer().Site)
	if !ok {
		_ = c.Close(codeBusy, "too many connections are about to join")
		return
	}
	l.work.Go(func() {
		defer leave()
		if err := l.admit(c); err != nil {
			code := codeDenied
			if errors.Is(err, errNoRoom) || errors.Is(err, errLate) {
				code = codeBusy
			}
			_ = c.Close(code, err.Error())
		}
	})
}

// errLate means that a connection did not ask in time.
var errLate = errors.New("it took too long")

func (l *bundles) admit(c Conn) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), HandshakeTimeout)
	defer cancel()
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset(codeDenied) })
	defer stop()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = errors.Join(errLate, err)
		}
	}()
	kind, err := ReadKind(s)
	if err == nil && kind != KindJoin {
		err = fmt.Errorf("stream of %s on a connection that has not joined", kind)
	}
	if err != nil {
		return err
	}
	var asked [ticketSize + 4]byte
	if _, err := io.ReadFull(s, asked[:]); err != nil {
		return err
	}
	key := ticket(asked[:ticketSize])
	b := l.find(key, c.Peer())
	if b == nil {
		return errors.New("no such bundle")
	}
	j := &joined{conn: c, number: max(binary.BigEndian.Uint32(asked[ticketSize:]), 1), control: s}
	if err := l.enter(b, j); err != nil {
		return err
	}
	// An error here is one of the connection, which the bundle has by now.
	_, _ = s.Write([]byte{joinedAnswer})
	return nil
}

// find returns the bundle of the ticket if it is the peer's own, and nil otherwise.
func (l *bundles) find(key ticket, peer Peer) *bundle {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of[key]
	if b == nil || b.peer.Site != peer.Site || !sameKey(b.peer.Leaf, peer.Leaf) ||
		subtle.ConstantTimeCompare(b.key[:], key[:]) != 1 {
		return nil
	}
	return b
}

// sameKey reports whether two certificates, DER, are of the same key: that of a link may have been renewed since.
func sameKey(a, b []byte) bool {
	one, err := x509.ParseCertificate(a)
	if err != nil {
		return false
	}
	other, err := x509.ParseCertificate(b)
	return err == nil && bytes.Equal(one.RawSubjectPublicKeyInfo, other.RawSubjectPublicKeyInfo)
}

// enter adds the connection to the bundle, within the listener's limits.
func (l *bundles) enter(b *bundle, j *joined) error {
	site := b.peer.Site
	if !l.room(site) {
		return fmt.Errorf("the hub has %d connections, or %d of this site: %w", maxJoined, maxJoinedOf, errNoRoom)
	}
	left := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.joined--
		if l.joinedOf[site]--; l.joinedOf[site] == 0 {
			delete(l.joinedOf, site)
		}
	}
	j.conn = &counted{Conn: j.conn, left: left}
	err := b.add(j)
	if err != nil {
		left()
		return err
	}
	l.work.Go(func() { b.drain(j) })
	return nil
}

func (l *bundles) room(site branchline.SiteID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.joined >= maxJoined || l.joinedOf[site] >= maxJoinedOf {
		return false
	}
	if l.joinedOf == nil {
		l.joinedOf = make(map[branchline.SiteID]int)
	}
	l.joined++
	l.joinedOf[site]++
	return true
}

// counted is a connection that gives its place back when it is closed.
type counted struct {
	Conn
	once sync.Once
	left func()
}

func (c *counted) Close(code Code, reason string) error {
	c.once.Do(c.left)
	return c.Conn.Close(code, reason)
}

// close ends all bundles. Their connections have no way to the peers any more.
func (l *bundles) close() {
	l.mu.Lock()
	all := make([]*bundle, 0, len(l.of))
	for _, b := range l.of {
		all = append(all, b)
	}
	l.mu.Unlock()
	for _, b := range all {
		_ = b.Close(0, "")
	}
	l.work.Wait()
}
