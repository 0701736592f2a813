package sourcetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
)

// Fixture is a source under test and the means to feed it. The suite uses a fresh one for each test;
// whatever made it ends it with t.Cleanup.
type Fixture struct {
	Source branchline.Source
	// Stream is a stream of the source that has no recordings yet.
	Stream branchline.StreamID
	Feed   Feed
}

// patience bounds every wait of the suite; only a test that fails waits that long.
const patience = 20 * time.Second

// piece is the size of most fragments, and bulk of those that are to fill every buffer on the way.
const (
	piece = 2 << 10
	bulk  = 128 << 10
)

// Run checks that the sources which open makes keep the contract of [branchline.Source].
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		run  func(*run)
	}{
		{"cameras", (*run).cameras},
		{"changes from zero and from every position", (*run).changes},
		{"changes follow the present", (*run).changesFollow},
		{"changes of another epoch are gone", (*run).changesGone},
		{"segments touch the range", (*run).segments},
		{"segments of an unknown stream", (*run).segmentsUnknown},
		{"fetch any range", (*run).fetchRanges},
		{"fetch what is not there", (*run).fetchErrors},
		{"fetch follows growth", (*run).fetchGrowing},
		{"fetch is cancelled", (*run).fetchCancelled},
		{"fetch is closed early", (*run).fetchClosed},
		{"live begins at a key frame", (*run).liveJoins},
		{"live gives the recorded bytes", (*run).liveBytes},
		{"live tells a slow reader what it missed", (*run).liveSlow},
		{"live waits for a picture", (*run).liveWaits},
		{"live of an unknown stream", (*run).liveUnknown},
		{"iterators end with their context", (*run).iteratorsEnd},
		{"calls at once", (*run).concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(&run{T: t, Fixture: open(t), ctx: ctx})
		})
	}
}

// run is one test on one fixture.
type run struct {
	*testing.T
	Fixture
	ctx context.Context
}

// always is a range of time that holds every recording.
func always() branchline.TimeRange {
	return branchline.TimeRange{Start: time.Unix(1, 0), End: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// record makes a sealed segment of n fragments, every second one a key fragment, and returns it.
func (r *run) record(n, size int) branchline.Segment {
	r.Helper()
	id := r.Feed.Begin(size)
	for i := 1; i < n; i++ {
		r.Feed.Append(i%2 == 0, size)
	}
	r.Feed.Seal()
	return r.segment(id)
}

func (r *run) list(span branchline.TimeRange) []branchline.Segment {
	r.Helper()
	list, err := r.Source.Segments(r.ctx, r.Stream, span)
	if err != nil {
		r.Fatalf("segments: %v", err)
	}
	return list
}

// segment returns the segment with the identifier, as the source lists it.
func (r *run) segment(id branchline.SegmentID) branchline.Segment {
	r.Helper()
	list := r.list(always())
	i := slices.IndexFunc(list, func(s branchline.Segment) bool { return s.ID == id })
	if i < 0 {
		r.Fatalf("segment %s is not listed", id)
	}
	return list[i]
}

// bytes fetches a range to its end.
func (r *run) bytes(id branchline.SegmentID, want branchline.ByteRange) []byte {
	r.Helper()
	body, err := r.Source.Fetch(r.ctx, id, want)
	if err != nil {
		r.Fatalf("fetch %v: %v", want, err)
	}
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		r.Fatalf("read %v: %v", want, err)
	}
	return data
}

// verify checks the fragments of the file against the table.
func (r *run) verify(s branchline.Segment, file []byte) {
	r.Helper()
	at := s.InitSize
	for i, f := range s.Fragments {
		if f.Offset != at || f.End() > int64(len(file)) {
			r.Fatalf("fragment %d is at %d to %d of %d, want it at %d", i, f.Offset, f.End(), len(file), at)
		}
		if sha256.Sum256(file[f.Offset:f.End()]) != f.Hash {
			r.Fatalf("fragment %d does not have its hash", i)
		}
		at = f.End()
	}
}

func (r *run) wantError(what string, err, want error) {
	r.Helper()
	if !errors.Is(err, want) {
		r.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func (r *run) cameras() {
	list, err := r.Source.Cameras(r.ctx)
	if err != nil {
		r.Fatalf("cameras: %v", err)
	}
	if !slices.IsSortedFunc(list, func(a, b branchline.Camera) int { return compare(a.ID, b.ID) }) {
		r.Errorf("cameras are not sorted: %v", list)
	}
	found := false
	for _, c := range list {
		for _, s := range c.Streams {
			if s.ID.Camera() != c.ID {
				r.Errorf("stream %s is listed under camera %s", s.ID, c.ID)
			}
			found = found || s.ID == r.Stream
		}
	}
	if !found {
		r.Errorf("no camera has stream %s: %v", r.Stream, list)
	}
}

// take reads n changes.
func (r *run) take(after branchline.Position, n int) []branchline.Change {
	r.Helper()
	var got []branchline.Change
	if n == 0 {
		return nil
	}
	for c, err := range r.Source.Changes(r.ctx, after) {
		if err != nil {
			r.Fatalf("change %d after %v: %v", len(got), after, err)
		}
		if got = append(got, c); len(got) == n {
			return got
		}
	}
	r.Fatalf("changes ended after %d, want %d", len(got), n)
	return nil
}

// until reads changes until one fits, and returns all of them.
func (r *run) until(after branchline.Position, fits func(branchline.Change) bool) []branchline.Change {
	r.Helper()
	var got []branchline.Change
	for c, err := range r.Source.Changes(r.ctx, after) {
		if err != nil {
			r.Fatalf("change %d after %v: %v", len(got), after, err)
		}
		if got = append(got, c); fits(c) {
			return got
		}
	}
	r.Fatalf("changes ended after %d without the one waited for", len(got))
	return nil
}

func (r *run) changes() {
	first := r.record(3, piece)
	second := r.record(2, piece)
	r.Feed.Stop(branchline.CauseUnreachable)
	r.Feed.Remove(first.ID, branchline.CauseExpired)
	all := r.until(branchline.Position{}, func(c branchline.Change) bool { return c.Removed != nil })
	var sealed []branchline.SegmentID
	var gaps int
	for i, c := range all {
		if c.At.Epoch == 0 || i > 0 && (c.At.Epoch != all[i-1].At.Epoch || c.At.Seq <= all[i-1].At.Seq) {
			r.Errorf("change %d is at %v, after one at %v", i, c.At, all[max(i-1, 0)].At)
		}
		switch {
		case c.Sealed != nil:
			sealed = append(sealed, c.Sealed.ID)
			if len(c.Sealed.Fragments) != 0 || !c.Sealed.Sealed || c.Sealed.Span.Empty() {
				r.Errorf("sealed segment in the feed: %+v", c.Sealed)
			}
		case c.Gap != nil && c.Gap.Cause == branchline.CauseUnreachable:
			gaps++
		}
	}
	// A feed may leave out what a later change undoes: the sealed segment that is removed.
	left := slices.DeleteFunc(sealed, func(id branchline.SegmentID) bool { return id == first.ID })
	if want := []branchline.SegmentID{second.ID}; !slices.Equal(left, want) || gaps == 0 {
		r.Errorf("the feed has %d gaps and the sealed segments %v, want %v", gaps, left, want)
	}
	if last := all[len(all)-1].Removed; last.ID != first.ID || last.Cause != branchline.CauseExpired {
		r.Errorf("removal %+v, want that of %s", last, first.ID)
	}
	for i, c := range all[:len(all)-1] {
		if diff := cmp.Diff(all[i+1:], r.take(c.At, len(all)-i-1)); diff != "" {
			r.Fatalf("changes after %v (-want +got):\n%s", c.At, diff)
		}
	}
}

func (r *run) changesFollow() {
	id := r.Feed.Begin(piece)
	opened := r.until(branchline.Position{}, func(c branchline.Change) bool {
		return c.Opened != nil && c.Opened.ID == id
	})
	at := opened[len(opened)-1].At
	followed := make(chan branchline.Change, 1)
	go func() {
		defer close(followed)
		for c, err := range r.Source.Changes(r.ctx, at) {
			if err == nil && c.Sealed != nil {
				followed <- c
				return
			}
		}
	}()
	r.Feed.Append(false, piece)
	r.Feed.Seal()
	if c, ok := <-followed; !ok || c.Sealed.ID != id {
		r.Errorf("followed to %+v, want the seal of %s", c, id)
	}
}

func (r *run) changesGone() {
	r.record(1, piece)
	at := r.until(branchline.Position{}, func(c branchline.Change) bool { return c.Sealed != nil })
	other := at[len(at)-1].At
	other.Epoch++
	n := 0
	for _, err := range r.Source.Changes(r.ctx, other) {
		n++
		r.wantError("changes of another epoch", err, branchline.ErrGone)
	}
	if n != 1 {
		r.Errorf("%d things were yielded, want the error alone", n)
	}
}

func (r *run) segments() {
	a, b := r.record(2, piece), r.record(4, piece)
	growing := r.segment(r.Feed.Begin(piece))
	if !a.Sealed || !b.Sealed || growing.Sealed || len(growing.Fragments) != 1 || a.Hash == b.Hash {
		r.Errorf("segments are not as they were made: %+v %+v %+v", a, b, growing)
	}
	if a.Stream != r.Stream || a.Run != b.Run || b.Number != a.Number+1 || a.InitSize == 0 || a.Codecs == "" {
		r.Errorf("segments are not of one run of %s: %+v %+v", r.Stream, a, b)
	}
	tick := time.Nanosecond
	for name, c := range map[string]struct {
		from, to time.Time
		want     []branchline.Segment
	}{
		"all":              {a.Span.Start, growing.Span.End, []branchline.Segment{a, b, growing}},
		"before all":       {a.Span.Start.Add(-time.Hour), a.Span.Start, nil},
		"the first's end":  {a.Span.End.Add(-tick), a.Span.End, []branchline.Segment{a}},
		"over the border":  {a.Span.End.Add(-tick), b.Span.Start.Add(tick), []branchline.Segment{a, b}},
		"after all":        {growing.Span.End.Add(time.Hour), growing.Span.End.Add(2 * time.Hour), nil},
		"inside the other": {b.Span.Start.Add(tick), b.Span.Start.Add(2 * tick), []branchline.Segment{b}},
		"nothing":          {b.Span.Start, b.Span.Start, nil},
	} {
		got := r.list(branchline.TimeRange{Start: c.from, End: c.to})
		if diff := cmp.Diff(ids(c.want), ids(got)); diff != "" {
			r.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func ids(list []branchline.Segment) []string {
	out := []string{}
	for _, s := range list {
		out = append(out, s.ID.String())
	}
	return out
}

func (r *run) segmentsUnknown() {
	_, err := r.Source.Segments(r.ctx, "nowhere.main", always())
	r.wantError("segments of an unknown stream", err, branchline.ErrNotFound)
}

func (r *run) concurrent() {
	seg := r.record(8, bulk)
	whole := r.bytes(seg.ID, branchline.ByteRange{})
	failed := make(chan error, 16)
	for range cap(failed) {
		go func() {
			body, err := r.Source.Fetch(r.ctx, seg.ID, branchline.ByteRange{})
			if err != nil {
				failed <- err
				return
			}
			got, err := io.ReadAll(body)
			if err == nil && !bytes.Equal(got, whole) {
				err = branchline.ErrMismatch
			}
			_, listed := r.Source.Cameras(r.ctx)
			failed <- errors.Join(err, listed, body.Close())
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			r.Error(err)
		}
	}
}
