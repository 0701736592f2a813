package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/crypt"
)

type segCommands struct {
	Ls      segLsCommand      `cmd:"" help:"List the segments of a store."`
	Check   segCheckCommand   `cmd:"" help:"Verify segments: every fragment, footer, signature and the chain."`
	Rebuild segRebuildCommand `cmd:"" help:"Make the index of a stopped node's store again from its files."`
	Cat     segCatCommand     `cmd:"" help:"Write a range of a stream as one playable file to standard output."`
	Export  segExportCommand  `cmd:"" help:"Write a range of a stream as a directory that proves what was recorded."`
	Restore segRestoreCommand `cmd:"" help:"Put copies of lost segments back into a store."`
	Key     segKeyCommands    `cmd:"" help:"Keys for encryption at rest."`
}

// storeRange chooses segments of a store. The store may be in use.
type storeRange struct {
	Dir    string `arg:"" help:"Directory of a node or of its store." type:"existingdir"`
	Stream string `help:"Only this stream, such as entrance.main."`
	From   string `help:"Only from this time on: RFC 3339, or a duration ago such as 10m." placeholder:"TIME"`
	To     string `help:"Only before this time." placeholder:"TIME"`
}

// dir is the store's directory: that of a node contains it.
func (r storeRange) dir() string {
	if inner := filepath.Join(r.Dir, "store"); isDir(inner) {
		return inner
	}
	return r.Dir
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (r storeRange) list(now time.Time) ([]branchline.Segment, branchline.TimeRange, error) {
	span, err := r.span(now)
	if err != nil {
		return nil, span, err
	}
	stream := branchline.StreamID(r.Stream)
	if stream != "" {
		if err := stream.Check(); err != nil {
			return nil, span, usageError{fmt.Errorf("--stream: %w", err)}
		}
	}
	if !isDir(filepath.Join(r.dir(), "segments")) {
		return nil, span, usageError{fmt.Errorf("%s is not the directory of a node or a store", r.Dir)}
	}
	list, err := segstore.List(r.dir(), stream, span)
	return list, span, err
}

// span is the zero range when neither end is given.
func (r storeRange) span(now time.Time) (branchline.TimeRange, error) {
	if r.From == "" && r.To == "" {
		return branchline.TimeRange{}, nil
	}
	from, err := parseTime("--from", r.From, time.Unix(0, 0), now)
	if err != nil {
		return branchline.TimeRange{}, err
	}
	to, err := parseTime("--to", r.To, now.AddDate(1, 0, 0), now)
	if err != nil {
		return branchline.TimeRange{}, err
	}
	span := branchline.TimeRange{Start: from, End: to}
	if span.Empty() {
		return span, usageError{fmt.Errorf("--from %s is not before --to %s", readable(from), readable(to))}
	}
	return span, nil
}

func parseTime(flag, text string, otherwise, now time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, usageError{fmt.Errorf("%s %q: write for example 2026-11-23T12:00:00Z, or 10m for ten minutes ago",
			flag, text)}
	}
	return t.UTC(), nil
}

type segLsCommand struct {
	storeRange
	JSON bool `help:"Print JSON, a line for each segment."`
}

// listedSegment is a segment as ls --json prints it; the names are a contract with scripts.
type listedSegment struct {
	ID        string    `json:"id"`
	Stream    string    `json:"stream"`
	Run       uint64    `json:"run"`
	Number    uint32    `json:"number"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end"`
	Bytes     int64     `json:"bytes"` // of the file
	Fragments int       `json:"fragments"`
	Sealed    bool      `json:"sealed"`
	Thinned   bool      `json:"thinned"` // only some fragments are left
	Hash      string    `json:"hash,omitempty"`
	Codecs    string    `json:"codecs"`
}

// Run prints the store's segments by stream and start.
func (c *segLsCommand) Run(t *terminal) error {
	list, _, err := c.list(t.now())
	if err != nil {
		return err
	}
	tab := tabwriter.NewWriter(t.stdout, 0, 4, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(tab, "STREAM\tSTART\tSECONDS\tRUN\tNUMBER\tKB\tFRAGMENTS\tSTATE\tID")
	}
	var bytes int64
	for _, s := range list {
		if thinned(s) {
			s.Size = fileSize(segstore.File(c.dir(), s))
		}
		bytes += s.Size
		if !c.JSON {
			fmt.Fprintf(tab, "%s\t%s\t%.1f\t%d\t%d\t%d\t%d\t%s\t%s\n", s.Stream, readable(s.Span.Start),
				s.Span.Duration().Seconds(), s.Run, s.Number, s.Size/1000, len(s.Fragments), sealedOrNot(s), s.ID)
			continue
		}
		one := listedSegment{ID: s.ID.String(), Stream: string(s.Stream), Run: s.Run, Number: s.Number,
			Start: s.Span.Start, End: s.Span.End, Bytes: s.Size, Fragments: len(s.Fragments), Sealed: s.Sealed,
			Thinned: thinned(s), Codecs: s.Codecs}
		if s.Sealed {
			one.Hash = s.Hash.String()
		}
		if err := printJSON(t.stdout, one); err != nil {
			return err
		}
	}
	if c.JSON {
		return nil
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.stdout, "%d segments, %.1f MB\n", len(list), float64(bytes)/1e6)
	return err
}

func sealedOrNot(s branchline.Segment) string {
	switch {
	case thinned(s):
		return "thinned"
	case s.Sealed:
		return "sealed"
	}
	return "open"
}

func thinned(s branchline.Segment) bool { return s.Sealed && !segstore.Whole(s) }

// fileSize is zero for a file that is not there any more.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

type segCheckCommand struct {
	keyFlag
	Paths    []string `arg:"" help:"Segment files, or directories of nodes or stores." type:"path"`
	Complete bool     `help:"Fail also where a stream's chain names a segment that is not here."`
	JSON     bool     `help:"Print JSON, a line for each file."`
}

// Run verifies each file by itself, and then that each stream's segments name one another.
func (c *segCheckCommand) Run(t *terminal) error {
	files, err := segmentFiles(c.Paths)
	if err != nil {
		return err
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	reports := make([]segstore.Report, 0, len(files))
	for _, path := range files {
		if r, ok := checkFile(path, keys); ok {
			reports = append(reports, r)
		}
	}
	missing := checkChains(reports)
	bad, unverified := 0, 0
	for _, dir := range c.Paths {
		if err := checkPackage(dir, reports); err != nil {
			reports = append(reports, segstore.Report{Path: filepath.Join(dir, manifestName), Problems: []string{err.Error()}})
		}
	}
	for _, r := range reports {
		switch {
		case len(r.Problems) > 0:
			bad++
		case r.Unverified != "":
			unverified++
		}
		if c.JSON {
			err = printJSON(t.stdout, r)
		} else {
			_, err = fmt.Fprintln(t.stdout, r)
		}
		if err != nil {
			return err
		}
	}
	if !c.JSON {
		text := ""
		if unverified > 0 {
			text = fmt.Sprintf(", %d encrypted and not verified", unverified)
		}
		fmt.Fprintf(t.stdout, "%d files checked, %d with problems%s; %d chains name a segment that is not here\n",
			len(reports), bad, text, missing)
	}
	switch {
	case bad > 0:
		return fmt.Errorf("%d of %d files have problems", bad, len(reports))
	case c.Complete && missing > 0:
		return fmt.Errorf("segments are missing in %d places", missing)
	case unverified > 0:
		return fmt.Errorf("%d of %d files are encrypted and were not verified: give --key-file", unverified, len(reports))
	}
	return nil
}

// checkFile verifies one file, also that its name and its folder are right. It reports false for one that is gone.
func checkFile(path string, keys *crypt.Keys) (segstore.Report, bool) {
	r, err := segstore.Files{Keys: keys}.Check(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false // sealed and moved, or removed, since the directory was read
	}
	if err != nil {
		r = segstore.Report{Path: path, Problems: []string{err.Error()}}
	}
	if name := strings.TrimSuffix(filepath.Base(path), ".mp4"); r.Sealed && len(name) == 32 && name != r.Segment {
		r.Problems = append(r.Problems, "the name is that of another segment: this is "+r.Segment)
	}
	if folder := streamFolder(path); r.Sealed && folder != "" && folder != r.Stream &&
		!strings.HasSuffix(folder, "."+r.Stream) { // a hub puts the site before it
		r.Problems = append(r.Problems, "the file is in the folder of "+folder+" and is a recording of "+r.Stream)
	}
	return r, true
}

// linkName names a segment in the chain of a stream, which one key signs.
type linkName struct{ stream, key, hash string }

// place is where a segment stands in what its recorder made.
type place struct {
	folder string
	run    uint64
	number uint32
}

// chain is what a stream's segments in one folder name and is not here.
type chain struct {
	first string          // the hash of the segment that names none
	lost  map[string]bool // hashes
}

// checkChains follows each stream's chain of hashes, in whatever order it was sealed: a segment that was
// broken off may be sealed after later ones. One that names no segment that is here is a problem where the
// one before it in its run is here. Elsewhere, and where a crash may be the reason, it means that a segment
// is not here, which may have its reason: it was removed, or never brought over. It returns how many are
// missing so, without the one before a stream's beginning.
func checkChains(reports []segstore.Report) (missing int) {
	sort.SliceStable(reports, func(i, j int) bool {
		a, b := reports[i], reports[j]
		return cmp.Or(cmp.Compare(folderOf(a), folderOf(b)), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Number, b.Number)) < 0
	})
	here, at, chains := map[linkName]bool{}, map[place]segstore.Report{}, map[string]*chain{}
	for _, r := range reports {
		if r.Sealed {
			here[linkName{r.Stream, r.Key, r.Hash}] = true
			at[place{folderOf(r), r.Run, r.Number}] = r
			chains[folderOf(r)] = &chain{lost: map[string]bool{}}
		}
	}
	for i := range reports {
		r := &reports[i]
		if !r.Sealed || here[linkName{r.Stream, r.Key, r.Previous}] {
			continue
		}
		c := chains[folderOf(*r)]
		if r.Previous == "" && (c.first == "" || c.first == r.Hash) {
			c.first = r.Hash
			continue
		}
		before, ok := at[place{folderOf(*r), r.Run, r.Number - 1}]
		switch {
		case !ok || r.Number == 0 || r.Cut || before.Cut, before.Previous == r.Previous: // the other's sealing was late
			c.lost[r.Previous] = true
		case before.Hash == r.Previous:
			r.Problems = append(r.Problems, "the chain is broken: the segment before is signed with another key")
		default:
			r.Problems = append(r.Problems, "the chain is broken: the segment before has the hash "+before.Hash)
		}
	}
	for _, c := range chains {
		missing += len(c.lost)
		if c.first == "" && len(c.lost) > 0 {
			missing--
		}
	}
	return missing
}

// streamFolder returns the stream whose folder in a store a sealed file is in; empty for one elsewhere.
func streamFolder(path string) string {
	stream := filepath.Dir(filepath.Dir(path))
	if filepath.Base(filepath.Dir(stream)) != "segments" {
		return ""
	}
	return filepath.Base(stream)
}

// folderOf tells streams of different directories apart: it is the stream's, or an evidence package.
func folderOf(r segstore.Report) string {
	dir := filepath.Dir(r.Path)
	if _, err := time.Parse("20060102", filepath.Base(dir)); err == nil {
		return filepath.Dir(dir)
	}
	return dir
}

// segmentFiles lists the segment files of the given files and directories. Segments are named so that
// names sort by time.
func segmentFiles(paths []string) ([]string, error) {
	var files []string
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return nil, usageError{err}
		}
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the node moves its files while it runs
			}
			if err == nil && path != p && d.IsDir() && isAside(path) {
				return fs.SkipDir
			}
			if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".mp4") || path == p) {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
	}
	return files, nil
}

// Help is what kong says below the summary.
func (c *segCheckCommand) Help() string {
	return `Encrypted files are verified with --key-file. Without their key only their tables and signatures are: that is
no damage, is counted apart, and still ends with exit code 1, because nothing vouches for the pictures.

Of a store, what is in its folders restore, trash and quarantine is checked only when it is named.`
}

// isAside reports whether a directory is one where a store has what is no recording of its own: copies
// dropped to be restored, what is about to be deleted, and damaged files. They are checked when named.
func isAside(path string) bool {
	return slices.Contains([]string{"restore", "trash", "quarantine"}, filepath.Base(path)) &&
		isDir(filepath.Join(filepath.Dir(path), "segments"))
}

type segCatCommand struct {
	storeRange
	keyFlag
	Output string `short:"o" help:"Write to this file instead of standard output." type:"path" placeholder:"FILE"`
}

// Run writes the range, verified, as one fragmented MP4.
func (c *segCatCommand) Run(t *terminal) (err error) {
	if c.Stream == "" {
		return usageError{errors.New("--stream: say which stream to write, such as entrance.main")}
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	list, span, err := c.list(t.now())
	if err != nil {
		return err
	}
	var paths []string
	for _, s := range list {
		paths = append(paths, segstore.File(c.dir(), s))
	}
	write := func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 1<<20)
		if err := (segstore.Files{Keys: keys}).Cat(buffered, paths, span); err != nil {
			return err
		}
		return flush(buffered)
	}
	if c.Output == "" {
		return write(t.stdout)
	}
	to, err := c.target()
	if err != nil {
		return err
	}
	return replaceFile(to, write)
}

// target is where the output goes, which may be a link to there. It is nowhere among the recordings.
func (c *segCatCommand) target() (string, error) {
	to := c.Output
	if there, err := filepath.EvalSymlinks(to); err == nil {
		to = there
	}
	folder, err := realPath(filepath.Dir(to))
	if err != nil {
		return "", usageError{fmt.Errorf("--output: %w", err)}
	}
	for _, dir := range append(segstore.Dirs(c.dir()), c.Dir) {
		if dir, err := realPath(dir); err == nil && within(dir, folder) {
			return "", usageError{fmt.Errorf("--output %s: is among the recordings, in %s: write it elsewhere", c.Output, dir)}
		}
	}
	return filepath.Join(folder, filepath.Base(to)), nil
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// replaceFile writes a file that is there when all of it is written, and until then what was there before.
// A device or pipe is written to at once.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	info, err := os.Stat(path)
	there := err == nil
	part, flags := path+".part", os.O_CREATE|os.O_EXCL|os.O_WRONLY
	if there && !info.Mode().IsRegular() {
		part, flags = path, os.O_WRONLY
	}
	f, err := os.OpenFile(part, flags, 0o666)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	err = errors.Join(write(f), f.Close())
	if part == path {
		return err
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(part))
	}
	return err
}

// flush writes what is left. A reader that has seen enough is no failure.
func flush(w *bufio.Writer) error {
	if err := w.Flush(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
