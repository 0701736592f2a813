package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/branchline-video/branchline/federation/link"
)

// linkQlogCommand logs the packets of a link, at the edge or at the hub.
type linkQlogCommand struct {
	Config string        `help:"The edge's configuration file." type:"path" placeholder:"FILE"`
	Hub    string        `help:"At an edge with several hubs: whose link; the first by default." placeholder:"NAME"`
	Site   string        `help:"At a hub: the site whose link is logged." placeholder:"NAME"`
	OnHub  string        `help:"The hub's file, not an edge's." name:"hub-config" type:"path" placeholder:"FILE"`
	For    time.Duration `help:"For how long, at most 1h." default:"1m"`
	Size   string        `help:"How much to write at most, up to 200MB." default:"20MB"`
	Stop   bool          `help:"Stop logging; the files stay."`
	Show   bool          `help:"Only tell whether it is logged, and the files."`
	JSON   bool          `help:"Print JSON."`
}

// Run starts or stops a log, or tells of it.
func (c *linkQlogCommand) Run(t *terminal) error {
	method := http.MethodPost
	switch {
	case (c.Config == "") == (c.OnHub == ""):
		return usageError{errors.New("say either --config, of an edge, or --hub-config")}
	case c.Stop && c.Show:
		return usageError{errors.New("--stop and --show: say one of them")}
	case c.Stop:
		method = http.MethodDelete
	case c.Show:
		method = http.MethodGet
	}
	size, err := parseSize("--size", c.Size)
	if err != nil {
		return usageError{err}
	}
	if c.For < time.Second || c.For > link.MaxQlogTime {
		return usageError{fmt.Errorf("--for %v: is not between 1s and %v", c.For, link.MaxQlogTime)}
	}
	asked := qlogRequest{Seconds: int(c.For / time.Second), Bytes: size}
	var state link.QlogState
	if c.OnHub != "" {
		err = c.atHub(t, method, asked, &state)
	} else {
		err = c.atEdge(t, method, asked, &state)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.stdout, state)
	}
	return printQlog(t, state)
}

func (c *linkQlogCommand) atHub(t *terminal, method string, asked qlogRequest, into *link.QlogState) error {
	if c.Site == "" || c.Hub != "" {
		return usageError{errors.New("at a hub say --site NAME: the site whose link is to be logged")}
	}
	path := "/api/v1/sites/" + url.PathEscape(c.Site) + "/qlog"
	return onHub{Config: c.OnHub}.call(t.ctx, method, path, asked, into)
}

func (c *linkQlogCommand) atEdge(t *terminal, method string, asked qlogRequest, into *link.QlogState) error {
	if c.Site != "" {
		return usageError{errors.New("--site is for a hub: say --hub-config FILE too")}
	}
	var file edgeFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	return callEdge(t, filepath.Join(file.Dir, edgeSocketName),
		localCall{method, "/qlog?hub=" + url.QueryEscape(c.Hub), asked}, into)
}

func printQlog(t *terminal, s link.QlogState) error {
	if s.On {
		fmt.Fprintf(t.stdout, "The link's packets are logged until %s or for another %.1f MB.\n", readable(s.Until),
			float64(s.Left)/1e6)
	} else {
		fmt.Fprintln(t.stdout, "The link is not logged.")
	}
	if s.Problem != "" {
		fmt.Fprintf(t.stdout, "The last log ended early: %s.\n", s.Problem)
	}
	if s.Lost > 0 {
		fmt.Fprintf(t.stdout, "%d events came faster than the disk took them and are left out.\n", s.Lost)
	}
	if len(s.Files) > 0 {
		fmt.Fprintln(t.stdout, "Files, for https://qvis.quictools.info or another reader of qlog:")
	}
	for _, f := range s.Files {
		fmt.Fprintln(t.stdout, " ", f)
	}
	return nil
}
