//go:build !linux

package link

import (
	"fmt"
	"syscall"
)

// Elsewhere the system's own settings do, and a stall is noticed by the peer's silence.

func prepare(_, _ string, _ syscall.RawConn) error { return nil }

func (l Local) prepare(_, _ string, _ syscall.RawConn) error {
	if l.Device != "" {
		return fmt.Errorf("bind to interface %s: only Linux can: give its address instead", l.Device)
	}
	return nil
}

func (s *socket) keepUnsent(int)             {}
func (s *socket) stats() (Stats, bool)       { return Stats{}, false }
func (s *socket) progress() (progress, bool) { return progress{}, false }
