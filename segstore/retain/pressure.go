package retain

import (
	"cmp"
	"container/heap"
	"iter"
	"slices"

	"github.com/branchline-video/branchline"
)

// pressure is a limit on the segments of a volume, of a camera or of the store.
type pressure struct {
	volume  string              // set for a volume's
	camera  branchline.CameraID // set for a camera's
	limit   int64               // the quota, or what must be free
	ahead   int64
	need    int64      // bytes to free; what is below zero is to spare
	victims []*removal // whose removal it asked for, in the order of their ranks and ages
}

// pressures returns all limits that there are: volumes first, as a full one is the most urgent.
func pressures(f Facts) []*pressure {
	var all []*pressure
	for _, v := range f.Volumes {
		all = append(all, &pressure{volume: v.Name, limit: v.Floor, ahead: v.Ahead, need: v.Floor + v.Ahead - v.Free})
	}
	slices.SortFunc(all, func(a, b *pressure) int { return cmp.Compare(a.volume, b.volume) })
	first := len(all)
	for _, c := range f.Cameras {
		if c.Quota > 0 {
			all = append(all, &pressure{camera: c.ID, limit: c.Quota, ahead: c.Ahead, need: c.Bytes + c.Ahead - c.Quota})
		}
	}
	slices.SortFunc(all[first:], func(a, b *pressure) int { return cmp.Compare(a.camera, b.camera) })
	if u := f.Store; u.Quota > 0 {
		all = append(all, &pressure{limit: u.Quota, ahead: u.Ahead, need: u.Bytes + u.Ahead - u.Quota})
	}
	return all
}

// on reports whether the segment counts for the limit.
func (d *pressure) on(s Segment) bool {
	switch {
	case d.volume != "":
		return s.Volume == d.volume
	case d.camera != "":
		return s.Stream.Camera() == d.camera
	}
	return true
}

// oldest yields the segments of a rank that count for the limit and are not removed yet, the oldest
// first over all streams.
func (p *planner) oldest(d *pressure, r rank) iter.Seq2[Segment, *line] {
	return func(yield func(Segment, *line) bool) {
		var h heads
		defer func() {
			for _, x := range h {
				x.stop()
			}
		}()
		for _, l := range p.lines {
			if d.camera != "" && l.camera != d.camera {
				continue
			}
			x := &head{line: l}
			x.next, x.stop = iter.Pull(p.ranked(d, l, r))
			var ok bool
			if x.segment, ok = x.next(); ok {
				h = append(h, x)
			} else {
				x.stop()
			}
		}
		heap.Init(&h)
		for len(h) > 0 {
			x := h[0]
			if !yield(x.segment, x.line) {
				return
			}
			var ok bool
			if x.segment, ok = x.next(); ok {
				heap.Fix(&h, 0)
			} else {
				heap.Pop(&h).(*head).stop()
			}
		}
	}
}

// ranked yields a stream's segments of a rank, as oldest does.
func (p *planner) ranked(d *pressure, l *line, r rank) iter.Seq[Segment] {
	return func(yield func(Segment) bool) {
		for s := range p.walk(l, l.where(r)) {
			if l.rank(s) == r && d.on(s) && !p.taken[s.ID] && !yield(s) {
				return
			}
		}
	}
}

// head is the oldest segment of a stream that was not yielded yet.
type head struct {
	line    *line
	segment Segment
	next    func() (Segment, bool)
	stop    func()
}

// heads is a heap.
type heads []*head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return older(h[i].segment, h[j].segment) < 0 }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(*head)) }
func (h *heads) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
