package main

import (
	"testing"

	"github.com/branchline-video/branchline/segstore"
)

func TestChains(t *testing.T) {
	at := func(run uint64, number uint32, previous, hash string) segstore.Report {
		return segstore.Report{
			Path: "s/a.main/20261123/x.mp4", Run: run, Number: number, Sealed: true, Previous: previous, Hash: hash,
		}
	}
	for _, c := range []struct {
		name            string
		reports         []segstore.Report
		missing, broken int
	}{
		{"whole, in any order", []segstore.Report{at(2, 0, "b", "c"), at(1, 0, "", "a"), at(1, 1, "a", "b")}, 0, 0},
		{"one taken out of a run", []segstore.Report{at(1, 0, "", "a"), at(1, 2, "b", "c")}, 1, 0},
		{"one taken out between runs", []segstore.Report{at(1, 0, "", "a"), at(2, 0, "b", "c")}, 1, 0},
		{"the first is gone", []segstore.Report{at(1, 1, "a", "b"), at(1, 2, "b", "c")}, 0, 0},
		{"one exchanged", []segstore.Report{at(1, 0, "", "other"), at(1, 1, "a", "b")}, 0, 1},
		{"one still grows", []segstore.Report{at(1, 0, "", "a"), {Path: "s/growing/a.main/y.mp4"}}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			missing, broken := checkChains(c.reports), 0
			for _, r := range c.reports {
				broken += len(r.Problems)
			}
			if missing != c.missing || broken != c.broken {
				t.Errorf("%d missing, %d broken; want %d, %d", missing, broken, c.missing, c.broken)
			}
		})
	}
}
