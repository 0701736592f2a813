package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

type segRebuildCommand struct {
	Dir  string `arg:"" help:"Directory of a node or of its store." type:"existingdir"`
	JSON bool   `help:"Print JSON."`
}

// Run makes the index again. A running node does so by itself when its index is damaged.
func (c *segRebuildCommand) Run(t *terminal) error {
	dir := storeRange{Dir: c.Dir}.dir()
	if !isDir(filepath.Join(dir, "segments")) {
		return usageError{fmt.Errorf("%s is not the directory of a node or a store", c.Dir)}
	}
	began := t.now()
	last := began
	n, err := segstore.Rebuild(t.ctx, dir, segstore.Options{Logger: t.log}, func(segments int) {
		if now := t.now(); !c.JSON && now.Sub(last) > time.Second {
			last = now
			fmt.Fprintf(t.stdout, "%d segments so far\n", segments)
		}
	})
	if errors.Is(err, branchline.ErrBusy) {
		return fmt.Errorf("%w; stop the node first, or leave it: a running node mends its index by itself", err)
	}
	if err != nil {
		return err
	}
	took := t.now().Sub(began)
	if c.JSON {
		return printJSON(t.stdout, map[string]any{"segments": n, "seconds": took.Seconds()})
	}
	_, err = fmt.Fprintf(t.stdout, "the index is made again: %d segments in %.1f s\n", n, took.Seconds())
	return err
}
