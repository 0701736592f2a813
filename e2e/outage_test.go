package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/internal/testcam/marks"
)

// How long the link is cut, and how soon after healing everything must be held.
const (
	outage    = 30 * time.Second
	catchUp   = 20 * time.Second
	tolerance = 100 * time.Millisecond // of a frame's time on the time line against its capture time
)

const alwaysAndBackfill = `  - {streams: "*.door.main", keep: always}
  - {streams: "*.yard.main", keep: backfill}
  - {streams: "*.safe.main", keep: never}
`

// TestOutage cuts a site's link for 30 s. Recording goes on at the edge, the hub's time line shows
// the cut, and after healing the hub holds all of it, equal byte for byte and frame for frame.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{
		policies: alwaysAndBackfill, cameras: []string{"door", "yard", "safe"}, segment: 5 * time.Second,
	})
	w.untilHeldLive("door")

	cut := time.Now()
	w.relay.cut.Store(true)
	until(t, 10*time.Second, "the time line shows the cut", func() bool {
		spans, err := w.api.timeline("door", cut.Add(2*time.Second), time.Now())
		if err != nil || len(spans) == 0 {
			return false
		}
		last := spans[len(spans)-1]
		return last.State == "gap" && last.Cause == "link down"
	})
	before := newestSegment(t, w.edgeDir)
	passes(cut.Add(outage))
	if after := newestSegment(t, w.edgeDir); !after.After(before.Add(outage / 2)) {
		t.Errorf("the edge's newest file is of %v, at the cut it was %v: it did not go on recording", after, before)
	}
	w.relay.cut.Store(false)
	healed := time.Now()
	took := until(t, catchUp, "the hub holds the outage", func() bool {
		return w.allHeld("door", cut.Add(-5*time.Second), healed) && w.allHeld("yard", cut, healed)
	})
	t.Logf("everything of the %v outage was held %.1f s after healing", outage, took.Seconds())

	w.frames("door", cut.Add(-5*time.Second), healed.Add(2*time.Second)).unbroken(t)
	w.frames("yard", cut, healed).unbroken(t)
	w.sameSegments("door", cut.Add(-5*time.Second), healed)
	w.sameSegments("yard", cut.Add(time.Second), healed.Add(-6*time.Second))
	from, to := w.requestLastMinute("safe")

	// What an operator was told to be done stays so, whatever happens the moment after.
	w.hub.kill()
	w.startHub()
	until(t, catchUp, "the hub still holds what was retrieved", func() bool { return w.allHeld("safe", from, to) })
}

// TestKill ends the edge or the hub with SIGKILL at a random moment of an outage, and before and
// after it. The same holds afterwards, but for what the edge lost while it was not there.
func TestKill(t *testing.T) {
	for _, c := range []struct {
		victim   string
		from, to time.Duration // after the cut
	}{
		{"edge", -3 * time.Second, 0},
		{"edge", 0, outage},
		{"edge", outage, outage + 2*time.Second},
		{"hub", -3 * time.Second, 0},
		{"hub", 0, outage},
		{"hub", outage, outage + 2*time.Second},
	} {
		t.Run(fmt.Sprintf("%s %v to %v", c.victim, c.from, c.to), func(t *testing.T) {
			t.Parallel()
			at := c.from + rand.N(c.to-c.from)
			t.Logf("%s is killed %v after the cut", c.victim, at)
			testKill(t, c.victim, at)
		})
	}
}

func testKill(t *testing.T, victim string, at time.Duration) {
	w := newWorld(t, options{policies: alwaysAndBackfill, cameras: []string{"door", "yard"}, segment: 5 * time.Second})
	w.untilHeldLive("door")
	cut := time.Now().Add(max(0, -at) + 500*time.Millisecond)
	var killed, back time.Time
	kill := func() {
		killed = time.Now()
		if victim == "edge" {
			w.edge.kill()
			w.startEdge()
		} else {
			w.hub.kill()
			w.startHub()
		}
		back = time.Now()
	}
	steps := []struct {
		after time.Duration
		do    func()
	}{{0, func() { w.relay.cut.Store(true) }}, {outage, func() { w.relay.cut.Store(false) }}}
	done := false
	for _, s := range steps {
		if !done && at < s.after {
			passes(cut.Add(at))
			kill()
			done = true
		}
		passes(cut.Add(s.after))
		s.do()
	}
	healed := time.Now()
	if !done {
		passes(cut.Add(at))
		kill()
	}
	end := laterOf(healed, back).Add(time.Second)
	passes(end)
	from := cut.Add(-3 * time.Second)
	if early := killed.Add(-4 * time.Second); early.Before(from) {
		from = early // so that the range does not begin in the victim's absence
	}
	// The other camera's outage, less an end of it in which nobody records for the victim's absence.
	absent, present := killed.Add(-time.Second), back.Add(reconnect)
	lost := [2]time.Time{cut, healed}
	if victim == "edge" && absent.Before(cut) && present.After(cut) {
		lost[0] = present
	}
	if victim == "edge" && absent.Before(healed) && present.After(healed) {
		lost[1] = absent
	}
	took := until(t, catchUp, "the hub holds the outage", func() bool {
		return w.heldOrStopped("door", from, end) && w.heldOrStopped("yard", lost[0], lost[1])
	})
	t.Logf("held %.1f s later", took.Seconds())

	for camera, span := range map[string][2]time.Time{"door": {from, end}, "yard": lost} {
		frames := w.frames(camera, span[0], span[1])
		if victim == "hub" {
			frames.unbroken(t)
		} else {
			// Lost may be a second that was not yet on disk; and nobody records until the new process has
			// connected to the camera and the camera has sent a key frame, one a second.
			frames.brokenOnlyIn(t, absent, present)
		}
	}
	w.sameSegments("door", from, end.Add(-6*time.Second))
}

// reconnect is how long a started edge may take to have a camera's first key frame.
const reconnect = 3 * time.Second

// passes lets the scenario's own time pass.
func passes(until time.Time) { <-time.After(time.Until(until)) }

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// heldOrStopped reports whether the range is held, its end in any case, but for gaps that the edge's
// own absence explains.
func (w *world) heldOrStopped(camera string, from, to time.Time) bool {
	spans, err := w.api.timeline(camera, from, to)
	w.seen[camera] = spans
	if err != nil || len(spans) == 0 || spans[len(spans)-1].State != "held" {
		return false
	}
	for _, s := range spans {
		if s.State != "held" && (s.State != "gap" || s.Cause != "edge stopped") {
			return false
		}
	}
	return true
}

// untilHeldLive waits until the hub holds some seconds of the camera, recorded live.
func (w *world) untilHeldLive(camera string) {
	w.t.Helper()
	until(w.t, 30*time.Second, camera+" is recorded at the hub", func() bool {
		now := time.Now()
		return w.allHeld(camera, now.Add(-8*time.Second), now.Add(-2*time.Second))
	})
}

// frameList is what the hub plays of a camera, in order.
type frameList []marks.Frame

func (w *world) frames(camera string, from, to time.Time) frameList {
	w.t.Helper()
	f, err := os.Open(w.play(camera, from, to))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	all, err := marks.Read(f)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(all) == 0 {
		w.t.Fatalf("the hub plays no frame of %s", camera)
	}
	first, last := all[0].Time, all[len(all)-1].Time
	if first.After(from) || last.Before(to.Add(-time.Second)) {
		w.t.Errorf("asked for %v to %v, the hub plays %v to %v", from, to, first, last)
	}
	return all
}

// unbroken fails unless each frame follows the one before, at its right time.
func (l frameList) unbroken(t *testing.T) { l.brokenOnlyIn(t, time.Time{}, time.Time{}) }

// brokenOnlyIn does the same but allows frames to be missing whose capture times are in the range.
func (l frameList) brokenOnlyIn(t *testing.T, from, to time.Time) {
	t.Helper()
	worst, missing := time.Duration(0), 0
	for i, f := range l {
		if off := f.PTS.Sub(f.Time).Abs(); off > worst {
			worst = off
		}
		if f.Err != nil {
			t.Errorf("frame at %v cannot be read: %v", f.PTS, f.Err)
			continue
		}
		if i == 0 {
			continue
		}
		p := l[i-1]
		switch {
		case f.Frame <= p.Frame:
			t.Errorf("frame %d comes after frame %d", f.Frame, p.Frame)
		case f.Frame > p.Frame+1 && (p.Time.Before(from) || f.Time.After(to)):
			t.Errorf("frames %d to %d are missing, between %v and %v", p.Frame+1, f.Frame-1, p.Time, f.Time)
		}
		missing += int(f.Frame - p.Frame - 1)
	}
	t.Logf("%d frames, %d missing, off the time line by at most %v", len(l), missing, worst)
	if worst > tolerance {
		t.Errorf("a frame is off by %v, at most %v allowed", worst, tolerance)
	}
}

// sameSegments waits until each sealed segment of the camera that lies in the range at the edge is
// at the hub with equal bytes.
func (w *world) sameSegments(camera string, from, to time.Time) {
	w.t.Helper()
	var edge, hub map[string][32]byte
	until(w.t, catchUp, "segments are equal on both sides", func() bool {
		edge, hub = sealed(w.t, w.edgeDir, camera, from, to), sealed(w.t, w.hubDir, camera, from, to)
		return len(edge) > 0 && maps.Equal(edge, hub)
	})
	w.t.Logf("%d segments of %s have equal SHA-256 on both sides", len(edge), camera)
}

// sealed returns the SHA-256 of each sealed segment file of a camera, by name, of those that start in
// the range.
func sealed(t *testing.T, dir, camera string, from, to time.Time) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	err := filepath.WalkDir(filepath.Join(dir, "store", "segments"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, camera+".main") || filepath.Ext(path) != ".mp4" {
			return nil // directories come and go while the node runs
		}
		start, err := segmentStart(d.Name())
		if err != nil || start.Before(from) || start.After(to) {
			return err
		}
		text, err := os.ReadFile(path)
		sums[d.Name()] = sha256.Sum256(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// segmentStart reads the time out of a segment's name, a UUID of version 7.
func segmentStart(name string) (time.Time, error) {
	var ms int64
	_, err := fmt.Sscanf(name[:12], "%x", &ms)
	return time.UnixMilli(ms), err
}

// newestSegment returns when the newest file below dir was written.
func newestSegment(t *testing.T, dir string) time.Time {
	t.Helper()
	var newest time.Time
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".mp4" {
			return nil
		}
		if info, err := d.Info(); err == nil {
			newest = laterOf(newest, info.ModTime())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return newest
}

// requestLastMinute orders the last minute of a camera that no policy brings over, and returns it.
func (w *world) requestLastMinute(camera string) (from, to time.Time) {
	w.t.Helper()
	passes(w.began.Add(65 * time.Second))
	now := time.Now()
	var r struct {
		ID, State, Cause string
		Bytes            int64
	}
	order := map[string]any{"camera": site + "." + camera, "from": now.Add(-time.Minute).UTC(), "to": now.UTC()}
	if err := w.api.call("POST", "/api/v1/retrievals", order, &r); err != nil {
		w.t.Fatal(err)
	}
	took := until(w.t, 10*time.Second, "the request is done", func() bool {
		return w.api.call("GET", "/api/v1/retrievals/"+r.ID, nil, &r) == nil && (r.State == "done" || r.State == "failed")
	})
	w.t.Logf("the last minute, %.1f MB, came in %.2f s", float64(r.Bytes)/1e6, took.Seconds())
	if r.State != "done" || took > 2*time.Second {
		w.t.Errorf("the request is %s (%s) after %v, expected done within 2 s", r.State, r.Cause, took)
	}
	from, to = now.Add(-time.Minute), now.Add(-time.Second)
	w.frames(camera, from, to).unbroken(w.t)
	return from, to
}
