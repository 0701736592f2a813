package federation

import (
	"context"

	"github.com/branchline-video/branchline/federation/link"
)

// Priority orders what a site sends when its uplink is short, the most urgent first. The values stand
// on the wire.
type Priority uint8

// The priorities of DESIGN section 7.
const (
	PriorityControl  Priority = 0
	PriorityLive     Priority = 1
	PriorityRequest  Priority = 2
	PriorityEvent    Priority = 3
	PrioritySchedule Priority = 4
	PriorityBackfill Priority = 5
)

type priorityKey struct{}

// WithPriority makes [Remote.Fetch] ask with the priority. Without it a fetch is a request; what is
// more urgent than a request is not for fetches and counts as one. With [PrioritySchedule] it makes
// [Remote.Live] ask for what is recorded and not watched.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// Recording reports whether what is asked for with [Remote.Live] is recorded and not watched, as [WithPriority]
// says it.
func Recording(ctx context.Context) bool { return priorityOf(ctx, link.KindLive) == PrioritySchedule }

func priorityOf(ctx context.Context, kind link.Kind) Priority {
	p, ok := ctx.Value(priorityKey{}).(Priority)
	if !ok {
		p = PriorityRequest
	}
	return bounded(p, kind)
}

// bounded returns the priority that a stream of the kind may have.
func bounded(p Priority, kind link.Kind) Priority {
	switch kind {
	case link.KindFetch:
		return min(max(p, PriorityRequest), PriorityBackfill)
	case link.KindLive:
		if p >= PrioritySchedule {
			return PrioritySchedule // nobody watches: it is recorded
		}
		return PriorityLive
	}
	return PriorityControl
}
