package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
)

// cookieName is the cookie that carries the session's token.
const cookieName = "branchline-session"

const (
	maxBody       = 64 << 10         // bytes of a request's body; the longest is a retrieval of 64 streams
	bodyTimeout   = 10 * time.Second // for a request's body to arrive
	answerTimeout = 2 * time.Minute  // for an answer to be taken; playback and WebSockets set their own for each write
)

// public marks the few requests that need no session.
const public access.Role = ""

// needs is the one table from requests to the role that they need. What is not in it is for administrators.
func needs(pattern string) access.Role {
	switch pattern {
	case "POST /api/v1/session", "GET /healthz", "GET /metrics", "/":
		return public
	case "GET /api/v1/session", "DELETE /api/v1/session",
		"GET /api/v1/sites", "GET /api/v1/sites/{site}/uplink",
		"GET /api/v1/sites/{site}/outages", "GET /api/v1/sites/{site}/link", "GET /api/v1/above",
		"GET /api/v1/cameras", "GET /api/v1/cameras/{camera}/timeline",
		"GET /api/v1/streams/{stream}/play.mp4", "GET /api/v1/streams/{stream}/live",
		"GET /api/v1/retrievals", "GET /api/v1/retrievals/{retrieval}",
		"GET /api/v1/events",
		"/api/": // what does not exist
		return access.RoleViewer
	case "POST /api/v1/retrievals", "DELETE /api/v1/retrievals/{retrieval}",
		"GET /api/v1/locks", "POST /api/v1/locks", "DELETE /api/v1/locks/{lock}":
		return access.RoleOperator
	}
	return access.RoleAdministrator
}

// caller is who makes a request, and how. The zero caller is nobody.
type caller struct {
	access.Identity
	address string // without port; "local" on the Unix socket
	token   string // of the session; empty on the Unix socket
	bearer  bool   // the token did not come as a cookie
	local   bool
	secure  bool // over TLS, as the caller sees it
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// guard lets through to mux what may pass: it checks where a request comes from, who makes it and
// with which role, bounds it, and sets the headers that bind browsers.
func (a *API) guard(mux *http.ServeMux, local bool) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() { a.metrics.request(pattern, rec.status) }()
		setHeaders(rec.Header(), strings.HasPrefix(r.URL.Path, "/api/"))
		if err := origins.Check(r); err != nil {
			a.fail(rec, r, fmt.Errorf("%w: %w", errCrossOrigin, err))
			return
		}
		limits := http.NewResponseController(w)
		err := limits.SetWriteDeadline(deadline(answerTimeout))
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			r.Body = http.MaxBytesReader(rec, r.Body, maxBody)
			err = errors.Join(err, limits.SetReadDeadline(deadline(bodyTimeout)))
		}
		if err != nil {
			a.log.Debug("set deadlines", "error", err)
		}
		c := a.identify(r, local)
		if err := a.admit(&c, needs(pattern)); err != nil {
			a.fail(rec, r, err)
			return
		}
		mux.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// identify returns what the request says of its caller.
func (a *API) identify(r *http.Request, local bool) caller {
	if local {
		return caller{Identity: access.Local(), address: "local", local: true}
	}
	// Behind a proxy that ends TLS the page's own origin tells, which a browser sends with a login. A
	// caller who makes it up harms itself.
	c := caller{secure: r.TLS != nil || strings.HasPrefix(r.Header.Get("Origin"), "https://")}
	c.address, _, _ = net.SplitHostPort(r.RemoteAddr)
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		c.token, c.bearer = strings.TrimSpace(token), true
	} else if cookie, err := r.Cookie(cookieName); err == nil {
		c.token = cookie.Value
	}
	return c
}

// admit looks up whose session the caller's is now, and whether that user has the role.
func (a *API) admit(c *caller, role access.Role) (err error) {
	switch {
	case c.local || role == public:
		return nil
	case c.token == "":
		return access.ErrNoSession
	}
	if c.Identity, err = a.Access.Check(c.token); err == nil && !c.Role.Includes(role) {
		err = fmt.Errorf("user %s has the role %s, this needs %s: %w", c.User, c.Role, role, branchline.ErrDenied)
	}
	return err
}

// setHeaders sets what binds browsers: the page may load nothing from elsewhere, run nothing inline and
// stand in no frame; answers of the API are kept nowhere.
func setHeaders(h http.Header, api bool) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'self'; media-src 'self' blob:; img-src 'self' blob: data:; "+
		"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	if api {
		h.Set("Cache-Control", "no-store")
	}
}

// recorder remembers the status of an answer for the metrics.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack gives the connection to a WebSocket.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status = http.StatusSwitchingProtocols
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
