package segstore

import (
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/retain"
)

// paces measures how fast space is used, for retention to act ahead of need. Its zero value has measured
// nothing. It is not safe for concurrent use.
type paces struct {
	at    time.Time
	used  map[string]int64 // at that time, by what it counts for
	gone  map[string]int64 // removed since
	ahead map[string]int64
}

const storeKey = "store"

func cameraKey(id branchline.CameraID) string { return "camera " + string(id) }
func volumeKey(name string) string            { return "volume " + name }

// The measure is taken over at least leastPace. Before the first one a hundredth of a quota is expected,
// but at most firstPace: a minute of 34 Mbit/s.
const (
	leastPace = 20 * time.Second
	firstPace = 256 << 20
)

// measure finds how much will probably be used until the next decision. That is never more than a tenth of
// a quota, or than what must be free anyhow, so that a burst, or a clock that was set, costs no more.
func (p *paces) measure(f retain.Facts) {
	elapsed := f.Now.Sub(p.at)
	if p.used != nil && elapsed >= 0 && elapsed < leastPace {
		return
	}
	was := *p
	*p = paces{at: f.Now, used: make(map[string]int64), gone: make(map[string]int64), ahead: make(map[string]int64)}
	add := func(key string, used, first, most int64) {
		p.used[key], p.ahead[key] = used, first
		if before, ok := was.used[key]; ok && elapsed > 0 {
			grown := float64(max(used-before+was.gone[key], 0))
			p.ahead[key] = min(int64(grown*float64(retainEvery)/float64(elapsed)), most)
		}
	}
	add(storeKey, f.Store.Bytes, min(f.Store.Quota/100, firstPace), f.Store.Quota/10)
	for _, c := range f.Cameras {
		add(cameraKey(c.ID), c.Bytes, min(c.Quota/100, firstPace), c.Quota/10)
	}
	for _, v := range f.Volumes {
		add(volumeKey(v.Name), -v.Free, 0, v.Floor)
	}
}

// freed notes what was removed.
func (p *paces) freed(gone []retain.Action) {
	if p.gone == nil {
		return
	}
	for _, a := range gone {
		p.gone[storeKey] += a.Segment.Bytes
		p.gone[cameraKey(a.Segment.Stream.Camera())] += a.Segment.Bytes
		p.gone[volumeKey(a.Segment.Volume)] += a.Segment.Bytes
	}
}
