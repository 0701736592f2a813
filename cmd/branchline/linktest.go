package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/internal/clock"
)

type linkCommands struct {
	Test linkTestCommand `cmd:"" help:"Test the path from this edge to its hub: what it gives, and where it breaks."`
}

type linkTestCommand struct {
	Config string        `help:"The edge's configuration file." type:"path" required:"" placeholder:"FILE"`
	Hub    string        `help:"Test the path to this address instead of the hub's first." placeholder:"HOST:PORT"`
	Token  string        `help:"One-time token of an edge that is not enrolled; it is not used up." env:"BRANCHLINE_TOKEN"`
	For    time.Duration `help:"How long to fill the line in each direction, at most 10s." default:"5s"`
	JSON   bool          `help:"Print JSON."`
}

// errPath is the failure of the path, which was printed step by step.
var errPath = errors.New("the path to the hub does not carry a link; see what is said above")

// Run prints each step as it ends. It exits with 1 if no link can be made on the path.
func (c *linkTestCommand) Run(t *terminal) error {
	var file edgeFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	if c.For <= 0 || c.For > 10*time.Second {
		return usageError{fmt.Errorf("--for %v: is not between 0 and 10s", c.For)}
	}
	node, err := identity.OpenNode(filepath.Join(file.Dir, "identity"), clock.Clock{})
	if err != nil {
		return err
	}
	hubs := node.Hubs()
	if c.Token != "" {
		token, err := identity.ParseToken(c.Token)
		if err != nil {
			return usageError{fmt.Errorf("--token: %w", err)}
		}
		hubs = append(hubs, token.Hubs...)
	}
	if c.Hub != "" {
		hubs = []string{c.Hub}
	}
	if len(hubs) == 0 {
		return usageError{errors.New("this edge has no hub yet: give --token, or --hub once it is enrolled")}
	}
	test := federation.PathTest{Node: node, Hub: hubs[0], Token: c.Token, For: c.For}
	if !c.JSON {
		fmt.Fprintf(t.stdout, "The path to %s, some %v of traffic:\n\n", hubs[0], 2*c.For)
		test.Done = func(s federation.PathStep) { printStep(t, s) }
	}
	report, err := test.Run(t.ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(t.stdout, report); err != nil {
			return err
		}
	}
	if !report.Reached {
		return errPath
	}
	return nil
}

func printStep(t *terminal, s federation.PathStep) {
	mark := "ok"
	if !s.OK {
		mark = "FAILS"
	}
	fmt.Fprintf(t.stdout, "  %-5s %-5s %s (%v)\n", s.Name, mark, s.Found, s.Took.Round(time.Millisecond))
	if s.Advice != "" {
		fmt.Fprintf(t.stdout, "        %s.\n", s.Advice)
	}
}
