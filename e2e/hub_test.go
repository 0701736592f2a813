package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// world is a hub, one site behind a relay, and its cameras, all real processes.
type world struct {
	t       *testing.T
	dir     string
	hub     *process
	edge    *process
	cameras *process
	relay   *relay
	api     *client
	hubYAML string
	edgeDir string
	hubDir  string
	edgeCfg string
	began   time.Time         // of the first recording, or a little before
	seen    map[string][]span // the newest time line of each camera, shown when a test fails
}

// options of a world.
type options struct {
	policies string // YAML list items
	cameras  []string
	segment  time.Duration
}

const site = "berlin"

// newWorld starts everything and enrols the site.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), seen: map[string][]span{}}
	t.Cleanup(func() {
		if t.Failed() {
			for camera, spans := range w.seen {
				t.Logf("time line of %s: %v", camera, spans)
			}
		}
	})
	w.hubDir, w.edgeDir = filepath.Join(w.dir, "hub"), filepath.Join(w.dir, "edge")
	link, web := freePort(t, "udp"), freePort(t, "tcp")
	w.relay = newRelay(t, link)
	w.hubYAML = write(t, w.dir, "hub.yaml", fmt.Sprintf("dir: %s\nlisten: %s\nhttp: %s\npublic: [%q]\npolicies:\n%s",
		w.hubDir, link, web, w.relay.address(), o.policies))
	w.startHub()

	args := []string{"camera", "--listen", "127.0.0.1:0", "--count", fmt.Sprint(len(o.cameras)), "--json"}
	w.cameras = start(t, "cameras", args...)
	var ready struct{ URLs []string }
	w.cameras.ready(t, &ready)
	if len(ready.URLs) != len(o.cameras) {
		t.Fatalf("got cameras %v", ready.URLs)
	}
	config := fmt.Sprintf("dir: %s\nsegment: %s\ncameras:\n", w.edgeDir, o.segment)
	for i, id := range o.cameras {
		config += fmt.Sprintf("  - id: %s\n    url: %s\n", id, ready.URLs[i])
	}
	w.edgeCfg = write(t, w.dir, "edge.yaml", config)
	w.startEdge("--token", w.token(site))
	w.began = time.Now()
	return w
}

func (w *world) token(name string) string {
	w.t.Helper()
	out, errs, code := command(w.t, "site", "add", name, "--config", w.hubYAML, "--json")
	var added struct{ Token string }
	if err := json.Unmarshal([]byte(out), &added); code != 0 || err != nil || added.Token == "" {
		w.t.Fatalf("site add: exit %d: %s%s", code, out, errs)
	}
	return added.Token
}

func (w *world) startHub() {
	w.t.Helper()
	w.hub = start(w.t, "hub", "hub", "--config", w.hubYAML, "--json")
	var ready struct{ HTTP, User, Password string }
	w.hub.ready(w.t, &ready)
	if w.api == nil {
		w.api = login(w.t, ready.HTTP, ready.User, ready.Password)
	}
}

func (w *world) startEdge(args ...string) {
	w.t.Helper()
	w.edge = start(w.t, "edge", append([]string{"edge", "--config", w.edgeCfg, "--json"}, args...)...)
	var ready struct{ Cameras int }
	w.edge.ready(w.t, &ready)
}

func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// client speaks to a hub's API with a bearer token.
type client struct {
	base, bearer string
}

func login(t *testing.T, base, user, password string) *client {
	t.Helper()
	c := &client{base: base}
	var session struct{ Token string }
	body := map[string]any{"user": user, "password": password, "bearer": true}
	if err := c.call("POST", "/api/v1/session", body, &session); err != nil {
		t.Fatalf("log in: %v", err)
	}
	c.bearer = session.Token
	return c
}

// call exchanges JSON. An answer of another class than 2xx is an error with the answer's text.
func (c *client) call(method, path string, body, into any) error {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(text)
	}
	res, err := c.do(method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (c *client) do(method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequest(method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	return http.DefaultClient.Do(req)
}

// span is a piece of a time line.
type span struct {
	Start, End           time.Time
	State, Cause, Reason string
}

func during(from, to time.Time) string {
	q := url.Values{"from": {from.UTC().Format(time.RFC3339Nano)}, "to": {to.UTC().Format(time.RFC3339Nano)}}
	return q.Encode()
}

func (c *client) timeline(camera string, from, to time.Time) ([]span, error) {
	var line struct{ Spans []span }
	err := c.call("GET", "/api/v1/cameras/"+site+"."+camera+"/timeline?"+during(from, to), nil, &line)
	return line.Spans, err
}

func (s span) String() string {
	const clock = "15:04:05.000"
	return fmt.Sprintf("%s-%s %s %s%s", s.Start.Format(clock), s.End.Format(clock), s.State, s.Cause, s.Reason)
}

// allHeld reports whether the hub holds the whole range.
func (w *world) allHeld(camera string, from, to time.Time) bool {
	spans, err := w.api.timeline(camera, from, to)
	w.seen[camera] = spans
	if err != nil || len(spans) == 0 || spans[len(spans)-1].End.Before(to.Truncate(time.Millisecond)) {
		return false
	}
	for _, s := range spans {
		if s.State != "held" {
			return false
		}
	}
	return true
}

// play saves what the hub plays of a range and returns the file's path.
func (w *world) play(camera string, from, to time.Time) string {
	w.t.Helper()
	res, err := w.api.do("GET", "/api/v1/streams/"+site+"."+camera+".main/play.mp4?"+during(from, to), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	path := filepath.Join(w.dir, "play-"+camera+".mp4")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, res.Body); err != nil || res.StatusCode != http.StatusOK {
		text, _ := os.ReadFile(path)
		w.t.Fatalf("play %s: %s: %v: %.300s", camera, res.Status, err, text)
	}
	return path
}
