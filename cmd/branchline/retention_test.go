package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/retain"
)

// rulesText writes rules in one line.
func rulesText(r retain.Rules) string {
	var out []string
	for _, rule := range r.Rules {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s keep %v thin %v extend %v quota %d", rule.Streams, rule.Keep,
			rule.ThinAfter, rule.Extend, rule.Quota)))
	}
	return strings.Join(append(out, fmt.Sprintf("store %d free %d or %d", r.Quota, r.Free.Bytes, r.Free.Thousands)), "; ")
}

func TestRetentionOfAnEdge(t *testing.T) {
	const door = "dir: /data\ncameras:\n  - id: door\n    url: rtsp://cam/1\n"
	for _, c := range []struct{ name, text, want, err string }{
		{"nothing said", "", "store 0 free 0 or 0", ""},
		{"all", "retention: {keep: 30d, thin_after: 7d12h, quota: 2TB, free: 5%, until_retrieved: 14d}\n",
			"keep 720h0m0s thin 180h0m0s extend 336h0m0s quota 0; store 2000000000000 free 0 or 50", ""},
		{"binary sizes", "retention: {quota: 1.5 TiB, free: 20GiB}\n", "store 1649267441664 free 21474836480 or 0", ""},
		{"a camera's own", "    retention: {keep: 5d, quota: 100GB}\nretention: {keep: 30d, until_retrieved: 1d}\n",
			"door.* keep 120h0m0s thin 0s extend 24h0m0s quota 100000000000; keep 720h0m0s thin 0s extend 24h0m0s quota 0; " +
				"store 0 free 0 or 0", ""},
		{"a camera for ever", "    retention: {keep: forever, thin_after: 2d}\nretention: {keep: 30d}\n",
			"door.* keep 0s thin 48h0m0s extend 0s quota 0; keep 720h0m0s thin 0s extend 0s quota 0; store 0 free 0 or 0", ""},
		{"a camera without general rules", "    retention: {keep: 36h}\n",
			"door.* keep 36h0m0s thin 0s extend 0s quota 0; store 0 free 0 or 0", ""},

		{"no unit", "retention:\n  keep: 30\n", "",
			`e.yaml:6: retention.keep: "30" is no length of time: write for example 30d`},
		{"a strange age", "retention:\n  keep: soon\n", "", `e.yaml:6: retention.keep: "soon" is no length of time`},
		{"no age", "retention:\n  keep: 0d\n", "", `e.yaml:6: retention.keep: "0d" is not between`},
		{"below zero", "retention:\n  keep: -2h\n", "", `e.yaml:6: retention.keep: "-2h" is no length of time`},
		{"thinned when gone", "retention:\n  keep: 7d\n  thin_after: 7d\n", "",
			"e.yaml:7: retention.thin_after: 7 days is not before"},
		{"nothing to extend", "retention:\n  until_retrieved: 7d\n", "",
			"e.yaml:6: retention.until_retrieved: extends keep"},
		{"a strange size", "retention:\n  quota: 2T\n", "",
			`e.yaml:6: retention.quota: "2T" is no size: write for example 500GB`},
		{"too much", "retention:\n  quota: 99999999TB\n", "", `e.yaml:6: retention.quota: "99999999TB" is out of bounds`},
		{"a strange share", "retention:\n  free: some\n", "", `e.yaml:6: retention.free: "some" is no part of a disk`},
		{"all free", "retention:\n  free: 100%\n", "", `e.yaml:6: retention.free: "100%" is not between`},
		{"a camera's free", "    retention:\n      free: 5%\n", "", "e.yaml:6:7: unknown field \"free\""},
		{"a camera's wrong age", "    retention:\n      keep: 1y\n", "",
			`e.yaml:6: cameras[0].retention.keep: "1y" is no length`},
		{"a camera's pattern", "    retention:\n      streams: a\n", "",
			"e.yaml:6: cameras[0].retention.streams: is for a hub"},
		{"patterns", "retention:\n  streams: [{streams: a}]\n", "", "e.yaml:6: retention.streams: is for a hub"},
	} {
		var file edgeFile
		err := parseConfig("e.yaml", []byte(door+c.text), &file)
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.err)
			}
		} else if got := rulesText(file.storage.Retention); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestRetentionOfAHub(t *testing.T) {
	for _, c := range []struct{ name, text, want, err string }{
		{"patterns, the first first", "retention:\n  keep: 90d\n  quota: 4TB\n  streams:\n" +
			"    - {streams: \"berlin.*\", keep: 30d, quota: 1TB}\n    - {streams: \"*.sub\", keep: 7d}\n",
			"berlin.* keep 720h0m0s thin 0s extend 0s quota 1000000000000; *.sub keep 168h0m0s thin 0s extend 0s quota 0; " +
				"keep 2160h0m0s thin 0s extend 0s quota 0; store 4000000000000 free 0 or 0", ""},
		{"no pattern", "retention:\n  streams:\n    - {keep: 7d}\n", "",
			"h.yaml:4: retention.streams[0].streams: \"\" is no pattern"},
		{"a wrong one", "retention:\n  streams:\n    - {streams: \"[\"}\n", "", "h.yaml:4: retention.streams[0].streams:"},
		{"a wrong age", "retention:\n  streams:\n    - {streams: a, keep: 7}\n", "",
			"h.yaml:4: retention.streams[0].keep:"},
	} {
		var file hubFile
		err := parseConfig("h.yaml", []byte("dir: /data\n"+c.text), &file)
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.err)
			}
		} else if got := rulesText(file.storage.Retention); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestRetentionReport(t *testing.T) {
	s, err := segstore.Open(t.TempDir(), segstore.Options{Retention: retain.Rules{Quota: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	span := branchline.TimeRange{Start: day, End: day.Add(time.Hour)}
	lock := branchline.Lock{ID: "case-1", Stream: "door.main", Span: span, Reason: "theft"}
	if err := s.Lock(t.Context(), lock); err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(t.Context(), branchline.Hold{Holder: "hub", Stream: "door.main", Spans: branchline.Spans{span},
		Known: day, Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	retentionHandler(s, time.Now)(w, httptest.NewRequest(http.MethodGet, "/retention", nil))
	var got retentionReport
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d: %v: %s", w.Code, err, w.Body)
	}
	if len(got.Locks) != 1 || got.Locks[0].Reason != "theft" || got.Locks[0].Until != nil || len(got.Holds) != 1 ||
		len(got.Holds[0].Spans) != 1 || !got.Holds[0].Spans[0].End.Equal(span.End) || got.Plan == nil ||
		got.Removals == nil {
		t.Errorf("report %s", w.Body)
	}
}
