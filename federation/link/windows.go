package link

import (
	"context"
	"sync"

	"github.com/quic-go/quic-go"
)

const (
	// maxWindows bounds by how much the windows of all connections of a listener may be larger together than they are
	// at first, in bytes: what all sites together may have sent that was not read here. maxWindowsOf bounds those of one
	// site. Those of connections over TCP, of which a bundle has one, come to it. 128 connections that fill
	// 100 Mbit/s over 200 ms need some 10 MB of it.
	maxWindows   = 512 << 20
	maxWindowsOf = 64 << 20
)

// windows counts how much connections have been given of maxWindows.
type windows struct {
	mu    sync.Mutex
	given int64            // to all
	of    map[string]int64 // by the key of whom they belong to
	conns map[*quic.Conn]int64
}

// allow reports whether the connection may have so much more, in bytes. What it has is given back when it ends. A
// connection that may not goes on with the window that it has. It is a [quic.Config]'s AllowConnectionWindowIncrease.
func (w *windows) allow(c *quic.Conn, more uint64) bool {
	who := owner(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	if more > maxWindowsOf || w.given+int64(more) > maxWindows || w.of[who]+int64(more) > maxWindowsOf {
		return false
	}
	if _, known := w.conns[c]; !known {
		if w.conns == nil {
			w.conns, w.of = make(map[*quic.Conn]int64), make(map[string]int64)
		}
		context.AfterFunc(c.Context(), func() { w.end(c, who) })
	}
	w.conns[c] += int64(more)
	w.of[who] += int64(more)
	w.given += int64(more)
	return true
}

func (w *windows) end(c *quic.Conn, who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given -= w.conns[c]
	if w.of[who] -= w.conns[c]; w.of[who] == 0 {
		delete(w.of, who)
	}
	delete(w.conns, c)
}

// owner returns the key of the peer's certificate, as a site keeps that for longer than a certificate; empty for all
// that have none.
func owner(c *quic.Conn) string {
	if certs := c.ConnectionState().TLS.PeerCertificates; len(certs) > 0 {
		return string(certs[0].RawSubjectPublicKeyInfo)
	}
	return ""
}
