package link

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is a TCP socket, or what stands for one, below TLS.
type socket struct {
	net.Conn
	heard func()        // called when bytes have come; nil for nobody
	in    *bufio.Reader // of Conn, from when several records are read at a time; nil: one by one

	reads, read, wrote atomic.Uint64 // calls, bytes, bytes; for where the system tells nothing

	mu   sync.Mutex
	hold bool   // what is written waits
	held []byte // until then
}

func (s *socket) Read(b []byte) (int, error) {
	from := io.Reader(s.Conn)
	if s.in != nil {
		from = s.in
	}
	n, err := from.Read(b)
	s.reads.Add(1)
	s.read.Add(uint64(max(n, 0)))
	if n > 0 && s.heard != nil {
		s.heard()
	}
	return n, err
}

func (s *socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold {
		s.held = append(s.held, b...)
		return len(b), nil
	}
	return s.write(b)
}

// write gives the kernel bytes. The caller holds mu.
func (s *socket) write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.wrote.Add(uint64(max(n, 0)))
	return n, err
}

// figures are the system's, or what was counted here.
func (s *socket) figures() Stats {
	if f, ok := s.stats(); ok {
		return f
	}
	return Stats{Sent: s.wrote.Load(), Received: s.read.Load(), PacketsIn: s.reads.Load()}
}

// together calls write and gives the kernel at once what that writes, in several records.
func (s *socket) together(write func() error) error {
	s.mu.Lock()
	s.hold = true
	s.mu.Unlock()
	err := write()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = false
	if err == nil {
		_, err = s.write(s.held)
	}
	s.held = s.held[:0]
	return err
}

// abort closes the socket at once: what it has not sent is lost, and the kernel does not try for minutes.
func (s *socket) abort() {
	if c, ok := s.Conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	s.Close()
}

var errNoSocket = errors.New("not a socket of the system")

// control calls f with the socket's descriptor.
func (s *socket) control(f func(fd uintptr) error) error {
	c, ok := s.Conn.(syscall.Conn)
	if !ok {
		return errNoSocket
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(fd) }); err != nil {
		return err
	}
	return failed
}

// progress says how far the peer's kernel has come.
type progress struct {
	waiting         bool // something sent is not acknowledged
	acked, received uint64
	rtt             time.Duration
}

// stallWatch notices that nothing arrives at the peer although the peer's bytes arrive here.
type stallWatch struct {
	acked, received uint64
	since           time.Time
}

func (w *stallWatch) look(p progress, now time.Time) (stalled bool) {
	if !p.waiting || p.acked != w.acked || w.since.IsZero() {
		*w = stallWatch{acked: p.acked, received: p.received, since: now}
		return false
	}
	return now.Sub(w.since) >= StallTimeout+p.rtt && p.received != w.received
}
