package segstore

import (
	"cmp"
	"container/list"
	"slices"

	"github.com/branchline-video/branchline"
)

// footerCache keeps the endings used last. The zero value is empty. It is not safe for concurrent use.
type footerCache struct {
	order list.List // of ending, newest first
	byID  map[branchline.SegmentID]*list.Element
}

func (c *footerCache) get(id branchline.SegmentID) (ending, bool) {
	e, ok := c.byID[id]
	if !ok {
		return ending{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(ending), true
}

func (c *footerCache) add(id branchline.SegmentID, f ending) {
	if _, ok := c.byID[id]; ok {
		return
	}
	if c.byID == nil {
		c.byID = make(map[branchline.SegmentID]*list.Element)
	}
	c.byID[id] = c.order.PushFront(f)
	if c.order.Len() > maxFooters {
		oldest := c.order.Back()
		c.order.Remove(oldest)
		delete(c.byID, oldest.Value.(ending).ID)
	}
}

func (c *footerCache) drop(id branchline.SegmentID) {
	if e, ok := c.byID[id]; ok {
		c.order.Remove(e)
		delete(c.byID, id)
	}
}

// touch notes that p's file was opened, and closes those opened longest ago when too many are open. It
// must not be called with any partial's mu or turn but p's turn held.
func (s *Store) touch(p *partial) {
	s.mu.Lock()
	s.opened = append(s.opened, p)
	var old []*partial
	if len(s.opened) > maxOpenFiles {
		old = slices.Clone(s.opened[:maxOpenFiles/4])
		s.opened = slices.Delete(s.opened, 0, len(old))
	}
	s.mu.Unlock()
	for _, q := range old {
		s.idle(q, p)
	}
}

// idle closes q's file, after a sync, unless it is the one in use or busy; then it stays in the list.
func (s *Store) idle(q, inUse *partial) {
	if q != inUse && q.tryTake() {
		s.syncPartial(q)
		q.closeFile()
		q.give()
	} else {
		s.mu.Lock()
		s.opened = append(s.opened, q)
		s.mu.Unlock()
	}
}

func (p *partial) tryTake() bool {
	select {
	case p.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// closeFile closes the data file, unless something came in since the sync. The caller holds turn.
func (p *partial) closeFile() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil && !p.dirty {
		p.file.Close()
		p.file = nil
	}
}

// orderSegments sorts by start, then identifier.
func orderSegments(all []branchline.Segment) {
	slices.SortFunc(all, func(a, b branchline.Segment) int {
		return cmp.Or(a.Span.Start.Compare(b.Span.Start), slices.Compare(a.ID[:], b.ID[:]))
	})
}
