package sourcetest

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/branchline-video/branchline"
)

// Feed makes recordings on one stream of a source. When a method returns, what it made can be seen
// through the source, live and recorded. One goroutine uses it.
type Feed interface {
	// Begin starts a segment with its first fragment, a key fragment of about size bytes.
	Begin(size int) branchline.SegmentID
	// Append adds a fragment of about size bytes to the growing segment.
	Append(key bool, size int)
	// Seal seals the growing segment. The next one continues the run.
	Seal()
	// Stop ends the run, after sealing the growing segment if there is one; the stream then has a gap
	// with the cause.
	Stop(cause branchline.Cause)
	// Remove removes a sealed segment.
	Remove(id branchline.SegmentID, cause branchline.Cause)
}

// Feed returns the feed of a stream that the source was made with.
func (m *Memory) Feed(id branchline.StreamID) Feed { return &memoryFeed{m, m.streams[id]} }

type memoryFeed struct {
	m *Memory
	s *stream
}

func (f *memoryFeed) Begin(size int) branchline.SegmentID {
	var id branchline.SegmentID
	f.m.update(func() {
		s := f.s
		if !s.running {
			s.run, s.number, s.running = s.run+1, 0, true
		}
		id = branchline.NewSegmentID(s.at)
		seg := &segment{
			start: branchline.SegmentStart{
				ID: id, Stream: s.id, Run: s.run, Number: s.number, Start: s.at, Codecs: "avc1.42c01f",
				Init: noise(s.run, uint64(s.number), initSize),
			},
		}
		seg.info = branchline.Segment{
			ID: id, Stream: s.id, Run: s.run, Number: s.number, Codecs: seg.start.Codecs, InitSize: initSize,
			Span: branchline.TimeRange{Start: s.at, End: s.at}, Size: initSize,
		}
		seg.data = append(seg.data, seg.start.Init...)
		s.number++
		s.growing, s.order = seg, append(s.order, seg)
		f.m.segments[id] = seg
		opened := seg.info
		f.m.change(branchline.Change{Opened: &opened})
		s.publish(branchline.Item{Segment: id, Start: &seg.start})
		s.append(true, size)
	})
	return id
}

func (f *memoryFeed) Append(key bool, size int) { f.m.update(func() { f.s.append(key, size) }) }

func (f *memoryFeed) Seal() {
	f.m.update(func() {
		s := f.s
		seg := s.growing
		h := sha256.New()
		h.Write(seg.start.Init)
		for _, fr := range seg.info.Fragments {
			h.Write(fr.Hash[:])
		}
		footer := h.Sum(nil)
		seg.info.Hash = branchline.Hash(footer)
		footer = append(footer, make([]byte, footerSize-len(footer))...)
		seg.data = append(seg.data, footer...)
		seg.info.Size, seg.info.Sealed = int64(len(seg.data)), true
		s.growing = nil
		sealed := seg.info
		sealed.Fragments = nil
		f.m.change(branchline.Change{Sealed: &sealed})
		s.publish(branchline.Item{Segment: seg.info.ID, Seal: &branchline.SegmentSeal{
			ID: seg.info.ID, Hash: seg.info.Hash, Footer: footer, Size: seg.info.Size,
		}})
	})
}

func (f *memoryFeed) Stop(cause branchline.Cause) {
	if f.s.growing != nil {
		f.Seal()
	}
	f.m.update(func() {
		s := f.s
		s.publish(branchline.Item{RunEnd: &branchline.RunEnd{Run: s.run, At: s.at, Cause: cause}})
		s.running, s.join = false, -1
		end := s.at.Add(FragmentLength)
		f.m.change(branchline.Change{Gap: &branchline.Gap{
			Stream: s.id, Span: branchline.TimeRange{Start: s.at, End: end}, Cause: cause,
		}})
		s.at = end
	})
}

func (f *memoryFeed) Remove(id branchline.SegmentID, cause branchline.Cause) {
	f.m.update(func() {
		seg := f.m.segments[id]
		seg.removed, seg.data = true, nil
		f.m.change(branchline.Change{Removed: &branchline.Removal{
			ID: id, Stream: seg.info.Stream, Span: seg.info.Span, Cause: cause,
		}})
	})
}

// append adds a fragment to the growing segment and publishes its items.
func (s *stream) append(key bool, size int) {
	seg := s.growing
	offset := int64(len(seg.data))
	head, tail := noise(uint64(offset), 1, headSize), noise(uint64(offset), 2, tailSize)
	seg.data = append(seg.data, head...)
	for i := range framesPerFragment {
		at := s.at.Add(time.Duration(i) * FragmentLength / framesPerFragment)
		frame := &branchline.Frame{
			Track: 1, DTS: at, PTS: at, Key: key && i == 0, FirstKey: key && i == 0,
			Data: noise(uint64(offset), 3+uint64(i), max(size/framesPerFragment, 1)),
		}
		seg.data = append(seg.data, frame.Data...)
		s.publish(branchline.Item{Segment: seg.info.ID, Frame: frame})
	}
	seg.data = append(seg.data, tail...)
	fragment := branchline.Fragment{
		Offset: offset, Length: int64(len(seg.data)) - offset, Start: s.at, Duration: FragmentLength, Key: key,
		Hash: sha256.Sum256(seg.data[offset:]),
	}
	s.at = s.at.Add(FragmentLength)
	seg.info.Span.End, seg.info.Size = s.at, int64(len(seg.data))
	seg.info.Fragments = append(seg.info.Fragments, fragment)
	s.publish(branchline.Item{Segment: seg.info.ID, Fragment: &branchline.FragmentEnd{
		Fragment: fragment, Head: head, Tail: tail,
	}})
}

// publish adds an item to the ring, which drops its oldest.
func (s *stream) publish(i branchline.Item) {
	if i.Frame != nil && i.Frame.FirstKey {
		s.join = s.first + len(s.items)
	}
	s.items = append(s.items, i)
	if over := len(s.items) - memoryRing; over > 0 {
		s.items, s.first = append([]branchline.Item(nil), s.items[over:]...), s.first+over
	}
}

// noise returns n bytes that depend on a and b alone.
func noise(a, b uint64, n int) []byte {
	r := rand.New(rand.NewPCG(a, b))
	out := make([]byte, 0, n+8)
	for len(out) < n {
		out = binary.LittleEndian.AppendUint64(out, r.Uint64())
	}
	return out[:n]
}
