package fetch

import (
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

// What the hub held and has put into quarantine is wanted again, whatever had brought it: a policy, a
// request, or live recording. Whoever held it once wanted it, and only the hub's own disk, or a wrong copy,
// took it away. So it is fetched anew for as long as its site has it.

// reasonLost is why such a segment is fetched.
const reasonLost = "lost here"

// loss is a segment that was lost, with the time that it covers.
type loss struct {
	branchline.Removal
	asked bool // since the site was linked it did not have it
}

// learnLost looks up what the hub has lost, if something went to quarantine since the last time. What is lost
// counts as seen to be held no more.
func (f *Fetcher) learnLost() error {
	n := f.store.Quarantined()
	f.mu.Lock()
	known := f.quarantined == n && f.learned
	f.mu.Unlock()
	if known {
		return nil
	}
	lost, err := f.store.Lost()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quarantined, f.learned = n, true
	for _, s := range f.sites {
		clear(s.lost)
	}
	for _, r := range lost {
		if r.Stream == "" { // the index has forgotten of which site it is
			continue
		}
		if r.Span.Empty() { // it was held in part, of unknown length
			r.Span.End = r.Span.Start.Add(time.Millisecond)
		}
		s := f.siteLocked(r.Stream.Site())
		s.lost[r.ID] = &loss{Removal: r}
		s.checked[r.Stream] = s.checked[r.Stream].Minus(branchline.NewSpans(r.Span))
	}
	return nil
}

// lostTasks returns tasks for what was lost of a stream, the oldest first.
func (l *link) lostTasks(stream branchline.StreamID) []*task {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	var tasks []*task
	for id, r := range l.site.lost {
		if n := l.site.news[id]; n != nil && n.differs { // it is being replaced
			continue
		}
		if r.Stream == stream && !r.asked && !l.site.refused[stream].Covers(r.Span) {
			tasks = append(tasks, &task{stream: stream, span: r.Span, only: id, take: takeWhole, priority: policy.Bulk,
				reason: reasonLost})
		}
	}
	slices.SortFunc(tasks, func(a, b *task) int { return a.span.Start.Compare(b.span.Start) })
	return tasks
}

// finishLost takes the result of a task for a lost segment that met neither an error nor damage: it is held
// again, or its site does not have it any more.
func (l *link) finishLost(t *task) {
	seg, err := l.f.store.Segment(t.only)
	held := err == nil && seg.Sealed
	l.f.mu.Lock()
	if r := l.site.lost[t.only]; r != nil && !held {
		r.asked = true
	} else {
		delete(l.site.lost, t.only)
	}
	l.f.mu.Unlock()
	if held {
		l.f.log.Info("lost segment is held again", "stream", t.stream, "segment", t.only, "hash", seg.Hash)
		return
	}
	l.f.log.Warn("site does not have a lost segment now", "stream", t.stream, "segment", t.only)
}

// differs says in what the hub's copy of a segment contradicts what its site has sealed; "" if in nothing.
func differs(held, there branchline.Segment) string {
	switch {
	case held.ID != there.ID || !there.Sealed:
		return ""
	case held.Sealed && held.Hash != there.Hash:
		return fmt.Sprintf("its site has %v, and held is %v", there.Hash, held.Hash)
	case held.Sealed:
		return ""
	case held.InitSize != there.InitSize:
		return fmt.Sprintf("its site has an init part of %d bytes, and held is one of %d", there.InitSize, held.InitSize)
	}
	rows, end := there.Fragments, there.InitSize
	if n := len(rows); n > 0 {
		end = rows[n-1].End()
	}
	for _, h := range held.Fragments {
		if h.Offset >= end {
			continue // lost at the site after it was sent live
		}
		i, ok := slices.BinarySearchFunc(rows, h, func(a, b branchline.Fragment) int {
			return int(min(max(a.Offset-b.Offset, -1), 1))
		})
		switch {
		case !ok:
			return fmt.Sprintf("held is %v as a fragment at %d, where its site's %v has none", h.Hash, h.Offset, there.Hash)
		case rows[i].Hash != h.Hash || rows[i].Length != h.Length:
			return fmt.Sprintf("fragment at %d: its site has %v, and held is %v", h.Offset, rows[i].Hash, h.Hash)
		}
	}
	return ""
}
