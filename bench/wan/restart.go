package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/e2e/network"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/internal/clock"
)

// restart has the hub die and come back while many edges are linked.
func restart(ctx context.Context, b *bench) error {
	p := network.Plan{Binary: b.binary, Dir: b.dir, Seed: 1, Link: "delay=20ms", Empty: true}
	progress("enrolling %d edges", b.edges)
	nodes, err := b.enrolled(filepath.Join(b.dir, "hub", "authority"))
	if err != nil {
		return err
	}
	w, err := network.OpenWorld(p)
	if err != nil {
		return err
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(ctx)
	edges, running := errgroup.WithContext(ctx)
	door := branchline.Camera{ID: "door", Streams: []branchline.Stream{{ID: "door.main"}}}
	for _, n := range nodes {
		src := sourcetest.NewMemory(time.Now(), door)
		u := federation.NewUplink(federation.UplinkConfig{
			Node: n, Source: src, ListenPacket: w.ListenPacket(network.Branch),
		})
		edges.Go(func() error { return u.Run(running) })
	}
	defer func() {
		cancel()
		_ = edges.Wait() // it is the context's error
	}()
	if _, err := w.Linked(ctx, b.edges, 5*time.Minute); err != nil {
		return fmt.Errorf("%w\n%s", err, w.Logs())
	}
	back := report.Figure{What: fmt.Sprintf("all %d edges linked again", b.edges), Unit: "s", Limit: 30}
	memory := report.Figure{What: "hub, memory at its peak (VmHWM)", Unit: "MB", Limit: 1000}
	for range b.rounds {
		w.Hub.Kill()
		if err := wait(ctx, 10*time.Second); err != nil {
			return err
		}
		began := time.Now()
		if err := w.StartHub(); err != nil {
			return err
		}
		if _, err := w.Linked(ctx, b.edges, 2*time.Minute); err != nil {
			return fmt.Errorf("%w\n%s", err, w.Logs())
		}
		took, rss := time.Since(began).Seconds(), float64(w.Hub.Memory("VmHWM"))/mega
		progress("%d edges were back after %.1f s, hub %.0f MB", b.edges, took, rss)
		back.Got, memory.Got = append(back.Got, took), append(memory.Got, rss)
	}
	b.figures = append(b.figures, back, memory)
	b.note("From the start of the hub's process, which was away for 10 s, until its metrics count all links. The edges " +
		"are in one process that shares the machine with the hub, each with one camera and without recordings.")
	return nil
}

// enrolled makes nodes that the authority in dir knows, before its hub opens it.
func (b *bench) enrolled(dir string) ([]*identity.Node, error) {
	a, err := identity.OpenAuthority(dir, clock.Clock{})
	if err != nil {
		return nil, err
	}
	var nodes []*identity.Node
	for i := range b.edges {
		name := branchline.SiteID(fmt.Sprintf("site-%03d", i))
		n, err := identity.OpenNode(filepath.Join(b.dir, "edges", string(name)), clock.Clock{})
		if err != nil {
			return nil, err
		}
		text, err := a.AddSite(name, []string{"10.77.0.2:7563"})
		if err != nil {
			return nil, err
		}
		token, err := identity.ParseToken(text)
		if err != nil {
			return nil, err
		}
		csr, err := n.Request()
		if err != nil {
			return nil, err
		}
		c, err := a.Enrol(token.Secret[:], csr)
		if err = errors.Join(err, n.Enrolled(token, c)); err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}
