package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/internal/live"
)

const livePath = "/api/v1/streams/" + string(testStream) + "/live"

// dial opens a WebSocket connection; the error's code is that of a refusal.
func dial(t *testing.T, server *httptest.Server, path string, header map[string]string) (*websocket.Conn, answered) {
	t.Helper()
	h := http.Header{}
	for k, v := range header {
		h.Set(k, v)
	}
	address := "ws" + strings.TrimPrefix(server.URL, "http") + path
	conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), address, h)
	if err != nil {
		a := answered{Response: res}
		if res != nil {
			buf := make([]byte, 1024)
			n, _ := res.Body.Read(buf)
			a.body = buf[:n]
		}
		return nil, a
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, answered{Response: res}
}

// receiveLive reads one message of a live connection: text as it is, "init", or the decode time of a frame.
func receiveLive(t *testing.T, conn *websocket.Conn, init []byte) string {
	t.Helper()
	kind, data, err := conn.ReadMessage()
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed):
		return "closed " + http.StatusText(closed.Code) + closed.Text
	case err != nil:
		t.Fatal(err)
	case kind == websocket.TextMessage:
		return strings.TrimSpace(string(data))
	case bytes.Equal(data, init):
		return "init"
	}
	got := pictures(t, append(bytes.Clone(init), data...))
	return strings.TrimPrefix(got, "i ")
}

func TestLive(t *testing.T) {
	f := newFixture(t)
	first, second, third := run(t, 1, 0, 2, false), run(t, 2, 10, 1, false), run(t, 3, 20, 1, true)
	conn, _ := dial(t, f.local, livePath, nil)
	end := third[len(third)-1] // of the run, after which nobody joins it
	for _, item := range slices.Concat(first, second, third[:len(third)-1]) {
		f.ring.Publish(item)
	}
	large, small := first[0].Start, third[0].Start
	want := []string{
		`{"codecs":"` + large.Codecs + `","stream":"` + string(testStream) + `","type":"start"}`, "init",
		"20", "20.25", "20.5", "20.75",
		`{"cause":"camera unreachable","type":"end"}`,
	}
	// The reader may join at any key frame of what is in the ring, so only the last run is sure.
	var got []string
	init := large.Init
	for {
		m := receiveLive(t, conn, init)
		if strings.Contains(m, `"start"`) && strings.Contains(m, small.Codecs) {
			init, got = small.Init, nil
		}
		got = append(got, m)
		if m == "20.75" {
			f.ring.Publish(end)
		}
		if len(got) == len(want) && got[2] == "20" {
			break
		}
	}
	want[0] = strings.Replace(want[0], large.Codecs, small.Codecs, 1)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestViewer shows items in an exact order.
func TestViewer(t *testing.T) {
	f := newFixture(t)
	items := run(t, 1, 0, 12, false) // two segments of one init part
	again := run(t, 2, 20, 1, false)
	items = append(items, again...)
	for i := range items {
		if items[i].Start != nil && items[i].Start.Number == 1 {
			items[i].Missed = 7
		}
	}
	server := httptest.NewServer(f.guard(f.only(items), true))
	defer server.Close()
	conn, _ := dial(t, server, "/api/v1/x", nil)
	frames, starts, inits := 0, 0, 0
	var texts []string
	for {
		m := receiveLive(t, conn, items[0].Start.Init)
		switch {
		case strings.HasPrefix(m, "closed"):
			if frames != 13*4 || starts != 1 || inits != 1 {
				t.Errorf("%d frames, %d starts, %d init parts", frames, starts, inits)
			}
			want := `{"count":7,"type":"missed"} {"cause":"camera unreachable","type":"end"} ` +
				`{"cause":"camera unreachable","type":"end"}`
			if got := strings.Join(texts, " "); got != want {
				t.Errorf("told %s, want %s", got, want)
			}
			return
		case strings.Contains(m, `"start"`):
			starts++
		case m == "init":
			inits++
		case strings.HasPrefix(m, "{"):
			texts = append(texts, m)
		default:
			frames++
		}
	}
}

// only serves a viewer of exactly these items.
func (f *fixture) only(items []branchline.Item) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		f.serveSocket(w, r, func(_ context.Context, s *socket) error {
			v := viewer{socket: s, stream: testStream}
			for _, item := range items {
				if err := v.show(item); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return mux
}

func TestWhoMayOpenAWebSocket(t *testing.T) {
	f := newFixture(t)
	token := f.user("ann", access.RoleViewer)
	cookie := cookieName + "=" + token
	for _, path := range []string{livePath, "/api/v1/events"} {
		for _, c := range []struct {
			what   string
			header map[string]string
			want   int
		}{
			{"nobody", nil, 401},
			{"own page", map[string]string{"Cookie": cookie, "Origin": f.network.URL}, 101},
			{"foreign page", map[string]string{"Cookie": cookie, "Origin": "https://evil.example"}, 403},
			{"page from a file", map[string]string{"Cookie": cookie, "Origin": "null"}, 403},
			{"a cookie without a page", map[string]string{"Cookie": cookie}, 403},
			{"a program", bearer(token), 101},
			{"a program with a foreign origin", map[string]string{
				"Authorization": "Bearer " + token, "Origin": "https://evil.example"}, 403},
		} {
			conn, a := dial(t, f.network, path, c.header)
			if a.StatusCode != c.want || (conn == nil) != (c.want != 101) {
				t.Errorf("%s to %s: %s %s, want %d", c.what, path, a.Status, a.body, c.want)
			}
			if conn == nil && a.code() == "" {
				t.Errorf("%s to %s: the refusal is no error of the API: %s", c.what, path, a.body)
			}
		}
	}
	a := do(t, f.local, request{line: "GET " + livePath})
	if a.StatusCode != http.StatusBadRequest || a.code() != ErrorCodeInvalid {
		t.Errorf("no WebSocket at all: %s %s", a.Status, a.body)
	}
	_, a = dial(t, f.local, strings.Replace(livePath, "main", "other", 1), nil)
	if a.StatusCode != http.StatusNotFound {
		t.Errorf("unknown stream: %s", a.Status)
	}
}

func TestWebSocketEnds(t *testing.T) {
	for _, c := range []struct {
		what string
		end  func(f *fixture, client *websocket.Conn)
		want int // the close code; 0 if the receiver went itself
	}{
		{"the source is gone", func(f *fixture, _ *websocket.Conn) {
			f.ring.Close(branchline.ErrUnavailable)
		}, websocket.CloseTryAgainLater},
		{"the receiver talks", func(_ *fixture, client *websocket.Conn) {
			_ = client.WriteMessage(websocket.TextMessage, make([]byte, maxReceived+1))
		}, websocket.CloseMessageTooBig},
		{"the receiver goes", func(_ *fixture, client *websocket.Conn) { client.Close() }, 0},
	} {
		f := newFixture(t)
		conn, _ := dial(t, f.local, livePath, nil)
		c.end(f, conn)
		_, _, err := conn.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code != c.want || closed == nil && c.want != 0 {
			t.Errorf("%s: %v, want code %d", c.what, err, c.want)
		}
		f.local.Close() // waits for the handler
		for f.sockets.Load() != 0 {
			if t.Context().Err() != nil {
				t.Fatal("the connection is still counted")
			}
		}
	}
}

func TestWebSocketEndsWithItsSession(t *testing.T) {
	f := newFixture(t)
	f.pingEvery = time.Millisecond
	token := f.user("ann", access.RoleViewer)
	conn, _ := dial(t, f.network, livePath, bearer(token))
	pinged := make(chan struct{}, 1)
	conn.SetPingHandler(func(string) error {
		select {
		case pinged <- struct{}{}:
		default:
		}
		return nil
	})
	ended := make(chan error, 1)
	go func() { _, _, err := conn.ReadMessage(); ended <- err }()
	<-pinged
	if err := f.Access.Logout(token); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("after logout: %v", err)
	}
}

// TestPingAsksForTheRole pings for a user whose role has become too small.
func TestPingAsksForTheRole(t *testing.T) {
	f := newFixture(t)
	f.pingEvery = time.Millisecond
	who := caller{Identity: access.Identity{User: "ann", Role: access.RoleOperator}}
	who.token = f.user("ann", access.RoleViewer)
	err := f.ping(context.WithValue(t.Context(), callerKey{}, who), nil, access.RoleOperator)
	if !errors.Is(err, branchline.ErrDenied) {
		t.Errorf("%v, want that it is denied", err)
	}
}

func TestEvents(t *testing.T) {
	f := newFixture(t)
	ask[Enrolment](f, "POST /api/v1/sites", NewSite{Id: string(testSite)})
	conn, _ := dial(t, f.local, "/api/v1/events", nil)
	next := func() Event {
		t.Helper()
		var e Event
		if err := conn.ReadJSON(&e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := next(); e.Type != EventTypeReady {
		t.Fatalf("first event %+v", e)
	}
	if err := f.Catalog.LinkDown(testSite, at(3590), catalog.Why{}); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Type != EventTypeSite || e.Site.Id != "berlin" || len(e.Site.Outages) != 1 {
		t.Errorf("after the link went down: %+v", e)
	}
	f.Feed.Job(fetch.Job{ID: "1", Order: fetch.Order{Streams: []branchline.StreamID{testStream}}, State: fetch.Done})
	if e := next(); e.Type != EventTypeRetrieval || e.Retrieval.Id != "1" || e.Retrieval.Share != 1 {
		t.Errorf("after a job's end: %+v", e)
	}
	f.record(run(t, 1, 0, 3, false))
	for {
		e := next()
		if e.Type != EventTypeTimeline || *e.Camera != string(testCamera) || e.From.Before(at(0)) {
			t.Fatalf("after a recording: %+v", e)
		}
		if !e.To.Before(at(3)) {
			break
		}
	}
	if err := f.edge.PutCamera(branchline.Camera{ID: "yard"}); err != nil {
		t.Fatal(err)
	}
	for next().Type != EventTypeCameras {
		continue
	}
}

// TestHoldingsAreTold takes the edge's store for the hub's own.
func TestHoldingsAreTold(t *testing.T) {
	f := newFixture(t)
	sub := f.Feed.subscribe()
	defer sub.stop()
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- f.Run(ctx) }()
	f.record(run(t, 1, 0, 12, false))
	var got branchline.TimeRange
	for want := (branchline.TimeRange{Start: at(0), End: at(12)}); got != want; {
		d := must[dirty](t)(sub.next(t.Context()))
		if span, ok := d.timelines["entrance"]; ok && got.Empty() {
			got = span
		} else if ok {
			got = union(got, span)
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestFeedKeepsWhatChangedAndNotHowOften(t *testing.T) {
	var feed Feed
	sub := feed.subscribe()
	defer sub.stop()
	for i := range 10 {
		feed.Timeline(testCamera, branchline.TimeRange{Start: at(float64(i)), End: at(float64(i + 1))})
		feed.Job(fetch.Job{ID: "1", Brought: int64(i)})
		feed.Catalog(catalog.Notice{Site: testSite})
	}
	d := must[dirty](t)(sub.next(t.Context()))
	span := branchline.TimeRange{Start: at(0), End: at(10)}
	if len(d.timelines) != 1 || d.timelines[testCamera] != span || d.jobs["1"].Brought != 9 || len(d.sites) != 1 {
		t.Errorf("got %+v", d)
	}
	for i := range maxDirty + 10 {
		feed.Site(branchline.SiteID(strings.Repeat("a", 1+i%40) + string(rune(i+100))))
	}
	if d = must[dirty](t)(sub.next(t.Context())); !d.overflow || len(d.sites) > maxDirty {
		t.Errorf("too much: %d sites, overflow %v", len(d.sites), d.overflow)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := sub.next(ctx); err == nil {
		t.Errorf("nothing changed: %+v", d)
	}
	sub.stop()
	if len(feed.subscribers) != 0 {
		t.Error("a subscriber is left")
	}
}

// TestServeEndsEverything stops a server with a WebSocket and a playback under way.
func TestServeEndsEverything(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	f.Source = endless{f.Source, make(chan struct{})}
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, f.Handler(true), f.log) }()
	server := &httptest.Server{URL: "http://" + ln.Addr().String()}
	conn, _ := dial(t, server, "/api/v1/events", nil)
	var ready map[string]any
	if err := conn.ReadJSON(&ready); err != nil {
		t.Fatal(err)
	}
	res := must[*http.Response](t)(http.Get(server.URL + playPath(0, 3)))
	defer res.Body.Close()
	stop()
	_, _, err := conn.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the WebSocket ended with %v", err)
	}
	res.Body.Close()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not end")
	}
	http.DefaultClient.CloseIdleConnections()
	if f.sockets.Load() != 0 || f.plays.Load() != 0 {
		t.Errorf("%d WebSockets and %d playbacks are left", f.sockets.Load(), f.plays.Load())
	}
}

// TestSlowReceiver fills a connection whose receiver reads nothing: the ring must go on, and the
// receiver is told what it missed when it reads again.
// TestTooManyConnections opens one more than there may be, and again when one has gone.
func TestTooManyConnections(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = atMost(2)
	server.Start()
	defer server.Close()
	connect := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: hub\r\n\r\n"); err != nil {
			return conn, err
		}
		_, err = conn.Read(make([]byte, 1))
		return conn, err
	}
	first, err := connect()
	_, second := connect()
	_, third := connect()
	if err != nil || second != nil || third == nil {
		t.Fatalf("connections: %v, %v, %v", err, second, third)
	}
	first.Close()
	for _, err = connect(); err != nil; _, err = connect() { // the server hears of the closing a little later
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestSlowReceiver(t *testing.T) {
	f := newFixture(t)
	f.ring = live.New(live.Limits{Items: 50})
	f.Source = edgeSource{edge: f.edge, ring: f.ring}
	conn, _ := dial(t, f.local, livePath, nil)
	items := slices.DeleteFunc(run(t, 1, 0, 2, false), func(i branchline.Item) bool { return i.RunEnd != nil })
	for _, item := range items {
		f.ring.Publish(item)
	}
	receiveLive(t, conn, items[0].Start.Init) // so it has joined
	big := make([]byte, 1<<20)
	for range 40 { // 40 MB in each round, which no buffer on the way holds
		for _, item := range items {
			if item.Frame != nil {
				frame := *item.Frame
				frame.Data = big
				item.Frame = &frame
			}
			f.ring.Publish(item)
		}
	}
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		var m LiveMessage
		if kind == websocket.TextMessage && json.Unmarshal(data, &m) == nil && m.Type == LiveMessageTypeMissed {
			if *m.Count <= 0 {
				t.Errorf("missed %d", *m.Count)
			}
			return
		}
	}
}
