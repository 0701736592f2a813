package edge

import (
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// rateWindow is over how long a stream's bit rate is told, and leastWindow from when on, in its first.
	rateWindow  = 10 * time.Second
	leastWindow = 2 * time.Second
)

// meter tells how much a stream takes, by the decode times of its frames.
type meter struct {
	mu        sync.Mutex
	from, at  time.Time // of the window so far
	all, keys int64     // bytes in it
	was       [2]int64  // bits a second in the window before
}

func (m *meter) add(f *branchline.Frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	took := f.DTS.Sub(m.from)
	if m.from.IsZero() || took < -rateWindow || took > 6*rateWindow { // the first, or the clock was stepped
		m.from, m.at, m.all, m.keys = f.DTS, f.DTS, 0, 0
		took = 0
	}
	if took >= rateWindow {
		m.was = [2]int64{bitRate(m.all, took), bitRate(m.keys, took)}
		m.from, m.all, m.keys = f.DTS, 0, 0
	}
	m.at = f.DTS
	m.all += int64(len(f.Data))
	if f.Key {
		m.keys += int64(len(f.Data))
	}
}

func bitRate(bytes int64, took time.Duration) int64 { return int64(float64(bytes*8) / took.Seconds()) }

// rate returns bits a second, of all and of key frames alone; zero while not known.
func (m *meter) rate() (all, keys int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if took := m.at.Sub(m.from); m.was[0] == 0 && took >= leastWindow {
		return bitRate(m.all, took), bitRate(m.keys, took)
	}
	return m.was[0], m.was[1]
}

// BitRate returns what the stream lately took, in bits a second, all of it and its key frames alone; zero while
// that is not known.
func (n *Node) BitRate(id branchline.StreamID) (all, keys int64) {
	i, ok := slices.BinarySearchFunc(n.streams, id, func(s *stream, id branchline.StreamID) int {
		return compare(s.id, id)
	})
	if !ok {
		return 0, 0
	}
	return n.streams[i].meter.rate()
}

// Beside returns the other streams of the same camera.
func (n *Node) Beside(id branchline.StreamID) (others []branchline.StreamID) {
	for _, s := range n.streams {
		if s.id != id && s.id.Camera() == id.Camera() {
			others = append(others, s.id)
		}
	}
	return others
}
