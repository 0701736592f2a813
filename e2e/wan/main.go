package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/branchline-video/branchline/e2e/network"
)

const usage = `wan joins two network namespaces of this machine by emulated wide-area links. It needs root.

  go run ./e2e/wan [-links 2] [-seed 1] [SETTING ...]

  go run ./e2e/wan rate=50mbit delay=40ms loss=1%

It prints the names of the namespaces and the addresses of their ends, in each of which programs run as
  ip netns exec NAME PROGRAM ...
and then reads commands, one a line, until the end of its input. Then it deletes what it made.

  [LINK] [up|down] SETTING ...   change what a link does; up is from the branch to the centre, down the
                                 other way, neither is both. LINK is a number, all if left out.
  rebind [ADDRESS]               put a NAT with that address (10.77.0.9) before the branch, or restart it
  address HOST                   give the branch the address 10.77.0.HOST
  stats                          print what happened to packets

Settings: rate=10mbit  queue=100ms (most time a packet waits for the rate)  delay=40ms (one way)
  jitter=5ms  loss=1%  burst=4 (packets lost in a row)  corrupt=0.1%  reorder=1%
  mtu=1280 (larger packets are lost and nobody is told)  cut=on|off  noudp=on|off  notcp=on|off
`

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "wan:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("wan", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(out, usage) }
	links := flags.Int("links", 1, "how many links")
	seed := flags.Uint64("seed", 0, "of what happens at random; 0 for any")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if _, err := network.Parse(strings.Join(flags.Args(), " ")); err != nil {
		return err
	}
	n, err := network.Open(*links, *seed)
	if err != nil {
		return err
	}
	for i, l := range n.Links {
		fmt.Fprintf(out, "link %d: %s %s - %s %s\n", i, n.Name(network.Branch), l.Addr(network.Branch),
			n.Name(network.Centre), l.Addr(network.Centre))
	}
	c := commands{n, out}
	err = c.do(flags.Args())
	scan := bufio.NewScanner(in)
	for err == nil && scan.Scan() {
		if err := c.do(strings.Fields(scan.Text())); err != nil {
			fmt.Fprintln(out, "error:", err)
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return errors.Join(err, scan.Err(), n.Close())
}

type commands struct {
	net *network.Network
	out io.Writer
}

func (c commands) do(words []string) error {
	if len(words) == 0 {
		return nil
	}
	switch first := words[0]; first {
	case "stats":
		for i, l := range c.net.Links {
			fmt.Fprintf(c.out, "link %d up   %+v\nlink %d down %+v\n", i, l.Stats(network.Branch), i, l.Stats(network.Centre))
		}
		return nil
	case "rebind":
		addr := netip.AddrFrom4([4]byte{10, 77, 0, 9})
		if len(words) > 1 {
			var err error
			if addr, err = netip.ParseAddr(words[1]); err != nil {
				return err
			}
		}
		c.net.Links[0].Rebind(addr)
		return nil
	case "address":
		if len(words) != 2 {
			return errors.New("address wants the last byte of one: address 7")
		}
		host, err := strconv.ParseUint(words[1], 10, 8)
		if err != nil {
			return err
		}
		return c.net.Links[0].Readdress(byte(host))
	}
	return c.change(words)
}

func (c commands) change(words []string) error {
	links := c.net.Links
	if i, err := strconv.Atoi(words[0]); err == nil {
		if i < 0 || i >= len(links) {
			return fmt.Errorf("there is no link %d", i)
		}
		links, words = links[i:i+1], words[1:]
	}
	ends := []network.End{network.Branch, network.Centre}
	if len(words) > 0 && words[0] == "up" {
		ends, words = ends[:1], words[1:]
	} else if len(words) > 0 && words[0] == "down" {
		ends, words = ends[1:], words[1:]
	}
	if _, err := network.Parse(strings.Join(words, " ")); err != nil {
		return err
	}
	for _, l := range links {
		for _, e := range ends {
			l.ChangeFrom(e, func(s *network.Settings) {
				for _, w := range words {
					_ = s.Set(w) // parsed before
				}
			})
		}
	}
	return nil
}
