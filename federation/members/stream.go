package members

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// A stream of gossip begins with what it is.
	streamPackets = 1 // greeting, and packets where the link has none of its own
	streamState   = 2 // one exchange of memberlist's, compressed: name, and its bytes
	// maxState bounds what one side of an exchange says, before compression: a state of maxMembers.
	maxState = 512 << 10
	// maxRelay bounds what a hub passes on of an exchange between two edges, compressed: a ping.
	maxRelay = 1 << 10
	// streamTime bounds an exchange.
	streamTime = 10 * time.Second
	// maxStreams bounds the exchanges that one peer has going on at once, and streamRate those that it begins
	// in a second, streamBurst at once.
	maxStreams  = 8
	streamRate  = 2
	streamBurst = 20
	// codeGossip is the code of the streams' resets: cancelled.
	codeGossip link.Code = 9
)

// streamConn is a stream of memberlist's. One that is dialled is opened with its first bytes, which tell
// whom it is for.
type streamConn struct {
	l    *Link
	name string        // of the node at the other end
	done chan struct{} // closed with the conn

	mu     sync.Mutex
	st     link.Stream
	timer  *time.Timer
	closed bool
	undo   func() bool

	w  *flate.Writer
	in io.Reader // checked; the reader's
}

func newStreamConn(l *Link, to string) *streamConn {
	return &streamConn{l: l, name: to, done: make(chan struct{})}
}

func (c *streamConn) open(first []byte) error {
	to := c.name
	if len(first) > 0 && first[0] == msgPushPull || c.l.n.hub() || to == c.l.peerName() {
		to = "" // the node at the other end of the link
	}
	ctx, cancel := context.WithTimeout(c.l.life, streamTime)
	defer cancel()
	st, err := c.l.conn.OpenStream(ctx, link.KindGossip)
	if err != nil {
		return fmt.Errorf("open gossip stream: %w", err)
	}
	c.take(st, nil)
	_, err = st.Write(append([]byte{streamState, byte(len(to))}, to...))
	return err
}

// take makes st the stream that the conn stands for.
func (c *streamConn) take(st link.Stream, r io.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st = st
	c.undo = context.AfterFunc(c.l.life, func() { st.Reset(codeGossip) })
	c.w, _ = flate.NewWriter(counting{st, &c.l.n.m.counts}, flate.BestSpeed) // fails only for a wrong level
	if r == nil {
		r = st
	}
	c.in = &checked{r: io.LimitReader(flate.NewReader(countingReader{r, &c.l.n.m.counts}), maxState)}
	if c.closed {
		st.Reset(codeGossip)
	}
}

// Read implements [net.Conn].
func (c *streamConn) Read(b []byte) (int, error) {
	if c.in == nil {
		return 0, io.EOF // nothing was asked
	}
	return c.in.Read(b)
}

// Write implements [net.Conn]. memberlist writes a message with one call.
func (c *streamConn) Write(b []byte) (int, error) {
	if c.w == nil {
		if err := c.open(b); err != nil {
			return 0, err
		}
	}
	n, err := c.w.Write(b)
	if err == nil {
		err = c.w.Flush()
	}
	return n, err
}

// Close implements [net.Conn].
func (c *streamConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.done)
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.st == nil {
		return nil
	}
	c.undo()
	err := c.st.Close()
	c.st.Reset(codeGossip) // of the other direction
	return err
}

// SetDeadline implements [net.Conn]: the stream is reset then.
func (c *streamConn) SetDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.timer = nil; at.IsZero() || c.closed {
		return nil
	}
	c.timer = time.AfterFunc(at.Sub(c.l.n.now()), func() {
		c.mu.Lock()
		st := c.st
		c.mu.Unlock()
		if st != nil {
			st.Reset(codeGossip)
		}
	})
	return nil
}

// SetReadDeadline implements [net.Conn].
func (c *streamConn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *streamConn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// LocalAddr implements [net.Conn].
func (c *streamConn) LocalAddr() net.Addr { return nodeAddr(c.l.n.name) }

// RemoteAddr implements [net.Conn].
func (c *streamConn) RemoteAddr() net.Addr { return nodeAddr(c.name) }

// checked lets pass what memberlist may read: a message of a kind that is used, and a state of no more
// members than may be, as memberlist makes room for as many as the sender announces.
type checked struct {
	r    io.Reader
	seen bool
}

func (c *checked) Read(b []byte) (int, error) {
	if !c.seen {
		c.seen = true
		var head bytes.Buffer
		r := bufio.NewReader(c.r)
		if err := checkHead(io.TeeReader(oneByte{r}, &head)); err != nil {
			c.r = failed{err}
			return 0, err
		}
		c.r = io.MultiReader(&head, r)
	}
	return c.r.Read(b)
}

func checkHead(r io.Reader) error {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return err
	}
	switch kind[0] {
	case msgPing, msgAck, msgError:
		return nil
	case msgPushPull:
	default:
		return fmt.Errorf("read gossip stream: message of kind %d: %w", kind[0], branchline.ErrInvalid)
	}
	var head struct{ Nodes, UserStateLen int }
	if err := codec.NewDecoder(r, &codec.MsgpackHandle{}).Decode(&head); err != nil {
		return fmt.Errorf("read gossip stream: %w: %w", err, branchline.ErrInvalid)
	}
	if head.Nodes < 0 || head.Nodes > maxMembers || head.UserStateLen != 0 {
		return fmt.Errorf("read gossip stream: state of %d members and %d bytes: %w", head.Nodes, head.UserStateLen,
			branchline.ErrTooLarge)
	}
	return nil
}

type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// oneByte reads no further than it is asked to.
type oneByte struct{ *bufio.Reader }

type counting struct {
	w io.Writer
	c *counts
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.c.sentBytes.Add(uint64(n))
	return n, err
}

type countingReader struct {
	r io.Reader
	c *counts
}

func (c countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.c.receivedBytes.Add(uint64(n))
	return n, err
}
