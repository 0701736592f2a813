package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

// linkFigures are those of a present link, for people and programs. Bytes are those of packets.
type linkFigures struct {
	At          time.Time `json:"at"`
	Since       time.Time `json:"since,omitzero"` // of up or down
	Error       string    `json:"error,omitempty"`
	Carrier     string    `json:"carrier,omitempty"` // quic or tcp
	Way         string    `json:"way,omitempty"`
	Connections int       `json:"connections"`
	Bulk        bool      `json:"bulkOverTcp,omitempty"` // one of them is over TCP, for fetches
	Handshakes  uint64    `json:"handshakes"`
	LeastRTTms  float64   `json:"leastRttMs,omitempty"`
	Sent        uint64    `json:"sentBytes"`
	Received    uint64    `json:"receivedBytes"`
	Lost        uint64    `json:"lostBytes"` // of what was sent, and sent again
	Window      uint64    `json:"windowBytes,omitempty"`
	MTU         uint64    `json:"mtuBytes,omitempty"`
}

func figuresOf(u federation.UplinkState, s link.Stats) linkFigures {
	f := linkFigures{
		At: clock.Clock{}.Now().UTC(), Since: u.Since.UTC(), Carrier: string(u.Carrier), Way: u.Uplink,
		Connections: s.Connections, Bulk: s.Bulk, Handshakes: s.Handshakes, LeastRTTms: s.MinRTT.Seconds() * 1000,
		Sent: s.Sent, Received: s.Received, Lost: s.Lost, Window: s.CongestionWindow, MTU: s.MTU,
	}
	if u.Err != nil {
		f.Error = u.Err.Error()
	}
	return f
}

// String tells of a link that is up in a few words.
func (f linkFigures) String() string {
	s := fmt.Sprintf("%s, %d connections", f.Carrier, f.Connections)
	if f.Connections == 1 {
		s = f.Carrier + ", 1 connection"
	}
	if f.Bulk {
		s += ", one over tcp for bulk"
	}
	if f.Way != "" {
		s += " by " + f.Way
	}
	return s
}

// loss returns the share of what was sent that was lost, in percent.
func (f linkFigures) loss() float64 {
	if f.Sent == 0 {
		return 0
	}
	return 100 * float64(f.Lost) / float64(f.Sent)
}

type linkShowCommand struct {
	Config string        `help:"The edge's configuration file." type:"path" required:"" placeholder:"FILE"`
	For    time.Duration `help:"How long to look, for the rates." default:"2s"`
	JSON   bool          `help:"Print JSON."`
}

// linkNow is a link with its rates.
type linkNow struct {
	uplinkLink
	UpBits   float64 `json:"upBits"`   // a second, but for what was lost
	DownBits float64 `json:"downBits"` // the same
}

// Run looks twice at the running edge's links.
func (c *linkShowCommand) Run(t *terminal) error {
	var file edgeFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	if file.Listen == "" {
		return usageError{fmt.Errorf("%s has no http: address at which the edge could be asked; "+
			"add for example http: 127.0.0.1:8481", c.Config)}
	}
	if c.For <= 0 || c.For > time.Minute {
		return usageError{fmt.Errorf("--for %v: is not between 0 and 1m", c.For)}
	}
	var first, then uplinkReport
	if err := askEdge(t.ctx, file.Listen, "/uplink", &first); err != nil {
		return err
	}
	wait(t.ctx, c.For)
	if err := errors.Join(t.ctx.Err(), askEdge(t.ctx, file.Listen, "/uplink", &then)); err != nil {
		return err
	}
	links := make([]linkNow, 0, len(then.Links))
	for i, l := range then.Links {
		now := linkNow{uplinkLink: l}
		if i < len(first.Links) {
			now.UpBits, now.DownBits = rates(first.Links[i].linkFigures, l.linkFigures)
		}
		links = append(links, now)
	}
	if c.JSON {
		return printJSON(t.stdout, links)
	}
	for i, l := range links {
		if i > 0 {
			fmt.Fprintln(t.stdout)
		}
		if err := l.print(t); err != nil {
			return err
		}
	}
	return nil
}

// rates returns what went in each direction between two looks at one link, in bits a second.
func rates(a, b linkFigures) (up, down float64) {
	past := b.At.Sub(a.At).Seconds()
	if past <= 0 || !a.Since.Equal(b.Since) || b.Sent < a.Sent || b.Received < a.Received {
		return 0, 0 // another link
	}
	lost := 0.0
	if b.Lost > a.Lost {
		lost = float64(b.Lost - a.Lost)
	}
	return max(0, 8*(float64(b.Sent-a.Sent)-lost)/past), 8 * float64(b.Received-a.Received) / past
}

func (l linkNow) print(t *terminal) error {
	tab := tabwriter.NewWriter(t.stdout, 0, 4, 2, ' ', 0)
	if l.Name != "" {
		fmt.Fprintf(tab, "Hub\t%s\n", l.Name)
	}
	if !l.Up {
		fmt.Fprintf(tab, "Link\tdown since %s\n", readable(l.Since))
		if l.Error != "" {
			fmt.Fprintf(tab, "Why\t%s\n", l.Error)
		}
		return tab.Flush()
	}
	fmt.Fprintf(tab, "Link\tup since %s, to %s\n", readable(l.Since), l.Hub)
	fmt.Fprintf(tab, "Carried by\t%s\n", l.linkFigures)
	fmt.Fprintf(tab, "Made so far\t%d connections\n", l.Handshakes)
	fmt.Fprintf(tab, "Round trip\t%.1f ms, at least %.1f ms\n", l.RTTms, l.LeastRTTms)
	fmt.Fprintf(tab, "Now\t%.0f kbit/s to the hub, %.0f kbit/s from it\n", l.UpBits/1000, l.DownBits/1000)
	fmt.Fprintf(tab, "Sent\t%.1f MB, of that %.2f %% lost and sent again\n", float64(l.Sent)/1e6, l.loss())
	fmt.Fprintf(tab, "Received\t%.1f MB\n", float64(l.Received)/1e6)
	if l.MTU > 0 {
		fmt.Fprintf(tab, "Datagrams\t%d bytes pass\n", l.MTU)
	}
	return tab.Flush()
}
