package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/branchline-video/branchline/bench/report"
)

// process is a program under measurement.
type process struct {
	cmd   *exec.Cmd
	log   *os.File
	first []byte        // the first line that it printed, if asked for
	done  chan struct{} // closed when it has ended
}

// start runs a program whose log goes to a file in dir. With ready it waits as long for a line of output.
func start(dir string, ready time.Duration, name string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log"))
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stderr = dir, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if ready == 0 {
		p.cmd.Stdout = log
	}
	var first chan []byte
	if ready > 0 {
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		first = make(chan []byte, 1)
		go func() {
			line, _ := bufio.NewReader(out).ReadBytes('\n')
			first <- line
		}()
	}
	if err := p.cmd.Start(); err != nil {
		log.Close()
		return nil, err
	}
	if ready > 0 {
		select {
		case p.first = <-first:
		case <-time.After(ready):
		}
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is of no interest
		log.Close()
		close(p.done)
	}()
	if ready > 0 && len(p.first) == 0 {
		p.end(syscall.SIGKILL)
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s did not start: %s", name, text)
	}
	return p, nil
}

// end sends the signal and waits until the process has ended.
func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended
	<-p.done
}

// processor returns the time in user and in kernel mode that the process has used.
func (p *process) processor() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	kernel, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all of Linux
	return time.Duration(user+kernel) * tick, errors.Join(err1, err2)
}

// memoryOf returns a field of /proc/PID/status, such as VmRSS, in MB of 2^20 bytes.
func memoryOf(pid int, field string) float64 {
	kb, err := strconv.ParseFloat(strings.TrimSuffix(report.Field(fmt.Sprintf("/proc/%d/status", pid), field), " kB"), 64)
	if err != nil {
		return 0
	}
	return kb / 1024
}

// cameras are synthetic cameras in a process of their own.
type cameras struct {
	*process
	urls []string
}

func (b *bench) cameras(count, kbits int) (*cameras, error) {
	p, err := start(b.dir, time.Minute, b.binary, "camera", "--json", "--count", strconv.Itoa(count),
		"--listen", "127.0.0.1:0", "--bitrate", strconv.Itoa(kbits), "--no-tone")
	if err != nil {
		return nil, err
	}
	var told struct{ URLs []string }
	if err := json.Unmarshal(p.first, &told); err != nil || len(told.URLs) != count {
		p.end(syscall.SIGKILL)
		return nil, fmt.Errorf("cameras said %q: %w", p.first, err)
	}
	return &cameras{p, told.URLs}, nil
}

// edgeProcess is a real edge that records.
type edgeProcess struct {
	*process
	http string
}

// edge starts an edge that keeps its data in dir, which may have a store already.
func (b *bench) edge(dir string, urls []string) (*edgeProcess, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	var config strings.Builder
	fmt.Fprintf(&config, "dir: %s\nhttp: %s\ncameras:\n", dir, address)
	for i, u := range urls {
		fmt.Fprintf(&config, "  - {id: %s, url: %q}\n", cameraName(i), u)
	}
	file := filepath.Join(dir, "edge.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		return nil, err
	}
	p, err := start(dir, time.Minute, b.binary, "edge", "--json", "--config", file)
	return &edgeProcess{p, address}, err
}

func cameraName(i int) string { return fmt.Sprintf("cam-%02d", i) }

// counters returns a counter of the edge's metrics for each stream.
func (e *edgeProcess) counters(name string) (map[string]float64, error) {
	answer, err := http.Get("http://" + e.http + "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	all := make(map[string]float64)
	scan := bufio.NewScanner(answer.Body)
	for scan.Scan() {
		rest, ok := strings.CutPrefix(scan.Text(), "branchline_edge_"+name+`{stream="`)
		stream, value, ok2 := strings.Cut(rest, `"} `)
		if v, err := strconv.ParseFloat(value, 64); ok && ok2 && err == nil {
			all[stream] = v
		}
	}
	return all, scan.Err()
}

// sum adds up a counter over all streams.
func (e *edgeProcess) sum(name string) (total float64, err error) {
	all, err := e.counters(name)
	for _, v := range all {
		total += v
	}
	return total, err
}

// recording waits until so many streams have written fragments.
func (e *edgeProcess) recording(ctx context.Context, streams int) error {
	return until(ctx, 10*time.Millisecond, func() (bool, error) {
		all, err := e.counters("fragments_total")
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		n := 0
		for _, v := range all {
			if v > 0 {
				n++
			}
		}
		return n >= streams, nil
	})
}

// until asks again and again, for two minutes, until it is so.
func until(ctx context.Context, pause time.Duration, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if ok, err := so(); ok || err != nil {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
