package network

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startTime is how long a program may take to print that it is ready, and stopTime to end.
	startTime = 30 * time.Second
	stopTime  = 20 * time.Second
	// maxLog bounds what is kept of a program's log: its end, in bytes.
	maxLog = 1 << 20
)

// Process is a program that runs at an end of a network.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	log []byte
}

// Write keeps what the program logs.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, b...)
	p.log = p.log[max(0, len(p.log)-maxLog):]
	return len(b), nil
}

// Log returns the end of what the program has logged.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.log)
}

// Start runs a program at an end and reads the first line that it prints, as JSON, into ready.
func (n *Network) Start(e End, ready any, name string, args ...string) (*Process, error) {
	p := &Process{cmd: n.Command(e, name, args...), done: make(chan struct{})}
	p.cmd.Stderr = p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	first := make(chan []byte, 1)
	go func() {
		defer close(p.done)
		scan := bufio.NewScanner(out)
		for line := 0; scan.Scan(); line++ {
			if line == 0 {
				first <- append([]byte(nil), scan.Bytes()...)
			}
		}
		_ = p.cmd.Wait() // how it ended is of no interest
	}()
	var line []byte
	select {
	case line = <-first:
		err = json.Unmarshal(line, ready)
	case <-p.done:
		err = errors.New("it ended at once")
	case <-time.After(startTime):
		err = fmt.Errorf("it printed nothing in %v", startTime)
	}
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("start %s %s: %w: %s%s", name, strings.Join(args, " "), err, line, p.Log())
	}
	return p, nil
}

// Pid returns the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the process at once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Stop asks the process to end and waits; if that takes long it is killed.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(stopTime):
		p.Kill()
	}
}

// Memory returns a field of /proc/PID/status, such as VmHWM, in bytes; 0 if there is none.
func (p *Process) Memory(field string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			if _, err := fmt.Sscan(rest, &kb); err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
