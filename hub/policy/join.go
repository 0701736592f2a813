package policy

import (
	"time"

	"github.com/branchline-video/branchline"
)

// Join returns a hold that spares what the hub's own hold spares and what those of the hubs above it do, less
// what is held here, from where they fetch it. Holds that have ended do not count.
func Join(own branchline.Hold, above []branchline.Hold, held branchline.Spans, now time.Time) branchline.Hold {
	for _, h := range above {
		spans := h.Spans.Minus(held)
		if !now.Before(h.Until) || len(spans) == 0 {
			continue
		}
		own.Spans = fewer(own.Spans.Union(spans), branchline.MaxHoldSpans)
		own.Until = later(own.Until, h.Until)
		if h.Known.Before(own.Known) {
			own.Known = h.Known
		}
	}
	return own
}
