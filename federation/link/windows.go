package link

import (
	"context"
	"sync"

	"github.com/quic-go/quic-go"
)

// maxWindows bounds by how much the windows of all connections of a listener may be larger together than they are at
// first, in bytes: what all sites together may have sent that was not read here. 128 connections that fill 100 Mbit/s
// over 200 ms need some 10 MB of it.
const maxWindows = 512 << 20

// windows counts how much connections have been given of maxWindows.
type windows struct {
	mu    sync.Mutex
	given int64 // to all
	of    map[*quic.Conn]int64
}

// allow reports whether the connection may have so much more, in bytes. What it has is given back when it ends. A
// connection that may not goes on with the window that it has. It is a [quic.Config]'s AllowConnectionWindowIncrease.
func (w *windows) allow(c *quic.Conn, more uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if more > maxWindows || w.given+int64(more) > maxWindows {
		return false
	}
	if _, known := w.of[c]; !known {
		if w.of == nil {
			w.of = make(map[*quic.Conn]int64)
		}
		context.AfterFunc(c.Context(), func() { w.end(c) })
	}
	w.of[c] += int64(more)
	w.given += int64(more)
	return true
}

func (w *windows) end(c *quic.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given -= w.of[c]
	delete(w.of, c)
}
