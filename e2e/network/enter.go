package network

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
)

// sysSetns is the number of setns(2), which package syscall does not have.
func sysSetns() uintptr {
	if runtime.GOARCH == "arm64" {
		return 268
	}
	if runtime.GOARCH == "arm" {
		return 375
	}
	return 308 // amd64
}

// In runs f on a thread that is at an end of the network: sockets that f itself opens, not goroutines of
// its own, belong there for as long as they live.
func (n *Network) In(e End, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", syscall.Gettid()))
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		there, err := os.Open("/var/run/netns/" + n.names[e])
		if err != nil {
			done <- err
			return
		}
		defer there.Close()
		if err := setns(there); err != nil {
			done <- err
			return // the thread ends with the goroutine, as it stays locked
		}
		err = f()
		if setns(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func setns(f *os.File) error {
	if _, _, errno := syscall.RawSyscall(sysSetns(), f.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		return fmt.Errorf("enter network namespace %s: %w", f.Name(), errno)
	}
	return nil
}

// Dial connects from an end to an address that is written with numbers, and fits http.Transport.
func (n *Network) Dial(e End) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = n.In(e, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
}

// ListenPacket returns a function that opens UDP sockets at an end, and fits link.Options.
func (n *Network) ListenPacket(e End) func(addr string) (net.PacketConn, error) {
	return func(addr string) (conn net.PacketConn, err error) {
		err = n.In(e, func() error {
			conn, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp4", addr)
			return err
		})
		return conn, err
	}
}
