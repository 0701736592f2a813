package network_test

import (
	"encoding/binary"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/branchline-video/branchline/e2e/network"
)

// viewer watches a camera at the hub and notes when its frames come.
type viewer struct {
	conn *websocket.Conn
	done chan struct{}

	mu     sync.Mutex
	last   time.Time     // a frame came
	worst  time.Duration // without one
	at     float64       // the last frame's own time, in seconds
	missed float64       // seconds of video that did not come
	frames int
}

// view begins to watch the first camera.
func (s *site) view() *viewer {
	s.t.Helper()
	dialer := websocket.Dialer{NetDialContext: s.Dial(network.Centre), HandshakeTimeout: 10 * time.Second}
	url := "ws://127.0.0.1:8480/api/v1/streams/" + network.Site + "." + network.Camera(0) + ".main/live"
	var c *websocket.Conn
	_, err := network.Until(s.t.Context(), 100*time.Millisecond, 20*time.Second, func() bool {
		conn, res, err := dialer.DialContext(s.t.Context(), url, http.Header{"Authorization": {"Bearer " + s.Bearer()}})
		if res != nil {
			res.Body.Close()
		}
		c = conn
		return err == nil // the hub does not know the camera at once
	})
	if err != nil {
		s.t.Fatal("watch: ", err)
	}
	v := &viewer{conn: c, done: make(chan struct{})}
	go v.run()
	s.t.Cleanup(func() {
		c.Close()
		<-v.done
	})
	return v
}

func (v *viewer) run() {
	defer close(v.done)
	scale := 0.0
	for {
		kind, m, err := v.conn.ReadMessage()
		if err != nil {
			return
		}
		if kind != websocket.BinaryMessage {
			continue
		}
		if at := box(m, "mdhd"); len(at) > 24 {
			scale = timescale(at)
		}
		if at := box(m, "tfdt"); len(at) >= 12 && scale > 0 {
			v.frame(float64(binary.BigEndian.Uint64(at[4:])) / scale)
		}
	}
}

// longFrame is more than a camera's pictures are apart, in seconds.
const longFrame = 0.15

func (v *viewer) frame(at float64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if v.frames++; v.frames > 1 {
		v.worst = max(v.worst, now.Sub(v.last))
		if at-v.at > longFrame {
			v.missed += at - v.at
		}
	}
	v.last, v.at = now, at
}

// stall returns the longest time without a frame since it was last asked, and the seconds of video missed.
func (v *viewer) stall() (worst time.Duration, missed float64, frames int) {
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
				t.Logf("way %d: %.2f s of live missed; its return: live stood still for %.2f s, %.2f s missed", i, missed,
					back.Seconds(), again)
				limit(t, "live stands still when a way is lost", lost, time.Second)
				limit(t, "live stands still when it is back", back, time.Second)
				if missed+again > 0 {
					t.Errorf("%.2f s of live were missed, want that all of it comes", missed+again)
				}
			}
			if n := strings.Count(s.Hub.Log(), "link up"); n > 2 {
				t.Errorf("the hub tells of %d links, want one", n)
			}
		})
	}
}
