package link

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// socket is a TCP socket, or what stands for one, below TLS.
type socket struct {
	net.Conn
	heard func() // called when bytes have come; nil for nobody
}

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if n > 0 && s.heard != nil {
		s.heard()
	}
	return n, err
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
