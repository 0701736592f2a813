//go:build !linux

package link

import "net"

// groSocket is a UDP socket: elsewhere its packets come singly.
type groSocket struct{ *net.UDPConn }

func withGRO(c *net.UDPConn) *groSocket { return &groSocket{c} }
