package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/branchline-video/branchline/segstore"
)

func TestChains(t *testing.T) {
	at := func(run uint64, number uint32, previous, hash string) segstore.Report {
		return segstore.Report{
			Path: "s/a.main/20261123/x.mp4", Run: run, Number: number, Sealed: true, Previous: previous, Hash: hash,
		}
	}
	cut := func(r segstore.Report) segstore.Report { r.Cut = true; return r }
	by := func(key string, r segstore.Report) segstore.Report { r.Key = key; return r }
	in := func(dir string, r segstore.Report) segstore.Report {
		r.Path = dir + "/a.main/20261123/x.mp4"
		return r
	}
	for _, c := range []struct {
		name            string
		reports         []segstore.Report
		missing, broken int
	}{
		{"whole, in any order", []segstore.Report{at(2, 0, "b", "c"), at(1, 0, "", "a"), at(1, 1, "a", "b")}, 0, 0},
		{"one taken out of a run", []segstore.Report{at(1, 0, "", "a"), at(1, 2, "b", "c")}, 1, 0},
		{"one taken out between runs", []segstore.Report{at(1, 0, "", "a"), at(2, 0, "b", "c")}, 1, 0},
		{"the first is gone", []segstore.Report{at(1, 1, "a", "b"), at(1, 2, "b", "c")}, 0, 0},
		{"one exchanged", []segstore.Report{at(1, 0, "", "other"), at(1, 1, "a", "b")}, 0, 1},
		{"one still grows", []segstore.Report{at(1, 0, "", "a"), {Path: "s/growing/a.main/y.mp4"}}, 0, 0},
		{"sealed after the next", []segstore.Report{at(1, 0, "", "a"), cut(at(1, 1, "c", "b")), at(1, 2, "a", "c"),
			at(1, 3, "c", "d")}, 0, 0},
		{"that, and what both sides name is gone", []segstore.Report{at(1, 0, "", "a"), cut(at(1, 2, "d", "c")),
			at(1, 3, "b", "d")}, 1, 0},
		{"that, and what it names is gone", []segstore.Report{at(1, 0, "", "a"), cut(at(1, 1, "d", "b")),
			at(1, 2, "a", "c")}, 1, 0},
		{"that, and it is the first here", []segstore.Report{cut(at(1, 1, "c", "b")), at(1, 2, "a", "c")}, 0, 0},
		{"that, and it was the very first", []segstore.Report{cut(at(1, 0, "b", "a")), at(1, 1, "", "b")}, 0, 0},
		{"sealing was late, and what two name is gone", []segstore.Report{at(1, 0, "", "a"), at(1, 2, "b", "c"),
			at(1, 3, "b", "d")}, 1, 0},
		{"two begin", []segstore.Report{at(1, 0, "", "a"), at(2, 0, "", "b")}, 1, 0},
		{"names nothing at all", []segstore.Report{at(1, 0, "", "a"), at(1, 1, "a", "b"), at(2, 0, "x", "c")}, 1, 0},
		{"one more, of another signer", []segstore.Report{by("k", at(1, 0, "", "a")), by("x", at(1, 1, "a", "b")),
			by("k", at(2, 0, "a", "c"))}, 0, 1},
		{"that, in a run of its own", []segstore.Report{by("k", at(1, 0, "", "a")), by("x", at(2, 0, "a", "b"))}, 1, 0},
		{"on two volumes", []segstore.Report{at(1, 0, "", "a"), in("v", at(1, 1, "a", "b")), at(1, 2, "b", "c")}, 0, 0},
		{"two copies", []segstore.Report{at(1, 0, "", "a"), at(1, 0, "", "a"), in("v", at(1, 0, "", "a"))}, 0, 0},
		{"two sites", []segstore.Report{by("k", at(1, 0, "", "a")), by("l", in("v", at(1, 0, "", "b")))}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			missing, broken := checkChains(c.reports), 0
			for _, r := range c.reports {
				broken += len(r.Problems)
			}
			if missing != c.missing || broken != c.broken {
				t.Errorf("%d missing, %d broken; want %d, %d", missing, broken, c.missing, c.broken)
			}
		})
	}
}

// golden is a sealed segment of the stream cam.main.
const golden = "../../segstore/testdata/segment.mp4"

// goldenStore makes a store that has the golden segment, and a volume. It returns the segment's path.
func goldenStore(t *testing.T) (store, volume, path string) {
	t.Helper()
	store, volume = t.TempDir(), t.TempDir()
	r, err := segstore.Check(golden)
	if err != nil || !r.OK() {
		t.Fatalf("%v: %v", r, err)
	}
	path = filepath.Join(store, "segments", r.Stream, r.Start.UTC().Format("20060102"), r.Segment+".mp4")
	copyFile(t, golden, path)
	if err := os.WriteFile(filepath.Join(store, "volumes"), []byte(volume+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return store, volume, path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCatSparesWhatIsThere: no recording is overwritten, and another file not before all is written.
func TestCatSparesWhatIsThere(t *testing.T) {
	store, volume, path := goldenStore(t)
	r, err := segstore.Check(path)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	film, alias := filepath.Join(other, "film.mp4"), filepath.Join(other, "alias")
	for link, to := range map[string]string{alias: path, filepath.Join(other, "dir"): volume} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, "seg_test.go", film)
	before, _ := os.ReadFile(film)
	cat := []string{"cat", store, "--stream", r.Stream}
	for _, to := range []string{path, alias, filepath.Join(store, "x"), filepath.Join(volume, "x"),
		filepath.Join(other, "dir", "x")} {
		if text := seg(t, exitUsage, append(cat, "-o", to)...); !strings.Contains(text, "is among the recordings") {
			t.Error(text)
		}
	}
	if r, err := segstore.Check(path); err != nil || !r.OK() {
		t.Errorf("%v: %v", r, err)
	}
	seg(t, exitFailure, append(cat, "-o", film, "--from", "1m")...)
	after, _ := os.ReadFile(film)
	if string(after) != string(before) {
		t.Error("a failure has changed the output")
	}
	seg(t, 0, append(cat, "-o", film)...)
	seg(t, 0, append(cat, "-o", os.DevNull)...)
	if after, _ := os.ReadFile(film); string(after) == string(before) {
		t.Error("nothing was written")
	}
	if left, _ := filepath.Glob(filepath.Join(other, "*.part")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestCheckLeavesOutWhatIsAside: what a store has put aside is checked only when it is named.
func TestCheckLeavesOutWhatIsAside(t *testing.T) {
	store, _, _ := goldenStore(t)
	for _, dir := range []string{"restore", "trash", "quarantine"} {
		rotten := filepath.Join(store, dir, "x.mp4")
		copyFile(t, "seg_test.go", rotten)
		seg(t, exitFailure, "check", rotten)
		seg(t, exitFailure, "check", filepath.Join(store, dir))
	}
	if text := seg(t, 0, "check", store); !strings.Contains(text, "1 files checked, 0 with problems") {
		t.Error(text)
	}
}

// TestCheckNamesTheWrongFolder: a recording is where its stream's are, at an edge or at a hub.
func TestCheckNamesTheWrongFolder(t *testing.T) {
	store, _, path := goldenStore(t)
	r, err := segstore.Check(path)
	if err != nil {
		t.Fatal(err)
	}
	for folder, code := range map[string]int{r.Stream: 0, "berlin." + r.Stream: 0, "x" + r.Stream: exitFailure,
		"other.main": exitFailure, r.Stream + ".main": exitFailure} {
		to := filepath.Join(store, "segments", folder, filepath.Base(filepath.Dir(path)), filepath.Base(path))
		copyFile(t, golden, to)
		text := seg(t, code, "check", to)
		if code != 0 && !strings.Contains(text, "in the folder of "+folder+" and is a recording of "+r.Stream) {
			t.Error(text)
		}
	}
}
