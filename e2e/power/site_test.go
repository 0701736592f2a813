package power

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/internal/testcam"
)

// patience bounds the wait for what takes a second or two.
const patience = 60 * time.Second

// cameras opens n synthetic cameras of some 2 Mbit/s, numbered from first on.
func cameras(t *testing.T, first, n int) (cams []*testcam.Camera, cfgs []edge.CameraConfig) {
	t.Helper()
	for i := first; i < first+n; i++ {
		cam, err := testcam.Open(testcam.Config{Number: uint16(i), Streams: []testcam.Stream{
			{Width: 320, Height: 180, Rate: 10, GOP: 10, Bitrate: 2000},
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cam.Close() })
		cams = append(cams, cam)
		cfgs = append(cfgs, edge.CameraConfig{ID: branchline.CameraID(fmt.Sprint("camera", i)), URL: cam.URL()})
	}
	return cams, cfgs
}

// process is a recorder at work.
type process struct {
	cmd  *exec.Cmd
	log  *bytes.Buffer // what it logged; to be read after it has ended
	done chan struct{} // closed when its lines have ended

	mu    sync.Mutex
	lines []line
	wake  chan struct{} // closed when there are more
}

func start(t *testing.T, nodes ...nodeConfig) *process {
	t.Helper()
	cfg, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{log: &bytes.Buffer{}, done: make(chan struct{}), wake: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), recorderConfig+"="+string(cfg))
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			var l line
			if json.Unmarshal(s.Bytes(), &l) != nil {
				continue // cut off by the kill
			}
			p.mu.Lock()
			p.lines = append(p.lines, l)
			close(p.wake)
			p.wake = make(chan struct{})
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { p.kill() })
	return p
}

// kill ends the process at once and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
	p.cmd.Wait()
}

// told returns all lines so far.
func (p *process) told() []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// until waits for a line and returns it.
func (p *process) until(t *testing.T, what string, found func(line) bool) line {
	t.Helper()
	late := time.After(patience)
	for seen := 0; ; {
		p.mu.Lock()
		lines, wake := p.lines[seen:], p.wake
		p.mu.Unlock()
		for _, l := range lines {
			if found(l) {
				return l
			}
		}
		seen += len(lines)
		select {
		case <-wake:
		case <-p.done:
			p.kill()
			t.Fatalf("recorder ended while waiting for %s: %v\n%s", what, p.told(), p.log)
		case <-late:
			p.kill()
			t.Fatalf("no sign of %s\n%s", what, p.log)
		}
	}
}

// record is what a store has acknowledged, or what was found in it.
type record struct {
	sealed map[branchline.SegmentID]line
	gaps   map[string]line // by stream and start
}

func newRecord() record {
	return record{sealed: make(map[branchline.SegmentID]line), gaps: make(map[string]line)}
}

// add enters lines up to a moment.
func (r record) add(lines []line, until time.Time) {
	for _, l := range lines {
		if l.At.After(until) {
			break
		}
		switch l.Kind {
		case "sealed":
			r.sealed[l.ID] = l
		case "gap":
			r.gaps[string(l.Stream)+l.Span.Start.String()] = l
		}
	}
}

// missing returns what is acknowledged in r and not found.
func (r record) missing(found record) (lost []string) {
	for id, l := range r.sealed {
		if f, ok := found.sealed[id]; !ok || f.Hash != l.Hash || f.Span != l.Span {
			lost = append(lost, fmt.Sprintf("acknowledged segment %+v, found %+v", l, f))
		}
	}
	for key, l := range r.gaps {
		if f, ok := found.gaps[key]; !ok || f.Span.End.Before(l.Span.End) {
			lost = append(lost, fmt.Sprintf("acknowledged gap %+v, found %+v", l, f))
		}
	}
	return lost
}

// overlaps returns where segments and gaps of a stream overlap, or leave a hole between them.
func (r record) overlaps() (wrong []string) {
	const within = time.Millisecond // times are rounded to the tracks' clocks
	streams := make(map[branchline.StreamID][]line)
	for _, l := range r.sealed {
		streams[l.Stream] = append(streams[l.Stream], l)
	}
	for _, l := range r.gaps {
		streams[l.Stream] = append(streams[l.Stream], l)
	}
	for _, all := range streams {
		slices.SortFunc(all, func(a, b line) int { return a.Span.Start.Compare(b.Span.Start) })
		for i := range all[1:] {
			d := all[i+1].Span.Start.Sub(all[i].Span.End)
			if d < -within || d > within {
				wrong = append(wrong, fmt.Sprintf("%v between %s and %s", d, all[i], all[i+1]))
			}
		}
	}
	return wrong
}

func (l line) String() string {
	return fmt.Sprintf("%s %s %s-%s %s", l.Kind, l.Stream, l.Span.Start.Format(clockTime),
		l.Span.End.Format(clockTime), l.Cause)
}

const clockTime = "15:04:05.000"

// spans returns what is recorded of a stream.
func (r record) spans(stream branchline.StreamID) branchline.Spans {
	var all []branchline.TimeRange
	for _, l := range r.sealed {
		if l.Stream == stream {
			all = append(all, l.Span)
		}
	}
	return branchline.NewSpans(all...)
}

// losses returns how much of each stream was written up to a moment and is not found, and, of those that
// were being recorded then, how much of what the camera showed up to it.
func losses(lines []line, until time.Time, found record) (written, shown map[branchline.StreamID]time.Duration) {
	const rounding = time.Millisecond // of times to the tracks' clocks
	written, shown = make(map[branchline.StreamID]time.Duration), make(map[branchline.StreamID]time.Duration)
	held := make(map[branchline.StreamID][]line)
	for _, l := range lines {
		if l.Kind == "held" && !l.At.After(until) {
			held[l.Stream] = append(held[l.Stream], l)
		}
	}
	for stream, all := range held {
		var spans []branchline.TimeRange
		for _, l := range all {
			spans = append(spans, l.Span)
		}
		for _, r := range branchline.NewSpans(spans...).Minus(found.spans(stream)) {
			if r.Duration() > rounding {
				written[stream] += r.Duration()
			}
		}
		if last := all[len(all)-1]; until.Sub(last.At) < 600*time.Millisecond {
			shown[stream] = written[stream] + until.Sub(last.Span.End)
		}
	}
	return written, shown
}

// wait waits for a random time.
func wait(r *rand.Rand, from, to time.Duration) {
	<-time.After(from + time.Duration(r.Int64N(int64(to-from))))
}

func complain(t *testing.T, p *process, wrong []string) {
	t.Helper()
	if len(wrong) > 0 {
		t.Fatalf("%s\n%s", strings.Join(wrong[:min(len(wrong), 400)], "\n"), p.log)
	}
}
