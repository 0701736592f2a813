package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/live"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSite   = branchline.SiteID("berlin")
	testCamera = branchline.CameraID("berlin.entrance")
	testStream = branchline.StreamID("berlin.entrance.main")
)

// epoch is the time zero of what tests record.
func epoch() time.Time { return time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC) }

func at(seconds float64) time.Time {
	return epoch().Add(time.Duration(seconds * float64(time.Second)))
}

func text(seconds float64) string { return at(seconds).Format(time.RFC3339Nano) }

// fixture is a hub's API over real parts: one site whose edge is a segment store in the same process.
type fixture struct {
	*API
	t        *testing.T
	edge     *segstore.Store
	ring     *live.Ring
	password string // of the administrator
	now      atomic.Int64
	applied  chan catalog.Notice
	failed   error // of the hub
	demo     *demo

	network, local *httptest.Server
}

// edgeSource is the edge under the hub's names.
type edgeSource struct {
	branchline.Source
	edge *segstore.Store
	ring *live.Ring
}

func (s edgeSource) Cameras(ctx context.Context) ([]branchline.Camera, error) {
	return s.edge.Cameras(ctx)
}

func (s edgeSource) Segments(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	within, _ := stream.Within(testSite)
	return s.edge.Segments(ctx, within, span)
}

func (s edgeSource) Fetch(
	ctx context.Context, id branchline.SegmentID, r branchline.ByteRange,
) (io.ReadCloser, error) {
	return s.edge.Fetch(ctx, id, r)
}

func (s edgeSource) Changes(ctx context.Context, p branchline.Position) iter.Seq2[branchline.Change, error] {
	return s.edge.Changes(ctx, p)
}

func (s edgeSource) Live(ctx context.Context, _ branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return s.ring.Subscribe(ctx)
}

// hubFacts is what a hub's node tells beside its parts, from the catalog alone.
type hubFacts struct{ f *fixture }

func (h hubFacts) Timeline(stream branchline.StreamID, r branchline.TimeRange) ([]catalog.Span, error) {
	facts, err := h.f.Catalog.Facts(stream, r)
	return catalog.Timeline(r, h.f.Clock.Now(), facts, nil, nil), err
}

func (hubFacts) Path(branchline.SiteID) (time.Duration, string) {
	return 1500 * time.Microsecond, "tcp"
}
func (hubFacts) Uplink(context.Context, branchline.SiteID) (federation.UplinkBudget, error) {
	return federation.UplinkBudget{
		Rate: 2_000_000, Percent: 20, Zone: "UTC", Capacity: 10_000_000, Used: 500_000, Viewers: 1,
		Quota: 1_000_000, Sent: 1000,
	}, nil
}

func (h hubFacts) Health() error { return h.f.failed }

func (h hubFacts) Peer(site branchline.SiteID) (members.Peer, error) {
	l, err := h.f.Catalog.Link(site)
	return members.Join(h.f.Clock.Now(), members.LinkFacts{Up: l.Linked, Since: l.Since}, members.GossipFacts{}), err
}

type demo struct{ cut atomic.Bool }

func (d *demo) SetCut(site branchline.SiteID, cut bool) error {
	if site != testSite {
		return branchline.ErrNotFound
	}
	d.cut.Store(cut)
	return nil
}

func (d *demo) IsCut(branchline.SiteID) (cut, known bool) { return d.cut.Load(), true }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, applied: make(chan catalog.Notice, 1000), demo: &demo{}, ring: live.New(live.Limits{})}
	f.now.Store(at(3600).UnixNano())
	clk := clock.New(func() time.Time { return time.Unix(0, f.now.Load()) })
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.edge = must[*segstore.Store](t)(segstore.Open(filepath.Join(dir, "edge"),
		segstore.Options{Clock: clk, Logger: log, Signer: signer}))
	t.Cleanup(func() { f.edge.Close() })
	hubStore := must[*segstore.Store](t)(segstore.Open(filepath.Join(dir, "hub"),
		segstore.Options{Clock: clk, Logger: log}))
	t.Cleanup(func() { hubStore.Close() })
	db := must[*index.DB](t)(index.Open(filepath.Join(dir, "index"), index.Options{}))
	t.Cleanup(func() { db.Close() })

	cfg := Config{
		Source: edgeSource{edge: f.edge, ring: f.ring}, Feed: &Feed{}, Hub: hubFacts{f}, Demo: f.demo, Links: newTestLinks(t),
		Addresses: []string{"hub.example:7563"}, Registry: prometheus.NewRegistry(), Clock: clk, Logger: log,
		Page: fstest.MapFS{
			"index.html":         {Data: []byte("<title>Branchline</title>")},
			"assets/app-1234.js": {Data: []byte("let a")},
		},
	}
	cfg.Catalog = must[*catalog.Catalog](t)(catalog.Open(catalog.Options{
		DB: db, Clock: clk, Logger: log, Changed: func(n catalog.Notice) { cfg.Feed.Catalog(n); f.applied <- n },
	}))
	cfg.Jobs = must[*fetch.Fetcher](t)(fetch.Open(fetch.Options{
		DB: db, Store: hubStore, Catalog: cfg.Catalog, Clock: clk, Logger: log, Changed: cfg.Feed.Job,
	}))
	cfg.Locks = must[*evidence.Locks](t)(evidence.Open(evidence.Options{
		DB: db, Store: hubStore, Known: cfg.Jobs.Known, Clock: clk, Logger: log, Changed: cfg.Feed.Lock,
	}))
	cfg.Authority = must[*identity.Authority](t)(identity.OpenAuthority(filepath.Join(dir, "authority"), clk))
	if cfg.Access, f.password, err = access.Open(db, access.Options{Clock: clk, Logger: log}); err != nil {
		t.Fatal(err)
	}
	f.API = New(cfg)
	f.network, f.local = httptest.NewServer(f.Handler(false)), httptest.NewServer(f.Handler(true))
	t.Cleanup(f.network.Close)
	t.Cleanup(f.local.Close)
	f.addCamera()
	return f
}

// addCamera makes the site and its camera known to the hub, by the edge's own change feed.
func (f *fixture) addCamera() {
	f.t.Helper()
	if err := f.Catalog.LinkUp(testSite, at(0)); err != nil {
		f.t.Fatal(err)
	}
	err := f.edge.PutCamera(branchline.Camera{
		ID: "entrance", Name: "Entrance", Added: at(-60),
		Streams: []branchline.Stream{{ID: "entrance.main"}, {ID: "entrance.sub"}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.Catalog.Follow(ctx, testSite, f.Source)
	}()
	f.t.Cleanup(func() { stop(); <-done })
	f.await(func(n catalog.Notice) bool { return n.Camera == testCamera })
}

func (f *fixture) await(done func(catalog.Notice) bool) {
	f.t.Helper()
	for {
		select {
		case n := <-f.applied:
			if done(n) {
				return
			}
		case <-time.After(10 * time.Second):
			f.t.Fatal("the catalog did not follow")
		}
	}
}

// Parameter sets of a camera with 1920x1080, and of another with 640x480.
func tracks(small bool) []media.Track {
	sps := []byte{0x67, 0x42, 0xc0, 0x28, 0xd9, 0x00, 0x78, 0x02, 0x27, 0xe5, 0x84, 0x00, 0x00, 0x03, 0x00,
		0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc9, 0x20}
	if small {
		sps = []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x3d, 0xa1, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00,
			0x00, 0x03, 0x00, 0x32, 0x8f, 0x16, 0x2e, 0x48}
	}
	pps := []byte{0x68, 0xce, 0x38, 0x80}
	return []media.Track{{Codec: media.H264, ClockRate: media.VideoClockRate, SPS: sps, PPS: pps}}
}

// run returns the items of a run of n seconds: a key frame each second, a fragment each half second,
// a segment each ten seconds.
func run(t *testing.T, number uint64, start float64, n int, small bool) []branchline.Item {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(r media.SealRequest) ([]byte, branchline.Hash, error) {
		return segstore.SealFooter(segstore.Footer{
			ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number, Span: r.Span, Codecs: r.Codecs,
			InitSize: int64(len(r.Init)), Fragments: r.Fragments, Prev: r.Prev,
		}, r.Init, key)
	}
	mux := must[*media.Muxer](t)(media.NewMuxer(media.MuxerConfig{
		Stream: "entrance.main", Run: number, Start: at(start), Tracks: tracks(small),
		SegmentLength: 10 * time.Second, FragmentLength: 500 * time.Millisecond,
		Format: media.Format{Checksum: segstore.ChecksumBox, Seal: seal},
	}))
	var items []branchline.Item
	const rate = 4
	for i := range n * rate {
		nal := append([]byte{0x41}, bytes.Repeat([]byte{byte(i)}, 100)...)
		if i%rate == 0 {
			nal[0] = 0x65
		}
		pts := time.Duration(i) * time.Second / rate
		items = append(items, must[[]branchline.Item](t)(mux.Write(media.AccessUnit{
			Track: 1, PTS: pts, DTS: pts, Key: i%rate == 0, Data: [][]byte{nal},
		}))...)
	}
	return append(items, must[[]branchline.Item](t)(mux.Close(branchline.CauseUnreachable))...)
}

// record records items at the edge and waits until the hub knows.
func (f *fixture) record(items []branchline.Item) {
	f.t.Helper()
	seals := 0
	all := func(yield func(branchline.Item, error) bool) {
		for _, item := range items {
			if item.Seal != nil {
				seals++
			}
			if !yield(item, nil) {
				return
			}
		}
	}
	cfg := record.Config{Store: f.edge, Stream: "entrance.main", Logger: f.log, Gap: func(branchline.Gap) {}}
	if err := record.Run(f.t.Context(), cfg, all); err != nil {
		f.t.Fatal(err)
	}
	f.await(func(n catalog.Notice) bool {
		if n.Sealed != nil {
			seals--
		}
		return seals == 0
	})
}

// user makes a user and returns a token.
func (f *fixture) user(name string, role access.Role) string {
	f.t.Helper()
	password := must[string](f.t)(f.Access.SetUser(f.t.Context(), name, role))
	token, _, err := f.Access.Login(f.t.Context(), access.Attempt{User: name, Password: password})
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// request is an HTTP request of a test: a method and path, a body to be sent as JSON, and headers.
type request struct {
	line   string // "GET /api/v1/sites"
	body   any
	header map[string]string
}

// answered is what came back.
type answered struct {
	*http.Response
	body []byte
}

// code is the error's code, empty where there is none.
func (a answered) code() ErrorCode {
	var e Error
	if json.Unmarshal(a.body, &e) != nil {
		return ""
	}
	return e.Error.Code
}

func do(t *testing.T, server *httptest.Server, r request) answered {
	t.Helper()
	method, path, _ := strings.Cut(r.line, " ")
	var body io.Reader
	if r.body != nil {
		data := must[[]byte](t)(json.Marshal(r.body))
		body = bytes.NewReader(data)
	}
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, server.URL+path, body))
	req.Header.Set("Content-Type", "application/json")
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	res := must[*http.Response](t)(server.Client().Do(req))
	defer res.Body.Close()
	return answered{res, must[[]byte](t)(io.ReadAll(res.Body))}
}

// ask does a request as the administrator and reads the answer into a T.
func ask[T any](f *fixture, line string, body any) T {
	f.t.Helper()
	a := do(f.t, f.local, request{line: line, body: body})
	var v T
	if a.StatusCode >= 300 {
		f.t.Fatalf("%s: %s %s", line, a.Status, a.body)
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		f.t.Fatalf("%s: %v in %s", line, err, a.body)
	}
	return v
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

func playPath(from, to float64) string {
	return fmt.Sprintf("/api/v1/streams/%s/play.mp4?from=%s&to=%s", testStream, text(from), text(to))
}
