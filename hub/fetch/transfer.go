package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/segstore"
)

const (
	// Window is the most time that one task brings: small enough that tasks of several streams take
	// turns and progress is noted often, large enough that asking for it costs little.
	Window = 10 * time.Minute
	// memory bounds the bytes of all pieces of one site that are read at the same time: sixteen usual
	// fragments of its fastest cameras, and more than the largest that the store takes.
	memory = 64 << 20
	// memoryOfAll bounds those of all sites together, but for the first of each.
	memoryOfAll = 512 << 20
	// firstRoom is how much memory a part takes before more of its bytes than that arrive: it is that of usual fragments.
	firstRoom = 2 << 20
	// doubtTime is how long a site may take to look at a fragment that is not what it has listed.
	doubtTime = 10 * time.Second
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
	job      string // the job's ID; empty for what policies want
	gentle   bool   // expects few bytes, and lets less urgent work go on
	crew     *crew  // of the site
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
func (f *Fetcher) bring(ctx context.Context, t *task) (time.Time, error) {
	local, ok := t.stream.Within(t.stream.Site())
	if !ok {
		return time.Time{}, fmt.Errorf("fetch %s: %w", t.stream, branchline.ErrInvalid)
	}
	var end time.Time
	for span := t.span; ; {
		listed, err := t.crew.src.Segments(ctx, local, span)
		if err != nil {
			return end, fmt.Errorf("list %s at its site: %w", t.stream, err)
		}
		if len(listed) == 0 {
			return end, nil
		}
		if err := f.bringSegments(ctx, t, listed); err != nil {
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

func (f *Fetcher) bringSegments(ctx context.Context, t *task, listed []branchline.Segment) error {
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
	for i, seg := range listed {
		st := &segmentTransfer{f: f, task: t, seg: seg}
		all[i] = st
		if reason := differs(here[seg.ID], seg); reason != "" {
			if err := f.store.Quarantine(seg.ID, reason); err != nil {
				return err
			}
			delete(here, seg.ID)
			st.whole = true
		}
		st.plan(here[seg.ID])
	}
	err = t.crew.bring(ctx, t, all)
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
	task  *task
	seg   branchline.Segment // as the edge lists it
	parts []*part
	// whole says that the hub's copy was put aside and all of the segment is fetched anew.
	whole bool
	ready chan struct{} // closed when the store has begun the segment, or never will

	mu       sync.Mutex
	damaged  error // why some of it cannot be brought
	hasBegun bool  // ready is closed
	failed   bool  // no more of it is to be fetched
	todo     int   // parts that are not stored
	footer   []byte
	// partial says that the hub has begun the segment and may hold some of it unsynced.
	partial bool
}

// part is a piece of a segment that is fetched and stored as a whole. Exactly one of init, footer
// and fragment says what it is.
type part struct {
	bytes        branchline.ByteRange
	init, footer bool
	fragment     branchline.Fragment

	// Of the crew that brings it, whose mu guards them.
	begun, ended bool   // room was taken for it; and given back
	data         []byte // what came, each byte in its place; nil before that, and once somebody has all of it
	came         int64  // bytes
}

// place takes in bytes that come at an offset of the part.
func (p *part) place(at int64, b []byte, lent *buffer.Pool) {
	need := at + int64(len(b))
	if need > int64(len(p.data)) {
		room := min(max(2*int64(len(p.data)), firstRoom, need), p.size())
		data := lent.Get(int(room))[:room]
		copy(data, p.data)
		lent.Return(p.data)
		p.data = data
	}
	copy(p.data[at:], b)
	p.came += int64(len(b))
}

func (p *part) size() int64 { return p.bytes.End - p.bytes.Start }

// limit returns the most bytes that the store takes for such a part.
func (p *part) limit() int64 {
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
		st.parts = append(st.parts, &part{bytes: branchline.ByteRange{Start: fr.Offset, End: fr.End()}, fragment: fr})
	}
	if !begun && len(st.parts) > 0 {
		init := &part{bytes: branchline.ByteRange{End: st.seg.InitSize}, init: true}
		st.parts = append([]*part{init}, st.parts...)
	}
	if complete && !here.Sealed {
		last := st.seg.Fragments[len(st.seg.Fragments)-1].End()
		st.parts = append(st.parts, &part{bytes: branchline.ByteRange{Start: last, End: st.seg.Size}, footer: true})
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

// possible returns an error for what was listed with a part that the store would refuse.
func (st *segmentTransfer) possible() error {
	for _, p := range st.parts {
		if n := p.size(); n <= 0 || n > p.limit() {
			return fmt.Errorf("listed with a part of %d bytes: %w", n, branchline.ErrTooLarge)
		}
	}
	return nil
}

// begin makes the transfer ready for its parts.
func (st *segmentTransfer) begin() {
	st.todo, st.ready = len(st.parts), make(chan struct{})
	if len(st.parts) == 0 || !st.parts[0].init {
		close(st.ready)
	}
}

// begun waits until the store has begun the segment, which takes no fragment before.
func (st *segmentTransfer) begun(ctx context.Context) error {
	select {
	case <-st.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if st.over() {
		return errOver
	}
	return nil
}

// waits reports whether begun would wait.
func (st *segmentTransfer) waits() bool {
	select {
	case <-st.ready:
		return false
	default:
		return true
	}
}

// over reports whether nothing more of the segment is to be fetched.
func (st *segmentTransfer) over() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.failed
}

// fail ends the transfer; an error is of the segment alone.
func (st *segmentTransfer) fail(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.damaged == nil {
		st.damaged = err
	}
	if !st.failed && !st.hasBegun {
		st.open()
	}
	st.failed = true
}

// open lets the fragments through. The caller holds mu.
func (st *segmentTransfer) open() {
	st.hasBegun = true
	select {
	case <-st.ready:
	default:
		close(st.ready)
	}
}

// stored stores one part, and with the last of all the footer.
func (st *segmentTransfer) stored(ctx context.Context, p *part, data []byte) error {
	err := error(nil)
	if p.footer {
		st.count(data)
		st.mu.Lock()
		st.footer = bytes.Clone(data)
		st.mu.Unlock()
	} else {
		err = st.store(p, data)
	}
	if errors.Is(err, branchline.ErrMismatch) && !p.init {
		st.mu.Lock()
		st.damaged = err // of this fragment; the others may be good
		st.mu.Unlock()
		st.doubt(ctx, p)
		err = nil
	}
	if err != nil {
		return err
	}
	st.mu.Lock()
	if p.init {
		st.partial = true
		st.open()
	}
	st.todo--
	footer := st.footer
	if st.todo > 0 {
		footer = nil
	}
	st.mu.Unlock()
	if footer == nil {
		return nil
	}
	return st.seal(footer)
}

// doubt has the site itself verify a fragment that it has sent, so that it finds its damage, and tells of it. For one
// byte it reads all of it.
func (st *segmentTransfer) doubt(ctx context.Context, p *part) {
	ctx, stop := context.WithTimeout(ctx, doubtTime)
	defer stop()
	crew := st.task.crew
	body, err := crew.src.Fetch(ctx, st.seg.ID, branchline.ByteRange{Start: p.bytes.Start, End: p.bytes.Start + 1})
	if err != nil {
		return
	}
	n, _ := io.Copy(io.Discard, body)
	crew.all.came.Add(n)
	_ = body.Close() // what the site answers is told by its feed
}

func (st *segmentTransfer) count(data []byte) {
	n := int64(len(data))
	st.task.brought.Add(n)
	st.f.counters.bytes.Add(n)
}

func (st *segmentTransfer) store(p *part, data []byte) error {
	st.count(data)
	seg, n := st.seg, int64(len(data))
	if p.init {
		return st.f.store.Begin(st.task.stream, branchline.SegmentStart{
			ID: seg.ID, Stream: st.task.stream, Run: seg.Run, Number: seg.Number,
			Start: seg.Span.Start, Codecs: seg.Codecs, Init: data,
		})
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
	st.mu.Lock()
	st.partial = false
	st.mu.Unlock()
	return errors.Join(err, st.f.store.Quarantine(seg.ID, err.Error()))
}
