package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/branchline-video/branchline/bench/report"
	"github.com/branchline-video/branchline/e2e/network"
)

const preface = `# Wide-area links: what was measured

Made by ` + "`make bench-wan`" + `, see bench/wan. Peers and project took turns on the same emulated link (e2e/network).
`

// benchmark is one section of the results.
type benchmark struct {
	name, about string
	run         func(ctx context.Context, b *bench) error
}

func benchmarks() []benchmark {
	return []benchmark{
		{"bulk", "Durable bytes at the hub over a link of 100 Mbit/s", bulk},
		{"loopback", "Disk to disk over loopback", loopback},
		{"live", "Live pictures under a saturating backfill", live},
		{"idle", "An idle site", idle},
		{"restart", "500 edges after a hub's restart", restart},
		{"flood", "Floods of handshakes", flood},
	}
}

// bench is one run: its settings, and what it has found so far.
type bench struct {
	dir     string // for what is written
	binary  string // branchline
	rounds  int
	seconds time.Duration // how long each transfer is measured
	rtts    []time.Duration
	losses  []float64
	edges   int

	figures []report.Figure
	notes   []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "wan:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var b bench
	flags := flag.NewFlagSet("wan", flag.ContinueOnError)
	flags.StringVar(&b.dir, "dir", filepath.Join(os.TempDir(), "branchline-bench-wan"), "where to write")
	flags.StringVar(&b.binary, "binary", "bin/branchline", "the branchline to measure")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each figure is taken")
	flags.DurationVar(&b.seconds, "for", 30*time.Second, "how long each transfer is measured")
	flags.IntVar(&b.edges, "edges", 500, "edges that come back at once")
	rtts := flags.String("rtt", "20ms,80ms,200ms", "round trip times")
	losses := flags.String("loss", "0,0.1,1,3", "losses, in percent")
	file := report.File{Preface: preface}
	flags.StringVar(&file.Path, "out", "", "file of results; the sections of what is run are replaced")
	only := flags.String("only", "", "which benchmarks, separated by commas; all if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := errors.Join(network.Missing(), b.read(*rtts, *losses)); err != nil {
		return err
	}
	picked := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	known := benchmarks()
	for _, k := range known {
		file.Sections = append(file.Sections, k.about)
	}
	for _, name := range picked {
		if !slices.ContainsFunc(known, func(k benchmark) bool { return k.name == name }) {
			return fmt.Errorf("no benchmark is called %q", name)
		}
	}
	for _, k := range known {
		if len(picked) > 0 && !slices.Contains(picked, k.name) {
			continue
		}
		if err := b.measure(ctx, k, file); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return nil
}

// read understands what was asked for.
func (b *bench) read(rtts, losses string) (err error) {
	for r := range strings.SplitSeq(rtts, ",") {
		d, err := time.ParseDuration(r)
		if err != nil {
			return err
		}
		b.rtts = append(b.rtts, d)
	}
	for l := range strings.SplitSeq(losses, ",") {
		s, err := network.Parse("loss=" + l + "%")
		if err != nil {
			return err
		}
		b.losses = append(b.losses, s.Loss)
	}
	b.binary, err = filepath.Abs(b.binary)
	return err
}

// measure runs one benchmark in an empty folder and writes its section.
func (b *bench) measure(ctx context.Context, k benchmark, file report.File) error {
	b.figures, b.notes = nil, nil
	if err := errors.Join(os.RemoveAll(b.dir), os.MkdirAll(b.dir, 0o755)); err != nil {
		return err
	}
	where, err := report.Machine()
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", k.name, where)
	if err := k.run(ctx, b); err != nil {
		return err
	}
	text := report.Table(b.figures, b.notes)
	fmt.Print(text, "\n")
	return errors.Join(file.Write(k.about, where+"\n\n"+text), os.RemoveAll(b.dir))
}

// note adds a remark to the section.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// progress tells whoever waits.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "  %s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
