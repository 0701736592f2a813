package api

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/internal/clock"
)

// Config are the parts of a hub of which the API tells, and through which it acts. What is not marked
// as optional must be set.
type Config struct {
	Source    branchline.Source // held and edge footage alike, under the hub's own names
	Catalog   *catalog.Catalog
	Jobs      *fetch.Fetcher
	Locks     *evidence.Locks
	Authority *identity.Authority
	Access    *access.Store
	Feed      *Feed // to which the hub tells what changed
	Hub       Hub
	Links     Links

	Addresses []string // of the hub, for edges that enrol: host:port
	Page      fs.FS    // the console; optional
	Demo      Demo     // only in a demo
	Registry  *prometheus.Registry
	Clock     clock.Clock
	Logger    *slog.Logger // optional
}

// Hub answers what none of a hub's parts knows alone.
type Hub interface {
	// Timeline returns where the stream's footage is, as catalog.Timeline describes it.
	Timeline(stream branchline.StreamID, span branchline.TimeRange) ([]catalog.Span, error)
	// Path returns the round trip time of the site's link, zero while it is not known, and what carries it,
	// "quic" or "tcp"; empty while it is down.
	Path(site branchline.SiteID) (rtt time.Duration, carrier string)
	// Peer returns how a site stands. It wraps branchline.ErrNotFound for one that was never linked.
	Peer(site branchline.SiteID) (members.Peer, error)
	// Uplink asks the site how its uplink stands; it wraps branchline.ErrUnavailable while the site is dark and
	// branchline.ErrNotFound if that has no budget.
	Uplink(ctx context.Context, site branchline.SiteID) (federation.UplinkBudget, error)
	// Health returns why the hub does not work, or nil.
	Health() error
}

// Links tells of a hub's links and logs their packets.
type Links interface {
	// Link returns how the link of a site stands, and whether it has one.
	Link(site branchline.SiteID) (federation.PeerState, bool)
	// Above returns how the links to the hubs above stand.
	Above() []federation.AboveState
	// StartQlog, StopQlog and Qlog are those of link.Qlog, for the link of a site.
	StartQlog(ctx context.Context, site branchline.SiteID, length time.Duration, bytes int64) error
	StopQlog(site branchline.SiteID)
	Qlog(site branchline.SiteID) (link.QlogState, error)
}

// Demo is the switch on each demo site's link.
type Demo interface {
	// SetCut cuts or heals the link; it wraps branchline.ErrNotFound for an unknown site.
	SetCut(site branchline.SiteID, cut bool) error
	// IsCut tells whether the link is cut, and whether the site is one of the demo's.
	IsCut(site branchline.SiteID) (cut, known bool)
}

// API answers requests. Its methods may be called concurrently.
type API struct {
	Config
	log     *slog.Logger
	metrics metrics
	sockets atomic.Int64 // open WebSocket connections
	plays   atomic.Int64 // playbacks under way

	pingEvery time.Duration // the constant; shorter in a test
}

// New returns an API over the hub's parts, which stay the caller's, and registers its metrics.
func New(cfg Config) *API {
	return &API{
		Config:  cfg,
		log:     cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		metrics: newMetrics(cfg.Registry),

		pingEvery: pingEvery,
	}
}

// Handler returns the handler for the network, where everybody must log in, or, if local is set, the
// one for the hub's Unix socket, where every caller is the administrator: whoever may open the socket
// can read the hub's files anyhow, so the socket must have the permissions of those files.
func (a *API) Handler(local bool) http.Handler {
	mux := http.NewServeMux()
	a.routes(mux)
	return a.guard(mux, local)
}

func (a *API) routes(mux ServeMux) {
	strict := NewStrictHandlerWithOptions(strictServer{a}, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc: a.failBody, ResponseErrorHandlerFunc: a.fail,
	})
	HandlerWithOptions(strict, StdHTTPServerOptions{BaseRouter: mux, ErrorHandlerFunc: a.fail})
	mux.HandleFunc("GET /api/v1/streams/{stream}/play.mp4", a.play)
	mux.HandleFunc("GET /api/v1/streams/{stream}/live", a.live)
	mux.HandleFunc("GET /api/v1/events", a.events)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) { a.fail(w, r, errNoPath) })
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /metrics", promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{}).ServeHTTP)
	if a.Page != nil {
		mux.HandleFunc("/", a.page)
	}
}

func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	status, text := http.StatusOK, "ok\n"
	if err := a.Hub.Health(); err != nil {
		a.log.Warn("hub is not healthy", "error", err) // anybody may ask, so the log alone is told
		status, text = http.StatusServiceUnavailable, "the hub does not work; its log says why\n"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the receiver's loss
}

// Limits of a server.
const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	maxHeader       = 32 << 10 // bytes
	maxConns        = 4000     // at once, beside WebSockets: several for each browser of a control room
	shutdownTimeout = 5 * time.Second
)

// Serve answers requests on ln with h until ctx ends, and then returns nil when every request,
// playback and WebSocket connection has ended. It closes ln. For TLS, give it a TLS listener.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	var running sync.WaitGroup // also counts connections that the server has given away to a WebSocket
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			h.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         atMost(maxConns),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(late)
		if err != nil { // requests that go on in spite of their context wait for their receiver
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(ln)
	if !errors.Is(err, http.ErrServerClosed) {
		stop()
		end()
		err = errors.Join(err, server.Close())
	} else {
		err = <-stopped
	}
	running.Wait()
	return err
}

// atMost closes connections at once that are more than so many, as a server's hook. One that becomes a
// WebSocket no longer counts: of those there is a limit of its own.
func atMost(conns int64) func(net.Conn, http.ConnState) {
	var open atomic.Int64
	return func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if open.Add(1) > conns {
				_ = c.Close() // the server learns of it by reading
			}
		case http.StateHijacked, http.StateClosed:
			open.Add(-1)
		case http.StateActive, http.StateIdle:
		}
	}
}

// metrics are counted by this package.
type metrics struct {
	requests *prometheus.CounterVec
	viewers  prometheus.Gauge
	played   prometheus.Counter
}

func newMetrics(to prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "branchline_hub_http_requests_total", Help: "Requests answered, by operation and status.",
		}, []string{"operation", "status"}),
		viewers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "branchline_hub_viewers", Help: "Live streams being watched.",
		}),
		played: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "branchline_hub_played_bytes_total", Help: "Bytes of recordings sent to players.",
		}),
	}
	to.MustRegister(m.requests, m.viewers, m.played)
	return m
}

// request counts an answered request. Patterns and not paths are counted, so that callers cannot make
// up new series.
func (m metrics) request(pattern string, status int) {
	if !strings.Contains(pattern, " ") {
		pattern = "other"
	}
	m.requests.WithLabelValues(pattern, strconv.Itoa(status)).Inc()
}
