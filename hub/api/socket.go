package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/internal/clock"
)

// Limits of WebSocket connections.
const (
	maxSockets    = 1000             // at once: a control room's walls; each takes some 300 kB
	maxReceived   = 512              // bytes of a message from the receiver, which has nothing to say
	writeTimeout  = 10 * time.Second // for one message; a receiver stuck for longer is let go
	pingEvery     = 10 * time.Second // also how soon an ended session ends its connections
	pongTimeout   = 25 * time.Second // two pings may go lost
	sendBuffer    = 256 << 10        // bytes in the kernel: what is late there cannot be left out any more
	socketBuffers = 4 << 10          // bytes, for headers; messages are written from where they are
)

var errReceiverGone = errors.New("the receiver is gone")

// socket is a WebSocket connection that only sends. One goroutine sends.
type socket struct {
	conn *websocket.Conn
}

func (s *socket) text(message any) error {
	if err := s.conn.SetWriteDeadline(deadline(writeTimeout)); err != nil {
		return err
	}
	return s.conn.WriteJSON(message)
}

func (s *socket) binary(data []byte) error {
	if err := s.conn.SetWriteDeadline(deadline(writeTimeout)); err != nil {
		return err
	}
	return s.conn.WriteMessage(websocket.BinaryMessage, data)
}

// deadline is a time of the machine's own clock, as connections want it.
func deadline(d time.Duration) time.Time { return clock.Clock{}.Now().Add(d) }

// serveSocket upgrades the request and runs send until it returns, the receiver goes, or the session
// ends. It returns when all goroutines of the connection have ended.
func (a *API) serveSocket(w http.ResponseWriter, r *http.Request, send func(context.Context, *socket) error) {
	if a.sockets.Add(1) > maxSockets {
		a.sockets.Add(-1)
		a.fail(w, r, fmt.Errorf("%d connections are open: %w", maxSockets, branchline.ErrBusy))
		return
	}
	defer a.sockets.Add(-1)
	upgrader := websocket.Upgrader{
		ReadBufferSize: socketBuffers, WriteBufferSize: socketBuffers, CheckOrigin: ownOrigin,
		Error: func(w http.ResponseWriter, r *http.Request, status int, err error) {
			if status == http.StatusForbidden {
				err = errCrossOrigin
			} else {
				err = fmt.Errorf("%w: %w", err, branchline.ErrInvalid)
			}
			a.fail(w, r, err)
		},
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // answered
	}
	defer conn.Close()
	limitSendBuffer(conn.NetConn())
	g, ctx := errgroup.WithContext(r.Context())
	g.Go(func() error { return receive(conn) })
	g.Go(func() error { return a.ping(ctx, conn, needs(r.Pattern)) })
	g.Go(func() error {
		err := send(ctx, &socket{conn})
		if err == nil {
			err = context.Canceled
		}
		return err
	})
	<-ctx.Done() // the first of the three has ended
	a.farewell(conn, context.Cause(ctx))
	conn.Close() // ends the others
	if err := g.Wait(); err != nil {
		a.log.Debug("websocket ended", "path", r.URL.Path, "error", err)
	}
}

// ownOrigin lets in the hub's own page, and programs, which send no Origin but a token. A browser
// always sends one.
func ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if c := callerOf(r.Context()); origin == "" {
		return c.bearer || c.local
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

func limitSendBuffer(conn net.Conn) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = t.NetConn()
	}
	if b, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer) // without it pictures are later, not wrong
	}
}

// receive reads, as long as there is somebody: pongs, and a close.
func receive(conn *websocket.Conn) error {
	conn.SetReadLimit(maxReceived)
	alive := func(string) error { return conn.SetReadDeadline(deadline(pongTimeout)) }
	conn.SetPongHandler(alive)
	if err := alive(""); err != nil {
		return err
	}
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return fmt.Errorf("%w: %w", errReceiverGone, err)
		}
	}
}

// ping asks the receiver for a sign of life, and the store whether its session goes on, with the role.
func (a *API) ping(ctx context.Context, conn *websocket.Conn, role access.Role) error {
	tick := time.NewTicker(a.pingEvery)
	defer tick.Stop()
	c := callerOf(ctx)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := a.admit(&c, role); err != nil {
			return err
		}
		if err := conn.WriteControl(websocket.PingMessage, nil, deadline(writeTimeout)); err != nil {
			return fmt.Errorf("%w: %w", errReceiverGone, err)
		}
	}
}

// farewell tells the receiver why the connection ends.
func (a *API) farewell(conn *websocket.Conn, err error) {
	code := websocket.CloseGoingAway
	switch {
	case errors.Is(err, errReceiverGone):
		return
	case errors.Is(err, access.ErrNoSession), errors.Is(err, branchline.ErrDenied):
		code = websocket.ClosePolicyViolation
	case !errors.Is(err, context.Canceled):
		code = websocket.CloseTryAgainLater
	}
	reason := answerTo(err).advice
	message := websocket.FormatCloseMessage(code, reason[:min(len(reason), 120)])
	if err := conn.WriteControl(websocket.CloseMessage, message, deadline(time.Second)); err != nil {
		a.log.Debug("close websocket", "error", err)
	}
}
