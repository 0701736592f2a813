package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/branchline-video/branchline/edge"
)

func TestConfigErrorsNameFileLineAndField(t *testing.T) {
	const camera = "cameras:\n  - id: door\n    url: rtsp://cam/1\n"
	for _, c := range []struct{ name, text, want string }{
		{"good", "dir: /data\n" + camera, ""},
		{"empty", "", "e.yaml:1: dir: say where"},
		{"unknown key", "dir: /data\nfoo: 1\n", "e.yaml:2:1: unknown field \"foo\""},
		{"unknown camera key", "dir: /data\n" + camera + "    codec: h264\n", "e.yaml:5:5: unknown field \"codec\""},
		{"wrong kind", "dir: /data\nsegment: soon\n", "e.yaml:2: segment: \"soon\" is no duration"},
		{"wrong shape", "dir: /data\ncameras: 7\n", "e.yaml:2:"},
		{"too short", "dir: /data\nsegment: 1ms\n", "e.yaml:2: segment: 1ms is not between"},
		{"no url", "dir: /data\ncameras:\n  - id: door\n", "e.yaml:3: cameras[0].url: camera \"door\" needs"},
		{"no rtsp", "dir: /data\ncameras:\n  - id: door\n    url: http://x\n",
			"e.yaml:4: cameras[0].url: starts with \"http\""},
		{"bad id", "dir: /data\ncameras:\n  - id: Front Door\n    url: rtsp://x\n", "e.yaml:3: cameras[0].id:"},
		{"twice", "dir: /data\n" + camera + "  - id: door\n    url: rtsp://x\n",
			"e.yaml:5: cameras[1].id: camera \"door\" is already"},
		{"allowing", "dir: /data\nallow: {hold: false, lock: true}\n", ""},
		{"allowing what there is not", "dir: /data\nallow:\n  rule: true\n", "e.yaml:3:3: unknown field \"rule\""},
		{"allowing perhaps", "dir: /data\nallow: {lock: no}\n", "e.yaml:2:"},
		{"not YAML", "dir: [\n", "e.yaml:1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := parseConfig("e.yaml", []byte(c.text), &edgeFile{})
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestHubConfig(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"good", "dir: /data\npolicies:\n  - streams: \"*\"\n    keep: always\n", ""},
		{"bad policy", "dir: /data\npolicies:\n  - streams: \"*\"\n    keep: sometimes\n", "h.yaml:4: policies[0].keep:"},
		{"bad pattern", "dir: /data\npolicies:\n  - {streams: \"[\", keep: never}\n", "h.yaml:3: policies[0].streams:"},
		{"bad port", "dir: /data\nlisten: :99999\n", "h.yaml:2: listen: \":99999\" is no address"},
		{"bad address", "dir: /data\nlisten: here\n", "h.yaml:2: listen: \"here\" is no address"},
		{"half TLS", "dir: /data\ntls:\n  key: k.pem\n", "h.yaml:3: tls: needs both"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := parseConfig("h.yaml", []byte(c.text), &hubFile{})
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestConfigNeverShowsAPassword(t *testing.T) {
	err := parseConfig("e.yaml", []byte("dir: /d\ncameras:\n  - id: a\n    url: http://u:secret@x\n"), &edgeFile{})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v", err)
	}
}

func TestUsageErrorsAreUsageErrors(t *testing.T) {
	if err := readConfig("/does/not/exist.yaml", &edgeFile{}); !errors.As(err, new(usageError)) {
		t.Fatalf("got %v", err)
	}
}

func TestDeployedExamplesAreValid(t *testing.T) {
	for path, c := range map[string]configuration{
		"../../deploy/edge.yaml": &edgeFile{},
		"../../deploy/hub.yaml":  &hubFile{},
	} {
		if err := readConfig(path, c); err != nil {
			t.Error(err)
		}
	}
}

// TestSitesAllowByDefault shows what a hub may do at a site whose configuration says nothing of it.
func TestSitesAllowByDefault(t *testing.T) {
	for text, want := range map[string]edge.Allow{
		"dir: /d\n":                                    {Hold: true, Lock: true},
		"dir: /d\nallow: {lock: false}\n":              {Hold: true},
		"dir: /d\nallow: {hold: false}\n":              {Lock: true},
		"dir: /d\nallow: {hold: false, lock: false}\n": {},
	} {
		var file edgeFile
		if err := parseConfig("e.yaml", []byte(text), &file); err != nil {
			t.Fatal(err)
		}
		if got := file.Allow.allow(); got != want {
			t.Errorf("%q allows %+v, want %+v", text, got, want)
		}
	}
}
