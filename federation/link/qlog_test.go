package link

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

func newTestQlog(t *testing.T) *Qlog {
	t.Helper()
	q := NewQlog(filepath.Join(t.TempDir(), "qlog"), clock.Clock{})
	q.free = func(string) (int64, error) { return 100 * qlogFree, nil }
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// readQlog returns the names of the events of a file, and checks that each record is whole JSON.
func readQlog(t *testing.T, name string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(stateless_reset_token|"data)":"[0-9a-f]`).Match(text) {
		t.Errorf("%s: a token is in it", name)
	}
	events := map[string]int{}
	for i, record := range bytes.Split(text, []byte{0x1e})[1:] {
		var e struct {
			Name    string `json:"name"`
			Version string `json:"qlog_version"`
			Time    float64
		}
		if err := json.Unmarshal(record, &e); err != nil || i == 0 && e.Version == "" || e.Time < 0 {
			t.Fatalf("%s, record %d: %v: %s", name, i, err, record)
		}
		events[e.Name]++
	}
	return events
}

// TestQlog logs a link at both of its ends: at the edge that is linked already, at the hub its next connection.
func TestQlog(t *testing.T) {
	edge, hub := newTestQlog(t), newTestQlog(t)
	l := listenAt(t, Options{Qlog: hub})
	before := dialTo(t, l, Options{Tap: edge.Tap("hub")})
	if err := edge.Start("hub", time.Minute, MaxQlogBytes); err != nil {
		t.Fatal(err)
	}
	if err := hub.Start("berlin", time.Minute, MaxQlogBytes); err != nil {
		t.Fatal(err)
	}
	exchange(t, before)
	after := dialTo(t, l, Options{Tap: edge.Tap("hub")})
	exchange(t, after)
	edge.Stop("hub")
	hub.Stop("berlin")
	exchange(t, after) // which is not logged
	for _, c := range []struct {
		q     *Qlog
		name  string
		files int
		first string
	}{{edge, "hub", 2, "_edge.sqlog"}, {hub, "berlin", 1, "_hub.sqlog"}} {
		s, err := c.q.State(c.name)
		if err != nil || s.On || s.Problem != "" || len(s.Files) != c.files {
			t.Fatalf("%s: %+v, %v", c.name, s, err)
		}
		last := s.Files[len(s.Files)-1]
		events := readQlog(t, last)
		if !strings.HasSuffix(last, c.first) || events["transport:packet_sent"] == 0 ||
			events["transport:packet_received"] == 0 {
			t.Errorf("%s: %v", last, events)
		}
		if info, err := os.Stat(last); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if s, err := hub.State("paris"); err != nil || s.On || len(s.Files) != 0 {
		t.Errorf("another site: %+v, %v", s, err)
	}
}

// TestQlogEnds: a log ends by its size and by its time, and never takes the disk's last bytes.
func TestQlogEnds(t *testing.T) {
	q := newTestQlog(t)
	l := listenAt(t, Options{})
	c := dialTo(t, l, Options{Tap: q.Tap("hub")})
	ended := func(what string) {
		t.Helper()
		run := q.Tap("hub").run.Load()
		for run != nil {
			exchange(t, c)
			select {
			case <-run.done:
				return
			default:
			}
			if t.Context().Err() != nil {
				t.Fatal(what, "does not end the log")
			}
		}
	}
	if err := q.Start("hub", time.Minute, MinQlogBytes); err != nil {
		t.Fatal(err)
	}
	ended("its size")
	s, err := q.State("hub")
	if err != nil || s.On || len(s.Files) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if info, err := os.Stat(s.Files[0]); err != nil || info.Size() > MinQlogBytes || info.Size() < MinQlogBytes/2 {
		t.Errorf("%v, %v", info.Size(), err)
	}
	readQlog(t, s.Files[0]) // its last record is whole
	if err := q.Start("hub", time.Millisecond, MaxQlogBytes); err != nil {
		t.Fatal(err)
	}
	ended("its time")
	if err := q.Start("hub", time.Minute, MaxQlogBytes); err != nil {
		t.Fatal(err)
	}
	q.mu.Lock()
	q.free = func(string) (int64, error) { return qlogFree - 1, nil }
	q.mu.Unlock()
	if err := q.Start("other", time.Minute, MinQlogBytes); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("on a full disk: %v", err)
	}
}

// TestQlogIsBounded: the oldest files go, few links are logged at once, and what is out of bounds is refused.
func TestQlogIsBounded(t *testing.T) {
	q := newTestQlog(t)
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"b_old.sqlog", "a_new.sqlog"} {
		at := time.Unix(int64(1000+i), 0)
		path := filepath.Join(q.dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Truncate(path, maxQlogKept-MinQlogBytes), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		length time.Duration
		bytes  int64
	}{
		{0, MinQlogBytes}, {MaxQlogTime + 1, MinQlogBytes}, {time.Minute, MinQlogBytes - 1}, {time.Minute, MaxQlogBytes + 1},
	} {
		if err := q.Start("x", c.length, c.bytes); !errors.Is(err, branchline.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := q.Start("x", time.Minute, MinQlogBytes); err != nil {
		t.Fatal(err)
	}
	left, err := q.files("")
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "a_new.sqlog" {
		t.Errorf("%v is left, %v", left, err)
	}
	for i := range MaxQlogs - 1 {
		if err := q.Start(string(rune('a'+i)), time.Minute, MinQlogBytes); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Start("y", time.Minute, MinQlogBytes); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	if err := q.Start("x", time.Minute, MinQlogBytes); err != nil {
		t.Errorf("in place of its own: %v", err)
	}
}

// qlogHub is a hub that takes everybody for the site berlin.
type qlogHub struct {
	*Listener
	opt Options // with which to dial it
}

func listenAt(t *testing.T, opt Options) *qlogHub {
	t.Helper()
	a, err := identity.OpenAuthority(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	opt.TLS, opt.Verify = a.TLS(), func(tls.ConnectionState) (branchline.SiteID, *Error) { return "berlin", nil }
	l, err := Listen("127.0.0.1:0", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n, err := identity.OpenNode(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.AddSite("berlin", []string{"hub:1"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return &qlogHub{l, Options{TLS: n.EnrolTLS(token), Carriers: []Carrier{CarrierQUIC}}}
}

// qlogPair is both ends of a connection.
type qlogPair struct{ edge, hub Conn }

func dialTo(t *testing.T, l *qlogHub, opt Options) qlogPair {
	t.Helper()
	opt.TLS, opt.Carriers = l.opt.TLS, l.opt.Carriers
	c, err := Dial(t.Context(), l.Addr().String(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(0, "") })
	h, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return qlogPair{c, h}
}

// exchange sends some packets in each direction.
func exchange(t *testing.T, c qlogPair) {
	t.Helper()
	s, err := c.edge.OpenStream(t.Context(), KindControl)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		s.Write(make([]byte, 50_000))
		s.Close()
	}()
	there, err := c.hub.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(there, there); n != 50_001 || err != nil {
		t.Fatal(n, err)
	}
	there.Close()
	if text, err := io.ReadAll(s); len(text) != 50_001 || err != nil {
		t.Fatal(len(text), err)
	}
}
