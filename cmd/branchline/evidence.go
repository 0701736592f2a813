package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

// An evidence package is a directory with recordings that prove themselves, a manifest and a text for
// people.

const (
	manifestName    = "manifest.json"
	manifestFormat  = "branchline evidence package"
	manifestVersion = 1
	// maxManifest bounds the manifest, in bytes: two months of one-minute segments.
	maxManifest = 64 << 20
)

// manifest says what is in an evidence package. Its JSON names are a contract with scripts.
type manifest struct {
	Format   string         `json:"format"`
	Version  int            `json:"version"`
	Tool     string         `json:"tool"`
	Created  time.Time      `json:"created"`
	Stream   string         `json:"stream"`        // as the exporting node calls it
	From     time.Time      `json:"from,omitzero"` // asked for
	To       time.Time      `json:"to,omitzero"`
	First    time.Time      `json:"first"` // in the files
	Last     time.Time      `json:"last"`
	Files    []manifestFile `json:"files"`
	Missing  []missingSpan  `json:"missing,omitempty"`  // asked for and in no file
	Unsealed []missingSpan  `json:"unsealed,omitempty"` // there, and not proven yet
}

type manifestFile struct {
	Name      string    `json:"name"`
	SHA256    string    `json:"sha256"`
	Bytes     int64     `json:"bytes"`
	Segment   string    `json:"segment"`
	Stream    string    `json:"stream"` // as the edge calls it
	Run       uint64    `json:"run"`
	Number    uint32    `json:"number"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end"`
	Fragments int       `json:"fragments"`
	Of        int       `json:"of"`
	Excerpt   bool      `json:"excerpt"`
	Thinned   bool      `json:"thinned"`
	Codecs    string    `json:"codecs"`
	Hash      string    `json:"hash"`
	Previous  string    `json:"previous,omitempty"`
	Key       string    `json:"key"`
}

// missingSpan is a time without recordings; no cause: it is not known here.
type missingSpan struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Cause string    `json:"cause,omitempty"`
}

func sortMissing(all []missingSpan) {
	slices.SortFunc(all, func(a, b missingSpan) int { return a.From.Compare(b.From) })
}

// readme is the text for people.
func (m manifest) readme() string {
	var b strings.Builder
	fmt.Fprintf(&b, `Recordings of %s, %s to %s (UTC).
Exported %s with %s.

Each .mp4 plays in any player that knows fragmented MP4 (VLC, mpv, ffplay, a browser). Its time line is
the time of day: seconds since 1970-01-01 00:00 UTC.

To verify that nothing was changed since the camera's recorder signed it:

    branchline seg check DIRECTORY

Each file contains a table with the SHA-256 of every half second of picture and sound, signed with the
recorder's Ed25519 key. An excerpt has only some of what the table lists; each part in it is proven.
docs/reference/segment.md of Branchline describes the format, for verifying with other tools.
The files were signed with the keys below: compare them with the site's certificate.

`, m.Stream, readable(m.First), readable(m.Last), readable(m.Created), m.Tool)
	var keys []string
	for _, f := range m.Files {
		if !slices.Contains(keys, f.Key) {
			keys = append(keys, f.Key)
			fmt.Fprintf(&b, "    key %s\n", f.Key)
		}
	}
	fmt.Fprintf(&b, "\nFiles:\n")
	for _, f := range m.Files {
		what := "whole segment"
		if f.Excerpt {
			what = fmt.Sprintf("%d of %d parts", f.Fragments, f.Of)
		}
		fmt.Fprintf(&b, "    %s  %s to %s, %s\n", f.Name, readable(f.Start), readable(f.End), what)
	}
	for _, g := range m.Missing {
		cause := g.Cause
		if cause == "" {
			cause = "the cause is not known here"
		}
		fmt.Fprintf(&b, "    not recorded or not here: %s to %s: %s\n", readable(g.From), readable(g.To), cause)
	}
	for _, g := range m.Unsealed {
		fmt.Fprintf(&b, "    left out: %s to %s: %s\n", readable(g.From), readable(g.To), g.Cause)
	}
	return b.String()
}

// checkPackage verifies what a directory's manifest says of its files, whose reports are given, and that
// it is about all of them. A directory without a manifest is no package, and nothing is wrong with it.
func checkPackage(dir string, reports []segstore.Report) error {
	m, err := readManifest(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) || !isDir(dir) {
		return nil
	}
	if err != nil {
		return err
	}
	listed := make(map[string]manifestFile, len(m.Files))
	for _, f := range m.Files {
		if f.Name != filepath.Base(f.Name) {
			return fmt.Errorf("%q is no file name", f.Name)
		}
		listed[f.Name] = f
	}
	for i := range reports {
		r := &reports[i]
		if filepath.Dir(r.Path) != filepath.Clean(dir) {
			continue
		}
		f, ok := listed[filepath.Base(r.Path)]
		if !ok {
			r.Problems = append(r.Problems, "the manifest does not have this file")
			continue
		}
		delete(listed, f.Name)
		if err := f.matches(*r); err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	for _, f := range m.Files {
		if _, missing := listed[f.Name]; missing {
			return fmt.Errorf("%s is missing", f.Name)
		}
	}
	return m.checkTimes()
}

// checkTimes holds the times that the manifest says of the whole against those of the files.
func (m manifest) checkTimes() error {
	var parts, missing []branchline.TimeRange
	for _, f := range m.Files {
		parts = append(parts, branchline.TimeRange{Start: f.Start, End: f.End.Add(joinWithin)})
	}
	for _, g := range m.Missing {
		missing = append(missing, branchline.TimeRange{Start: g.From, End: g.To})
	}
	covered := branchline.NewSpans(parts...)
	if n := len(covered); n == 0 || !m.First.Equal(covered[0].Start) || !m.Last.Equal(covered[n-1].End.Add(-joinWithin)) {
		return fmt.Errorf("the files do not begin at %v and end at %v", m.First, m.Last)
	}
	all := branchline.TimeRange{Start: m.First, End: m.Last}
	for _, hole := range (branchline.Spans{all}).Minus(covered).Minus(branchline.NewSpans(missing...)) {
		if hole.Duration() > joinWithin {
			return fmt.Errorf("nothing of %v to %v is here, and the manifest does not say so", hole.Start, hole.End)
		}
	}
	return nil
}

func readManifest(path string) (manifest, error) {
	var m manifest
	f, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxManifest)).Decode(&m); err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if m.Format != manifestFormat || m.Version != manifestVersion {
		return m, fmt.Errorf("read manifest: %q, version %d, is not known", m.Format, m.Version)
	}
	return m, nil
}

// matches returns what a file has that the manifest says differently.
func (f manifestFile) matches(r segstore.Report) error {
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"bytes", r.Size, f.Bytes}, {"segment", r.Segment, f.Segment}, {"stream", r.Stream, f.Stream},
		{"run", r.Run, f.Run}, {"number", r.Number, f.Number}, {"fragments", r.Fragments, f.Fragments},
		{"fragments in all", r.Of, f.Of}, {"excerpt", r.Excerpt, f.Excerpt}, {"thinned", r.Thinned, f.Thinned},
		{"start", r.Start.UnixNano(), f.Start.UnixNano()}, {"end", r.End.UnixNano(), f.End.UnixNano()},
		{"codecs", r.Codecs, f.Codecs}, {"hash", r.Hash, f.Hash}, {"previous hash", r.Previous, f.Previous},
		{"key", r.Key, f.Key},
	} {
		if c.got != c.want {
			return fmt.Errorf("%s: the file has %v, the manifest says %v", c.what, c.got, c.want)
		}
	}
	file, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("SHA-256: the file has %s, the manifest says %s", got, f.SHA256)
	}
	return nil
}
