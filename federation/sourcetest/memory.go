package sourcetest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// FragmentLength is how much time each [Feed.Append] adds in a Memory.
	FragmentLength = 500 * time.Millisecond
	// memoryRing bounds the live items kept for each stream of a Memory.
	memoryRing = 128
	// framesPerFragment is how many frames each Append publishes.
	framesPerFragment = 2

	initSize, headSize, tailSize, footerSize = 64, 24, 8, 40
)

// Memory is a source in memory. It is complete but for real video: initial parts, fragments and
// footers are bytes without meaning, of which all hashes are right. Methods may be called
// concurrently.
type Memory struct {
	mu       sync.Mutex
	wake     chan struct{} // closed and renewed at every change
	epoch    uint64
	cameras  []branchline.Camera
	changes  []branchline.Change
	streams  map[branchline.StreamID]*stream
	segments map[branchline.SegmentID]*segment
	closed   error
	controls controls
}

var _ branchline.Source = (*Memory)(nil)

type stream struct {
	id      branchline.StreamID
	run     uint64
	running bool
	number  uint32
	at      time.Time // where the next fragment starts
	order   []*segment
	growing *segment
	items   []branchline.Item // the newest ones; items[0] is the item with number first
	first   int
	join    int // number of the newest item at which a reader may join; -1 for none
}

type segment struct {
	start   branchline.SegmentStart
	info    branchline.Segment
	data    []byte
	removed bool
}

// NewMemory returns a source whose recordings begin at start, of the cameras given.
func NewMemory(start time.Time, cameras ...branchline.Camera) *Memory {
	m := &Memory{
		wake: make(chan struct{}), epoch: rand.Uint64() | 1, streams: make(map[branchline.StreamID]*stream),
		segments: make(map[branchline.SegmentID]*segment),
	}
	for _, c := range cameras {
		m.cameras = append(m.cameras, c)
		m.change(branchline.Change{Camera: &c})
		for _, s := range c.Streams {
			m.streams[s.ID] = &stream{id: s.ID, at: start.UTC(), join: -1}
		}
	}
	slices.SortFunc(m.cameras, func(a, b branchline.Camera) int { return compare(a.ID, b.ID) })
	return m
}

func compare[S ~string](a, b S) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Close ends the source: what goes on and what is asked from now on fails with
// [branchline.ErrUnavailable].
func (m *Memory) Close() error {
	m.update(func() { m.closed = fmt.Errorf("closed: %w", branchline.ErrUnavailable) })
	return nil
}

// update changes the source and tells all who wait.
func (m *Memory) update(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.wake)
	m.wake = make(chan struct{})
}

// look runs f under the lock until it is done or fails, again after every change. It returns ctx's
// error when that ends first.
func (m *Memory) look(ctx context.Context, f func() (done bool, err error)) error {
	for {
		m.mu.Lock()
		done, err := false, m.closed
		if err == nil {
			done, err = f()
		}
		wake := m.wake
		m.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change adds to the feed. The caller holds mu, or is alone.
func (m *Memory) change(c branchline.Change) {
	c.At = branchline.Position{Epoch: m.epoch, Seq: uint64(len(m.changes)) + 1}
	m.changes = append(m.changes, c)
}

// Cameras is [branchline.Source.Cameras].
func (m *Memory) Cameras(ctx context.Context) (list []branchline.Camera, err error) {
	err = m.look(ctx, func() (bool, error) {
		list = slices.Clone(m.cameras)
		return true, nil
	})
	return list, err
}

// Changes is [branchline.Source.Changes].
func (m *Memory) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return func(yield func(branchline.Change, error) bool) {
		for next := after.Seq; ctx.Err() == nil; next++ {
			var c branchline.Change
			err := m.look(ctx, func() (bool, error) {
				if after != (branchline.Position{}) && after.Epoch != m.epoch || next > uint64(len(m.changes)) {
					return false, fmt.Errorf("changes of epoch %d: %w", after.Epoch, branchline.ErrGone)
				}
				if next == uint64(len(m.changes)) {
					return false, nil
				}
				c = m.changes[next]
				return true, nil
			})
			if ctx.Err() != nil || !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (m *Memory) stream(id branchline.StreamID) (*stream, error) {
	s, ok := m.streams[id]
	if !ok {
		return nil, fmt.Errorf("find stream %s: %w", id, branchline.ErrNotFound)
	}
	return s, nil
}

// Segments is [branchline.Source.Segments].
func (m *Memory) Segments(ctx context.Context, id branchline.StreamID, span branchline.TimeRange) (
	list []branchline.Segment, err error,
) {
	err = m.look(ctx, func() (bool, error) {
		s, err := m.stream(id)
		if err != nil {
			return false, err
		}
		for _, seg := range s.order {
			if !seg.removed && seg.info.Span.Overlaps(span) && len(list) < branchline.MaxSegments {
				info := seg.info
				info.Fragments = slices.Clone(info.Fragments)
				list = append(list, info)
			}
		}
		return true, nil
	})
	return list, err
}

// Fetch is [branchline.Source.Fetch].
func (m *Memory) Fetch(ctx context.Context, id branchline.SegmentID, want branchline.ByteRange) (
	io.ReadCloser, error,
) {
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{ctx: ctx, cancel: cancel, m: m, id: id, at: want.Start, end: want.End}
	if _, err := r.some(nil); err != nil {
		cancel()
		return nil, fmt.Errorf("fetch segment %s: %w", id, err)
	}
	return r, nil
}

type reader struct {
	ctx     context.Context
	cancel  context.CancelFunc
	m       *Memory
	id      branchline.SegmentID
	at, end int64
}

func (r *reader) Read(b []byte) (n int, err error) { return r.some(b) }

func (r *reader) Close() error {
	r.cancel()
	return nil
}

// some reads as Read does, or, with no room to read into, checks that there is something to read.
func (r *reader) some(b []byte) (n int, err error) {
	err = r.m.look(r.ctx, func() (bool, error) {
		seg, ok := r.m.segments[r.id]
		switch {
		case !ok:
			return false, branchline.ErrNotFound
		case seg.removed:
			return false, branchline.ErrGone
		}
		size := int64(len(seg.data))
		if r.at < 0 || r.at > size || r.end > size || r.end != 0 && r.end < r.at {
			return false, fmt.Errorf("bytes %d to %d of %d: %w", r.at, r.end, size, branchline.ErrInvalid)
		}
		end := size
		if r.end != 0 {
			end = r.end
		}
		n = copy(b, seg.data[r.at:end])
		r.at += int64(n)
		if n == 0 && len(b) > 0 && (r.end != 0 || seg.info.Sealed) {
			return false, io.EOF
		}
		return n > 0 || len(b) == 0, nil
	})
	return n, err
}

// Live is [branchline.Source.Live].
func (m *Memory) Live(ctx context.Context, id branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		cursor, lost := 0, -1 // number of the next item; of the first one missed, -1 for none
		joined := false
		for ctx.Err() == nil {
			var batch []branchline.Item
			err := m.look(ctx, func() (bool, error) {
				s, err := m.stream(id)
				if err != nil {
					return false, err
				}
				if joined && cursor < s.first {
					joined, lost = false, cursor
				}
				if !joined {
					if s.join < s.first {
						return false, nil // no key frame in the ring
					}
					cursor, joined = s.join, true
					seg := m.segments[s.items[cursor-s.first].Segment]
					i := branchline.Item{Segment: seg.start.ID, Start: &seg.start}
					if lost >= 0 {
						i.Missed, lost = cursor-lost, -1
					}
					batch = append(batch, i)
				}
				batch = append(batch, s.items[cursor-s.first:]...)
				cursor = s.first + len(s.items)
				return len(batch) > 0, nil
			})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(branchline.Item{}, err)
				return
			}
			for _, i := range batch {
				if ctx.Err() != nil || !yield(i, nil) {
					return
				}
			}
		}
	}
}
