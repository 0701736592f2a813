package fetch

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
)

// holdsAbove returns the holds that hubs above this one have here, by stream.
func (f *Fetcher) holdsAbove(ctx context.Context) (map[branchline.StreamID][]branchline.Hold, error) {
	all, err := f.store.Holds(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up holds of hubs above: %w", err)
	}
	of := make(map[branchline.StreamID][]branchline.Hold)
	for _, h := range all {
		of[h.Stream] = append(of[h.Stream], h)
	}
	return of, nil
}

// join adds to a hold of this hub what those above it want.
func (l *link) join(own branchline.Hold, above []branchline.Hold, now time.Time) (branchline.Hold, error) {
	var wanted branchline.Spans
	for _, h := range above {
		wanted = wanted.Union(h.Spans)
	}
	held, err := l.f.held(own.Stream, wanted)
	if err != nil {
		return own, err
	}
	return policy.Join(own, above, held, now), nil
}
