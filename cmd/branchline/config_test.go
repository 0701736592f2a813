package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/segstore"
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
		{"volumes", "dir: /data\nvolumes: [/mnt/a, /mnt/b]\n", ""},
		{"relative volume", "dir: /data\nvolumes:\n  - /mnt/a\n  - b\n", "e.yaml:4: volumes[1]: \"b\" is not a whole path"},
		{"volume twice", "dir: /data\nvolumes: [/mnt/a, /mnt/a/]\n", "e.yaml:2: volumes[1]: \"/mnt/a/\" is there twice"},
		{"volume is dir", "dir: /data\nvolumes: [/data]\n", "e.yaml:2: volumes[0]: \"/data\" is dir itself"},
		{"volume inside dir", "dir: /data\nvolumes: [/data/store]\n", "e.yaml:2: volumes[0]: \"/data/store\" is inside dir"},
		{"dir inside volume", "dir: /mnt/a/node\nvolumes:\n  - /mnt/b\n  - /mnt/a/\n",
			"e.yaml:4: volumes[1]: dir is inside \"/mnt/a/\""},
		{"volume beside dir", "dir: /data\nvolumes: [/data2, /mnt/data]\n", ""},
		{"encrypted", "dir: /data\nencryption: {key_file: /k, only_read: true}\n", ""},
		{"no key", "dir: /data\nencryption:\n  only_read: true\n", "e.yaml:3: encryption: needs key_file"},
		{"two keys", "dir: /data\nencryption: {key_file: a, credential: b}\n", "e.yaml:2: encryption: needs key_file"},
		{"allowing", "dir: /data\nallow: {hold: false, lock: true}\n", ""},
		{"allowing what there is not", "dir: /data\nallow:\n  rule: true\n", "e.yaml:3:3: unknown field \"rule\""},
		{"allowing perhaps", "dir: /data\nallow: {lock: no}\n", "e.yaml:2:"},
		{"not YAML", "dir: [\n", "e.yaml:1:"},
		{"no scrub", "dir: /data\nscrub: off\n", ""},
		{"scrub, rarely", "dir: /data\nscrub: {every: 90d}\n", ""},
		{"scrub, no word", "dir: /data\nscrub: on\n", "e.yaml:2: scrub: \"on\" is neither"},
		{"scrub, unknown key", "dir: /data\nscrub:\n  speed: 3\n", "e.yaml:3:3: unknown field \"speed\""},
		{"scrub, no time", "dir: /data\nscrub:\n  every: month\n", "e.yaml:3: scrub.every: \"month\" is no time"},
		{"scrub, too often", "dir: /data\nscrub: {every: 1m}\n", "e.yaml:2: scrub.every: 1m is not between"},
		{"scrub, no rate", "dir: /data\nscrub: {rate: fast}\n", "e.yaml:2: scrub.rate: \"fast\" is no rate"},
		{"scrub, too slow", "dir: /data\nscrub: {rate: 1kB/s}\n", "e.yaml:2: scrub.rate: 1kB/s is less than"},
		{"scrub, a huge rate", "dir: /data\nscrub: {rate: 99999999999GB/s}\n", "e.yaml:2: scrub.rate:"},
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
		{"no key", "dir: /data\nencryption: {}\n", "h.yaml:2: encryption: needs key_file"},
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

func TestScrubPlan(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		text string
		want segstore.Scrub
	}{
		{"", segstore.Scrub{Every: 30 * day, Rate: segstore.DefaultScrubRate}},
		{"scrub: off", segstore.Scrub{}},
		{"scrub: {every: 7d}", segstore.Scrub{Every: 7 * day, Rate: segstore.DefaultScrubRate}},
		{"scrub: {every: 36h, rate: 5MB/s}", segstore.Scrub{Every: 36 * time.Hour, Rate: 5e6}},
		{"scrub: {rate: 2GB/s}", segstore.Scrub{Every: 30 * day, Rate: 2e9}},
	} {
		var e edgeFile
		var h hubFile
		for _, into := range []configuration{&e, &h} {
			if err := parseConfig("x.yaml", []byte("dir: /data\n"+c.text+"\n"), into); err != nil {
				t.Fatal(err)
			}
		}
		if e.storage.Scrub != c.want || h.storage.Scrub != c.want {
			t.Errorf("%q: %+v and %+v, want %+v", c.text, e.storage.Scrub, h.storage.Scrub, c.want)
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
