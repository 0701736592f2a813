package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/bench/report"
)

// list runs the store's own benchmark of a year, as an index of seventeen million segments can be made only
// without their files.
func list(ctx context.Context, b *bench) error {
	progress("list: making the index of a year, which takes some minutes")
	run := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkYear$", "-benchtime", "20x",
		"-count", "1", "-timeout", "2h", "./segstore")
	run.Env = append(os.Environ(), "TMPDIR="+b.dir, fmt.Sprintf("BRANCHLINE_YEAR_ROUNDS=%d", b.rounds),
		fmt.Sprintf("BRANCHLINE_YEAR_DAYS=%d", b.days))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		return fmt.Errorf("go test: %w: %s", err, out)
	}
	held := report.Figure{What: "Store.Held of a month of one camera", Unit: "ms", Limit: 5}
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || fields[3] != "ns/op" || !strings.HasPrefix(fields[0], "BenchmarkYear/held/") {
			continue
		}
		ns, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return err
		}
		held.Got = append(held.Got, ns/1e6)
	}
	b.figures = append(b.figures, held)
	b.note("%d days of 32 streams in segments of a minute, %d in all, of which only the index was made. Store.Held is"+
		" what a hub's time line reads of its store; the rest of that comes from the catalog's spans, a few a day."+
		" Store.Segments, which also reads tables from the files, is for at most %d segments at a time.",
		b.days, b.days*32*24*60, branchline.MaxSegments)
	return nil
}
