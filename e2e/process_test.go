package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain builds the binary once, unless BRANCHLINE names one.
func TestMain(m *testing.M) {
	if os.Getenv("BRANCHLINE") == "" {
		dir, err := os.MkdirTemp("", "branchline-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		bin := filepath.Join(dir, "branchline")
		build := exec.Command("go", "build", "-o", bin, "../cmd/branchline")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build branchline: %v\n%s", err, out)
			os.Exit(1)
		}
		os.Setenv("BRANCHLINE", bin)
		code := m.Run()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// process is a running branchline.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	ring *syncBuffer // what it logged, shown when a test fails

	lines chan []byte // its standard output
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs branchline with the arguments until the test ends or it is killed.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(os.Getenv("BRANCHLINE"), args...), done: make(chan struct{}),
		ring: &syncBuffer{}, lines: make(chan []byte, 64)}
	p.cmd.Stderr = p.ring
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		scan := bufio.NewScanner(io.TeeReader(out, p.ring))
		for scan.Scan() {
			select {
			case p.lines <- bytes.Clone(scan.Bytes()):
			default:
			}
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			log := p.ring.String()
			t.Logf("--- log of %s, its end:\n%s", name, log[max(0, len(log)-6000):])
		}
	})
	return p
}

// ready reads the first line that the process prints as JSON into v.
func (p *process) ready(t *testing.T, v any) {
	t.Helper()
	select {
	case line := <-p.lines:
		if err := json.Unmarshal(line, v); err != nil {
			t.Fatalf("%s printed %q: %v", p.name, line, err)
		}
	case <-p.done:
		t.Fatalf("%s ended at once:\n%s", p.name, p.ring)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s printed nothing in 20 s:\n%s", p.name, p.ring)
	}
}

// kill ends the process as a power cut would, as far as it can notice.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end and waits for it; after 20 s it is killed.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

// command runs branchline to its end and returns what it printed and its exit code.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(os.Getenv("BRANCHLINE"), args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// until waits for a condition, looking ten times a second.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("after %v still not: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
