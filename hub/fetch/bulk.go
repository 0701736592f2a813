package fetch

import (
	"context"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

// plan fills the queue with what policies want, when something changed or it is time.
func (l *link) plan(ctx context.Context, now time.Time) error {
	since := now.Sub(l.planned)
	if since < planAtMost || since < planEvery && (!l.wakened || len(l.queue) > 0) {
		return nil
	}
	l.planned, l.wakened = now, false
	if err := l.f.learnLost(); err != nil {
		return err
	}
	streams, err := l.streams()
	if err != nil {
		return err
	}
	var wants []policy.Want
	var facts []policy.Facts
	l.queue = nil
	for _, stream := range streams {
		busy := l.running(func(t *task) bool { return t.stream == stream }) > 0
		if busy || now.Before(l.retry[stream].next) {
			continue
		}
		unsealed, err := l.unsealed(ctx, stream, now)
		if err != nil {
			return err
		}
		l.queue = append(append(l.queue, unsealed...), l.lostTasks(stream)...)
		f, err := l.wanted(stream)
		if err != nil {
			return err
		}
		wants, facts = append(wants, policy.Wants(l.f.policies, f)...), append(facts, f)
	}
	for _, w := range policy.Plan(wants, facts) {
		for span := w.Span; !span.Empty(); span.Start = span.Start.Add(Window) {
			piece := branchline.TimeRange{Start: span.Start, End: span.Start.Add(Window)}.Intersect(w.Span)
			l.queue = append(l.queue, &task{
				stream: w.Stream, span: piece, take: takeWhole, priority: w.Priority, reason: w.Reason})
		}
	}
	return nil
}

// wanted returns the facts of a stream, with what was found to be held taken out of what exists.
func (l *link) wanted(stream branchline.StreamID) (policy.Facts, error) {
	p := policy.For(l.f.policies, stream)
	span := branchline.TimeRange{Start: p.Since, End: l.f.settled(stream)}
	if p.Kind == policy.Never || span.Empty() {
		return policy.Facts{Stream: stream}, nil
	}
	f, err := l.f.facts(stream, span)
	if err != nil {
		return f, err
	}
	l.f.mu.Lock()
	f.Exists = f.Exists.Minus(l.site.checked[stream]).Minus(l.site.refused[stream])
	l.f.mu.Unlock()
	if f.Held, err = l.f.held(stream, f.Exists); err != nil {
		return f, err
	}
	l.check(stream, f.Exists.Intersect(f.Held))
	return f, nil
}

func (l *link) check(stream branchline.StreamID, done branchline.Spans) {
	l.f.mu.Lock()
	l.site.checked[stream] = l.site.checked[stream].Union(done)
	l.f.mu.Unlock()
}

// unsealed returns tasks for the segments of a stream that the edge has sealed and of which the hub
// has something, but not the seal. What live recording completes by itself is left to it for a while.
func (l *link) unsealed(ctx context.Context, stream branchline.StreamID, now time.Time) ([]*task, error) {
	settled := branchline.NewSpans(branchline.TimeRange{Start: time.Unix(0, 0), End: now.Add(-Settle)})
	l.f.mu.Lock()
	noted := l.site.sealed[stream].Intersect(settled)
	l.f.mu.Unlock()
	p := policy.For(l.f.policies, stream)
	var tasks []*task
	for _, span := range noted {
		here, err := l.f.here(ctx, stream, span)
		if err != nil {
			return nil, err
		}
		for _, seg := range here {
			if seg.Sealed || seg.Span.Empty() || seg.Span.End.After(now.Add(-Settle)) {
				continue
			}
			t := &task{stream: stream, span: seg.Span, take: takeFooter, priority: policy.Bulk, reason: "seal"}
			if p.Kind != policy.Never {
				t.take, t.reason = takeWhole, string(p.Kind)
			}
			tasks = append(tasks, t)
		}
	}
	if len(tasks) == 0 {
		l.forgetNoted(stream, noted)
	}
	slices.SortFunc(tasks, func(a, b *task) int { return a.span.Start.Compare(b.span.Start) })
	return tasks, nil
}

func (l *link) forgetNoted(stream branchline.StreamID, done branchline.Spans) {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if left := l.site.sealed[stream].Minus(done); len(left) > 0 {
		l.site.sealed[stream] = left
	} else {
		delete(l.site.sealed, stream)
	}
}

// finishBulk takes the result of a policy's transfer.
func (l *link) finishBulk(r result) {
	t, now := r.task, l.f.clock.Now()
	l.wakened = true
	switch {
	case t.preempted.Load():
		return
	case r.err != nil:
		if l.retry[t.stream].failures >= maxMismatches && permanent(r.err) {
			// It would be tried first for ever, and nothing after it. The next link tries again.
			l.refuse(t.stream, t.span)
			delete(l.retry, t.stream)
		}
		l.retry[t.stream] = l.retry[t.stream].after(now)
		l.f.counters.failures.Add(1)
		l.f.log.Warn("transfer failed", "stream", t.stream, "from", t.span.Start, "to", t.span.End,
			"reason", t.reason, "error", r.err)
		return
	}
	delete(l.retry, t.stream)
	if t.only != (branchline.SegmentID{}) {
		if len(l.damages(t, now)) == 0 {
			l.finishLost(t)
		}
		return
	}
	// What the edge has listed beyond the span shows that nothing more will come inside it.
	span := branchline.NewSpans(t.span)
	if r.end.Before(t.span.End) && now.Sub(t.span.End) < Window {
		span = span.Intersect(branchline.NewSpans(branchline.TimeRange{Start: t.span.Start, End: r.end}))
		l.retry[t.stream] = backoff{next: now.Add(planEvery)}
	}
	span = span.Minus(l.damages(t, now))
	if t.take != takeFooter {
		l.check(t.stream, span)
	}
	l.forgetNoted(t.stream, span)
}

// damages counts what a policy's transfer found to be damaged, and refuses what was too often. It returns
// where to try again.
func (l *link) damages(t *task, now time.Time) branchline.Spans {
	var again branchline.Spans
	for _, d := range t.damage {
		l.f.counters.failures.Add(1)
		n := l.damaged[d.id]
		l.f.log.Warn("segment is damaged at its site", "stream", t.stream, "segment", d.id,
			"tries", n+1, "error", d.err)
		if n >= maxMismatches {
			l.refuse(t.stream, d.span)
			continue
		}
		l.damaged[d.id] = n + 1
		again = again.Union(branchline.NewSpans(d.span))
		l.retry[t.stream] = backoff{next: now.Add(firstRetry << n)}
	}
	return again
}

func (l *link) refuse(stream branchline.StreamID, span branchline.TimeRange) {
	l.f.mu.Lock()
	l.site.refused[stream] = l.site.refused[stream].Union(branchline.NewSpans(span))
	l.f.mu.Unlock()
	l.forgetNoted(stream, branchline.NewSpans(span))
}
