package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Site is the name of a world's one site.
const Site = "berlin"

// Plan says what a world has.
type Plan struct {
	Binary   string // branchline
	Dir      string // an empty folder for all that is written
	Empty    bool   // neither edge nor cameras are started
	Links    int    // 0: one
	Link     string // what each does at first, as [Parse] reads it
	Cameras  int
	Kbits    int           // of each camera
	Segment  time.Duration // how long segments are; 0: a minute
	Sub      bool          // each camera has a sub-stream, too
	Loopback bool          // the edge is at the centre, too, and they speak over its loopback device
	Edge     string        // what else the edge's configuration says, as YAML; empty: nothing
	Policies string        // the hub's, as YAML list items; empty: none
	Uplinks  []string      // the kinds of the edge's uplinks, one for each link; empty: it names none
	Seed     uint64
}

// World is the real programs on an emulated network: a hub at the centre, an edge and its cameras at the
// branch. Its methods are not to be called concurrently, but Get and Metric may.
type World struct {
	*Network
	Plan    Plan
	Hub     *Process
	Edge    *Process
	Cameras *Process

	http    *http.Client // at the centre
	local   *http.Client // at the branch
	base    string       // of the hub's API
	bearer  string
	hubYAML string
}

const edgeMetrics = "127.0.0.1:9100"

// OpenWorld makes a network and starts everything; the edge is enrolling when it returns.
func OpenWorld(p Plan) (_ *World, err error) {
	n, err := Open(max(p.Links, 1), p.Seed)
	if err != nil {
		return nil, err
	}
	w := &World{Network: n, Plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	settings, err := Parse(p.Link)
	if err != nil {
		return nil, err
	}
	for _, l := range n.Links {
		l.Change(func(s *Settings) { *s = settings })
	}
	w.http = &http.Client{Transport: &http.Transport{DialContext: n.Dial(Centre)}, Timeout: time.Minute}
	w.local = &http.Client{Transport: &http.Transport{DialContext: n.Dial(w.edgeEnd())}, Timeout: time.Minute}
	if err := w.writeHub(); err != nil {
		return nil, err
	}
	if err := w.StartHub(); err != nil {
		return nil, err
	}
	if p.Empty {
		return w, nil
	}
	if err := w.startCameras(); err != nil {
		return nil, err
	}
	token, err := w.Token(Site)
	if err != nil {
		return nil, err
	}
	return w, w.StartEdge("--token", token)
}

func (w *World) edgeEnd() End {
	if w.Plan.Loopback {
		return Centre
	}
	return Branch
}

// Close ends everything. What was written stays.
func (w *World) Close() error {
	for _, p := range []*Process{w.Edge, w.Cameras, w.Hub} {
		if p != nil {
			p.Stop()
		}
	}
	return w.Network.Close()
}

// Logs returns the ends of the logs of hub and edge.
func (w *World) Logs() string {
	var b strings.Builder
	for name, p := range map[string]*Process{"hub": w.Hub, "edge": w.Edge} {
		if p != nil {
			log := p.Log()
			fmt.Fprintf(&b, "--- log of %s, its end:\n%s\n", name, log[max(0, len(log)-4000):])
		}
	}
	return b.String()
}

// HubDir is where the hub keeps its data.
func (w *World) HubDir() string { return filepath.Join(w.Plan.Dir, "hub") }

// EdgeDir is where the edge does.
func (w *World) EdgeDir() string { return filepath.Join(w.Plan.Dir, "edge") }

func (w *World) writeHub() error {
	public := w.Links[0].Addr(Centre).String() + ":7563"
	if w.Plan.Loopback {
		public = "127.0.0.1:7563"
	}
	w.hubYAML = filepath.Join(w.Plan.Dir, "hub.yaml")
	text := fmt.Sprintf("dir: %s\nlisten: \":7563\"\nhttp: 127.0.0.1:8480\npublic: [%q]\n", w.HubDir(), public)
	if w.Plan.Policies != "" {
		text += "policies:\n" + w.Plan.Policies
	}
	return os.WriteFile(w.hubYAML, []byte(text), 0o600)
}

// StartHub starts the hub, which must not run, and logs in.
func (w *World) StartHub() error {
	var ready struct{ HTTP, User, Password string }
	hub, err := w.Start(Centre, &ready, w.Plan.Binary, "hub", "--config", w.hubYAML, "--json")
	if err != nil {
		return err
	}
	w.Hub, w.base = hub, "http://127.0.0.1:8480"
	if w.bearer != "" {
		return nil
	}
	var session struct{ Token string }
	body := map[string]any{"user": ready.User, "password": ready.Password, "bearer": true}
	if err := w.Call("POST", "/api/v1/session", body, &session); err != nil {
		return err
	}
	w.bearer = session.Token
	return nil
}

func (w *World) startCameras() error {
	var ready struct{ URLs []string }
	args := []string{"camera", "--listen", "127.0.0.1:0", "--json", "--no-tone",
		"--size", "320x180", "--count", strconv.Itoa(w.Plan.Cameras), "--bitrate", strconv.Itoa(w.Plan.Kbits)}
	each := 1 // URLs of a camera
	if w.Plan.Sub {
		args, each = append(args, "--sub"), 2
	}
	p, err := w.Start(w.edgeEnd(), &ready, w.Plan.Binary, args...)
	if err != nil {
		return err
	}
	w.Cameras = p
	segment := w.Plan.Segment
	if segment == 0 {
		segment = time.Minute
	}
	var b strings.Builder
	fmt.Fprintf(&b, "dir: %s\nhttp: %s\nsegment: %s\n", w.EdgeDir(), edgeMetrics, segment)
	for i, kind := range w.Plan.Uplinks {
		if i == 0 {
			b.WriteString("uplinks:\n")
		}
		fmt.Fprintf(&b, "  - {name: way-%d, interface: %s, kind: %s}\n", i, w.Links[i].Device(), kind)
	}
	b.WriteString("cameras:\n")
	for i := range len(ready.URLs) / each {
		urls := ready.URLs[each*i:]
		fmt.Fprintf(&b, "  - {id: %s, url: %q", Camera(i), urls[0])
		if w.Plan.Sub {
			fmt.Fprintf(&b, ", sub: %q", urls[1])
		}
		b.WriteString("}\n")
	}
	b.WriteString(w.Plan.Edge)
	return os.WriteFile(w.edgeYAML(), []byte(b.String()), 0o600)
}

func (w *World) edgeYAML() string { return filepath.Join(w.Plan.Dir, "edge.yaml") }

// Camera is the name of the i-th camera.
func Camera(i int) string { return fmt.Sprintf("cam-%02d", i) }

// StartEdge starts the edge, which must not run.
func (w *World) StartEdge(args ...string) error {
	var ready struct{ Cameras int }
	edge, err := w.Start(w.edgeEnd(), &ready, w.Plan.Binary,
		append([]string{"edge", "--config", w.edgeYAML(), "--json"}, args...)...)
	w.Edge = edge
	return err
}

// Token makes a token for a site.
func (w *World) Token(site string) (string, error) {
	cmd := exec.Command(w.Plan.Binary, "site", "add", site, "--config", w.hubYAML, "--json")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("site add: %w: %s", err, out)
	}
	var added struct{ Token string }
	err = json.Unmarshal(out, &added)
	return added.Token, err
}

// Bearer is the token of the hub's administrator.
func (w *World) Bearer() string { return w.bearer }

// Call exchanges JSON with the hub's API. An answer of another class than 2xx is an error.
func (w *World) Call(method, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, w.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if w.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+w.bearer)
	}
	res, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// Metric returns the sum of a figure of the hub's metrics, over all its labels; at the branch, of the edge's.
func (w *World) Metric(e End, name string) (float64, error) {
	client, url := w.http, w.base+"/metrics"
	if e == Branch {
		client, url = w.local, "http://"+edgeMetrics+"/metrics"
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+w.bearer)
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	sum := 0.0
	scan := bufio.NewScanner(res.Body)
	for scan.Scan() {
		head, value, _ := strings.Cut(scan.Text(), " ")
		if base, _, _ := strings.Cut(head, "{"); base != name {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum += f
	}
	return sum, scan.Err()
}

// Until asks again and again until it is so, and returns how long that took.
func Until(ctx context.Context, every, most time.Duration, so func() bool) (time.Duration, error) {
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !so() {
		if time.Since(began) > most {
			return time.Since(began), fmt.Errorf("not within %v", most)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Since(began), context.Cause(ctx)
		}
	}
	return time.Since(began), nil
}

// Linked waits until the hub is linked to so many sites.
func (w *World) Linked(ctx context.Context, sites int, most time.Duration) (time.Duration, error) {
	took, err := Until(ctx, 50*time.Millisecond, most, func() bool {
		n, err := w.Metric(Centre, "branchline_hub_linked_sites")
		return err == nil && int(n) == sites
	})
	if err != nil {
		return took, fmt.Errorf("%d sites linked: %w", sites, err)
	}
	return took, nil
}
