package link

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// segment is how large TCP segments are at most, in both directions: with their headers they pass a path
// of 1280 bytes, over IPv6 too. Linux does not look for smaller ones when large ones vanish in silence.
const segment = 1220

// tcpRTOMax is TCP_RTO_MAX_MS of linux/tcp.h, which Linux has since 6.15, and longestRTO the longest time between two
// attempts to send what is not acknowledged, the least that it takes: a path that has healed is in use again so soon.
const (
	tcpRTOMax  = 44
	longestRTO = time.Second
)

// prepare sets what has to be set before a TCP socket connects or listens. What the system does not have
// is done without.
func prepare(network, _ string, c syscall.RawConn) error {
	if network[:3] != "tcp" {
		return nil
	}
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, segment)
		// As QUIC, it is to hold its rate on a path that loses packets.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr")
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMax, int(longestRTO.Milliseconds()))
	})
}

// prepare does so for a socket that connects from here, of either kind.
func (l Local) prepare(network, addr string, c syscall.RawConn) error {
	if err := prepare(network, addr, c); err != nil || l.Device == "" {
		return err
	}
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), l.Device) })
	if errors.Is(failed, unix.EPERM) {
		return fmt.Errorf("bind to interface %s: the process needs CAP_NET_RAW, or give the address of the "+
			"interface instead: %w", l.Device, failed)
	}
	if failed != nil {
		return fmt.Errorf("bind to interface %s: %w", l.Device, failed)
	}
	return err
}

// keepUnsent bounds what the kernel keeps unsent.
func (s *socket) keepUnsent(bytes int) {
	_ = s.control(func(fd uintptr) error {
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	})
}

func (s *socket) info() (info *unix.TCPInfo, err error) {
	err = s.control(func(fd uintptr) error {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read figures of socket: %w", err)
	}
	return info, nil
}

// stats returns the kernel's figures, and whether there are any.
func (s *socket) stats() (Stats, bool) {
	i, err := s.info()
	if err != nil {
		return Stats{}, false
	}
	return Stats{
		RTT: time.Duration(i.Rtt) * time.Microsecond, Sent: i.Bytes_sent, Received: i.Bytes_received,
		Lost: i.Bytes_retrans, CongestionWindow: uint64(i.Snd_cwnd) * uint64(i.Snd_mss),
		PacketsSent: uint64(i.Segs_out), PacketsIn: uint64(i.Segs_in),
	}, true
}

func (s *socket) progress() (progress, bool) {
	i, err := s.info()
	if err != nil {
		return progress{}, false
	}
	return progress{
		waiting: i.Unacked > 0, acked: i.Bytes_acked, received: uint64(i.Segs_in),
		rtt: time.Duration(i.Rtt) * time.Microsecond,
	}, true
}
