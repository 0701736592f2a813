package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore"
)

const (
	// maxNews bounds the sealed segments of one site that wait to be compared with what is held: a day
	// of three streams. Over it the newest count; the others are found without their seal as those
	// that an outage left so, and compared when they are listed next.
	maxNews = 4096
	// sealsAtOnce is how many footers of one site are fetched side by side, to fill a long link.
	sealsAtOnce = 8
	// maxFooter bounds what is fetched as a footer: a table of MaxFragments rows is smaller.
	maxFooter = 1 << 20
)

// news is a segment that the edge has sealed durably, under the hub's name of the stream.
type news struct {
	branchline.Segment
	heard   time.Time
	retry   backoff
	differs bool // what the hub had was put aside, and it fetches the segment anew
}

func (s *site) noteNews(seg branchline.Segment, now time.Time) {
	if len(s.news) >= maxNews {
		for id, n := range s.news { // any that only waits for a recorder that lags
			if !n.differs {
				delete(s.news, id)
				break
			}
		}
	}
	if len(s.news) < maxNews {
		s.news[seg.ID] = &news{Segment: seg, heard: now}
	}
}

// seal begins to give the segments of which the edge told their seal, unless that is under way, and
// reports whether some are left. Footers are small, so they do not wait for a request to end.
func (l *link) seal(ctx context.Context, now time.Time) bool {
	l.f.mu.Lock()
	waiting := make([]*news, 0, len(l.site.news))
	for _, n := range l.site.news {
		if !now.Before(n.retry.next) {
			waiting = append(waiting, n)
		}
	}
	left := len(l.site.news) > 0
	l.f.mu.Unlock()
	if len(waiting) == 0 || l.sealing || now.Sub(l.looked) < planAtMost {
		return left
	}
	l.sealing, l.looked = true, now
	ctx = federation.WithPriority(ctx, federation.PriorityEvent)
	l.group.Go(func() error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(sealsAtOnce)
		for _, n := range waiting {
			group.Go(func() error {
				done, err := l.sealOne(ctx, n)
				l.sealedOne(n, done, err, now)
				return ctx.Err()
			})
		}
		_ = group.Wait() // ctx ended, which schedule sees too
		l.sealed <- struct{}{}
		return nil
	})
	return true
}

// sealedOne takes the result of sealOne: what cannot be sealed soon is left to the plan.
func (l *link) sealedOne(n *news, done bool, err error, now time.Time) {
	if err != nil && !errors.Is(err, context.Canceled) {
		l.f.counters.failures.Add(1)
		l.f.log.Warn("segment not sealed yet", "segment", n.ID, "stream", n.Stream, "error", err)
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if err != nil {
		n.retry = n.retry.after(now)
	}
	given := !n.differs && (err != nil || now.Sub(n.heard) > Settle)
	if (done || given) && l.site.news[n.ID] == n {
		delete(l.site.news, n.ID)
	}
}

// sealOne brings the hub's copy of a segment in line with the edge's, and reports whether it is: what
// is held whole gets its footer, and what was sealed otherwise is put aside and fetched again. What is
// held in part, perhaps only because live recording is still writing, stays as it is.
func (l *link) sealOne(ctx context.Context, n *news) (bool, error) {
	f, src := l.f, l.src
	here, err := f.here(ctx, n.Stream, n.Span)
	if err != nil {
		return false, err
	}
	held, begun := here[n.ID]
	switch {
	case held.Sealed && held.Hash == n.Hash:
		return true, nil
	case n.differs, held.Sealed:
		l.noteDiffers(n)
		t := &task{stream: n.Stream, span: n.Span, take: takeWhole, priority: policy.Event,
			reason: "differs", crew: l.crew}
		_, err := f.bring(ctx, t)
		if err == nil && len(t.damage) > 0 {
			err = t.damage[0].err // and so it waits before it tries again
		}
		return false, err
	case !begun:
		return true, nil
	}
	end := held.InitSize
	for _, fr := range held.Fragments {
		if fr.Offset != end {
			return false, nil
		}
		end = fr.End()
	}
	if end == held.InitSize || n.Size-end <= 0 || n.Size-end > maxFooter {
		return false, nil
	}
	done, err := f.fetchFooter(ctx, src, n, branchline.ByteRange{Start: end, End: n.Size})
	if !errors.Is(err, branchline.ErrMismatch) {
		return done, err
	}
	if aside := f.store.Quarantine(n.ID, err.Error()); aside != nil {
		return false, errors.Join(err, aside)
	}
	l.noteDiffers(n)
	return false, err
}

func (l *link) noteDiffers(n *news) {
	l.f.mu.Lock()
	n.differs = true
	l.f.mu.Unlock()
}

// fetchFooter fetches what follows the fragments held. If that is no footer, a fragment is missing.
func (f *Fetcher) fetchFooter(
	ctx context.Context, src branchline.Source, n *news, bytes branchline.ByteRange,
) (bool, error) {
	body, err := src.Fetch(ctx, n.ID, bytes)
	if err != nil {
		return false, fmt.Errorf("fetch footer: %w", err)
	}
	defer body.Close()
	footer, err := io.ReadAll(io.LimitReader(body, bytes.End-bytes.Start))
	if err != nil {
		return false, fmt.Errorf("fetch footer: %w", err)
	}
	f.counters.bytes.Add(int64(len(footer)))
	f.all.came.Add(int64(len(footer)))
	parsed, err := segstore.ParseFooter(footer)
	if err != nil {
		return false, nil
	}
	if parsed.ID != n.ID || parsed.Hash != n.Hash { // no reason to doubt what is held
		return false, fmt.Errorf("%w: its footer says %v, and it told of %v", errSite, parsed.Hash, n.Hash)
	}
	err = f.store.Seal(n.ID, branchline.SegmentSeal{ID: n.ID, Hash: n.Hash, Footer: footer, Size: n.Size})
	return err == nil, err
}
