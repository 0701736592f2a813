package fetch

import (
	"errors"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
)

const (
	// tailEvery is how soon a job looks again for recordings that are being made.
	tailEvery = 200 * time.Millisecond
	// aheadEvery is the same for a span whose end is still to come.
	aheadEvery = time.Second
	// tailPatience is how long after its span a job waits for recordings that have not come: longer
	// than the clocks of edge and hub differ and a fragment takes.
	tailPatience = 10 * time.Second
	// maxMismatches is how often damaged segments are tried again before all goes on without them.
	maxMismatches = 3
)

// requests returns tasks for the jobs that may go on, oldest first, as many as may still start, and
// when the next of the others is due.
func (l *link) requests(now time.Time) ([]*task, time.Duration) {
	next := planEvery
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	var active []*Job
	for _, j := range l.f.jobs {
		if j.Site() == l.id && !j.State.Final() {
			active = append(active, j)
		}
	}
	slices.SortFunc(active, older)
	free := MaxTasks
	for t := range l.site.running {
		if t.job != "" {
			free--
		}
	}
	var tasks []*task
	taken := make(map[branchline.StreamID]bool)
	for _, j := range active {
		for _, p := range j.Parts {
			due := l.jobs[j.ID+string(p.Stream)]
			switch {
			case p.Complete || taken[p.Stream] || l.busyLocked(p.Stream):
				continue
			case now.Before(due.next):
				next = min(next, due.next.Sub(now))
				continue
			case p.Through.After(now):
				next = min(next, p.Through.Sub(now))
				continue
			case len(tasks) >= free:
				return tasks, next
			}
			taken[p.Stream] = true
			window := branchline.TimeRange{Start: p.Through, End: p.Through.Add(Window)}.Intersect(j.Span)
			tasks = append(tasks, &task{
				stream: p.Stream, span: window, take: takeSpan, priority: j.Priority,
				reason: j.Reason, job: j.ID, gentle: now.Sub(p.Through) < tailPatience,
			})
		}
	}
	return tasks, next
}

// busyLocked reports whether another job's task is under way on the stream. A policy's task is no
// hindrance: it makes room.
func (l *link) busyLocked(stream branchline.StreamID) bool {
	for t := range l.site.running {
		if t.stream == stream && t.job != "" {
			return true
		}
	}
	return false
}

// finishJob takes the result of a job's task: it moves the part on, or says when to go on with it.
func (l *link) finishJob(r result) error {
	t, now := r.task, l.f.clock.Now()
	facts, err := l.f.catalog.Facts(t.stream, t.span)
	if err != nil {
		return err
	}
	held, err := l.f.held(t.stream, branchline.Spans{t.span})
	if err != nil {
		return err
	}
	if lost(facts, held) {
		t.lost.Store(true)
	}
	through, again := advance(r, facts, now)
	key := t.job + string(t.stream)
	if r.err == nil && len(t.damage) > 0 && l.jobs[key].failures < maxMismatches {
		r.err = t.damage[0].err // perhaps not the next time
	}
	l.f.mu.Lock()
	delete(l.site.running, t)
	j := l.f.jobs[t.job]
	if j == nil {
		l.f.mu.Unlock()
		return nil
	}
	j.Brought += t.brought.Load()
	p := j.part(t.stream)
	p.Lost = p.Lost || t.lost.Load()
	final := j.State.Final() // cancelled meanwhile
	if !final {
		l.conclude(j, r, now)
		if r.err == nil {
			if through.After(p.Through) {
				p.Through = through
				p.Total, p.Held = p.Total+t.total.Load(), p.Held+t.held.Load()
			}
			if len(t.damage) > 0 {
				p.Damage = t.damage[0].err.Error()
			}
			p.Complete = !p.Through.Before(j.Span.End)
			p.Empty = p.Complete && p.Total == 0
			j.settle(now)
			delete(l.jobs, key)
			if again > 0 {
				l.jobs[key] = backoff{next: now.Add(again)}
			}
		} else {
			l.jobs[key] = l.jobs[key].after(now)
		}
	}
	ended := j.State.Final()
	l.f.mu.Unlock()
	if ended {
		for _, part := range j.Parts { // which nobody changes any more
			delete(l.jobs, t.job+string(part.Stream))
		}
	}
	return l.f.saveAndTell(t.job)
}

// conclude notes an error in the job: one that stays fails it, with another it waits.
func (l *link) conclude(j *Job, r result, now time.Time) {
	switch {
	case r.err == nil:
		return
	case len(r.task.damage) == 0 && permanent(r.err):
		j.State, j.Ended, j.Cause = Failed, now, r.err.Error()
		return
	}
	l.f.counters.failures.Add(1)
	j.State, j.Cause = Waiting, r.err.Error()
}

// permanent reports whether trying again brings the same error.
func permanent(err error) bool {
	return errors.Is(err, branchline.ErrMismatch) || errors.Is(err, branchline.ErrDenied) ||
		errors.Is(err, branchline.ErrInvalid) || errors.Is(err, branchline.ErrTooLarge) ||
		errors.Is(err, branchline.ErrNotFound)
}

// advance returns the time before which the task's span is done with, and after which delay to look
// for the rest: what the edge has not listed although it told of no gap is still being recorded.
func advance(r result, facts catalog.StreamFacts, now time.Time) (through time.Time, again time.Duration) {
	t := r.task
	rest := t.span
	if r.end.After(rest.Start) {
		rest.Start = r.end
	}
	explained := branchline.NewSpans(gapSpans(facts.Gaps)...).Covers(rest)
	switch {
	case rest.Empty() || explained || now.Sub(rest.End) > tailPatience:
		return t.span.End, 0
	case rest.End.After(now):
		return rest.Start, aheadEvery
	}
	return rest.Start, tailEvery
}
