package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// exit is a run of the program: what it is given, and what it does.
type exit struct {
	name string
	args []string
	code int
	says string
}

func (c exit) check(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		var out, errs bytes.Buffer
		code := run(t.Context(), c.args, &out, &errs)
		if code != c.code {
			t.Errorf("exit code %d, want %d", code, c.code)
		}
		if all := out.String() + errs.String(); !strings.Contains(all, c.says) {
			t.Errorf("it does not say %q:\n%s", c.says, all)
		}
	})
}

// TestExitCodes: 0 for success, 1 for a failure at run time, 2 for wrong usage or configuration, and
// each with a line that says what to do.
func TestExitCodes(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []exit{
		{"help", []string{"--help"}, 0, "Commands:"},
		{"nothing", nil, 0, "Commands:"},
		{"help of a command", []string{"edge", "--help"}, 0, "--config"},
		{"version", []string{"version"}, 0, "branchline dev"},
		{"no such command", []string{"fly"}, exitUsage, "unexpected argument fly"},
		{"no such flag", []string{"version", "--fast"}, exitUsage, "unknown flag --fast"},
		{"bad level", []string{"--log-level", "loud", "version"}, exitUsage, "none of debug, info, warn, error"},
		{"edge without configuration", []string{"edge"}, exitUsage, "missing flags: --config"},
		{"edge with a missing file", []string{"edge", "--config", "/none.yaml"}, exitUsage, "no such file"},
		{"edge with a bad file", []string{"edge", "--config", file(t, "dir: /d\nkamera: 1\n")}, exitUsage,
			":2:1: unknown field"},
		{"edge with a bad token", []string{"edge", "--config", file(t, "dir: "+empty+"\n"), "--token", "xyz"},
			exitUsage, "--token"},
		{"edge with a missing key", []string{"edge", "--config",
			file(t, "dir: "+empty+"\nencryption: {key_file: /none}\n")}, exitUsage, "/none: no such file"},
		{"hub with a bad policy", []string{"hub", "--config",
			file(t, "dir: /d\npolicies:\n  - {streams: \"*\", keep: some}\n")}, exitUsage, ":3: policies[0].keep"},
		{"hub without the organisation's key", []string{"hub", "--config",
			file(t, "dir: /d\nauthority:\n  certificate: /c\n")}, exitUsage, ":3: authority: needs key"},
		{"hub with a field that names no site", []string{"hub", "--config",
			file(t, "dir: /d\nauthority: {certificate: /c, key: /k, clients: /a,\n  site: {field: mail}}\n")}, exitUsage,
			":3: authority.site.field"},
		{"edge without the organisation's authority", []string{"edge", "--config",
			file(t, "dir: /d\nidentity: {certificate: /c, key: /k}\n")}, exitUsage, ":2: identity: needs authority"},
		{"approve a wrong instance", []string{"site", "approve", "berlin", "--instance", "one", "--dir", empty}, exitUsage,
			"16 digits"},
		{"an overlap below zero", []string{"authority", "rotate", "--overlap=-1h", "--dir", empty}, exitUsage, "--overlap"},
		{"site of no hub", []string{"site", "list", "--dir", empty}, exitFailure, "is it running"},
		{"site with a bad name", []string{"site", "add", "Big City", "--dir", empty}, exitUsage, "labels are"},
		{"camera of no size", []string{"camera", "--size", "big"}, exitUsage, "640x360"},
		{"too many cameras", []string{"camera", "--count", "1000"}, exitUsage, "between 1 and 64"},
		{"demo for less than nothing", []string{"demo", "--for=-1s"}, exitUsage, "negative"},
		{"camera that cannot be", []string{"camera", "--listen", "127.0.0.1:0", "--rate", "1000"}, exitUsage, "rate 1000"},
	} {
		c.check(t)
	}
}

// TestExitCodesOfSeg: the same for the inspector's commands.
func TestExitCodesOfSeg(t *testing.T) {
	empty, store := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(store, "segments"), 0o755); err != nil {
		t.Fatal(err)
	}
	rotten := filepath.Join(empty, "rotten.mp4")
	if err := os.WriteFile(rotten, []byte("no box at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []exit{
		{"seg key over something", []string{"seg", "key", "new", rotten}, exitUsage, "is there already"},
		{"seg check with a bad key", []string{"seg", "check", rotten, "--key-file", rotten}, exitUsage,
			"rotten.mp4: line 1: is no key"},
		{"seg key", []string{"seg", "key", "new", filepath.Join(empty, "key")}, 0, "Keep a copy"},
		{"seg ls of no store", []string{"seg", "ls", empty}, exitUsage, "not the directory of a node or a store"},
		{"seg ls with a bad time", []string{"seg", "ls", store, "--from", "noon"}, exitUsage, "2026-11-23T12:00:00Z"},
		{"seg ls from after to", []string{"seg", "ls", store, "--from", "1m", "--to", "2m"}, exitUsage, "is not before"},
		{"seg ls of an empty store", []string{"seg", "ls", store}, 0, "0 segments"},
		{"seg rebuild of an empty store", []string{"seg", "rebuild", store}, 0, "0 segments in"},
		{"seg rebuild of no store", []string{"seg", "rebuild", empty}, exitUsage, "not the directory of a node or a store"},
		{"seg cat without a stream", []string{"seg", "cat", store}, exitUsage, "--stream"},
		{"seg cat of nothing", []string{"seg", "cat", store, "--stream", "a.main"}, exitFailure, "not found"},
		{"seg export without a stream", []string{"seg", "export", store, "-o", store + "/x"}, exitUsage, "--stream"},
		{"seg export of nothing", []string{"seg", "export", store, "--stream", "a.main", "-o", store + "/x"}, exitFailure,
			"not found"},
		{"seg export over something", []string{"seg", "export", store, "--stream", "a.main", "-o", store}, exitUsage,
			"is there already"},
		{"seg check of a rotten file", []string{"seg", "check", rotten}, exitFailure, "1 of 1 files have problems"},
		{"seg restore to no store", []string{"seg", "restore", empty, rotten}, exitFailure, "is no store"},
		{"seg restore of a rotten file", []string{"seg", "restore", store, rotten}, exitFailure, "damaged or not sealed"},
		{"seg check of no file", []string{"seg", "check", "/none.mp4"}, exitUsage, "no such file"},
	} {
		c.check(t)
	}
}

// TestDemo runs the whole demonstration for a few seconds; it needs no root, network or program.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 { // the second time with the data of the first
		var out, errs bytes.Buffer
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		code := run(ctx, []string{"demo", "--http", "127.0.0.1:0", "--dir", dir, "--for", "6s", "--json"}, &out, &errs)
		stop()
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, &errs)
		}
		dec := json.NewDecoder(&out)
		var ready struct{ HTTP, User, Password, Dir string }
		var summary demoSummary
		if err := dec.Decode(&ready); err != nil || ready.HTTP == "" || ready.Password == "" || ready.Dir != dir {
			t.Fatalf("ready: %+v: %v", ready, err)
		}
		if err := dec.Decode(&summary); err != nil {
			t.Fatal(err)
		}
		if len(summary.Sites) != 2 || summary.Hub.Cameras != 4 {
			t.Fatalf("round %d: %+v", round, summary)
		}
		for _, s := range summary.Sites {
			if !*s.Linked || s.Cameras != 2 || s.Segments != 2*(round+1) {
				t.Errorf("round %d: %+v", round, s)
			}
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"seg", "check", filepath.Join(dir, "berlin")}, &out, &errs); code != 0 {
		t.Errorf("seg check: %s%s", &out, &errs)
	}
	checkFindsWhatIsMissing(t, filepath.Join(dir, "berlin", "store", "segments", "yard.main"))
	out.Reset()
	if code := run(t.Context(), []string{"seg", "ls", filepath.Join(dir, "lyon"), "--json"}, &out, &errs); code != 0 ||
		strings.Count(out.String(), "\n") != 4 {
		t.Errorf("seg ls: %s%s", &out, &errs)
	}
	exportProves(t, filepath.Join(dir, "berlin"))
	film := filepath.Join(dir, "out.mp4")
	args := []string{"seg", "cat", filepath.Join(dir, "berlin"), "--stream", "entrance.main", "--from", "1m", "-o", film}
	if code := run(t.Context(), args, &out, &errs); code != 0 {
		t.Fatalf("seg cat: %s", &errs)
	}
	if info, err := os.Stat(film); err != nil || info.Size() < 1e6 {
		t.Errorf("seg cat wrote %v: %v", info, err)
	}
}

// checkFindsWhatIsMissing takes segments away from a stream, and puts one in another's place.
func checkFindsWhatIsMissing(t *testing.T, stream string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(stream, "*", "*.mp4"))
	if err != nil || len(files) != 2 {
		t.Fatalf("got %v, %v", files, err)
	}
	check := func(want int, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"seg", "check"}, args...), &out, &errs); code != want {
			t.Errorf("exit code %d, want %d: %s%s", code, want, &out, &errs)
		}
	}
	check(0, "--complete", stream)
	text, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	check(exitFailure, stream)
}
