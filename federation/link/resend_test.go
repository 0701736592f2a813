package link

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
)

// TestUnroutedIsLost: once there was a link, a packet for which there is no route is lost as on a dark path. Before
// that, and for what else goes wrong, the error is told.
func TestUnroutedIsLost(t *testing.T) {
	sending := func(e error) error {
		return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", e)}
	}
	for _, c := range []struct {
		err  error
		lost bool
	}{
		{sending(syscall.ENETUNREACH), true},
		{sending(syscall.EHOSTUNREACH), true},
		{sending(syscall.EADDRNOTAVAIL), true},
		{sending(syscall.ENETDOWN), true},
		{sending(syscall.EPERM), true}, // a firewall of this machine
		{sending(syscall.ENOBUFS), true},
		{sending(syscall.EMSGSIZE), false}, // by which QUIC finds the MTU
		{sending(syscall.EIO), false},      // by which it finds that there is no segmentation offload
		{io.ErrClosedPipe, false},
		{nil, false},
	} {
		var r resend
		if r.lost(c.err) {
			t.Errorf("before a handshake %v is lost", c.err)
		}
		r.linked.Store(true)
		if r.lost(c.err) != c.lost {
			t.Errorf("%v is lost: %v", c.err, !c.lost)
		}
	}
}
