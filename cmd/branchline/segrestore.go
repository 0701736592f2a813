package main

import (
	"fmt"

	"github.com/branchline-video/branchline/segstore"
)

type segRestoreCommand struct {
	Dir   string   `arg:"" help:"Directory of a node or of its store." type:"existingdir"`
	Files []string `arg:"" help:"Whole copies of segments that the store has lost." type:"existingfile"`
	JSON  bool     `help:"Print JSON, a line for each file."`
}

// Run verifies each copy and leaves it in the store's directory. Whether the store was open or is opened later,
// it decides itself what of that it takes in, and says so in its log.
func (c *segRestoreCommand) Run(t *terminal) error {
	dir := storeRange{Dir: c.Dir}.dir()
	for _, path := range c.Files {
		report, err := segstore.Deposit(dir, path)
		if err != nil {
			return err
		}
		if c.JSON {
			err = printJSON(t.stdout, report)
		} else {
			_, err = fmt.Fprintf(t.stdout, "%s: segment %s of %s is left for the store, which takes it in within a minute "+
				"or when it is opened\n", path, report.Segment, report.Stream)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
