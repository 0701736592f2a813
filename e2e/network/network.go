package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

// End is a side of the network.
type End int

// The two ends.
const (
	Branch End = iota
	Centre
)

// String returns the end's name.
func (e End) String() string { return [...]string{"branch", "centre"}[e] }

// maxLinks bounds the links of one network; a branch has one or two.
const maxLinks = 8

// mtu is that of the devices at both ends.
const mtu = 1500

// Network is two namespaces and what joins them. Its methods may be called concurrently.
type Network struct {
	Links  []*Link
	number int // among those of this process
	names  [2]string
	wg     sync.WaitGroup
}

// Link is one way between branch and centre.
type Link struct {
	number int
	net    *Network
	ways   [2]*direction // by the end that sends
	files  [2]*os.File
	dev    [2]string
	nat    nat
}

// Missing returns why networks cannot be made here, nil if they can.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("making network namespaces needs root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("TUN devices are needed: %w", err)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the program ip is needed (iproute2): %w", err)
	}
	return nil
}

// Open makes a network of so many links, each without delay, loss or limit. What is lost and changed at
// random follows from the seed, 0 for any.
func Open(links int, seed uint64) (*Network, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	if links < 1 || links > maxLinks {
		return nil, fmt.Errorf("a network has 1 to %d links, not %d", maxLinks, links)
	}
	deleteLeft()
	number, err := freeNumber()
	if err != nil {
		return nil, err
	}
	n := &Network{number: number}
	for e := range n.names {
		n.names[e] = base(number) + "-" + End(e).String()
		if err := n.namespace(End(e)); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	for i := range links {
		if err := n.join(i, seed+uint64(2*i)); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// base is what the names of a network of this process begin with.
func base(number int) string { return fmt.Sprintf("bl-%d-%d", os.Getpid(), number) }

// freeNumber returns a number that no network of this process has yet.
func freeNumber() (int, error) {
	for i := range 1000 {
		// The folder is what keeps two goroutines apart that make networks at the same time.
		err := os.Mkdir("/run/"+base(i), 0o700)
		if err == nil || !errors.Is(err, os.ErrExist) {
			return i, err
		}
	}
	return 0, errors.New("this process has 1000 networks already")
}

func (n *Network) namespace(e End) error {
	if err := ip("netns", "add", n.names[e]); err != nil {
		return err
	}
	// Without IPv6 nothing is sent but what a test sends.
	for _, f := range []string{"all", "default"} {
		err := n.Command(e, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/"+f+"/disable_ipv6 2>/dev/null || true").Run()
		if err != nil {
			return err
		}
	}
	return ip("-n", n.names[e], "link", "set", "lo", "up")
}

// join makes link i.
func (n *Network) join(i int, seed uint64) error {
	l := &Link{number: i, net: n}
	n.Links = append(n.Links, l)
	for e := range l.files {
		l.dev[e] = fmt.Sprintf("bl%d", i)
		first := fmt.Sprintf("bl%x-%d%d%d", os.Getpid(), n.number, i, e) // at most 15 bytes
		f, err := openTUN(first)
		if err != nil {
			return err
		}
		l.files[e] = f
		ns := n.names[e]
		for _, args := range [][]string{
			{"link", "set", first, "netns", ns},
			{"-n", ns, "link", "set", first, "name", l.dev[e]},
			{"-n", ns, "addr", "add", l.Addr(End(e)).String() + "/24", "dev", l.dev[e]},
			{"-n", ns, "link", "set", l.dev[e], "up", "mtu", strconv.Itoa(mtu), "txqueuelen", "1000"},
		} {
			if err := ip(args...); err != nil {
				return err
			}
		}
	}
	if i > 0 {
		// The centre's first address is reached by every link, for who sends from that link's address or device.
		if err := n.Command(Branch, "sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done").
			Run(); err != nil {
			return fmt.Errorf("let answers come by any link: %w", err)
		}
		err := ip("-n", n.names[Branch], "route", "add", n.Links[0].Addr(Centre).String(), "dev", l.dev[Branch],
			"src", l.Addr(Branch).String(), "metric", strconv.Itoa(100+i))
		if err != nil {
			return err
		}
	}
	for e := range l.ways {
		l.ways[e] = newDirection(l.files[e], l.files[1-e], seed+uint64(e))
	}
	l.ways[Branch].translate, l.ways[Centre].translate = l.nat.out, l.nat.in
	for _, d := range l.ways {
		n.wg.Go(d.read)
		n.wg.Go(d.write)
	}
	return nil
}

// Close ends what runs in the namespaces and deletes them.
func (n *Network) Close() error {
	var errs []error
	for _, l := range n.Links {
		for _, f := range l.files {
			if f != nil {
				errs = append(errs, f.Close())
			}
		}
	}
	n.wg.Wait()
	for _, name := range n.names {
		if name != "" {
			errs = append(errs, deleteNamespace(name))
		}
	}
	return errors.Join(append(errs, os.Remove("/run/"+base(n.number)))...)
}

// deleteNamespace kills what runs in the namespace and deletes it, if it is there.
func deleteNamespace(name string) error {
	if _, err := os.Stat("/var/run/netns/" + name); err != nil {
		return nil //nolint:nilerr // it is gone already
	}
	pids, err := exec.Command("ip", "netns", "pids", name).Output()
	if err == nil {
		for _, word := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(word); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
			}
		}
	}
	return ip("netns", "del", name)
}

// deleteLeft deletes the namespaces of processes that have died.
func deleteLeft() {
	entries, err := os.ReadDir("/var/run/netns")
	if err != nil {
		return // there never was one
	}
	for _, e := range entries {
		parts := strings.Split(e.Name(), "-")
		if len(parts) != 4 || parts[0] != "bl" {
			continue
		}
		if pid, err := strconv.Atoi(parts[1]); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = deleteNamespace(e.Name()) // somebody else may do the same
			_ = os.Remove("/run/" + strings.Join(parts[:3], "-"))
		}
	}
}

// Name returns the name of an end's namespace, for ip netns.
func (n *Network) Name(e End) string { return n.names[e] }

// Command returns a command that runs at an end of the network.
func (n *Network) Command(e End, name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.names[e], name}, args...)...)
}

// Addr returns the link's address at an end.
func (l *Link) Addr(e End) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(l.number), byte(e) + 1})
}

// Change changes what the link does, in both directions.
func (l *Link) Change(f func(*Settings)) {
	l.ChangeFrom(Branch, f)
	l.ChangeFrom(Centre, f)
}

// ChangeFrom changes what the link does to what an end sends.
func (l *Link) ChangeFrom(e End, f func(*Settings)) { l.ways[e].change(f) }

// Cut cuts both directions, or heals them.
func (l *Link) Cut(cut bool) { l.Change(func(s *Settings) { s.Cut = cut }) }

// Stats returns what happened to what an end sent.
func (l *Link) Stats(e End) Stats { return l.ways[e].counts() }

// Device is the name of the link's device at both ends.
func (l *Link) Device() string { return l.dev[Branch] }

// Rebind puts a NAT with a public address before the branch, or restarts the one that is there: from now on
// the centre sees other ports, and what it sends to the ports from before is lost. Zero takes it away.
func (l *Link) Rebind(public netip.Addr) { l.nat.rebind(public) }

// Readdress gives the branch another address on this link, 10.77.i.host, and takes the one it has.
func (l *Link) Readdress(host byte) error {
	addr := netip.AddrFrom4([4]byte{10, 77, byte(l.number), host}).String()
	ns, dev := l.net.names[Branch], l.dev[Branch]
	if err := ip("-n", ns, "addr", "flush", "dev", dev); err != nil {
		return err
	}
	return ip("-n", ns, "addr", "add", addr+"/24", "dev", dev)
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// openTUN makes a TUN device, which is there until the file is closed.
func openTUN(name string) (*os.File, error) {
	// Not blocking, so that Close ends a Read.
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the TUN device: %w", err)
	}
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:15], name)
	req.flags = syscall.IFF_TUN | syscall.IFF_NO_PI
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", name, errno)
	}
	return os.NewFile(uintptr(fd), name), nil
}
