package federation

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// steps tells a report's steps in a line: "!" before those that failed.
func steps(r PathReport) string {
	var all []string
	for _, s := range r.Steps {
		name := s.Name
		if !s.OK {
			name = "!" + name
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

func TestPath(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	token := h.token("berlin")
	before, err := PathTest{Node: node, Hub: h.addr(), Token: token}.Run(t.Context())
	if err != nil || steps(before) != "name udp tcp" || !before.Reached {
		t.Errorf("before it is enrolled: %q, reached %v, %v", steps(before), before.Reached, err)
	}
	if err := Enrol(t.Context(), node, token, nil); err != nil {
		t.Fatal("the test has used up the token:", err)
	}
	u := NewUplink(UplinkConfig{Node: node, Source: newSource(), Hubs: []string{h.addr()}})
	run(t, u.Run)
	h.wait("berlin")
	told := 0
	test := PathTest{Node: node, Hub: h.addr(), For: 200 * time.Millisecond, Done: func(PathStep) { told++ }}
	r, err := test.Run(t.Context())
	if err != nil || steps(r) != "name udp tcp site idle up down many" || told != len(r.Steps) {
		t.Fatalf("%q, %v; %d steps told", steps(r), err, told)
	}
	if r.Site != "berlin" || r.RTT <= 0 || r.Loaded <= 0 || r.Up < 1000 || r.Down < 1000 || r.MTU < 1200 || r.Loss > 0.5 ||
		r.Many < 1000 || r.Conns != maxMeasuredConns || r.Clock == 0 || r.Clock.Abs() > wrongClock {
		t.Errorf("%+v", r)
	}
	if !u.State().Up {
		t.Error("the test has disturbed the link")
	}
	if err := h.authority.Revoke("berlin"); err != nil {
		t.Fatal(err)
	}
	r, err = PathTest{Node: node, Hub: h.addr()}.Run(t.Context())
	last := r.Steps[len(r.Steps)-1]
	if err != nil || last.Name != StepSite || last.OK || !strings.Contains(last.Advice, "site add") || r.Reached {
		t.Errorf("revoked: %q, %v: %+v", steps(r), err, last)
	}
}

// TestPathBreaks shows where it breaks, and what is said of that.
func TestPathBreaks(t *testing.T) {
	h, other := startHub(t), startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	var cable link.Cuttable
	cable.Cut()
	for name, c := range map[string]struct {
		test         PathTest
		steps, words string
	}{
		"no address": {PathTest{Hub: "nowhere.invalid:7563"}, "!name", "name server"},
		"no port":    {PathTest{Hub: "hub"}, "!name", "host:port"},
		"all is blocked": {PathTest{Hub: h.addr(), ListenPacket: cable.ListenPacket, DialStream: cable.DialStream},
			"name !udp !tcp", "let UDP and TCP go out from 127.0.0.1 to"},
		"another answers": {PathTest{Hub: other.addr()}, "name !udp !tcp", "not the one"},
		"nobody is there": {PathTest{Hub: "127.0.0.1:9"}, "name !udp !tcp", "is the hub running"},
	} {
		t.Run(name, func(t *testing.T) {
			c.test.Node = node
			r, err := c.test.Run(t.Context())
			if err != nil || steps(r) != c.steps || r.Reached {
				t.Fatalf("%q, reached %v, %v; want %q", steps(r), r.Reached, err, c.steps)
			}
			advice := strings.Join(r.Ask, "\n")
			for _, s := range r.Steps {
				advice += s.Advice + "\n"
			}
			if !strings.Contains(advice, c.words) {
				t.Errorf("advice is %q, want %q in it", advice, c.words)
			}
		})
	}
}

// TestPathWithoutUDP measures what is left.
func TestPathWithoutUDP(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	var cable link.Cuttable
	cable.Cut()
	test := PathTest{Node: node, Hub: h.addr(), For: 200 * time.Millisecond, ListenPacket: cable.ListenPacket,
		DialStream: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}}
	r, err := test.Run(t.Context())
	if err != nil || steps(r) != "name !udp tcp site idle up down many" || !r.Reached || r.Carrier != link.CarrierTCP ||
		r.Up < 1000 {
		t.Errorf("%q, %+v, %v", steps(r), r, err)
	}
}

// TestMeasuresAreFew: a site has its path measured over few connections at once.
func TestMeasuresAreFew(t *testing.T) {
	var m measured
	var leaves []func()
	for range maxMeasuredConns {
		leave, err := m.enter("a")
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if _, err := m.enter("a"); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("one connection more: %v", err)
	}
	for _, leave := range leaves {
		leave()
	}
	for i := range maxMeasured {
		if _, err := m.enter(branchline.SiteID("site" + string(rune('a'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.enter("a"); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
}
