package fetch

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/hub/policy"
)

const (
	// MaxTasks bounds the streams of one site that are fetched side by side for each class of work.
	MaxTasks = 4
	// planEvery is how often policies are asked anew while nothing wakes the work, which finds what
	// live recording lost; planAtMost keeps a busy feed from asking them all the time.
	planEvery  = 2 * time.Second
	planAtMost = 250 * time.Millisecond
)

// link is the work at one site while it is linked. Its fields belong to the goroutine of schedule.
type link struct {
	f       *Fetcher
	id      branchline.SiteID
	src     branchline.Source
	site    *site
	group   *errgroup.Group
	results chan result
	crew    *crew

	queue   []*task // of policies, from the last plan
	planned time.Time
	wakened bool                            // something changed since the last plan
	retry   map[branchline.StreamID]backoff // of policies' transfers that failed
	damaged map[branchline.SegmentID]int    // how often a policy's transfer found them so
	jobs    map[string]backoff              // when to go on with a job, by ID and stream
	sealing bool                            // the site's news are being worked on
	looked  time.Time                       // when that last began
	sealed  chan struct{}                   // gets a token when it ends

	told      map[branchline.StreamID]told // what the site spares, as far as this link told it
	holding   bool                         // it is being told
	held      chan placed                  // gets the result
	holdNext  time.Time                    // when to look at it again
	holdRetry backoff
}

type result struct {
	task *task
	end  time.Time // up to which the edge listed recordings
	err  error
}

// Serve works at a site over its link: src is the site's source, with the site's own identifiers. It
// runs until ctx ends and always returns an error. Only one Serve may run for a site.
func (f *Fetcher) Serve(ctx context.Context, id branchline.SiteID, src branchline.Source) error {
	group, ctx := errgroup.WithContext(ctx)
	l := &link{
		f: f, id: id, src: src, site: f.site(id), group: group,
		results: make(chan result, 2*MaxTasks),
		retry:   make(map[branchline.StreamID]backoff),
		damaged: make(map[branchline.SegmentID]int),
		jobs:    make(map[string]backoff),
		sealed:  make(chan struct{}, 1),
		told:    make(map[branchline.StreamID]told),
		held:    make(chan placed, 1),
		crew:    newCrew(src, f.clock, &f.all),
		wakened: true,
	}
	if err := l.begin(); err != nil {
		return fmt.Errorf("fetch from %s: %w", id, err)
	}
	defer l.end()
	group.Go(func() error { return l.schedule(ctx) })
	err := group.Wait()
	l.crew.work.Wait()
	if err != nil {
		return fmt.Errorf("fetch from %s: %w", id, err)
	}
	return nil
}

// recheck is how far before the last outage segments are looked at that may have been left without
// their seal when the hub or the link stopped.
const recheck = time.Hour

func (l *link) begin() error {
	now := l.f.clock.Now()
	since := now.Add(-recheck)
	outages, err := l.f.catalog.Outages(l.id, branchline.TimeRange{Start: now.Add(-30 * 24 * time.Hour), End: now})
	if err != nil {
		return err
	}
	if n := len(outages); n > 0 {
		since = outages[n-1].Span.Start.Add(-recheck)
	}
	streams, err := l.streams()
	if err != nil {
		return err
	}
	if err := l.f.learnLost(); err != nil {
		return err
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	l.site.linked = true
	clear(l.site.refused)
	for _, r := range l.site.lost {
		r.asked = false
	}
	for _, s := range streams {
		l.site.noteSealed(s, branchline.TimeRange{Start: since, End: now})
	}
	for _, j := range l.f.jobs {
		if j.Site() == l.id && !j.State.Final() {
			j.Cause = ""
		}
	}
	return nil
}

// end runs after all tasks have ended.
func (l *link) end() {
	var waiting []Job
	l.f.mu.Lock()
	l.site.linked = false
	clear(l.site.running)
	for _, j := range l.f.jobs {
		if j.Site() == l.id && !j.State.Final() {
			j.State, j.Cause = Waiting, CauseDark
			waiting = append(waiting, l.f.viewLocked(j))
		}
	}
	l.f.mu.Unlock()
	for _, j := range waiting {
		l.f.changed(j)
	}
}

func (l *link) streams() ([]branchline.StreamID, error) {
	cameras, err := l.f.catalog.SiteCameras(l.id)
	if err != nil {
		return nil, err
	}
	var streams []branchline.StreamID
	for _, cam := range cameras {
		for _, s := range cam.Streams {
			streams = append(streams, s.ID)
		}
	}
	return streams, nil
}

// schedule starts tasks and takes their results, until ctx ends or the hub's own disk fails.
func (l *link) schedule(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.site.wake:
			l.wakened = true
		case r := <-l.results:
			if err := l.finish(r); err != nil {
				return err
			}
		case <-l.sealed:
			l.sealing = false
		case p := <-l.held:
			l.finishHolds(p, l.f.clock.Now())
		case <-timer.C:
		}
		next, err := l.round(ctx)
		if err != nil {
			return err
		}
		timer.Reset(next)
	}
}

// round starts what may run now and returns when to look again at the latest.
func (l *link) round(ctx context.Context) (time.Duration, error) {
	now := l.f.clock.Now()
	if err := l.holds(ctx, now); err != nil {
		return 0, err
	}
	requests, next := l.requests(now)
	if l.seal(ctx, now) {
		next = min(next, planAtMost)
	}
	urgent := 0
	for _, t := range requests {
		if !t.gentle {
			urgent++
		}
	}
	if urgent > 0 {
		l.preempt()
	}
	for _, t := range requests {
		l.start(ctx, t)
	}
	if l.running(func(t *task) bool { return t.job != "" && !t.gentle }) > 0 {
		return next, nil
	}
	if err := l.plan(ctx, now); err != nil {
		return 0, err
	}
	bulk := func(t *task) bool { return t.job == "" }
	for len(l.queue) > 0 && l.running(bulk) < MaxTasks {
		t := l.queue[0]
		l.queue = l.queue[1:]
		if l.running(func(o *task) bool { return o.stream == t.stream }) == 0 {
			l.start(ctx, t)
		}
	}
	if l.wakened {
		next = min(next, planAtMost)
	}
	return next, nil
}

// running counts the tasks under way that match.
func (l *link) running(match func(*task) bool) int {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	n := 0
	for t := range l.site.running {
		if match(t) {
			n++
		}
	}
	return n
}

// preempt cancels the transfers of policies: what they were about to do is planned anew later.
func (l *link) preempt() {
	l.queue, l.wakened, l.planned = nil, true, time.Time{}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	for t := range l.site.running {
		if t.job == "" && !t.preempted.Swap(true) {
			l.f.counters.preempted.Add(1)
			t.cancel()
		}
	}
}

func (l *link) start(ctx context.Context, t *task) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.started, t.crew = l.f.clock.Now(), l.crew
	var told *Job
	l.f.mu.Lock()
	l.site.running[t] = true
	if j := l.f.jobs[t.job]; j != nil && j.State == Waiting {
		j.State, j.Cause = Retrieving, ""
		view := l.f.viewLocked(j)
		told = &view
	}
	l.f.mu.Unlock()
	if told != nil {
		l.f.changed(*told)
	}
	l.f.moved(t.stream, t.span)
	ctx = federation.WithPriority(ctx, wirePriority(t.priority))
	l.group.Go(func() error {
		defer t.cancel()
		end, err := l.f.bring(ctx, t)
		l.results <- result{t, end, err} // never waits: there is room for every task that may run
		return nil
	})
}

func wirePriority(p policy.Priority) federation.Priority {
	switch p {
	case policy.Control, policy.Live, policy.Request:
		return federation.PriorityRequest
	case policy.Event:
		return federation.PriorityEvent
	case policy.Schedule:
		return federation.PrioritySchedule
	}
	return federation.PriorityBackfill
}

// finish takes a task's result. Its errors are the hub's own.
func (l *link) finish(r result) error {
	defer l.f.moved(r.task.stream, r.task.span)
	if r.task.job != "" {
		return l.finishJob(r)
	}
	l.f.mu.Lock()
	delete(l.site.running, r.task)
	l.f.mu.Unlock()
	l.finishBulk(r)
	return nil
}

// backoff says when something that failed is tried again.
type backoff struct {
	failures int
	next     time.Time
}

const (
	firstRetry = 500 * time.Millisecond
	maxRetry   = 30 * time.Second
)

func (b backoff) after(now time.Time) backoff {
	delay := firstRetry << min(b.failures, 10)
	return backoff{b.failures + 1, now.Add(min(delay, maxRetry))}
}
