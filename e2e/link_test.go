package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLinkCommands asks a running edge for its link's figures, and has it log the link and end that again.
func TestLinkCommands(t *testing.T) {
	w := newWorld(t, options{policies: "  []\n", cameras: []string{"door"}, segment: 5 * time.Second})
	until(t, 20*time.Second, "linked", func() bool { return w.state() == "up" })
	w.edge.stop()
	config, err := os.ReadFile(w.edgeCfg)
	if err != nil {
		t.Fatal(err)
	}
	address := freePort(t, "tcp")
	w.edgeCfg = write(t, w.dir, "edge.yaml", string(config)+fmt.Sprintf("http: %s\n", address))
	w.startEdge()
	until(t, 20*time.Second, "linked", func() bool { return w.state() == "up" })

	ask := func(into any, args ...string) {
		t.Helper()
		out, errs, code := command(t, append(args, "--config", w.edgeCfg, "--json")...)
		if err := json.Unmarshal([]byte(out), into); code != 0 || err != nil {
			t.Fatalf("%v: exit %d, %v: %s%s", args, code, err, out, errs)
		}
	}
	var links []struct {
		Up            bool
		Carrier       string
		Connections   int
		SentBytes     uint64
		ReceivedBytes uint64
	}
	ask(&links, "link", "show", "--for", "100ms")
	if len(links) != 1 || !links[0].Up || links[0].Carrier != "quic" || links[0].Connections < 1 ||
		links[0].SentBytes == 0 || links[0].ReceivedBytes == 0 {
		t.Errorf("the link is %+v", links)
	}
	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"branchline_edge_link_connections", "branchline_edge_gossip_"} {
		if !strings.Contains(string(text), "\n"+name) {
			t.Errorf("the metrics have no %s", name)
		}
	}
	var log struct {
		On    bool
		Files []string
	}
	ask(&log, "link", "qlog", "--for", "1m")
	if !log.On {
		t.Error("the link is not logged")
	}
	until(t, 20*time.Second, "something is logged", func() bool {
		ask(&log, "link", "qlog", "--show")
		return len(log.Files) > 0
	})
	ask(&log, "link", "qlog", "--stop")
	if log.On || len(log.Files) == 0 {
		t.Errorf("after its end the log is %+v", log)
	}
	if info, err := os.Stat(filepath.Join(w.edgeDir, "edge.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the edge's socket: %v, %v", info, err)
	}
	if _, errs, code := command(t, "link", "qlog", "--config", w.edgeCfg, "--for", "2h"); code != 2 ||
		!strings.Contains(errs, "1h") {
		t.Errorf("two hours: exit %d: %s", code, errs)
	}
}
