package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/crypt"
)

type segExportCommand struct {
	storeRange
	keyFlag
	Output string `short:"o" required:"" help:"Make this directory; it must not be there." type:"path" placeholder:"DIR"`
	JSON   bool   `help:"Print JSON: one line when it is done."`
}

// exporter makes an evidence package.
type exporter struct {
	t        *terminal
	dir      string // where it is being made
	store    string
	files    segstore.Files
	span     branchline.TimeRange
	manifest manifest
	parts    []branchline.TimeRange // what the files cover
	bytes    int64
	told     time.Time // when progress was told last
}

// Run writes the range as an evidence package: files that prove themselves, what they are, and how to
// verify them. The directory appears when all of it is written, or not at all.
func (c *segExportCommand) Run(t *terminal) (err error) {
	if c.Stream == "" {
		return usageError{errors.New("--stream: say which stream to export, such as entrance.main")}
	}
	if names, err := os.ReadDir(c.Output); err == nil && len(names) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("--output %s: is there already", c.Output)}
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	list, span, err := c.list(t.now())
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(c.Output), "."+filepath.Base(c.Output)+".*")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	x := &exporter{t: t, dir: temp, store: c.dir(), files: segstore.Files{Keys: keys}, span: span, told: t.now()}
	x.manifest = manifest{Format: manifestFormat, Version: manifestVersion, Tool: "branchline " + version,
		Created: t.now().UTC(), Stream: c.Stream, From: span.Start, To: span.End}
	if err := x.export(list); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := errors.Join(os.Chmod(temp, 0o755), os.Rename(temp, c.Output), syncPath(filepath.Dir(c.Output))); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	m := x.manifest
	if c.JSON {
		return printJSON(t.stdout, map[string]any{"dir": c.Output, "files": len(m.Files), "bytes": x.bytes,
			"missing": len(m.Missing), "unsealed": len(m.Unsealed), "first": m.First, "last": m.Last})
	}
	_, err = fmt.Fprintf(t.stdout, "%s: %d files, %.1f MB, %s to %s, %d gaps\nVerify with: branchline seg check %s\n",
		c.Output, len(m.Files), float64(x.bytes)/1e6, readable(m.First), readable(m.Last), len(m.Missing), c.Output)
	return err
}

// export writes the files, then what describes them, and syncs all of it.
func (x *exporter) export(list []branchline.Segment) error {
	for i, seg := range list {
		if err := x.t.ctx.Err(); err != nil {
			return err
		}
		if err := x.add(seg); err != nil {
			return err
		}
		if now := x.t.now(); now.Sub(x.told) > time.Second {
			x.told = now
			fmt.Fprintf(x.t.stderr, "%d of %d segments, %.1f MB\n", i+1, len(list), float64(x.bytes)/1e6)
		}
	}
	if len(x.manifest.Files) == 0 {
		return fmt.Errorf("nothing sealed of %s in the range: %w", x.manifest.Stream, branchline.ErrNotFound)
	}
	if err := x.gaps(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(x.manifest, "", "  ")
	if err == nil && len(text) >= maxManifest {
		err = fmt.Errorf("%d files are more than a manifest has: take a shorter range: %w", len(x.manifest.Files),
			branchline.ErrTooLarge)
	}
	if err != nil {
		return err
	}
	return errors.Join(
		writeSynced(filepath.Join(x.dir, manifestName), append(text, '\n')),
		writeSynced(filepath.Join(x.dir, "README.txt"), []byte(x.manifest.readme())),
		syncPath(x.dir))
}

// add writes what the package is to have of a segment. One that is not sealed cannot be proven, and is
// only named; one that was removed meanwhile is a gap.
func (x *exporter) add(seg branchline.Segment) error {
	name := fmt.Sprintf("%s_%s.mp4", seg.Span.Start.UTC().Format("20060102T150405.000Z"), seg.ID)
	path := filepath.Join(x.dir, name)
	sum, err := x.write(path, segstore.File(x.store, seg))
	switch {
	case errors.Is(err, crypt.ErrNoKey):
		return err
	case errors.Is(err, branchline.ErrUnavailable):
		x.manifest.Unsealed = append(x.manifest.Unsealed,
			missingSpan{From: seg.Span.Start, To: seg.Span.End, Cause: "not sealed yet"})
	case errors.Is(err, branchline.ErrNotFound), errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		return x.enter(name, path, sum)
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (x *exporter) write(to, from string) (sum string, err error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
	err = x.files.Excerpt(buffered, from, x.span)
	if err == nil {
		err = errors.Join(buffered.Flush(), f.Sync())
	}
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, f.Close())
}

// enter reads back what was written and describes it.
func (x *exporter) enter(name, path, sum string) error {
	r, err := segstore.Check(path)
	if err == nil && !r.OK() {
		err = fmt.Errorf("what was written is not what was read: %v", r)
	}
	if err != nil {
		return err
	}
	x.bytes += r.Size
	x.manifest.Files = append(x.manifest.Files, manifestFile{Name: name, SHA256: sum, Bytes: r.Size,
		Segment: r.Segment, Stream: r.Stream, Run: r.Run, Number: r.Number, Start: r.Start, End: r.End,
		Fragments: r.Fragments, Of: r.Of, Excerpt: r.Excerpt, Thinned: r.Thinned, Codecs: r.Codecs,
		Hash: r.Hash, Previous: r.Previous, Key: r.Key})
	x.parts = append(x.parts, branchline.TimeRange{Start: r.Start, End: r.End.Add(joinWithin)})
	return nil
}

// joinWithin is the largest hole that is none: times are rounded to the tracks' clocks.
const joinWithin = time.Millisecond

// gaps enters what of the range is in no file, and what the store knows of why.
func (x *exporter) gaps() error {
	covered := branchline.NewSpans(x.parts...)
	x.manifest.First, x.manifest.Last = covered[0].Start, covered[len(covered)-1].End.Add(-joinWithin)
	asked := x.span
	if asked == (branchline.TimeRange{}) {
		asked = branchline.TimeRange{Start: x.manifest.First, End: x.manifest.Last}
	}
	if now := x.t.now(); asked.End.After(now) {
		asked.End = now
	}
	if asked.Start.Unix() == 0 { // no --from
		asked.Start = x.manifest.First
	}
	known, err := segstore.Gaps(x.store, branchline.StreamID(x.manifest.Stream), asked)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, hole := range (branchline.Spans{asked}).Minus(covered) {
		if hole.Duration() <= joinWithin {
			continue
		}
		unknown := branchline.Spans{hole}
		for _, g := range known {
			part := g.Span.Intersect(hole)
			if g.Open {
				part = (branchline.TimeRange{Start: g.Span.Start, End: hole.End}).Intersect(hole)
			}
			if part.Empty() || len(unknown.Intersect(branchline.Spans{part})) == 0 {
				continue
			}
			x.manifest.Missing = append(x.manifest.Missing, missingSpan{part.Start, part.End, string(g.Cause)})
			unknown = unknown.Minus(branchline.Spans{part})
		}
		for _, rest := range unknown {
			x.manifest.Missing = append(x.manifest.Missing, missingSpan{From: rest.Start, To: rest.End})
		}
	}
	sortMissing(x.manifest.Missing)
	return nil
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncPath makes what was entered in a directory durable.
func syncPath(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
