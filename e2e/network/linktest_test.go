package network_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/e2e/network"
)

// pathReport is what is read of what link test tells.
type pathReport struct {
	Reached bool     `json:"reached"`
	Carrier string   `json:"carrier"`
	Up      float64  `json:"up_kbit_s"`
	Many    float64  `json:"many_kbit_s"`
	Loss    float64  `json:"loss"`
	MTU     int      `json:"mtu"`
	Ask     []string `json:"ask"`
}

// linkTest runs link test at the branch, twice: for the report, and for what people read, which it logs.
func (s *site) linkTest(args ...string) (pathReport, int) {
	s.t.Helper()
	args = append([]string{"link", "test", "--for", "1s", "--config", filepath.Join(s.Plan.Dir, "edge.yaml")}, args...)
	code := func(out *bytes.Buffer, args []string) int {
		cmd := s.Command(network.Branch, s.Plan.Binary, args...)
		cmd.Stdout = out
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			s.t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode()
	}
	var words, text bytes.Buffer
	first := code(&words, args)
	s.t.Log(words.String())
	if second := code(&text, append(args, "--json")); second != first {
		s.t.Errorf("exit codes %d, with --json %d", first, second)
	}
	var all []pathReport
	if err := json.Unmarshal(text.Bytes(), &all); err != nil || len(all) != 1 {
		s.t.Fatalf("%v: %s", err, text.Bytes())
	}
	return all[0], first
}

// TestLinkTest: what link test says at a branch whose network has a fault.
func TestLinkTest(t *testing.T) {
	all(t)
	s := newSite(t, "rate=20mbit delay=20ms queue=100ms")
	s.linked(20 * time.Second)
	for _, c := range []struct {
		name, fault, heal string
		code              int
		asks              string
		good              func(pathReport) bool
	}{
		{"a good path", "", "", 0, "", func(r pathReport) bool {
			return r.Carrier == "quic" && r.Many > 8000 && r.MTU > 1400
		}},
		{"UDP blocked", "noudp=on", "noudp=off", 3, "let UDP go out from 10.77", func(r pathReport) bool {
			return r.Carrier == "tcp" && r.Many > 5000
		}},
		{"a tunnel", "mtu=1300", "mtu=0", 3, "fragmentation needed", func(r pathReport) bool {
			return r.Carrier == "quic" && r.MTU < 1300
		}},
		{"loss", "loss=3%", "loss=0%", 3, "are lost", func(r pathReport) bool { return r.Loss > 0.01 && r.Many > r.Up }},
		{"cut", "cut=on", "cut=off", 1, "UDP and TCP go out", func(r pathReport) bool { return !r.Reached }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{World: s.World, t: t, link: s.link}
			s.set(c.fault)
			r, code := s.linkTest()
			s.set(c.heal)
			if code != c.code || !c.good(r) || !strings.Contains(strings.Join(r.Ask, "\n"), c.asks) ||
				(c.asks == "") != (len(r.Ask) == 0) {
				t.Errorf("exit code %d, %+v", code, r)
			}
		})
	}
}

// set changes what the link does.
func (s *site) set(text string) {
	s.t.Helper()
	s.link.Change(func(settings *network.Settings) {
		for _, word := range strings.Fields(text) {
			if err := settings.Set(word); err != nil {
				s.t.Error(err)
			}
		}
	})
}
