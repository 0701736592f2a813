package segstore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/crypt"
)

// Report is what Check found in a file. Its JSON names are a contract with scripts.
type Report struct {
	Path      string    `json:"path"`
	Segment   string    `json:"segment,omitempty"`
	Stream    string    `json:"stream,omitempty"` // as the edge calls it
	Run       uint64    `json:"run,omitempty"`
	Number    uint32    `json:"number"`
	Start     time.Time `json:"start,omitzero"` // of the first fragment that is here
	End       time.Time `json:"end,omitzero"`   // of the last one
	Codecs    string    `json:"codecs,omitempty"`
	Size      int64     `json:"size"`
	Fragments int       `json:"fragments"`    // whole and valid ones
	Of        int       `json:"of,omitempty"` // fragments of the sealed segment
	Excerpt   bool      `json:"excerpt"`      // some of them were left out
	Thinned   bool      `json:"thinned"`      // namely all but the key fragments
	Sealed    bool      `json:"sealed"`
	Part      bool      `json:"part"` // a replica's that is not sealed: held as its sidecar lists
	Cut       bool      `json:"cut"`  // closed by repair after a crash
	Hash      string    `json:"hash,omitempty"`
	Previous  string    `json:"previous,omitempty"`
	Key       string    `json:"key,omitempty"`       // the Ed25519 public key that signed
	Encrypted string    `json:"encrypted,omitempty"` // the identifier of the key with which it is
	Problems  []string  `json:"problems,omitempty"`
	// Unverified says why the fragments could not be verified although nothing is known to be wrong: the
	// key is missing.
	Unverified string `json:"unverified,omitempty"`
}

// OK reports whether all of the file was verified and nothing is wrong with it. One that still grows, or is
// held in part, is not wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 && r.Unverified == "" }

// String returns one line, and one more for each problem.
func (r Report) String() string {
	var b strings.Builder
	state := "sealed"
	switch {
	case len(r.Problems) > 0:
		state = "DAMAGED"
	case r.Unverified != "":
		state = "encrypted, not verified: give --key-file"
	case r.Thinned:
		state = "thinned"
	case r.Excerpt:
		state = "excerpt"
	case r.Cut:
		state = "sealed after a crash"
	case r.Part:
		state = "held in part"
	case !r.Sealed:
		state = "growing"
	}
	fmt.Fprintf(&b, "%s: %s, %s run %d number %d, %d ", r.Path, state, r.Stream, r.Run, r.Number, r.Fragments)
	if r.Excerpt {
		fmt.Fprintf(&b, "of %d ", r.Of)
	}
	fmt.Fprintf(&b, "fragments, %d bytes", r.Size)
	if r.Encrypted != "" {
		b.WriteString(", encrypted")
	}
	if !r.Start.IsZero() {
		fmt.Fprintf(&b, ", %s to %s", r.Start.Format(time.RFC3339Nano), r.End.Format(time.RFC3339Nano))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "\n\t%s", p)
	}
	if r.Unverified != "" {
		fmt.Fprintf(&b, "\n\t%s", r.Unverified)
	}
	return b.String()
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// Files reads segment files, wherever they are, by their paths. The zero value reads what is in plain.
type Files struct {
	Keys *crypt.Keys // for what is encrypted; may be nil
}

// Check is [Files.Check] without keys.
func Check(path string) (Report, error) { return Files{}.Check(path) }

// Check reads a whole segment file and verifies all of it: boxes, the checksum and hash of each
// fragment, the footer's hash and signature. Of a file that a replica holds in part it verifies the
// fragments that the sidecar lists; between them there may be nothing. What is wrong stands in the
// report, as does that a key is missing, which is no damage; the error is for a file that cannot be
// read at all or that is of a newer version ([ErrNewer]).
func (f Files) Check(path string) (Report, error) {
	report := Report{Path: path}
	r, err := os.Open(path)
	if err != nil {
		return report, fmt.Errorf("check segment: %w", err)
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return report, fmt.Errorf("check segment: %w", err)
	}
	report.Size = info.Size()
	init, err := readInit(r, report.Size)
	if err != nil {
		report.problem("%v", err)
		return report, nil
	}
	e, err := readEnding(r, report.Size)
	switch {
	case err == nil:
		report.describe(e)
		report.checkSealed(content{file: r, end: &e, open: e.cipher(f.Keys)}, init)
	case errors.Is(err, ErrNewer):
		return report, fmt.Errorf("check segment %s: %w", path, err)
	default:
		if p := f.partAt(path); p != nil && (len(p.held) > 0 || p.cipher != nil) {
			report.checkPart(p, r)
		} else {
			report.checkGrowing(r, init, err)
		}
	}
	return report, nil
}

// partAt returns a store's incomplete segment with what its sidecar lists; nil if path is no such file.
func (f Files) partAt(path string) *partial {
	if full, err := filepath.Abs(path); err == nil {
		path = full
	}
	home := filepath.Dir(path)
	p, err := partOf(filepath.Dir(filepath.Dir(home)), branchline.StreamID(filepath.Base(home)), path, f.Keys)
	if err != nil {
		return nil
	}
	return p
}

// checkPart verifies the fragments that a sidecar lists.
func (r *Report) checkPart(p *partial, file io.ReaderAt) {
	r.Part = true
	if p.cipher != nil {
		r.Encrypted = p.cipher.key.String()
	}
	r.checkRows(content{file: file, open: p.cipher}, p.held, p.init)
	if n := len(p.held); n > 0 {
		r.Start, r.End = p.held[0].Start, p.held[n-1].Span().End
	}
}

func (r *Report) describe(f ending) {
	r.Of, r.Excerpt = len(f.Fragments), f.excerpt()
	r.Thinned = r.Excerpt && slices.Equal(f.kept, slices.DeleteFunc(slices.Clone(f.Fragments),
		func(row branchline.Fragment) bool { return !row.Key }))
	r.Segment, r.Stream, r.Run, r.Number = f.ID.String(), string(f.Stream), f.Run, f.Number
	r.Start, r.End, r.Codecs = f.kept[0].Start, f.kept[len(f.kept)-1].Span().End, f.Codecs
	r.Sealed, r.Cut, r.Hash, r.Key = true, f.Cut, f.Hash.String(), hex.EncodeToString(f.PublicKey)
	if f.key != nil {
		r.Encrypted = f.key.String()
	}
	if f.Prev != (branchline.Hash{}) {
		r.Previous = f.Prev.String()
	}
}

func (r *Report) checkSealed(c content, init []byte) {
	if err := c.end.Verify(init); err != nil {
		r.problem("%v", err)
	}
	if !c.end.Fragments[0].Key {
		r.problem("first fragment is not a key fragment")
	}
	r.checkRows(c, c.end.kept, init)
}

// checkRows verifies fragments by their rows.
func (r *Report) checkRows(c content, rows []branchline.Fragment, init []byte) {
	if c.open != nil && c.open.none != nil {
		r.Unverified = fmt.Sprintf("the fragments cannot be verified: %v", c.open.none)
		return
	}
	t, err := readTracks(init)
	if err != nil {
		r.problem("%v", err)
		return
	}
	for i, row := range rows {
		data, err := c.fragment(row)
		if err != nil {
			r.problem("fragment %d: %v", i, err)
			continue
		}
		n, err := fragmentLength(bytes.NewReader(data), 0, row.Length)
		if err != nil || n != row.Length || !checksumHolds(data) || t.time(&branchline.Fragment{}, data) != nil {
			r.problem("fragment %d at %d: boxes or checksum box are wrong", i, row.Offset)
			continue
		}
		r.Fragments++
	}
}

// checkGrowing checks a file without a footer, which noFooter says why.
func (r *Report) checkGrowing(file io.ReaderAt, init []byte, noFooter error) {
	t, err := readTracks(init)
	if err != nil {
		r.problem("%v", err)
		return
	}
	end := int64(len(init))
	for f, err := range fragments(file, t, end, r.Size) {
		if err != nil {
			r.problem("%v", err)
			return
		}
		if r.Fragments == 0 {
			r.Start = f.Start
		}
		r.Fragments++
		r.End, end = f.Span().End, f.End()
	}
	if end < r.Size {
		r.problem("%d bytes after the last whole fragment; %v", r.Size-end, noFooter)
	}
}

// Dirs returns the directories that recordings of the store in dir may be in: dir itself, and each volume
// that the store ever had.
func Dirs(dir string) []string { return volumeDirs(dir) }

// List returns the segments in the directory of a store that touch the range, ordered by stream and
// start, with their fragments; an empty stream means all, a zero range all times. It reads the files
// alone, changes nothing, and may be used while the store is open elsewhere. Of an incomplete segment
// it returns what the files show: at the origin all whole fragments, at a replica those noted in the
// sidecar. Files that are no segments are left out.
func List(dir string, stream branchline.StreamID, span branchline.TimeRange) ([]branchline.Segment, error) {
	if span == (branchline.TimeRange{}) {
		span = always()
	}
	streams := []branchline.StreamID{stream}
	if stream == "" {
		seen := make(map[string]bool)
		for _, vol := range volumeDirs(dir) {
			for _, d := range []string{segmentsDir, growingDir} {
				names, err := readNames(filepath.Join(vol, d))
				if err != nil {
					return nil, fmt.Errorf("list store %s: %w", dir, err)
				}
				for _, n := range names {
					seen[n] = true
				}
			}
		}
		streams = sortedStreams(seen)
	}
	if _, err := os.Stat(filepath.Join(dir, segmentsDir)); err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	var all []branchline.Segment
	for _, st := range streams {
		first := len(all)
		for _, vol := range volumeDirs(dir) {
			list, err := listStream(vol, st, span)
			if err != nil {
				return nil, fmt.Errorf("list %s in store %s: %w", st, dir, err)
			}
			all = append(all, list...)
		}
		orderSegments(all[first:])
	}
	return all, nil
}

func listStream(dir string, stream branchline.StreamID, span branchline.TimeRange) ([]branchline.Segment, error) {
	files, err := sealedFiles(dir, stream)
	if err != nil {
		return nil, err
	}
	var all []branchline.Segment
	first := span.Start.Add(-MaxSpan).UTC().Format(dayLayout)
	last := span.End.UTC().Format(dayLayout)
	for _, path := range files {
		if d := filepath.Base(filepath.Dir(path)); d < first || d > last {
			continue
		}
		e, err := readEndingFile(path)
		if err == nil && e.Span.Overlaps(span) {
			all = append(all, e.segment(stream))
		}
	}
	names, err := readNames(filepath.Join(dir, growingDir, string(stream)))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if filepath.Ext(name) != ".part" {
			continue
		}
		path := filepath.Join(dir, growingDir, string(stream), strings.TrimSuffix(name, ".part")+".mp4")
		if seg, err := glance(dir, stream, path); err == nil && seg.Span.Overlaps(span) {
			all = append(all, seg)
		}
	}
	orderSegments(all)
	return all, nil
}

// glance describes an incomplete segment from its files.
func glance(dir string, stream branchline.StreamID, path string) (branchline.Segment, error) {
	p, err := partOf(dir, stream, path, nil)
	if err != nil {
		return branchline.Segment{}, err
	}
	if len(p.held) == 0 && p.cipher == nil {
		err = p.scanHeld()
	}
	return p.segment(), err
}

// partOf reads an incomplete segment's init part and what its sidecar lists.
func partOf(dir string, stream branchline.StreamID, path string, keys *crypt.Keys) (*partial, error) {
	s := &Store{dir: dir, fs: disk{}, trust: anyKey, keys: keys, volumes: []*volume{{dir: dir, home: true}}}
	p, records, err := s.loadFiles(stream, path)
	if err != nil {
		return nil, err
	}
	return p, p.readSidecar(records)
}

// Cat is [Files.Cat] without keys.
func Cat(w io.Writer, paths []string, span branchline.TimeRange) error {
	return Files{}.Cat(w, paths, span)
}

// Cat writes the recordings in files, in their order, as one playable file: the init part once, then
// the fragments that touch the range, from the key fragment at or before its start on. A zero range
// means all. Every fragment is verified before it is written. It wraps [branchline.ErrInvalid] when
// the files' init parts differ, so that no one file can hold them, and [branchline.ErrNotFound] when
// nothing touches the range.
func (f Files) Cat(w io.Writer, paths []string, span branchline.TimeRange) error {
	if span == (branchline.TimeRange{}) {
		span = always()
	}
	var init []byte
	for _, path := range paths {
		if err := f.catFile(w, path, span, &init); err != nil {
			return fmt.Errorf("copy recordings of %s: %w", path, err)
		}
	}
	if init == nil {
		return fmt.Errorf("copy recordings: nothing in the range: %w", branchline.ErrNotFound)
	}
	return nil
}

func (f Files) catFile(w io.Writer, path string, span branchline.TimeRange, init *[]byte) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	c, rows, own, err := f.contentOf(path, r)
	if err != nil {
		return err
	}
	rows = within(rows, span)
	if len(rows) == 0 {
		return nil
	}
	switch {
	case *init == nil:
		*init = own
		if _, err := w.Write(own); err != nil {
			return err
		}
	case !slices.Equal(*init, own):
		return fmt.Errorf("the camera's parameters change at %s; ask for the two parts apart: %w",
			rows[0].Start.Format(time.RFC3339Nano), branchline.ErrInvalid)
	}
	for _, row := range rows {
		data, err := c.fragment(row)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// contentOf returns the fragments of an open file, by its footer or its sidecar or else by its boxes, and
// its init part.
func (f Files) contentOf(path string, r *os.File) (*content, []branchline.Fragment, []byte, error) {
	info, err := r.Stat()
	if err != nil {
		return nil, nil, nil, err
	}
	init, err := readInit(r, info.Size())
	if err != nil {
		return nil, nil, nil, err
	}
	c := &content{file: r}
	e, err := readEnding(r, info.Size())
	if err == nil {
		c.end, c.open = &e, e.cipher(f.Keys)
		return c, e.kept, init, e.Verify(init)
	}
	if errors.Is(err, ErrNewer) {
		return nil, nil, nil, err
	}
	if p := f.partAt(path); p != nil && p.cipher != nil {
		c.open = p.cipher
		return c, p.held, init, nil
	}
	t, err := readTracks(init)
	if err != nil {
		return nil, nil, nil, err
	}
	var rows []branchline.Fragment
	for f, err := range fragments(r, t, int64(len(init)), info.Size()) {
		if err != nil {
			return nil, nil, nil, err
		}
		rows = append(rows, f)
	}
	return c, rows, init, nil
}

// within returns the rows that touch the span, and those before them back to a key fragment.
func within(rows []branchline.Fragment, span branchline.TimeRange) []branchline.Fragment {
	first, last := -1, -1
	for i, row := range rows {
		if row.Span().Overlaps(span) {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return nil
	}
	for first > 0 && !rows[first].Key {
		first--
	}
	return rows[first : last+1]
}
