package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

// exportProves exports two seconds around the gap between the two recordings of a node, and all of them,
// and changes what was exported.
func exportProves(t *testing.T, node string) {
	t.Helper()
	list, err := segstore.List(filepath.Join(node, "store"), "entrance.main", branchline.TimeRange{})
	if err != nil || len(list) != 2 {
		t.Fatalf("%d segments: %v", len(list), err)
	}
	command := func(code int, args ...string) string { t.Helper(); return seg(t, code, args...) }
	all, some := filepath.Join(t.TempDir(), "all"), filepath.Join(t.TempDir(), "some")
	export := []string{"export", node, "--stream", "entrance.main"}
	command(0, append(export, "-o", all)...)
	from, to := list[0].Span.End.Add(-time.Second), list[1].Span.Start.Add(time.Second)
	told := command(0, append(export, "-o", some, "--json",
		"--from", from.Format(time.RFC3339Nano), "--to", to.Format(time.RFC3339Nano))...)
	var done struct{ Files, Missing int }
	if err := json.Unmarshal([]byte(told), &done); err != nil || done.Files != 2 || done.Missing == 0 {
		t.Errorf("told %q: %v", told, err)
	}
	command(exitUsage, append(export, "-o", all)...) // is there already
	command(exitFailure, "export", node, "--stream", "other.main", "-o", all+"2")
	if left, _ := os.ReadDir(filepath.Dir(all)); len(left) != 1 {
		t.Errorf("left beside it: %v", left)
	}
	for dir, excerpts := range map[string]int{all: 0, some: 2} {
		m, err := readManifest(filepath.Join(dir, manifestName))
		if err != nil || len(m.Files) != 2 {
			t.Fatalf("%+v: %v", m, err)
		}
		for _, f := range m.Files {
			if f.Excerpt {
				excerpts--
			}
		}
		if excerpts != 0 {
			t.Errorf("%d excerpts more are wanted in %s", excerpts, dir)
		}
		if text := command(0, "check", dir); !strings.Contains(text, "2 files checked, 0 with problems") {
			t.Error(text)
		}
		text, err := os.ReadFile(filepath.Join(dir, "README.txt"))
		if err != nil || !bytes.Contains(text, []byte(m.Files[0].Key)) {
			t.Errorf("the text for people has no key: %v", err)
		}
	}
	harmIsFound(t, some)
}

// seg runs a command of seg and returns what it says.
func seg(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), append([]string{"seg"}, args...), &out, &errs); got != code {
		t.Errorf("%v: exit code %d, want %d: %s%s", args, got, code, &out, &errs)
	}
	return out.String() + errs.String()
}

// harmIsFound changes copies of an evidence package of two files.
func harmIsFound(t *testing.T, some string) {
	t.Helper()
	for _, c := range []struct {
		name, says string
		harm       func(dir string, m *manifest)
	}{
		{"a file is away", "is missing", func(dir string, m *manifest) { os.Remove(filepath.Join(dir, m.Files[0].Name)) }},
		{"one more", "does not have this file", func(_ string, m *manifest) { m.Files = m.Files[1:] }},
		{"another hash", "SHA-256", func(_ string, m *manifest) { m.Files[1].SHA256 = m.Files[0].SHA256 }},
		{"another time", "start: the file has", func(_ string, m *manifest) { m.Files[1].Start = m.First }},
		{"the gap is hidden", "does not say so", func(_ string, m *manifest) { m.Missing = nil }},
		{"it goes on for longer", "do not begin", func(_ string, m *manifest) { m.Last = m.Last.Add(time.Hour) }},
		{"newer", "not known", func(_ string, m *manifest) { m.Version++ }},
		{"exchanged", "the file has", func(dir string, m *manifest) {
			a, b := filepath.Join(dir, m.Files[0].Name), filepath.Join(dir, m.Files[1].Name)
			os.Rename(a, dir+"/x")
			os.Rename(b, a)
			os.Rename(dir+"/x", b)
		}},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(some)); err != nil {
			t.Fatal(err)
		}
		m, err := readManifest(filepath.Join(dir, manifestName))
		if err != nil {
			t.Fatal(err)
		}
		c.harm(dir, &m)
		text, err := json.Marshal(m)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, manifestName), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if text := seg(t, exitFailure, "check", dir); !strings.Contains(text, c.says) {
			t.Errorf("%s: %s", c.name, text)
		}
	}
}
