package segstore

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestExcerpt cuts ranges out of a sealed file, whole and thinned, while its store is open.
func TestExcerpt(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	seg, grows := makeSegment(0, 0, 10, branchline.Hash{}), makeSegment(1, 5, 4, branchline.Hash{})
	record(t, s, seg)
	path := Path(dir, testStream, seg.start.ID, seg.start.Start)
	out := filepath.Join(t.TempDir(), "out.mp4")
	cut := func(span branchline.TimeRange) Report {
		t.Helper()
		var b bytes.Buffer
		must(t, Files{}.Excerpt(&b, path, span))
		must(t, os.WriteFile(out, b.Bytes(), 0o644))
		r, err := Check(out)
		if err != nil || !r.OK() || r.Hash != seg.seal.Hash.String() {
			t.Errorf("%v: %v", r, err)
		}
		return r
	}
	if r := cut(branchline.TimeRange{}); r.Excerpt || r.Fragments != 10 {
		t.Errorf("all: %v", r)
	}
	if r := cut(day(0, 9)); r.Excerpt || r.Size != seg.seal.Size {
		t.Errorf("more than all: %v", r)
	}
	r := cut(day(1.6, 3.2)) // from the key fragment at 1 to the end of that at 3
	if !r.Excerpt || r.Thinned || r.Fragments != 5 || r.Of != 10 || seconds(r.Start) != "1" || seconds(r.End) != "3.5" {
		t.Errorf("a part: %v", r)
	}
	var film bytes.Buffer // an excerpt plays, and can be cut again
	must(t, Cat(&film, []string{out}, day(2, 2.4)))
	if want := append(bytes.Clone(seg.start.Init), seg.data(4)...); !bytes.Equal(film.Bytes(), want) {
		t.Errorf("a part of the part: %d bytes, want %d", film.Len(), len(want))
	}
	must(t, s.Thin(seg.start.ID))
	if r := cut(day(1.6, 3.2)); !r.Excerpt || r.Fragments != 2 {
		t.Errorf("of what was thinned: %v", r)
	}
	if err := (Files{}).Excerpt(io.Discard, path, day(20, 30)); !errors.Is(err, branchline.ErrNotFound) {
		t.Errorf("outside: %v", err)
	}
	must(t, s.Begin(testStream, grows.start))
	must(t, s.Put(grows.start.ID, grows.fragments[0], grows.data(0)))
	err := (Files{}).Excerpt(io.Discard, growingPath(dir, testStream, grows.start.ID), branchline.TimeRange{})
	if !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("growing: %v", err)
	}
	flipBit(t, path, seg.fragments[0].Offset+30, 1)
	if err := (Files{}).Excerpt(io.Discard, path, branchline.TimeRange{}); !errors.Is(err, branchline.ErrMismatch) {
		t.Errorf("damaged: %v", err)
	}
}

func TestGaps(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	must(t, s.RecordGap(gap(20, 25, branchline.CauseUnreachable, true)))
	must(t, s.RecordGap(gap(4, 9, branchline.CauseClockStep, false)))
	must(t, s.RecordGap(gap(20, 30, branchline.CauseUnreachable, false)))
	all, err := Gaps(dir, testStream, day(0, 99)) // while it is open
	if err != nil || len(all) != 2 || all[0] != gap(4, 9, branchline.CauseClockStep, false) ||
		all[1] != gap(20, 30, branchline.CauseUnreachable, false) {
		t.Errorf("%v: %v", all, err)
	}
	if all, err = Gaps(dir, testStream, day(9, 20)); err != nil || len(all) != 0 {
		t.Errorf("between: %v %v", all, err)
	}
}
