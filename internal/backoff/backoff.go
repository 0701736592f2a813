package backoff

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Backoff gives the pauses between attempts. It is not safe for concurrent use.
type Backoff struct {
	exponential backoff.ExponentialBackOff
	most        time.Duration
}

// New returns pauses that start at about first and never exceed most.
func New(first, most time.Duration) *Backoff {
	b := &Backoff{most: most, exponential: backoff.ExponentialBackOff{
		InitialInterval: first, RandomizationFactor: 0.5, Multiplier: 1.6, MaxInterval: most,
	}}
	b.Reset()
	return b
}

// Reset starts over with the first pause; call it after a success.
func (b *Backoff) Reset() { b.exponential.Reset() }

// Next returns how long to pause now.
func (b *Backoff) Next() time.Duration { return min(b.exponential.NextBackOff(), b.most) }

// Wait pauses for Next, or until ctx ends, and then returns its cause.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
