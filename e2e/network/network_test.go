package network_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/e2e/network"
)

func open(t *testing.T, settings string) (*network.Network, *network.Link) {
	t.Helper()
	if err := network.Missing(); err != nil {
		t.Skip("skipped: ", err)
	}
	n, err := network.Open(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := network.Parse(settings)
	if err != nil {
		t.Fatal(err)
	}
	n.Links[0].Change(func(old *network.Settings) { *old = s })
	return n, n.Links[0]
}

// echo answers each packet at the centre with the same, and returns a socket of the branch and where to send.
func echo(t *testing.T, n *network.Network) (branch net.PacketConn, centre net.Addr) {
	t.Helper()
	hub, err := n.ListenPacket(network.Centre)(n.Links[0].Addr(network.Centre).String() + ":7000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			k, from, err := hub.ReadFrom(buf)
			if err != nil {
				return
			}
			hub.WriteTo(append(buf[:k:k], from.String()...), from)
		}
	}()
	branch, err = n.ListenPacket(network.Branch)(":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { branch.Close() })
	return branch, hub.LocalAddr()
}

// ask sends a packet and returns what the answer says of the sender, empty if none comes.
func ask(t *testing.T, c net.PacketConn, to net.Addr, size int) (seen string, took time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := c.WriteTo(bytes.Repeat([]byte{'x'}, size), to); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(began.Add(300 * time.Millisecond))
	buf := make([]byte, 2000)
	k, _, err := c.ReadFrom(buf)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "", time.Since(began)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimLeft(buf[:k], "x")), time.Since(began)
}

func TestDelayAndCuts(t *testing.T) {
	n, l := open(t, "delay=20ms")
	c, hub := echo(t, n)
	if seen, took := ask(t, c, hub, 100); seen == "" || took < 40*time.Millisecond {
		t.Errorf("the answer of %q took %v", seen, took)
	}
	for name, broken := range map[string]func(*network.Settings){
		"cut": func(s *network.Settings) { s.Cut = true }, "udp": func(s *network.Settings) { s.NoUDP = true },
		"mtu": func(s *network.Settings) { s.MTU = 127 }, "loss": func(s *network.Settings) { s.Loss = 1 },
	} {
		for _, e := range []network.End{network.Branch, network.Centre} {
			var before network.Settings
			l.ChangeFrom(e, func(s *network.Settings) { before = *s; broken(s) })
			if seen, _ := ask(t, c, hub, 100); seen != "" {
				t.Errorf("%s of what the %s sends: %s answered", name, e, seen)
			}
			l.ChangeFrom(e, func(s *network.Settings) { *s = before })
		}
	}
	l.Change(func(s *network.Settings) { s.NoTCP = true })
	if seen, _ := ask(t, c, hub, 100); seen == "" {
		t.Error("nothing comes after healing")
	}
	if s := l.Stats(network.Branch); s.Cut != 2 || s.Large != 1 || s.Lost != 1 || s.Packets != 6 {
		t.Errorf("counted %+v", s)
	}
}

func TestRebind(t *testing.T) {
	n, l := open(t, "")
	c, hub := echo(t, n)
	before, _ := ask(t, c, hub, 10)
	var seen []string
	for range 2 {
		l.Rebind(netip.AddrFrom4([4]byte{10, 77, 0, 9}))
		for range 2 {
			s, _ := ask(t, c, hub, 10)
			seen = append(seen, s)
		}
	}
	port, ok := strings.CutPrefix(seen[0], "10.77.0.9:")
	if !ok || port == "" || strings.HasPrefix(before, "10.77.0.9") {
		t.Errorf("behind a NAT the branch is %v, before it was %s", seen, before)
	}
	if seen[0] != seen[1] || seen[2] != seen[3] {
		t.Errorf("seen as %v: a port does not stay, or what is rebound is the same", seen)
	}
	if err := l.Readdress(77); err != nil {
		t.Fatal(err)
	}
	l.Rebind(netip.Addr{})
	if s, _ := ask(t, c, hub, 10); !strings.HasPrefix(s, "10.77.0.77:") {
		t.Errorf("with another address the branch is %s", s)
	}
}

// TestRate sends by TCP more than the link takes in a second. It is the emulator's own figure too.
func TestRate(t *testing.T) {
	n, l := open(t, "rate=80mbit delay=10ms")
	var server net.Listener
	err := n.In(network.Centre, func() (err error) {
		server, err = net.Listen("tcp4", l.Addr(network.Centre).String()+":7001")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := n.Dial(network.Branch)(ctx, "tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	const most = 10 << 20
	go func() { c.Write(make([]byte, most)) }()
	began := time.Now()
	for got, buf := 0, make([]byte, 1<<16); got < most; {
		k, err := in.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += k
	}
	took := time.Since(began)
	rate := most * 8 / took.Seconds() / 1e6
	t.Logf("%.1f Mbit/s of 80 by TCP", rate)
	if rate > 80 {
		t.Errorf("%.1f Mbit/s went over a link of 80", rate)
	}
}

// TestClose shows that nothing is left, even of what still runs there.
func TestClose(t *testing.T) {
	if err := network.Missing(); err != nil {
		t.Skip("skipped: ", err)
	}
	n, err := network.Open(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.Command(network.Branch, "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name := n.Name(network.Branch)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("what ran in the namespace goes on")
	}
	if _, err := os.Stat("/var/run/netns/" + name); err == nil {
		t.Errorf("%s is still there", name)
	}
}

func TestSettings(t *testing.T) {
	for text, want := range map[string]network.Settings{
		"":                              {},
		"rate=1.5mbit loss=2% burst=3":  {Rate: 1.5e6, Loss: 0.02, Burst: 3},
		"delay=40ms jitter=5ms cut=on":  {Delay: 40 * time.Millisecond, Jitter: 5 * time.Millisecond, Cut: true},
		"mtu=1280 reorder=0.5 noudp=on": {MTU: 1280, Reorder: 0.5, NoUDP: true},
		"queue=1s corrupt=1 notcp=on":   {Queue: time.Second, Corrupt: 1, NoTCP: true},
	} {
		if got, err := network.Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"rate", "rate=fast", "rate=-1", "loss=2", "loss=-1%", "cut=yes", "speed=1"} {
		if got, err := network.Parse(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}
