package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/catalog"
)

func TestErrors(t *testing.T) {
	a := New(Config{Registry: prometheus.NewRegistry()})
	secret := errors.New("open /var/lib/secret")
	for _, c := range []struct {
		err    error
		status int
		code   ErrorCode
	}{
		{branchline.ErrInvalid, 400, ErrorCodeInvalid},
		{&RequiredParamError{ParamName: "from"}, 400, ErrorCodeInvalid},
		{access.ErrCredentials, 401, ErrorCodeUnauthenticated},
		{access.ErrNoSession, 401, ErrorCodeUnauthenticated},
		{branchline.ErrDenied, 403, ErrorCodeDenied},
		{errCrossOrigin, 403, ErrorCodeDenied},
		{branchline.ErrNotFound, 404, ErrorCodeNotFound},
		{errNothing, 404, ErrorCodeNothingRecorded},
		{branchline.ErrGone, 410, ErrorCodeGone},
		{branchline.ErrTooLarge, 413, ErrorCodeTooLarge},
		{&http.MaxBytesError{}, 413, ErrorCodeTooLarge},
		{access.Throttled{After: 1500 * time.Millisecond}, 429, ErrorCodeTooManyAttempts},
		{secret, 500, ErrorCodeInternal},
		{branchline.ErrMismatch, 502, ErrorCodeMismatch},
		{branchline.ErrBusy, 503, ErrorCodeBusy},
		{branchline.ErrUnavailable, 503, ErrorCodeUnavailable},
		{context.DeadlineExceeded, 503, ErrorCodeUnavailable},
	} {
		rec := httptest.NewRecorder()
		a.fail(rec, httptest.NewRequest(http.MethodGet, "/", nil), fmt.Errorf("open /var/lib/hub: %w", c.err))
		var e Error
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if rec.Code != c.status || e.Error.Code != c.code || len(e.Error.Message) < 20 {
			t.Errorf("%v: %d %+v", c.err, rec.Code, e.Error)
		}
		if c.status >= 500 && strings.Contains(e.Error.Message, "/var") {
			t.Errorf("the message tells of the inside: %s", e.Error.Message)
		}
		wait := map[int]string{429: "2", 503: "5"}[c.status]
		if got := rec.Header().Get("Retry-After"); got != wait {
			t.Errorf("%v: Retry-After %q, want %q", c.err, got, wait)
		}
	}
}

func TestSites(t *testing.T) {
	f := newFixture(t)
	added := ask[Enrolment](f, "POST /api/v1/sites", NewSite{Id: "berlin"})
	token := must[identity.Token](t)(identity.ParseToken(added.Token))
	if added.Site != "berlin" || !slices.Equal(token.Hubs, f.Addresses) || !added.Expires.After(f.Clock.Now()) {
		t.Errorf("added %+v with token %+v", added, token)
	}
	ask[Enrolment](f, "POST /api/v1/sites", NewSite{Id: "paris"})
	for _, name := range []string{"", "Berlin", "a.b", "a/b", strings.Repeat("x", 41)} {
		a := do(t, f.local, request{line: "POST /api/v1/sites", body: NewSite{Id: name}})
		if a.code() != ErrorCodeInvalid {
			t.Errorf("add %q: %s %s", name, a.Status, a.body)
		}
	}
	if a := do(t, f.local, request{line: "POST /api/v1/sites/berlin/revoke"}); a.StatusCode != http.StatusNoContent {
		t.Errorf("revoke: %s %s", a.Status, a.body)
	}
	if a := do(t, f.local, request{line: "POST /api/v1/sites/rome/revoke"}); a.code() != ErrorCodeNotFound {
		t.Errorf("revoke an unknown site: %s %s", a.Status, a.body)
	}
	var got []string
	for _, s := range ask[SiteList](f, "GET /api/v1/sites", nil).Sites {
		got = append(got, fmt.Sprint(s.Id, " ", s.State, " ", s.Cameras, " ", *s.RttMs, " ", *s.Carrier, " ", *s.Cut))
	}
	if want := []string{"berlin revoked 1 1.5 tcp false", "paris enrolling 0 1.5 tcp false"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSiteState writes times as hours, "-" for never; the link as up or down since an hour.
func TestSiteState(t *testing.T) {
	for _, c := range []struct{ added, token, enrolled, revoked, link, want string }{
		{"1", "25", "-", "-", "", "enrolling since 1"},
		{"1", "-", "2", "-", "", "down since 2"},
		{"1", "-", "2", "-", "up 3", "up since 3"},
		{"1", "-", "2", "-", "down 3", "down since 3"},
		{"1", "-", "2", "4", "up 3", "revoked since 4"},
		{"1", "-", "-", "4", "", "revoked since 4"},
		{"1", "30", "2", "4", "down 4", "enrolling since 1"},
		{"1", "-", "5", "4", "up 6", "up since 6"},
		{"1", "30", "5", "-", "up 6", "up since 6"},
	} {
		hour := func(s string) time.Time {
			var n float64
			if _, err := fmt.Sscan(s, &n); err != nil {
				return time.Time{}
			}
			return at(n * 3600)
		}
		entry := identity.Site{
			Added: hour(c.added), TokenUntil: hour(c.token), Enrolled: hour(c.enrolled), Revoked: hour(c.revoked),
		}
		var link []catalog.SiteState
		if state, since, ok := strings.Cut(c.link, " "); ok {
			link = append(link, catalog.SiteState{Linked: state == "up", Since: hour(since)})
		}
		state, since := siteState(entry, link)
		if got := fmt.Sprint(state, " since ", since.Sub(epoch()).Hours()); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func TestDemoLink(t *testing.T) {
	f := newFixture(t)
	ask[Enrolment](f, "POST /api/v1/sites", NewSite{Id: "berlin"})
	for _, c := range []struct {
		path   string
		cut    bool
		status int
	}{
		{"/api/v1/demo/sites/berlin/link", true, 204},
		{"/api/v1/demo/sites/rome/link", true, 404},
		{"/api/v1/demo/sites/berlin/link", false, 204},
	} {
		a := do(t, f.local, request{line: "PUT " + c.path, body: DemoLink{Cut: c.cut}})
		if a.StatusCode != c.status {
			t.Errorf("cut %s: %s %s", c.path, a.Status, a.body)
		}
		if sites := ask[SiteList](f, "GET /api/v1/sites", nil).Sites; c.status == 204 && *sites[0].Cut != c.cut {
			t.Errorf("the site tells cut=%v", *sites[0].Cut)
		}
	}
	f.Demo = nil
	a := do(t, f.local, request{line: "PUT /api/v1/demo/sites/berlin/link", body: DemoLink{Cut: true}})
	if a.code() != ErrorCodeNotFound || ask[Session](f, "GET /api/v1/session", nil).Demo {
		t.Errorf("without a demo: %s %s", a.Status, a.body)
	}
}

func TestCameras(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	list := ask[CameraList](f, "GET /api/v1/cameras", nil)
	want := Camera{
		Id: "berlin.entrance", Site: "berlin", Name: "Entrance", Added: at(-60),
		Streams: []Stream{
			{Id: "berlin.entrance.main", Label: "main", Recording: RecordingUnknown, Policy: PolicyNever},
			{Id: "berlin.entrance.sub", Label: "sub", Recording: RecordingUnknown, Policy: PolicyNever},
		},
	}
	if len(list.Cameras) != 1 || !reflect.DeepEqual(list.Cameras[0], want) {
		t.Errorf("got  %+v\nwant %+v", list.Cameras, want)
	}
}

func TestTimeline(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	path := func(from, to float64) string {
		return fmt.Sprintf("GET /api/v1/cameras/berlin.entrance/timeline?from=%s&to=%s", text(from), text(to))
	}
	line := ask[Timeline](f, path(-90, 10), nil)
	var got []string
	for _, s := range line.Spans {
		var cause string
		if s.Cause != nil {
			cause = *s.Cause
		}
		got = append(got, fmt.Sprint(s.State, " ", s.Start.Sub(epoch()), " ", s.End.Sub(epoch()), " ", cause))
	}
	want := []string{
		"gap -1m30s -1m0s not scheduled", "gap -1m0s 0s waiting", "edge 0s 3s ", "gap 3s 10s waiting",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(line.Streams) != 2 || line.Streams[0].Stream != string(testStream) || len(line.Streams[0].Spans) != 4 {
		t.Errorf("streams %+v", line.Streams)
	}
	for _, c := range []struct {
		line string
		code ErrorCode
	}{
		{path(10, 10), ErrorCodeInvalid},
		{path(0, 32*24*3600), ErrorCodeTooLarge},
		{strings.Replace(path(0, 1), "entrance", "exit", 1), ErrorCodeNotFound},
		{"GET /api/v1/cameras/berlin.entrance/timeline?from=" + text(0), ErrorCodeInvalid},
		{"GET /api/v1/cameras/berlin.entrance/timeline?from=1&to=2", ErrorCodeInvalid},
	} {
		if a := do(t, f.local, request{line: c.line}); a.code() != c.code {
			t.Errorf("%s: %s %s, want %s", c.line, a.Status, a.body, c.code)
		}
	}
}

func TestRetrievals(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	camera, other := string(testCamera), "berlin.entrance.other"
	made := ask[Retrieval](f, "POST /api/v1/retrievals", NewRetrieval{Camera: &camera, From: at(0), To: at(3)})
	streams := []string{"berlin.entrance.main", "berlin.entrance.sub"}
	if made.User != "local" || made.State != RetrievalStateWaiting || !slices.Equal(made.Streams, streams) {
		t.Errorf("made %+v", made)
	}
	one := ask[Retrieval](f, "POST /api/v1/retrievals", NewRetrieval{
		Streams: &[]string{string(testStream)}, From: at(1), To: at(2),
	})
	list := ask[RetrievalList](f, "GET /api/v1/retrievals", nil).Retrievals
	if len(list) != 2 {
		t.Errorf("list %+v", list)
	}
	if a := do(t, f.local, request{line: "DELETE /api/v1/retrievals/" + one.Id}); a.StatusCode != http.StatusNoContent {
		t.Errorf("cancel: %s %s", a.Status, a.body)
	}
	got := ask[Retrieval](f, "GET /api/v1/retrievals/"+one.Id, nil)
	if got.State != RetrievalStateCancelled || got.Ended == nil {
		t.Errorf("cancelled %+v", got)
	}
	many := make([]string, 65)
	for _, c := range []struct {
		what string
		body any
		code ErrorCode
	}{
		{"nothing", NewRetrieval{From: at(0), To: at(1)}, ErrorCodeInvalid},
		{"both", NewRetrieval{Camera: &camera, Streams: &streams, From: at(0), To: at(1)}, ErrorCodeInvalid},
		{"no range", NewRetrieval{Camera: &camera}, ErrorCodeInvalid},
		{"no stream", NewRetrieval{Streams: &[]string{}, From: at(0), To: at(1)}, ErrorCodeInvalid},
		{"unknown camera", NewRetrieval{Camera: &other, From: at(0), To: at(1)}, ErrorCodeNotFound},
		{"unknown stream", NewRetrieval{Streams: &[]string{other}, From: at(0), To: at(1)}, ErrorCodeNotFound},
		{"too many streams", NewRetrieval{Streams: &many, From: at(0), To: at(1)}, ErrorCodeTooLarge},
		{"no JSON object", "x", ErrorCodeInvalid},
		{"too long", strings.Repeat("x", maxBody), ErrorCodeTooLarge},
	} {
		if a := do(t, f.local, request{line: "POST /api/v1/retrievals", body: c.body}); a.code() != c.code {
			t.Errorf("%s: %s %s, want %s", c.what, a.Status, a.body, c.code)
		}
	}
	for _, line := range []string{"GET /api/v1/retrievals/x", "DELETE /api/v1/retrievals/x"} {
		if a := do(t, f.local, request{line: line}); a.code() != ErrorCodeNotFound {
			t.Errorf("%s: %s %s", line, a.Status, a.body)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	f := newFixture(t)
	for _, line := range []string{
		"GET /api/v1/sites", "GET /api/v1/retrievals", "GET /api/v1/cameras", "GET /api/v1/users", "GET /api/v1/audit",
		"GET /api/v1/locks",
	} {
		if a := do(t, f.local, request{line: line}); strings.Contains(string(a.body), "null") {
			t.Errorf("%s: %s", line, a.body)
		}
	}
}

func TestPage(t *testing.T) {
	f := newFixture(t)
	const index, script = "<title>Branchline</title>", "let a"
	const always, never = "public, max-age=31536000, immutable", "no-cache"
	for _, c := range []struct {
		line, body, cache string
		status            int
	}{
		{"GET /", index, never, 200},
		{"GET /index.html", index, never, 200},
		{"GET /cameras/berlin", index, never, 200},
		{"GET /assets/app-1234.js", script, always, 200},
		{"GET /assets/app-0000.js", "", "", 404},
		{"GET /robots.txt", "", "", 404},
		{"POST /", "", "", 404},
		{"GET /api/v1/nothing", "", "no-store", 404},
		{"PATCH /api/v1/sites", "", "no-store", 404},
	} {
		a := do(t, f.local, request{line: c.line})
		if a.StatusCode != c.status || c.status == 200 && string(a.body) != c.body ||
			a.Header.Get("Cache-Control") != c.cache {
			t.Errorf("%s: %s %q Cache-Control %q", c.line, a.Status, a.body, a.Header.Get("Cache-Control"))
		}
		policy := a.Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'self'") || !strings.Contains(policy, "frame-ancestors 'none'") ||
			!strings.Contains(policy, "media-src 'self' blob:") || strings.Contains(policy, "unsafe") ||
			a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", c.line, a.Header)
		}
	}
	f.Page = fs.FS(fstest.MapFS{})
	a := do(t, f.local, request{line: "GET /"})
	if a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "built") {
		t.Errorf("a console that was not built: %s %s", a.Status, a.body)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	f := newFixture(t)
	if a := do(t, f.network, request{line: "GET /healthz"}); a.StatusCode != http.StatusOK || string(a.body) != "ok\n" {
		t.Errorf("health: %s %s", a.Status, a.body)
	}
	f.failed = errors.New("the disk at /var/lib/hub failed")
	a := do(t, f.network, request{line: "GET /healthz"})
	if a.StatusCode != http.StatusServiceUnavailable || strings.Contains(string(a.body), "/var") {
		t.Errorf("health of a hub that does not work: %s %s", a.Status, a.body)
	}
	do(t, f.network, request{line: "GET /api/v1/cameras/made-up/timeline"})
	a = do(t, f.network, request{line: "GET /metrics"})
	for _, want := range []string{
		`branchline_hub_http_requests_total{operation="GET /healthz",status="200"} 1`,
		`branchline_hub_http_requests_total{operation="GET /api/v1/cameras/{camera}/timeline",status="401"} 1`,
		"branchline_hub_viewers 0",
	} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("no %s in\n%s", want, a.body)
		}
	}
}
