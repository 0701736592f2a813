package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// list runs the store's own benchmark of a year, as an index of seventeen million segments can be made only
// without their files.
func list(ctx context.Context, b *bench) error {
	progress("list: making the index of a year, which takes some minutes")
	run := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkYear$", "-benchtime", "20x",
		"-count", "1", "-timeout", "2h", "./segstore")
	run.Env = append(os.Environ(), "TMPDIR="+b.dir, fmt.Sprintf("BRANCHLINE_YEAR_ROUNDS=%d", b.rounds))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		return fmt.Errorf("go test: %w: %s", err, out)
	}
	rows := map[string]*figure{
		"held":     {what: "Store.Held of a month of one camera", unit: "ms", limit: 5},
		"facts":    {what: "the catalog's spans of the same, at a hub", unit: "ms", limit: 5},
		"segments": {what: "Store.Segments of a day, its tables read from files", unit: "ms"},
	}
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || fields[3] != "ns/op" {
			continue
		}
		parts := strings.Split(fields[0], "/")
		ns, err := strconv.ParseFloat(fields[2], 64)
		if f := rows[parts[min(1, len(parts)-1)]]; f != nil && err == nil {
			f.got = append(f.got, ns/1e6)
		}
	}
	for _, name := range []string{"held", "facts", "segments"} {
		if f := rows[name]; len(f.got) > 0 {
			b.figures = append(b.figures, *f)
		}
	}
	return nil
}
