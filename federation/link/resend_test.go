package link

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
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

// TestEndIsNotHeld ends a connection on a dark path just after it has sent something: of its probes one packet may be
// held back, and the one that tells of the end goes out, and again when the path heals.
func TestEndIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r resend
		<-time.After(holdEvery)
		r.wait(1)
		r.holding.Store(1)
		first, second, end := make([]byte, 1200), make([]byte, 600), make([]byte, 60)
		if r.note(first) || !r.note(second) {
			t.Error("of two packets of a probe not the second one is held back")
		}
		<-time.After(holdEvery)
		r.note(first)
		r.closing.Add(1)
		held := r.note(end)
		r.closing.Add(-1)
		if held {
			t.Error("the packet that tells of the end is held back")
		}
		<-time.After(resendEvery)
		if all := r.take(false); len(all) != 1 || len(all[0]) != len(end) {
			t.Errorf("%d packets are sent again, want the one that tells of the end", len(all))
		}
	})
}
