package segstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/branchline-video/branchline"
)

// writeExcerpt writes the file c with only those fragments, as an excerpt unless that is all; in plain,
// or as is, which may be encrypted. Every fragment is verified before it is written. It returns how many
// bytes it wrote.
func writeExcerpt(w io.Writer, c content, keep []bool, asIs bool) (size int64, err error) {
	e := c.end
	init, box, err := e.frame(c.file)
	if err != nil {
		return 0, err
	}
	write := func(b []byte) error {
		n, err := w.Write(b)
		size += int64(n)
		return err
	}
	if err := write(init); err != nil {
		return size, err
	}
	for i, row := range e.Fragments {
		if !keep[i] {
			continue
		}
		data, err := c.fragment(row)
		if err != nil {
			return size, err
		}
		if asIs {
			data = c.raw
		}
		if err := write(data); err != nil {
			return size, err
		}
	}
	if slices.Contains(keep, false) {
		box = append(box, excerptBox(keep)...)
	}
	if asIs {
		box = append(box, c.open.box()...)
	}
	return size, write(box)
}

// Excerpt writes what the sealed file at path has in the range, from the key fragment at or before its
// start on, as a file in plain that plays and proves itself: the segment as a whole if that is all of it,
// else an excerpt. The zero range means all. Every fragment is verified before it is written. It wraps
// [branchline.ErrNotFound] if nothing touches the range, [branchline.ErrUnavailable] for a file that is
// not sealed, and [branchline.ErrInvalid] or [branchline.ErrMismatch] for one that is damaged.
func (f Files) Excerpt(w io.Writer, path string, span branchline.TimeRange) error {
	if span == (branchline.TimeRange{}) {
		span = always()
	}
	r, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("copy excerpt: %w", err)
	}
	defer r.Close()
	e, err := verifiedEnding(r)
	if errors.Is(err, errNoEnding) {
		return fmt.Errorf("copy excerpt of %s: it is not sealed: %w", path, branchline.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("copy excerpt of %s: %w", path, err)
	}
	wanted := within(e.kept, span)
	if len(wanted) == 0 {
		return fmt.Errorf("copy excerpt of %s: nothing in the range: %w", path, branchline.ErrNotFound)
	}
	keep := make([]bool, len(e.Fragments))
	for i, row := range e.Fragments {
		_, keep[i] = findRow(wanted, row.Offset)
	}
	c := content{file: r, end: &e, open: e.cipher(f.Keys)}
	if _, err := writeExcerpt(w, c, keep, false); err != nil {
		return fmt.Errorf("copy excerpt of %s: %w", path, err)
	}
	return nil
}

// Gaps returns what the store in dir has recorded of the stream's gaps in the range, ordered by start,
// from its journal alone. It changes nothing, and may be used while the store is open elsewhere.
func Gaps(dir string, stream branchline.StreamID, span branchline.TimeRange) ([]branchline.Gap, error) {
	records, _, err := readLog(filepath.Join(dir, journalFile))
	if err != nil {
		return nil, fmt.Errorf("list gaps: %w", err)
	}
	newest := make(map[string]branchline.Gap)
	_, records = splitGeneration(records)
	for _, r := range records {
		e, err := parseEntry(r)
		if err != nil {
			continue // of a newer version, or damaged: not what is asked for
		}
		if g := e.change.Gap; g != nil && g.Stream == stream {
			newest[e.key] = *g
		}
	}
	var all []branchline.Gap
	for _, g := range newest {
		if g.Span.Overlaps(span) {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b branchline.Gap) int { return a.Span.Start.Compare(b.Span.Start) })
	return all, nil
}
