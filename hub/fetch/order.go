package fetch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore"
)

// CauseDark is the cause of a job that waits for its site.
const CauseDark = "the site is not linked"

// Create stores a job for the order and begins to work on it as soon as its site is linked. It wraps
// [branchline.ErrInvalid] for a wrong order, [branchline.ErrNotFound] for an unknown stream,
// [branchline.ErrDenied] for what a revoked site would have to give, and [branchline.ErrBusy] while
// there are [MaxActive] jobs.
func (f *Fetcher) Create(o Order) (Job, error) {
	now := f.clock.Now()
	if err := o.check(now); err != nil {
		return Job{}, fmt.Errorf("create job: %w", err)
	}
	for _, s := range o.Streams {
		if err := f.Known(s); err != nil {
			return Job{}, fmt.Errorf("create job: %w", err)
		}
	}
	if o.Reason == "" {
		o.Reason = policy.Request.String()
	}
	j := &Job{
		ID: branchline.NewSegmentID(now).String(), Order: o, Priority: policy.Request,
		Created: now, State: Waiting,
	}
	j.Streams = slices.Clone(o.Streams)
	for _, s := range j.Streams {
		j.Parts = append(j.Parts, Part{Stream: s, Through: o.Span.Start})
	}
	if err := f.finishHeld(j, now); err != nil {
		return Job{}, fmt.Errorf("create job: %w", err)
	}
	if err := f.admit(j); err != nil {
		return Job{}, fmt.Errorf("create job: %w", err)
	}
	s, err := f.enter(j)
	if err != nil {
		return Job{}, fmt.Errorf("create job: %w", err)
	}
	if err := f.save(j.ID); err != nil {
		f.mu.Lock()
		delete(f.jobs, j.ID)
		f.mu.Unlock()
		return Job{}, fmt.Errorf("create job: %w", err)
	}
	s.rouse()
	created, err := f.Job(j.ID)
	if err != nil {
		return Job{}, err
	}
	f.changed(created)
	f.dropOld()
	return created, nil
}

// admit refuses a job that would wait for a site that never comes back.
func (f *Fetcher) admit(j *Job) error {
	if j.State.Final() {
		return nil
	}
	revoked, err := f.revoked(j.Site())
	if err == nil && revoked {
		err = fmt.Errorf("site %s is revoked and not all of this is held: %w", j.Site(), branchline.ErrDenied)
	}
	return err
}

// enter takes a new job in, unless there are too many.
func (f *Fetcher) enter(j *Job) (*site, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !j.State.Final() && f.activeLocked() >= MaxActive {
		return nil, fmt.Errorf("%d are active: %w", MaxActive, branchline.ErrBusy)
	}
	s := f.siteLocked(j.Site())
	if !s.linked && !j.State.Final() {
		j.Cause = CauseDark
	}
	f.newest++
	j.Number = f.newest
	f.jobs[j.ID] = j
	return s, nil
}

// Known returns an error wrapping [branchline.ErrNotFound] for a stream of which no site has told.
func (f *Fetcher) Known(s branchline.StreamID) error {
	cam, err := f.catalog.Camera(s.Camera())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(cam.Streams, func(k branchline.Stream) bool { return k.ID == s }) {
		return fmt.Errorf("look up stream %s: %w", s, branchline.ErrNotFound)
	}
	return nil
}

// finishHeld completes the parts of a new job of which everything is held already, and is known to be
// everything, so that no link is needed.
func (f *Fetcher) finishHeld(j *Job, now time.Time) error {
	for i := range j.Parts {
		p := &j.Parts[i]
		facts, err := f.catalog.Facts(p.Stream, j.Span)
		if err != nil {
			return err
		}
		held, err := f.held(p.Stream, branchline.Spans{j.Span})
		if err != nil {
			return err
		}
		told := slices.Concat(facts.Available, held, gapSpans(facts.Gaps))
		if len(held) > 0 && branchline.NewSpans(told...).Covers(j.Span) &&
			len(facts.Available.Minus(held)) == 0 {
			if p.Complete, err = f.durable(p.Stream, j.Span); err != nil {
				return err
			}
			if p.Complete {
				p.Through, p.Lost = j.Span.End, lost(facts, held)
			}
		}
	}
	j.settle(now)
	return nil
}

// durable reports whether what is held of the stream in the range is known to be on stable storage:
// what tasks brought is when they end, and what comes live is synced here.
func (f *Fetcher) durable(stream branchline.StreamID, r branchline.TimeRange) (bool, error) {
	f.mu.Lock()
	for t := range f.siteLocked(stream.Site()).running {
		if t.stream == stream {
			f.mu.Unlock()
			return false, nil
		}
	}
	f.mu.Unlock()
	live := branchline.TimeRange{Start: f.clock.Now().Add(-segstore.MaxSpan), End: r.End}.Intersect(r)
	if live.Empty() {
		return true, nil
	}
	ctx := context.Background() // a file's sync cannot be given up
	here, err := f.here(ctx, stream, live)
	if err != nil {
		return false, err
	}
	var partial []branchline.SegmentID
	for id, seg := range here {
		if !seg.Sealed {
			partial = append(partial, id)
		}
	}
	return true, f.store.Sync(ctx, partial...)
}

// lost reports whether some of what the facts are about was recorded, is no longer at the edge, and is
// not held.
func lost(facts catalog.StreamFacts, held branchline.Spans) bool {
	causes := []branchline.Cause{branchline.CauseExpired, branchline.CauseRemovedEarly, branchline.CauseDiskFailed}
	return slices.ContainsFunc(facts.Gaps, func(g catalog.Gap) bool {
		return slices.Contains(causes, g.Cause) && !held.Covers(g.Span)
	})
}

func gapSpans(gaps []catalog.Gap) []branchline.TimeRange {
	spans := make([]branchline.TimeRange, len(gaps))
	for i, g := range gaps {
		spans[i] = g.Span
	}
	return spans
}

// settle ends the job when all of its parts are complete.
func (j *Job) settle(now time.Time) {
	lost, empty, damage, held := false, true, "", int64(0)
	for _, p := range j.Parts {
		if !p.Complete {
			return
		}
		lost, empty = lost || p.Lost, empty && p.Empty
		damage, held = cmp.Or(damage, p.Damage), held+p.Held
	}
	j.State, j.Ended, j.Cause = Done, now, ""
	switch {
	case damage != "" && held == 0:
		j.State, j.Cause = Failed, damage
	case damage != "":
		j.State, j.Cause = Partial, "some of it is damaged at the site: "+damage
	case lost:
		j.State, j.Cause = Partial, "some of it is no longer at the site"
	case empty:
		j.State, j.Cause = Partial, "nothing is recorded there"
	}
}

func (j *Job) part(stream branchline.StreamID) *Part {
	for i := range j.Parts {
		if j.Parts[i].Stream == stream {
			return &j.Parts[i]
		}
	}
	return nil
}

func (f *Fetcher) activeLocked() int {
	n := 0
	for _, j := range f.jobs {
		if !j.State.Final() {
			n++
		}
	}
	return n
}

// dropOld forgets the oldest jobs that have ended, over MaxKept. One whose deletion fails is dropped
// again after the next start.
func (f *Fetcher) dropOld() {
	f.mu.Lock()
	var ended []Job
	for _, j := range f.jobs {
		if j.State.Final() {
			ended = append(ended, *j)
		}
	}
	newestFirst(ended)
	var ids []string
	for _, j := range ended[min(len(ended), MaxKept):] {
		ids = append(ids, j.ID)
		delete(f.jobs, j.ID)
	}
	f.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	if err := f.save(ids...); err != nil {
		f.log.Warn("old jobs not deleted", "jobs", len(ids), "error", err)
	}
}

// Jobs returns all jobs that are kept, the newest first.
func (f *Fetcher) Jobs() []Job {
	f.mu.Lock()
	jobs := make([]Job, 0, len(f.jobs))
	for _, j := range f.jobs {
		jobs = append(jobs, f.viewLocked(j))
	}
	f.mu.Unlock()
	newestFirst(jobs)
	return jobs
}

// Job returns one job. It wraps [branchline.ErrNotFound] if there is none with the ID.
func (f *Fetcher) Job(id string) (Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.jobs[id]
	if j == nil {
		return Job{}, fmt.Errorf("look up job %.64q: %w", id, branchline.ErrNotFound)
	}
	return f.viewLocked(j), nil
}

// viewLocked returns the job with what its running tasks have done.
func (f *Fetcher) viewLocked(j *Job) Job {
	view, now := j.clone(), f.clock.Now()
	if j.State.Final() {
		return view
	}
	listed := make([]time.Time, len(view.Parts))
	for i, p := range view.Parts {
		listed[i] = p.Through
	}
	for t := range f.siteLocked(j.Site()).running {
		i := slices.IndexFunc(view.Parts, func(p Part) bool { return p.Stream == t.stream })
		if t.job != j.ID || i < 0 {
			continue
		}
		brought := t.brought.Load()
		view.Parts[i].Total += t.total.Load()
		view.Parts[i].Held += t.held.Load()
		view.Brought += brought
		listed[i] = t.span.End
		if took := now.Sub(t.started).Seconds(); took > 0 {
			view.Rate += float64(brought) / took
		}
	}
	for i := range view.Parts { // the rest counts as much a second as what was listed
		if part := listed[i].Sub(j.Span.Start); part > 0 && !view.Parts[i].Complete {
			whole := float64(j.Span.Duration()) / float64(part)
			view.Parts[i].Total = int64(float64(view.Parts[i].Total) * whole)
		}
	}
	return view
}

// Cancel ends a job; what it has brought stays. On a job that has ended it does nothing. It wraps
// [branchline.ErrNotFound] if there is none with the ID.
func (f *Fetcher) Cancel(id string) error {
	f.mu.Lock()
	j := f.jobs[id]
	if j == nil {
		f.mu.Unlock()
		return fmt.Errorf("cancel job %.64q: %w", id, branchline.ErrNotFound)
	}
	if j.State.Final() {
		f.mu.Unlock()
		return nil
	}
	j.State, j.Ended, j.Cause = Cancelled, f.clock.Now(), ""
	s := f.siteLocked(j.Site())
	for t := range s.running {
		if t.job == id {
			t.cancel()
		}
	}
	f.mu.Unlock()
	s.rouse()
	return f.saveAndTell(id)
}

// saveAndTell stores a job and then tells how it stands, which may be further on by then.
func (f *Fetcher) saveAndTell(id string) error {
	if err := f.save(id); err != nil {
		return err
	}
	if j, err := f.Job(id); err == nil {
		f.changed(j)
	}
	return nil
}

// tellEvery bounds how often a transfer's progress is told.
const tellEvery = 250 * time.Millisecond

// progressed tells from time to time how far a task has come.
func (f *Fetcher) progressed(t *task) {
	now := f.clock.Now()
	last := t.told.Load()
	if now.UnixNano()-last < int64(tellEvery) || !t.told.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	f.moved(t.stream, t.span)
	f.mu.Lock()
	j := f.jobs[t.job]
	if j == nil || j.State.Final() {
		f.mu.Unlock()
		return
	}
	told := f.viewLocked(j)
	f.mu.Unlock()
	f.changed(told)
}
