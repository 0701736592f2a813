package network_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline/e2e/network"
)

// viewer watches a camera at the hub and notes when its frames come.
type viewer struct {
	conn *network.Viewer
	done chan struct{}

	mu     sync.Mutex
	last   time.Time     // a frame came
	worst  time.Duration // without one
	at     time.Time     // the last frame's own
	missed time.Duration // video that did not come
	frames int
}

// view begins to watch the first camera.
func (s *site) view() *viewer {
	s.t.Helper()
	var conn *network.Viewer
	_, err := network.Until(s.t.Context(), 100*time.Millisecond, 20*time.Second, func() (known bool) {
		var err error
		conn, err = s.Watch(s.t.Context(), network.Site+"."+network.Camera(0)+".main")
		return err == nil // the hub does not know the camera at once
	})
	if err != nil {
		s.t.Fatal("watch: ", err)
	}
	v := &viewer{conn: conn, done: make(chan struct{})}
	go v.run()
	s.t.Cleanup(func() {
		conn.Close()
		<-v.done
	})
	return v
}

func (v *viewer) run() {
	defer close(v.done)
	for {
		at, words, err := v.conn.Next()
		if err != nil {
			return
		}
		if words == nil {
			v.frame(at)
		}
	}
}

// longFrame is more than a camera's pictures are apart.
const longFrame = 150 * time.Millisecond

func (v *viewer) frame(at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if v.frames++; v.frames > 1 {
		v.worst = max(v.worst, now.Sub(v.last))
		if apart := at.Sub(v.at); apart > longFrame {
			v.missed += apart
		}
	}
	v.last, v.at = now, at
}

// stall returns the longest time without a frame since it was last asked, and the video missed.
func (v *viewer) stall() (worst, missed time.Duration, frames int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	worst, missed, frames = max(v.worst, time.Since(v.last)), v.missed, v.frames
	v.worst, v.missed, v.frames = 0, 0, 0
	return worst, missed, frames
}

// TestTwoWays has a branch with two uplinks lose one and get it back, by each policy, while a camera is watched and
// recordings are fetched.
func TestTwoWays(t *testing.T) {
	all(t)
	for _, kinds := range [][]string{{"both", "both"}, {"prefer", "standby"}, {"prefer", "metered"}} {
		t.Run(strings.Join(kinds, " and "), func(t *testing.T) {
			s := newSiteOf(t, network.Plan{
				Link: "rate=4mbit delay=30ms", Links: 2, Cameras: 2, Kbits: 400, Segment: 5 * time.Second,
				Policies: backfill, Uplinks: kinds,
			})
			s.linked(20 * time.Second)
			v := s.view()
			s.passes(15 * time.Second)
			if _, _, frames := v.stall(); frames < 50 {
				t.Fatalf("%d frames came in 15 s", frames)
			}
			for i, l := range s.Links {
				before := [2]network.Stats{s.Links[0].Stats(network.Branch), s.Links[1].Stats(network.Branch)}
				s.passes(5 * time.Second)
				for j := range s.Links {
					t.Logf("way %d carries %.0f kbit/s", j,
						float64(s.Links[j].Stats(network.Branch).Bytes-before[j].Bytes)*8/5000)
				}
				v.stall()
				l.Cut(true)
				s.passes(10 * time.Second)
				lost, missed, _ := v.stall()
				l.Cut(false)
				s.passes(15 * time.Second)
				back, again, _ := v.stall()
				t.Logf("way %d: %.2f s of live missed; its return: live stood still for %.2f s, %.2f s missed", i,
					missed.Seconds(), back.Seconds(), again.Seconds())
				limit(t, "live stands still when a way is lost", lost, time.Second)
				limit(t, "live stands still when it is back", back, time.Second)
				if missed+again > 0 {
					t.Errorf("%v of live were missed, want that all of it comes", missed+again)
				}
			}
			if n := strings.Count(s.Hub.Log(), "link up"); n > 2 {
				t.Errorf("the hub tells of %d links, want one", n)
			}
		})
	}
}
