package link

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// groReads is how many messages are read at once, groBytes the longest, and groControl the room for what the
	// kernel says of one: the addresses, the congestion mark, and the length of its packets.
	groReads   = 4
	groBytes   = 64 << 10
	groControl = 128
)

// groSocket is a UDP socket whose packets the kernel joins (UDP_GRO, since Linux 5.0): consecutive ones of one sender
// pass through it as one message, and a system call brings dozens. quic-go takes them singly, by ReadBatch.
type groSocket struct {
	*net.UDPConn
	messages *ipv4.PacketConn

	// Of ReadBatch, which one goroutine calls.
	read   []ipv4.Message // messages from the kernel
	next   []ipv4.Message // of those, what has not been given out
	packet int            // bytes of each packet of the first of these but its last one
	rest   []byte         // of the first
}

// withGRO has a socket's packets joined, where the kernel can.
func withGRO(c *net.UDPConn) *groSocket {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // without it packets come singly
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		})
	}
	g := &groSocket{UDPConn: c, messages: ipv4.NewPacketConn(c), read: make([]ipv4.Message, groReads)}
	for i := range g.read {
		g.read[i].Buffers = [][]byte{make([]byte, groBytes)}
		g.read[i].OOB = make([]byte, groControl)
	}
	return g
}

// ReadBatch reads packets, at least one, and returns how many. One that is longer than its buffer is cut off, as by the
// kernel.
func (g *groSocket) ReadBatch(packets []ipv4.Message, flags int) (int, error) {
	for len(g.rest) == 0 {
		if len(g.next) > 1 {
			g.next = g.next[1:]
		} else {
			n, err := g.messages.ReadBatch(g.read, flags)
			if err != nil || n == 0 {
				return 0, err
			}
			g.next = g.read[:n]
		}
		m := &g.next[0]
		g.rest, g.packet = m.Buffers[0][:m.N], packetSizeOf(m)
	}
	from, n := &g.next[0], 0
	for ; n < len(packets) && len(g.rest) > 0; n++ {
		to := &packets[n]
		b := g.rest[:min(g.packet, len(g.rest))]
		g.rest = g.rest[len(b):]
		to.N, to.NN = copy(to.Buffers[0], b), copy(to.OOB, from.OOB[:from.NN])
		to.Addr, to.Flags = from.Addr, from.Flags
	}
	return n, nil
}

// packetSizeOf returns the length of each packet of a message but its last one, in bytes.
func packetSizeOf(m *ipv4.Message) int {
	for control := m.OOB[:m.NN]; len(control) > 0; {
		head, body, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		if head.Level == unix.IPPROTO_UDP && head.Type == unix.UDP_GRO && len(body) >= 4 {
			return max(int(binary.NativeEndian.Uint32(body)), 1)
		}
		control = rest
	}
	return max(m.N, 1)
}
