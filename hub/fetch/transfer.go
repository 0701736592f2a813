package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore"
)

const (
	// Window is the most time that one task brings: small enough that tasks of several streams take
	// turns and progress is noted often, large enough that asking for it costs little.
	Window = 10 * time.Minute
	// segmentsAtOnce bounds the segments that one task fetches side by side, to fill a long link.
	segmentsAtOnce = 4
	// memory bounds the bytes of all pieces of one site that are read at the same time: sixteen usual
	// fragments of its fastest cameras, and more than the largest that the store takes.
	memory = 64 << 20
	// firstRead is how much room a piece is given before its bytes arrive; it grows with them.
	firstRead = 1 << 20
)

// taking says which fragments of the listed segments a task brings.
type taking int

const (
	takeSpan   taking = iota // those that overlap the span, and before them back to a key frame
	takeWhole                // of sealed segments all, else as takeSpan
	takeFooter               // none, only the footers that complete a segment
)

// task brings what the edge has of one stream in a span.
type task struct {
	stream   branchline.StreamID
	span     branchline.TimeRange
	only     branchline.SegmentID // if set, of all listed segments this one alone
	take     taking
	priority policy.Priority
	reason   string
	job      string              // the job's ID; empty for what policies want
	gentle   bool                // expects few bytes, and lets less urgent work go on
	memory   *semaphore.Weighted // of the site, for what is being read
	started  time.Time
	cancel   context.CancelFunc

	total, held, brought atomic.Int64 // bytes: wanted, held of them, fetched by this task
	lost                 atomic.Bool  // something was removed at the edge meanwhile
	preempted            atomic.Bool  // cancelled for something more urgent
	damage               []damage     // what could not be brought, of whoever runs the task until it ends
	told                 atomic.Int64 // when its progress was last told, in nanoseconds
}

// damage is a segment of which some cannot be brought: its bytes are not those that were listed, or the
// site cannot read them.
type damage struct {
	id   branchline.SegmentID
	span branchline.TimeRange
	err  error
}

func (t *task) share() float64 {
	if total := t.total.Load(); total > 0 {
		return float64(t.held.Load()) / float64(total)
	}
	return 0
}

// bring runs the task and returns the time up to which the edge has recorded, as far as it was listed.
// Whatever was put before an error stays, and damage to one segment, which is noted in the task and no
// error, keeps nothing else from being brought. All that the task counts as held is on stable storage when it
// returns, after an error too. It returns the edge's errors and the store's.
func (f *Fetcher) bring(ctx context.Context, src branchline.Source, t *task) (time.Time, error) {
	local, ok := t.stream.Within(t.stream.Site())
	if !ok {
		return time.Time{}, fmt.Errorf("fetch %s: %w", t.stream, branchline.ErrInvalid)
	}
	var end time.Time
	for span := t.span; ; {
		listed, err := src.Segments(ctx, local, span)
		if err != nil {
			return end, fmt.Errorf("list %s at its site: %w", t.stream, err)
		}
		if len(listed) == 0 {
			return end, nil
		}
		if err := f.bringSegments(ctx, src, t, listed); err != nil {
			return end, err
		}
		last := listed[len(listed)-1]
		end = listedEnd(last)
		if len(listed) < branchline.MaxSegments || !last.Span.Start.After(span.Start) {
			return end, nil
		}
		span.Start = last.Span.Start
	}
}

// listedEnd returns the end of what a listed segment's fragments cover.
func listedEnd(seg branchline.Segment) time.Time {
	if n := len(seg.Fragments); n > 0 {
		return seg.Fragments[n-1].Span().End
	}
	return seg.Span.Start
}

func (f *Fetcher) bringSegments(
	ctx context.Context, src branchline.Source, t *task, listed []branchline.Segment,
) error {
	if t.only != (branchline.SegmentID{}) {
		other := func(seg branchline.Segment) bool { return seg.ID != t.only }
		if listed = slices.DeleteFunc(slices.Clone(listed), other); len(listed) == 0 {
			return nil
		}
	}
	span := branchline.TimeRange{Start: listed[0].Span.Start, End: listedEnd(listed[len(listed)-1])}
	for _, seg := range listed {
		if e := listedEnd(seg); e.After(span.End) {
			span.End = e
		}
	}
	here, err := f.here(ctx, t.stream, span)
	if err != nil {
		return err
	}
	all := make([]*segmentTransfer, len(listed))
	var group errgroup.Group
	group.SetLimit(segmentsAtOnce)
	for i, seg := range listed {
		st := &segmentTransfer{f: f, src: src, task: t, seg: seg}
		all[i] = st
		if reason := differs(here[seg.ID], seg); reason != "" {
			if err := f.store.Quarantine(seg.ID, reason); err != nil {
				return errors.Join(err, group.Wait())
			}
			delete(here, seg.ID)
			st.whole = true
		}
		if !st.plan(here[seg.ID]) {
			continue
		}
		group.Go(func() error {
			err := st.run(ctx)
			switch {
			case errors.Is(err, branchline.ErrGone) || errors.Is(err, branchline.ErrNotFound):
				t.lost.Store(true)
				return nil // the edge's change feed tells of the removal
			case errors.Is(err, errSite) || permanent(err):
				st.damaged = err
				return nil
			}
			return err
		})
	}
	err = group.Wait()
	for _, st := range all {
		if st.damaged != nil {
			span := branchline.TimeRange{Start: st.seg.Span.Start, End: listedEnd(st.seg)}
			t.damage = append(t.damage, damage{st.seg.ID, span, st.damaged})
		}
	}
	return errors.Join(err, f.sync(ctx, all))
}

// errSite is wrapped by what keeps a site from giving bytes that it has listed, although it is reached.
var errSite = errors.New("the site cannot give it")

// bySite wraps errSite around an error of fetching, unless that passes or says that the bytes are gone.
func bySite(ctx context.Context, err error) error {
	for _, e := range []error{
		branchline.ErrUnavailable, branchline.ErrBusy, branchline.ErrGone, branchline.ErrNotFound,
	} {
		if errors.Is(err, e) {
			return err
		}
	}
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errSite, err)
}

// sync waits until what is held of the segments in part is on stable storage. That takes a moment, so a
// cancelled task waits for it too.
func (f *Fetcher) sync(ctx context.Context, all []*segmentTransfer) error {
	var partial []branchline.SegmentID
	for _, st := range all {
		if st.partial {
			partial = append(partial, st.seg.ID)
		}
	}
	return f.store.Sync(context.WithoutCancel(ctx), partial...)
}

// here returns what the hub has of the stream's segments in the span.
func (f *Fetcher) here(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) (map[branchline.SegmentID]branchline.Segment, error) {
	here := make(map[branchline.SegmentID]branchline.Segment)
	for {
		segs, err := f.store.Segments(ctx, stream, span)
		if err != nil && !errors.Is(err, branchline.ErrNotFound) {
			return nil, fmt.Errorf("list what is held of %s: %w", stream, err)
		}
		for _, seg := range segs {
			here[seg.ID] = seg
		}
		if len(segs) < branchline.MaxSegments || !segs[len(segs)-1].Span.Start.After(span.Start) {
			return here, nil
		}
		span.Start = segs[len(segs)-1].Span.Start
	}
}

// segmentTransfer brings the missing parts of one segment.
type segmentTransfer struct {
	f     *Fetcher
	src   branchline.Source
	task  *task
	seg   branchline.Segment // as the edge lists it
	parts []part
	// whole says that the hub's copy was put aside and all of the segment is fetched anew.
	whole   bool
	damaged error // why some of it cannot be brought
	// partial says that the hub has begun the segment and may hold some of it unsynced.
	partial bool
}

// part is a piece of a segment that is fetched and stored as a whole. Exactly one of init, footer
// and fragment says what it is.
type part struct {
	bytes        branchline.ByteRange
	init, footer bool
	fragment     branchline.Fragment
}

func (p part) size() int64 { return p.bytes.End - p.bytes.Start }

// limit returns the most bytes that the store takes for such a part.
func (p part) limit() int64 {
	switch {
	case p.init:
		return segstore.MaxInit
	case p.footer:
		return maxFooter
	}
	return segstore.MaxFragment
}

// plan works out the missing parts in the order of their bytes, counts what the task wants of the
// segment, and reports whether anything is to be fetched.
func (st *segmentTransfer) plan(here branchline.Segment) bool {
	begun := here.ID == st.seg.ID
	if begun && here.Sealed && st.task.take == takeFooter {
		return false
	}
	st.partial = begun && !here.Sealed
	have := make(map[int64]bool, len(here.Fragments))
	for _, fr := range here.Fragments {
		have[fr.Offset] = true
	}
	complete := st.seg.Sealed && segstore.Whole(st.seg) // what was thinned at the site is held in part for good
	wanted := st.playable()
	for _, fr := range st.seg.Fragments {
		held := have[fr.Offset] || begun && here.Sealed
		lead := !fr.Span().Overlaps(st.task.span)
		if !st.wants(fr, wanted) || held && lead && st.task.take == takeSpan {
			complete = complete && held
			continue
		}
		st.task.total.Add(fr.Length)
		if held {
			st.task.held.Add(fr.Length)
			continue
		}
		st.parts = append(st.parts, part{bytes: branchline.ByteRange{Start: fr.Offset, End: fr.End()}, fragment: fr})
	}
	if !begun && len(st.parts) > 0 {
		init := part{bytes: branchline.ByteRange{End: st.seg.InitSize}, init: true}
		st.parts = append([]part{init}, st.parts...)
	}
	if complete && !here.Sealed {
		last := st.seg.Fragments[len(st.seg.Fragments)-1].End()
		st.parts = append(st.parts, part{bytes: branchline.ByteRange{Start: last, End: st.seg.Size}, footer: true})
	}
	return len(st.parts) > 0
}

// playable returns the task's span from the last key frame before it on, as far as the segment has one:
// what comes before the next key frame cannot be decoded without that.
func (st *segmentTransfer) playable() branchline.TimeRange {
	span := st.task.span
	for _, fr := range st.seg.Fragments {
		if fr.Key && !fr.Start.After(st.task.span.Start) {
			span.Start = fr.Start
		}
	}
	return span
}

func (st *segmentTransfer) wants(fr branchline.Fragment, wanted branchline.TimeRange) bool {
	switch {
	case st.whole:
		return true
	case st.task.take == takeWhole:
		return st.seg.Sealed || fr.Span().Overlaps(wanted)
	case st.task.take == takeSpan:
		return fr.Span().Overlaps(wanted)
	}
	return false
}

// run fetches the parts, contiguous ones with one call, and stores each as soon as it is whole.
func (st *segmentTransfer) run(ctx context.Context) error {
	for first := 0; first < len(st.parts); {
		next := first + 1
		for next < len(st.parts) && st.parts[next].bytes.Start == st.parts[next-1].bytes.End {
			next++
		}
		if err := st.fetch(ctx, st.parts[first:next]); err != nil {
			return fmt.Errorf("fetch segment %s of %s: %w", st.seg.ID, st.task.stream, err)
		}
		first = next
	}
	return nil
}

func (st *segmentTransfer) fetch(ctx context.Context, parts []part) (err error) {
	all := branchline.ByteRange{Start: parts[0].bytes.Start, End: parts[len(parts)-1].bytes.End}
	for _, p := range parts {
		if n := p.size(); n <= 0 || n > p.limit() {
			return fmt.Errorf("listed with a part of %d bytes: %w", n, branchline.ErrTooLarge)
		}
	}
	body, err := st.src.Fetch(ctx, st.seg.ID, all)
	if err != nil {
		return bySite(ctx, err)
	}
	defer body.Close()
	for _, p := range parts {
		err := st.take(ctx, p, body)
		if errors.Is(err, branchline.ErrMismatch) && !p.init && !p.footer {
			st.damaged = err // of this fragment; the others may be good
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take reads one part from body and stores it.
func (st *segmentTransfer) take(ctx context.Context, p part, body io.Reader) error {
	if err := st.task.memory.Acquire(ctx, p.size()); err != nil {
		return err
	}
	defer st.task.memory.Release(p.size())
	var data bytes.Buffer
	data.Grow(int(min(p.size(), firstRead)))
	if _, err := io.CopyN(&data, body, p.size()); err != nil {
		if ctx.Err() == nil && errors.Is(err, io.EOF) {
			err = fmt.Errorf("bytes ended early: %w", branchline.ErrUnavailable)
		}
		return bySite(ctx, err)
	}
	return st.store(p, data.Bytes())
}

func (st *segmentTransfer) store(p part, data []byte) error {
	n := int64(len(data))
	st.task.brought.Add(n)
	st.f.counters.bytes.Add(n)
	seg := st.seg
	switch {
	case p.init:
		err := st.f.store.Begin(st.task.stream, branchline.SegmentStart{
			ID: seg.ID, Stream: st.task.stream, Run: seg.Run, Number: seg.Number,
			Start: seg.Span.Start, Codecs: seg.Codecs, Init: data,
		})
		st.partial = err == nil
		return err
	case p.footer:
		return st.seal(data)
	}
	if err := st.f.store.Put(seg.ID, p.fragment, data); err != nil {
		return err
	}
	st.task.held.Add(n)
	st.f.counters.fragments.Add(1)
	st.f.progressed(st.task)
	return nil
}

// seal gives the hub's copy its footer. If that contradicts the copy and yet is the one that the site has
// listed, the copy is wrong, although its fragments are not: it is put aside, to be fetched anew.
func (st *segmentTransfer) seal(footer []byte) error {
	seg := st.seg
	err := st.f.store.Seal(seg.ID, branchline.SegmentSeal{ID: seg.ID, Hash: seg.Hash, Footer: footer, Size: seg.Size})
	if !errors.Is(err, branchline.ErrMismatch) {
		return err
	}
	f, bad := segstore.ParseFooter(footer)
	if bad != nil || f.ID != seg.ID || f.Hash != seg.Hash || !slices.Equal(f.Fragments, seg.Fragments) {
		return fmt.Errorf("%w: %w", errSite, err)
	}
	st.partial = false
	return errors.Join(err, st.f.store.Quarantine(seg.ID, err.Error()))
}
