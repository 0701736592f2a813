package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

type linkCommands struct {
	Test linkTestCommand `cmd:"" help:"Test the paths from this edge to its hubs: what they give, where they break."`
	Show linkShowCommand `cmd:"" help:"Show the figures of a running edge's links."`
	Qlog linkQlogCommand `cmd:"" help:"Log the packets of a link for a while, for qvis; at an edge or at a hub."`
}

type linkTestCommand struct {
	Config string        `help:"The edge's configuration file." type:"path" required:"" placeholder:"FILE"`
	Hub    []string      `help:"Test only this hub, or address of it." placeholder:"NAME|[NAME=]HOST:PORT"`
	Way    string        `help:"Test only this one of the configuration's uplinks." placeholder:"NAME"`
	Token  []string      `help:"Token or NAME=TOKEN, before enrolment; it is not used up." env:"BRANCHLINE_TOKEN"`
	For    time.Duration `help:"How long to fill the line in each direction, at most 10s." default:"5s"`
	JSON   bool          `help:"Print JSON; what is being done goes to standard error."`
}

// The failures of a test, of which each was printed step by step.
var (
	errPath = errors.New("a hub cannot be reached; see what is said above")
	errPoor = errors.New("all hubs are reached, and there is something to ask the network people for; see above")
)

// pathTarget is one path to be tested.
type pathTarget struct {
	hub, token string // hub is its name, empty for the only one
	node       *identity.Node
	addresses  []string
	way        link.Local
}

func (p pathTarget) String() string {
	s := "the hub"
	if p.hub != "" {
		s = "hub " + p.hub
	}
	if p.way != (link.Local{}) {
		s += " by " + p.way.String()
	}
	return s
}

// pathResult is what was found out about one address.
type pathResult struct {
	Name string `json:"name,omitempty"` // of the hub
	federation.PathReport
}

// Run prints each step as it ends. It exits with 0 if all is well, 1 if a hub is not reached, and 3 if all are and
// something is to be asked for.
func (c *linkTestCommand) Run(t *terminal) error {
	var file edgeFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	if c.For <= 0 || c.For > 10*time.Second {
		return usageError{fmt.Errorf("--for %v: is not between 0 and 10s", c.For)}
	}
	targets, err := c.targets(&file)
	if err != nil {
		return err
	}
	var all []pathResult
	reached := make(map[string]bool)
	for i, p := range targets {
		results, err := c.test(t, p, i+1, len(targets))
		if err != nil {
			return err
		}
		for _, r := range results {
			reached[p.hub] = reached[p.hub] || r.Reached
		}
		all = append(all, results...)
	}
	if c.JSON {
		err = printJSON(t.stdout, all)
	} else {
		err = printAsks(t, all)
	}
	poor := false
	for _, r := range all {
		poor = poor || len(r.Ask) > 0 || !r.Reached
	}
	switch missing := slices.ContainsFunc(targets, func(p pathTarget) bool { return !reached[p.hub] }); {
	case err != nil:
		return err
	case missing:
		return errPath
	case poor:
		return errPoor
	}
	return nil
}

// targets returns the paths: each hub by each way.
func (c *linkTestCommand) targets(file *edgeFile) ([]pathTarget, error) {
	homes, err := c.homes(file)
	if err != nil {
		return nil, err
	}
	node, err := identity.OpenNode(filepath.Join(file.Dir, "identity"), clock.Clock{})
	if err != nil {
		return nil, err
	}
	if o := file.Identity.organisation(); o != nil {
		node.UseOrganisation(*o)
	}
	first, err := firstHome(node, homes.all)
	if err != nil {
		return nil, err
	}
	ways, err := c.ways(file)
	if err != nil {
		return nil, err
	}
	var all []pathTarget
	for _, h := range homes.picked {
		p := pathTarget{hub: h.name, token: h.token, node: node, addresses: h.hubs}
		if h.name != first {
			if p.node, err = node.Further(h.name, clock.Clock{}); err != nil {
				return nil, err
			}
		}
		if err := p.complete(); err != nil {
			return nil, err
		}
		for _, w := range ways {
			p.way = w
			all = append(all, p)
		}
	}
	return all, nil
}

// complete fills in the addresses where neither the configuration nor a flag names any.
func (p *pathTarget) complete() error {
	if len(p.addresses) == 0 {
		p.addresses = p.node.Hubs()
	}
	if len(p.addresses) == 0 && p.token != "" {
		token, err := identity.ParseToken(p.token)
		if err != nil {
			return usageError{fmt.Errorf("--token: %w", err)}
		}
		p.addresses = token.Hubs
	}
	switch enrolled := p.node.Site() != "" || p.node.Organisation(); {
	case len(p.addresses) == 0:
		return usageError{fmt.Errorf("no address of %s is known: give --token, or --hub HOST:PORT", *p)}
	case !enrolled && p.token == "":
		return usageError{fmt.Errorf("this edge is not enrolled at %s: give the --token that was made there with "+
			"`branchline site add`; it is not used up", *p)}
	}
	return nil
}

// pickedHomes are all hubs of an edge, and those that are to be tested.
type pickedHomes struct{ all, picked []home }

// homes reads --hub, of which a value that is the name of a hub picks that.
func (c *linkTestCommand) homes(file *edgeFile) (p pickedHomes, err error) {
	var names, addresses []string
	for _, h := range c.Hub {
		if strings.Contains(h, ":") {
			addresses = append(addresses, h)
			if name, _, named := strings.Cut(h, "="); named {
				names = append(names, name)
			}
			continue
		}
		names = append(names, h)
	}
	if p.all, err = homesOf(file.Hubs, c.Token, addresses); err != nil {
		return p, err
	}
	for _, n := range names {
		if !slices.ContainsFunc(p.all, func(h home) bool { return h.name == n }) {
			return p, usageError{fmt.Errorf("--hub %s: no such hub is in the configuration; an address is HOST:PORT", n)}
		}
	}
	for _, h := range p.all {
		if len(names) == 0 || slices.Contains(names, h.name) {
			p.picked = append(p.picked, h)
		}
	}
	return p, nil
}

// ways returns by which ways to test: those of the configuration, or whatever the system takes.
func (c *linkTestCommand) ways(file *edgeFile) ([]link.Local, error) {
	var all []link.Local
	for _, u := range file.uplinks {
		if c.Way == "" || u.Name == c.Way {
			all = append(all, u.Local)
		}
	}
	if c.Way != "" && len(all) == 0 {
		return nil, usageError{fmt.Errorf("--way %s: no such uplink is in the configuration", c.Way)}
	}
	if len(all) == 0 {
		all = []link.Local{{}}
	}
	return all, nil
}

// test tries the addresses of one path, and measures the first that works.
func (c *linkTestCommand) test(t *terminal, p pathTarget, number, of int) ([]pathResult, error) {
	var all []pathResult
	measured := false
	for _, a := range p.addresses {
		test := federation.PathTest{Node: p.node, Hub: a, Token: p.token, Way: p.way, For: c.For, Reach: measured}
		out := t.stdout
		if c.JSON {
			out = t.stderr
		}
		fmt.Fprintf(out, "Path %d of %d: %s at %s\n", number, of, p, a)
		test.Begin = func(step string) {
			if what := c.doing(step); what != "" {
				fmt.Fprintf(out, "  %-5s ...   %s\n", step, what)
			}
		}
		if !c.JSON {
			test.Done = func(s federation.PathStep) { printStep(t, s) }
		}
		report, err := test.Run(t.ctx)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(out)
		measured = measured || report.Reached
		all = append(all, pathResult{p.hub, report})
	}
	return all, nil
}

// doing says what a step does that takes its time.
func (c *linkTestCommand) doing(step string) string {
	switch step {
	case federation.StepUDP, federation.StepTCP:
		return fmt.Sprintf("trying for up to %v", link.HandshakeTimeout)
	case federation.StepUp:
		return fmt.Sprintf("filling the line to the hub for %v", c.For)
	case federation.StepDown:
		return fmt.Sprintf("filling the line from the hub for %v", c.For)
	case federation.StepMany:
		return fmt.Sprintf("filling the line to the hub for %v over several connections", c.For)
	}
	return ""
}

func printStep(t *terminal, s federation.PathStep) {
	mark := "ok"
	if !s.OK {
		mark = "FAILS"
	}
	fmt.Fprintf(t.stdout, "  %-5s %-5s %s (%v)\n", s.Name, mark, s.Found, s.Took.Round(time.Millisecond))
	if s.Advice != "" {
		fmt.Fprintf(t.stdout, "              %s.\n", s.Advice)
	}
}

// printAsks prints, once each, what to ask the network people for, and how the paths compare.
func printAsks(t *terminal, all []pathResult) error {
	if len(all) > 1 {
		fmt.Fprintln(t.stdout, "In short:")
		for _, r := range all {
			fmt.Fprintln(t.stdout, "  "+r.short())
		}
		fmt.Fprintln(t.stdout)
	}
	var asks []string
	for _, r := range all {
		for _, a := range r.Ask {
			if !slices.Contains(asks, a) {
				asks = append(asks, a)
			}
		}
	}
	if len(asks) == 0 {
		return nil
	}
	fmt.Fprintln(t.stdout, "Ask the network people:")
	for i, a := range asks {
		fmt.Fprintf(t.stdout, "  %d. %s\n", i+1, a)
	}
	_, err := fmt.Fprintln(t.stdout)
	return err
}

// short tells of a path in a line.
func (r pathResult) short() string {
	s := r.Hub
	if r.Name != "" {
		s = r.Name + ", " + s
	}
	if r.Way != "" {
		s += " by " + r.Way
	}
	switch {
	case !r.Reached:
		return s + ": no link"
	case r.Conns == 0:
		return s + ": a link can be made"
	}
	return fmt.Sprintf("%s: %s, %.0f kbit/s up, %.0f kbit/s down, round trip %v", s, r.Carrier, max(r.Up, r.Many), r.Down,
		r.RTT.Round(100*time.Microsecond))
}
