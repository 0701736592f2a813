package segstore

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
	"github.com/branchline-video/branchline/segstore/retain"
)

// RetentionPlan returns what retention would do now, at most [retain.MaxActions] actions, and does nothing.
func (s *Store) RetentionPlan(ctx context.Context) (retain.Plan, error) {
	if err := ctx.Err(); err != nil {
		return retain.Plan{}, err
	}
	return s.decide(retain.MaxActions, false)
}

// Removals returns what retention has removed and thinned since the store was opened, the newest first: the
// last maxRemovals.
func (s *Store) Removals() []Removed {
	r := s.retention
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.recent)
	slices.Reverse(all)
	return all
}

// RetentionStats returns the counters.
func (s *Store) RetentionStats() RetentionStats {
	r := s.retention
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.stats
	t.Removed, t.Bytes, t.Shortages = maps.Clone(t.Removed), maps.Clone(t.Bytes), slices.Clone(t.Shortages)
	return t
}

// decide makes a plan from the present facts. With measure, which is for the retention's goroutine alone,
// it also takes the measure of how fast space is used, and begins to note the holds that it does not know.
func (s *Store) decide(most int, measure bool) (retain.Plan, error) {
	r := s.retention
	if measure {
		r.mu.Lock()
		clear(r.held) // those that are placed from now on
		r.mu.Unlock()
	}
	f, err := s.retentionFacts()
	if err != nil {
		return retain.Plan{}, fmt.Errorf("decide on what to keep: %w", err)
	}
	r.mu.Lock()
	if measure {
		r.paces.measure(f)
	}
	for i := range f.Streams {
		f.Streams[i].Thinned = f.Streams[i].Thinned.Union(r.keyless[f.Streams[i].ID])
	}
	f.Store.Ahead = r.paces.ahead[storeKey]
	for i := range f.Cameras {
		f.Cameras[i].Ahead = r.paces.ahead[cameraKey(f.Cameras[i].ID)]
	}
	for i := range f.Volumes {
		f.Volumes[i].Ahead = r.paces.ahead[volumeKey(f.Volumes[i].Name)]
	}
	r.mu.Unlock()
	f.Most = most
	var failed error
	skipped := false
	f.Segments = func(stream branchline.StreamID, from time.Time) iter.Seq[retain.Segment] {
		return func(yield func(retain.Segment) bool) {
			for seg := range s.sealedAfter(stream, from, &failed) {
				if seg.Volume == "" {
					skipped = true
				} else if !yield(seg) {
					return
				}
			}
		}
	}
	plan := retain.Decide(f)
	if failed != nil {
		return retain.Plan{}, fmt.Errorf("decide on what to keep: %w", failed)
	}
	for i := range plan.Actions {
		if a := &plan.Actions[i]; skipped && a.Kind == retain.Thin {
			a.Settles = a.Segment.Span // what was skipped is still to be thinned
		}
	}
	return plan, nil
}

// retentionFacts reads all facts but the segments and what is expected.
func (s *Store) retentionFacts() (retain.Facts, error) {
	f := retain.Facts{Now: s.clock.Now(), Store: retain.Usage{Quota: s.retention.rules.Quota}}
	locks, holds := make(map[branchline.StreamID][]branchline.Lock), make(map[branchline.StreamID][]branchline.Hold)
	used := s.growingBytes()
	err := s.ix.View(func(tx *index.Tx) error {
		allLocks, err := readLocks(tx)
		if err != nil {
			return err
		}
		allHolds, err := readHolds(tx)
		if err != nil {
			return err
		}
		for _, l := range allLocks {
			locks[l.Stream] = append(locks[l.Stream], l)
		}
		for _, h := range allHolds {
			holds[h.Stream] = append(holds[h.Stream], h)
		}
		for k, v := range tx.Scan([]byte("T"), nil) {
			var st streamState
			if err := decode("stream", v, st.move); err != nil {
				return err
			}
			used[branchline.StreamID(k[1:])] += st.bytes
		}
		for _, id := range slices.Sorted(maps.Keys(used)) {
			thinned, err := readThinned(tx, id)
			if err != nil {
				return err
			}
			f.Streams = append(f.Streams, retain.Stream{ID: id, Rule: s.retention.rules.For(id), Locks: locks[id],
				Holds: holds[id], Thinned: thinned})
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	for _, st := range f.Streams {
		f.Store.Bytes += used[st.ID]
	}
	f.Cameras = camerasWithQuota(f.Streams, used)
	f.Volumes, err = s.retainVolumes()
	return f, err
}

// camerasWithQuota adds up the streams of each camera for which a rule has a quota: the first that has one.
func camerasWithQuota(streams []retain.Stream, used map[branchline.StreamID]int64) []retain.Camera {
	var all []retain.Camera
	for _, st := range streams { // sorted, so that a camera's streams are together
		if n := len(all); n == 0 || all[n-1].ID != st.ID.Camera() {
			all = append(all, retain.Camera{ID: st.ID.Camera()})
		}
		c := &all[len(all)-1]
		c.Bytes += used[st.ID]
		if c.Quota == 0 {
			c.Quota = st.Rule.Quota
		}
	}
	return slices.DeleteFunc(all, func(c retain.Camera) bool { return c.Quota == 0 })
}

// growingBytes returns what is written of segments that are not sealed, by stream.
func (s *Store) growingBytes() map[branchline.StreamID]int64 {
	s.mu.Lock()
	all := s.list()
	s.mu.Unlock()
	used := make(map[branchline.StreamID]int64)
	for _, p := range all {
		p.mu.Lock()
		size := int64(len(p.init))
		if n := len(p.held); n > 0 {
			size = p.held[n-1].End()
		}
		p.mu.Unlock()
		used[p.stream] += size
	}
	return used
}

// retainVolumes returns the volumes that segments are on. One that is absent, or from which nothing could be
// removed just now, has nothing that could go.
func (s *Store) retainVolumes() ([]retain.Volume, error) {
	var all []retain.Volume
	for _, v := range s.volumes {
		if !v.removable() {
			continue
		}
		free, err := s.free(v.dir)
		if err != nil {
			return nil, err
		}
		size, err := s.retention.volume(v.dir)
		if err != nil {
			return nil, err
		}
		all = append(all, retain.Volume{Name: v.dir, Free: free, Floor: s.retention.rules.Floor(size, v.leastFloor())})
	}
	return all, nil
}

// The sizes of the pages in which sealedAfter reads: small at first, as most readers want but a few.
const (
	firstPage = 16
	mostPage  = 1024
)

// sealedAfter is [retain.Facts.Segments]. A failure ends it and is kept in *failed. What nothing can be done
// about, as its volume is absent or fails, has no volume.
func (s *Store) sealedAfter(stream branchline.StreamID, from time.Time, failed *error) iter.Seq[retain.Segment] {
	return func(yield func(retain.Segment) bool) {
		at := keyAt('S', stream, from.Add(-MaxSpan))
		for size := firstPage; at != nil; size = min(4*size, mostPage) {
			page, next, err := s.page(stream, at, size)
			if err != nil {
				*failed = err
				return
			}
			for _, seg := range page {
				if !seg.Span.End.After(from) {
					continue
				}
				one := retain.Segment{ID: seg.ID, Stream: stream, Span: seg.Span, Bytes: seg.Size}
				if path, sure := s.locateSealed(seg); sure && s.volumeOf(path).removable() {
					one.Volume = s.volumeOf(path).dir
				}
				if !yield(one) {
					return
				}
			}
			at = next
		}
	}
}

// page returns sealed segments of a stream from a key on, and the key after them, nil at the end.
func (s *Store) page(
	stream branchline.StreamID, at []byte, size int,
) (page []branchline.Segment, next []byte, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		seen := 0
		for k, v := range tx.Scan(keyLine('S', stream), at) {
			if seen++; seen > size {
				next = bytes.Clone(k)
				break
			}
			var seg branchline.Segment
			var seq uint64
			if err := decode("segment", v, sequenced(&seq, func(c *codec) { c.segment(&seg) })); err != nil {
				return err
			}
			if !seg.Sealed {
				continue
			}
			var err error
			if seg.Size, err = sizeOf(tx, seg); err != nil {
				return err
			}
			page = append(page, seg)
		}
		return nil
	})
	return page, next, err
}
