package power

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/e2e/volume"
)

// The tests here have one recorder with two nodes: node 0 on a volume that fails, stalls or fills up, and
// node 1 on one that is sound and must not notice; and one with a node that has both volumes.
const bad, good = 0, 1

// nbd is a volume on a server whose requests can be made to fail, or to wait.
type nbd struct {
	*volume.Volume
	server *exec.Cmd
	fail   string // requests to write fail while this file is there
}

func newNBD(t *testing.T) *nbd {
	t.Helper()
	dir := imageDir(t)
	image, socket, fuse := filepath.Join(dir, "image"), filepath.Join(dir, "socket"), filepath.Join(dir, "fuse")
	n := &nbd{fail: filepath.Join(dir, "fail")}
	ok(t, os.WriteFile(image, nil, 0o600))
	ok(t, os.Truncate(image, 2<<30))
	ok(t, os.Mkdir(fuse, 0o755))
	n.server = exec.Command("nbdkit", "-f", "-U", socket, "--filter=error", "file", image, "error=EIO",
		"error-pwrite-rate=100%", "error-zero-rate=100%", "error-trim-rate=100%", "error-file="+n.fail)
	background(t, n.server)
	appears(t, socket)
	mount := exec.Command("nbdfuse", filepath.Join(fuse, "device"), "--unix", socket)
	background(t, mount)
	t.Cleanup(func() { exec.Command("fusermount3", "-u", fuse).Run() })
	appears(t, filepath.Join(fuse, "device"))
	v, err := volume.MakeOn(filepath.Join(fuse, "device"), filepath.Join(dir, "v"), volume.Ext4)
	ok(t, err)
	n.Volume = v
	t.Cleanup(func() { ok(t, v.Unmount()) })
	return n
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	ok(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

func appears(t *testing.T, path string) {
	t.Helper()
	late := time.After(patience)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(path, " does not appear")
		}
	}
}

// pair starts a recorder with both nodes, and returns once all their streams are being written.
func pair(t *testing.T, dir string) (p *process, again func() *process) {
	t.Helper()
	_, a := cameras(t, 0, streams/2)
	_, b := cameras(t, streams/2, streams/2)
	nodes := []nodeConfig{{Dir: filepath.Join(dir, "store"), Cameras: a}, {Dir: imageDir(t), Cameras: b}}
	again = func() *process { return start(t, nodes...) }
	p = again()
	seen := make(map[branchline.StreamID]bool)
	p.until(t, "all streams", func(l line) bool {
		if l.Kind == "held" {
			seen[l.Stream] = true
		}
		return len(seen) == streams
	})
	return p, again
}

// pause returns the longest time in which a stream of the node was not written any further.
func pause(lines []line, node int, from, to time.Time) (longest time.Duration) {
	last := make(map[branchline.StreamID]time.Time)
	for _, l := range append(lines, line{Kind: "end", At: to}) {
		if l.At.After(to) || l.Kind == "held" && l.Node == node && last[l.Stream].IsZero() {
			last[l.Stream] = from
		}
		for stream, at := range last {
			if (l.Stream == stream && l.Kind == "held" || l.Kind == "end") && !l.At.Before(from) {
				longest = max(longest, l.At.Sub(later(at, from)))
				last[stream] = l.At
			}
		}
	}
	return longest
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// resumed waits until all of a node's streams are written beyond a moment, and returns how long that took.
func resumed(t *testing.T, p *process, node int, after time.Time) time.Duration {
	t.Helper()
	return allResumed(t, p, node, streams/2, after)
}

func allResumed(t *testing.T, p *process, node, n int, after time.Time) time.Duration {
	t.Helper()
	seen := make(map[branchline.StreamID]bool)
	l := p.until(t, "recording to go on", func(l line) bool {
		if l.Kind == "held" && l.Node == node && l.Span.End.After(after) && l.At.After(after) {
			seen[l.Stream] = true
		}
		return len(seen) == n
	})
	return l.At.Sub(after)
}

// causes returns the causes of gaps that a node told in a time.
func causes(lines []line, node int, from time.Time) string {
	seen := make(map[string]int)
	for _, l := range lines {
		if l.Kind == "gap" && l.Node == node && !l.At.Before(from) {
			seen[string(l.Cause)]++
		}
	}
	return strings.TrimPrefix(fmt.Sprint(seen), "map")
}

// memory returns the most memory in use in a time.
func memory(lines []line, from time.Time) (most int64) {
	for _, l := range lines {
		if !l.At.Before(from) {
			most = max(most, l.Memory)
		}
	}
	return most >> 20
}

// outlast records up to now, kills the recorder, and checks that node 0 opens with all it acknowledged.
func outlast(t *testing.T, p *process, again func() *process) {
	t.Helper()
	p.kill()
	acked := newRecord()
	for _, l := range p.told() {
		if l.Node == bad {
			acked.add([]line{l}, l.At)
		}
	}
	q := again()
	defer q.kill()
	checked := q.until(t, "the store", func(l line) bool {
		return l.Node == bad && (l.Kind == "checked" || l.Kind == "bad")
	})
	found := newRecord()
	var wrong []string
	for _, l := range q.told() {
		if l.Node == bad && !l.At.After(checked.At) {
			found.add([]line{l}, l.At)
			if l.Kind == "bad" {
				wrong = append(wrong, l.Text)
			}
		}
	}
	complain(t, q, append(wrong, acked.missing(found)...))
}

// TestFailingDisk has all writes of a volume fail for five seconds, and then works again.
func TestFailingDisk(t *testing.T) {
	needVolumes(t, "nbdkit", "nbdfuse", "fusermount3")
	n := newNBD(t)
	p, again := pair(t, n.Dir)
	<-time.After(3 * time.Second)
	from := time.Now()
	ok(t, os.WriteFile(n.fail, nil, 0o600))
	<-time.After(5 * time.Second)
	ok(t, os.Remove(n.fail))
	<-time.After(3 * time.Second)
	now, lines := time.Now(), p.told()
	suspect := 0
	for _, l := range lines {
		if l.Node == bad {
			suspect = max(suspect, l.Store.Suspect)
		}
	}
	fmt.Printf("failing disk: %d segments given up, gaps %s; the other volume's longest pause %.2f s\n",
		suspect, causes(lines, bad, from), pause(lines, good, from, now).Seconds())
	if d := pause(lines, good, from, now); d > 2*time.Second {
		t.Errorf("a stream on the sound volume was not written for %v", d)
	}
	if suspect == 0 {
		t.Error("no segment was given up")
	}
	p.kill()
	ok(t, n.Unmount()) // the file system may have given up
	ok(t, n.Mount())
	outlast(t, p, again)
}

// TestRecordingMoves has one of a node's two volumes fail for good: the streams on it go on on the other.
func TestRecordingMoves(t *testing.T) {
	needVolumes(t, "nbdkit", "nbdfuse", "fusermount3")
	n := newNBD(t)
	sound, home := imageDir(t), imageDir(t)
	failing := filepath.Join(n.Dir, "branchline")
	_, cams := cameras(t, 0, streams)
	p := start(t, nodeConfig{Dir: home, Volumes: []string{failing, sound}, Cameras: cams})
	allResumed(t, p, 0, streams, time.Now())
	on := func(dir string) int {
		files, err := filepath.Glob(filepath.Join(dir, "growing", "*", "*.mp4"))
		ok(t, err)
		return len(files)
	}
	before := on(failing)
	from := time.Now()
	ok(t, os.WriteFile(n.fail, nil, 0o600))
	back := allResumed(t, p, 0, streams, from.Add(4*time.Second))
	fmt.Printf("one of two volumes failing: %d of %d streams were on it; all are recorded again %.2f s after, gaps %s; "+
		"longest pause %.2f s\n", before, streams, 4+back.Seconds(), causes(p.told(), 0, from),
		pause(p.told(), 0, from, time.Now()).Seconds())
	if before == 0 {
		t.Error("no stream was on the failing volume")
	}
	if files, err := filepath.Glob(filepath.Join(home, "segments", "*", "*", "*.mp4")); err != nil || len(files) > 0 {
		t.Errorf("kept in the store's own directory: %q, %v", files, err)
	}
	p.kill()
}

// TestStalledDisk has a volume not answer for twenty seconds.
func TestStalledDisk(t *testing.T) {
	needVolumes(t, "nbdkit", "nbdfuse", "fusermount3")
	const stall = 20 * time.Second
	n := newNBD(t)
	p, again := pair(t, n.Dir)
	<-time.After(3 * time.Second)
	from := time.Now()
	before := memory(p.told(), time.Time{})
	ok(t, n.server.Process.Signal(syscall.SIGSTOP))
	<-time.After(stall)
	ok(t, n.server.Process.Signal(syscall.SIGCONT))
	after := time.Now()
	back := resumed(t, p, bad, after)
	<-time.After(6 * time.Second) // gaps that could not be entered are, by then
	now, lines := time.Now(), p.told()
	most := memory(lines, from)
	fmt.Printf("disk stalled for %v: memory %d MB, before %d; gaps %s; goes on after %.2f s; the other volume's "+
		"longest pause %.2f s\n", stall, most, before, causes(lines, bad, from), back.Seconds(),
		pause(lines, good, from, now).Seconds())
	if d := pause(lines, good, from, now); d > 2*time.Second {
		t.Errorf("a stream on the sound volume was not written for %v", d)
	}
	if most > before+streams/2*32 { // twice the ring of a stream
		t.Errorf("%d MB in use, %d before", most, before)
	}
	if !strings.Contains(causes(lines, bad, from), string(branchline.CauseDiskSlow)) {
		t.Log("nothing was lost to the stall")
	}
	outlast(t, p, again)
}

// TestFullDisk fills a volume up while it is recorded to, restarts the recorder, and makes room again.
func TestFullDisk(t *testing.T) {
	needVolumes(t)
	v, err := volume.Make(filepath.Join(imageDir(t), "v"), volume.Ext4, 1<<30)
	ok(t, err)
	t.Cleanup(func() { ok(t, v.Unmount()) })
	p, again := pair(t, v.Dir)
	for _, restart := range []bool{false, true} {
		<-time.After(3 * time.Second)
		from := time.Now()
		filler := filepath.Join(v.Dir, "filler")
		fill(t, filler)
		<-time.After(5 * time.Second)
		opened := "-"
		if restart {
			p.kill()
			p = again()
			l := p.until(t, "opening on a full disk", func(l line) bool { return l.Node == bad && l.Kind != "bad" })
			opened = fmt.Sprintf("%.2f s", l.Took.Seconds())
			<-time.After(3 * time.Second)
		}
		ok(t, os.Remove(filler))
		after := time.Now()
		back := resumed(t, p, bad, after)
		<-time.After(6 * time.Second)
		now, lines := time.Now(), p.told()
		fmt.Printf("full disk, restart %v: opening %s, gaps %s, goes on %.2f s after there is space; the other "+
			"volume's longest pause %.2f s\n", restart, opened, causes(lines, bad, from), back.Seconds(),
			pause(lines, good, later(from, lines[0].At.Add(5*time.Second)), now).Seconds())
		if back > 5*time.Second {
			t.Errorf("recording goes on %v after there is space", back)
		}
	}
	outlast(t, p, again)
}

// fill takes all space that an ordinary process can have.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	ok(t, err)
	defer f.Close()
	var s syscall.Statfs_t
	ok(t, syscall.Statfs(path, &s))
	size := int64(s.Bavail) * s.Bsize
	for at := int64(0); size > 0; size = int64(s.Bavail) * s.Bsize {
		if err := syscall.Fallocate(int(f.Fd()), 0, at, size); err != nil {
			return // the recorder took some
		}
		at += size
		ok(t, syscall.Statfs(path, &s))
	}
}
