package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// centre is one of several hubs, behind a relay of its own.
type centre struct {
	name, dir, yaml string
	relay           *relay
	proc            *process
	api             *client
}

// newCentre writes a hub's configuration, with more YAML if given, and starts it unless its token is still to be
// made elsewhere.
func newCentre(t *testing.T, name, more string) *centre {
	t.Helper()
	link := freePort(t, "udp")
	c := &centre{name: name, dir: filepath.Join(t.TempDir(), name), relay: newRelay(t, link)}
	c.yaml = write(t, t.TempDir(), name+".yaml", fmt.Sprintf("dir: %s\nname: %s\nlisten: %s\nhttp: %s\npublic: [%q]\n%s",
		c.dir, name, link, freePort(t, "tcp"), c.relay.address(), more))
	return c
}

func (c *centre) start(t *testing.T, args ...string) {
	t.Helper()
	c.proc = start(t, c.name, append([]string{"hub", "--config", c.yaml, "--json"}, args...)...)
	var ready struct{ HTTP, User, Password string }
	c.proc.ready(t, &ready)
	if c.api == nil {
		c.api = login(t, ready.HTTP, ready.User, ready.Password)
	}
}

// token admits a site or a region and returns its token.
func (c *centre) token(t *testing.T, name string) string {
	t.Helper()
	out, errs, code := command(t, "site", "add", name, "--config", c.yaml, "--json")
	var added struct{ Token string }
	if err := json.Unmarshal([]byte(out), &added); code != 0 || err != nil || added.Token == "" {
		t.Fatalf("site add: exit %d: %s%s", code, out, errs)
	}
	return added.Token
}

// holds reports whether the hub holds the whole range of a camera.
func (c *centre) holds(camera string, from, to time.Time) bool {
	var line struct{ Spans []span }
	err := c.api.call("GET", "/api/v1/cameras/"+camera+"/timeline?"+during(from, to), nil, &line)
	if err != nil || len(line.Spans) == 0 || line.Spans[len(line.Spans)-1].End.Before(to.Truncate(time.Millisecond)) {
		return false
	}
	for _, s := range line.Spans {
		if s.State != "held" {
			return false
		}
	}
	return true
}

// state returns the state of a site as the hub shows it.
func (c *centre) state(site string) string {
	var list struct{ Sites []struct{ ID, State string } }
	if err := c.api.call("GET", "/api/v1/sites", nil, &list); err != nil {
		return err.Error()
	}
	for _, s := range list.Sites {
		if s.ID == site {
			return s.State
		}
	}
	return "not there"
}

// startBranch starts an edge with a camera for each name.
func startBranch(t *testing.T, more string, names []string, args ...string) (dir string, edge *process) {
	t.Helper()
	cameras := start(t, "cameras", "camera", "--listen", "127.0.0.1:0", "--count", fmt.Sprint(len(names)), "--json")
	var ready struct{ URLs []string }
	cameras.ready(t, &ready)
	dir = filepath.Join(t.TempDir(), "edge")
	config := fmt.Sprintf("dir: %s\nsegment: 5s\n%scameras:\n", dir, more)
	for i, id := range names {
		config += fmt.Sprintf("  - id: %s\n    url: %s\n", id, ready.URLs[i])
	}
	path := write(t, t.TempDir(), "edge.yaml", config)
	edge = start(t, "edge", append([]string{"edge", "--config", path, "--json"}, args...)...)
	edge.ready(t, &struct{}{})
	return dir, edge
}

const keepDoor = "policies:\n  - {streams: \"*.door.main\", keep: always}\n"

// TestTwoHubs homes one edge to two hubs, which know nothing of each other and call it by different names. One is
// cut off; the other does not lose a moment, and the first catches up.
func TestTwoHubs(t *testing.T) {
	t.Parallel()
	a, b := newCentre(t, "north", keepDoor), newCentre(t, "south", keepDoor)
	a.start(t)
	b.start(t)
	dir, edge := startBranch(t, "hubs:\n  - name: north\n  - name: south\n", []string{"door"},
		"--token", a.token(t, "berlin"), "--token", "south="+b.token(t, "branch-7"))
	began := time.Now().Add(3 * time.Second)
	lately := func(c *centre, camera string) bool {
		now := time.Now().Add(-3 * time.Second)
		return now.After(began.Add(5*time.Second)) && c.holds(camera, now.Add(-5*time.Second), now)
	}
	until(t, 40*time.Second, "both hubs hold what is recorded now", func() bool {
		return lately(a, "berlin.door") && lately(b, "branch-7.door")
	})
	a.relay.cut.Store(true)
	until(t, 10*time.Second, "the hub that is cut off sees it", func() bool { return a.state("berlin") == "down" })
	passes(time.Now().Add(10 * time.Second))
	if !lately(b, "branch-7.door") || b.state("branch-7") != "up" {
		t.Error("the other hub was disturbed")
	}
	a.relay.cut.Store(false)
	healed := time.Now()
	until(t, catchUp, "the hub that was cut off holds all of it", func() bool {
		return a.holds("berlin.door", began, healed)
	})
	if !b.holds("branch-7.door", began, healed) {
		t.Error("the other hub has a hole")
	}
	equal(t, "door", began, healed.Add(-6*time.Second), dir, a.dir, b.dir)
	edge.alive(t)
}

// equal waits until the segment files of a camera that start in the range are the same in all folders.
func equal(t *testing.T, camera string, from, to time.Time, dirs ...string) {
	t.Helper()
	var first map[string][32]byte
	until(t, catchUp, "segments are equal everywhere", func() bool {
		first = sealed(t, dirs[0], camera, from, to)
		for _, dir := range dirs[1:] {
			if !maps.Equal(first, sealed(t, dir, camera, from, to)) {
				return false
			}
		}
		return len(first) > 0
	})
	t.Logf("%d segments of %s have equal SHA-256 at %d nodes", len(first), camera, len(dirs))
}

// TestRegion puts a region between headquarters and a branch: what the branch records is seen live and recorded at
// both, what the branch alone has comes through at a request, and all three have the same bytes, whose signatures
// headquarters verifies by the keys that the region vouches for. A region that would be above its own
// headquarters is refused.
func TestRegion(t *testing.T) {
	t.Parallel()
	hq := newCentre(t, "hq", keepDoor)
	region := newCentre(t, "region", keepDoor+"hubs:\n  - name: headquarters\n")
	hq.start(t)
	region.start(t, "--token", hq.token(t, "west"))
	dir, _ := startBranch(t, "", []string{"door", "safe"}, "--token", region.token(t, "berlin"))
	began := time.Now().Add(2 * time.Second)
	until(t, 20*time.Second, "headquarters know the branch", func() bool { return hq.state("west.berlin") == "up" })

	if n := watch(t, hq.api, "west.berlin.door.main", 20); n < 20 {
		t.Errorf("headquarters saw %d pieces of the live picture", n)
	}
	until(t, 60*time.Second, "headquarters hold what is recorded now", func() bool {
		now := time.Now().Add(-3 * time.Second)
		return now.After(began.Add(30*time.Second)) && hq.holds("west.berlin.door", now.Add(-10*time.Second), now)
	})
	from, to := began.Add(2*time.Second), began.Add(29*time.Second)
	until(t, catchUp, "both hubs hold all of it", func() bool {
		return hq.holds("west.berlin.door", from, to) && region.holds("berlin.door", from, to)
	})
	equal(t, "door", from, to.Add(-6*time.Second), dir, region.dir, hq.dir)

	if len(sealed(t, region.dir, "safe", began, time.Now())) > 0 {
		t.Error("the region has what only the branch should have")
	}
	retrieve(t, hq.api, "west.berlin.safe", from, to)
	equal(t, "safe", from.Add(5*time.Second), to.Add(-10*time.Second), dir, hq.dir)
	retrieve(t, region.api, "berlin.safe", from, to)
	equal(t, "safe", from.Add(5*time.Second), to.Add(-10*time.Second), dir, region.dir, hq.dir)

	region.relay.cut.Store(true)
	until(t, 15*time.Second, "headquarters see that the branch behind the region is dark", func() bool {
		return hq.state("west.berlin") == "down" && hq.state("west") == "up"
	})
	region.relay.cut.Store(false)
	until(t, 20*time.Second, "headquarters see the branch again", func() bool { return hq.state("west.berlin") == "up" })

	// Headquarters under the region that is under them.
	hq.proc.stop()
	hq.yaml = write(t, t.TempDir(), "hq.yaml", readText(t, hq.yaml)+"hubs:\n  - name: west\n")
	hq.start(t, "--token", region.token(t, "hq"))
	until(t, 40*time.Second, "the loop is refused at both", func() bool {
		return hq.proc.said("hq under region under hq: hubs in a loop") &&
			region.proc.said("hq under region under hq: hubs in a loop")
	})
	until(t, 20*time.Second, "the first link stands", func() bool { return hq.state("west.berlin") == "up" })
}

func (p *process) said(text string) bool { return strings.Contains(p.ring.String(), text) }

// watch reads n messages of a live stream and returns how many came.
func watch(t *testing.T, c *client, stream string, n int) int {
	t.Helper()
	url := "ws" + strings.TrimPrefix(c.base, "http") + "/api/v1/streams/" + stream + "/live"
	ws, res, err := websocket.DefaultDialer.Dial(url, http.Header{"Authorization": {"Bearer " + c.bearer}})
	if err != nil {
		t.Fatalf("watch %s: %v", stream, err)
	}
	defer res.Body.Close()
	defer ws.Close()
	if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := 0
	for got < n {
		kind, _, err := ws.ReadMessage()
		if err != nil {
			t.Logf("after %d pieces: %v", got, err)
			break
		}
		if kind == websocket.BinaryMessage {
			got++
		}
	}
	return got
}

// retrieve orders a range and waits until it is there.
func retrieve(t *testing.T, c *client, camera string, from, to time.Time) {
	t.Helper()
	var r struct{ ID, State, Cause string }
	order := map[string]any{"camera": camera, "from": from.UTC(), "to": to.UTC()}
	if err := c.call("POST", "/api/v1/retrievals", order, &r); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "the retrieval of "+camera+" is done", func() bool {
		return c.call("GET", "/api/v1/retrievals/"+r.ID, nil, &r) == nil && r.State == "done"
	})
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
