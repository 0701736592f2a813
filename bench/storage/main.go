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
)

// benchmark is one section of the results.
type benchmark struct {
	name, about string
	run         func(ctx context.Context, b *bench) error
}

func benchmarks() []benchmark {
	return []benchmark{
		{"durable", "Bytes written durably", durable},
		{"cpu", "Processor time of recording", cpu},
		{"list", "Listing a month", list},
		{"memory", "Memory of an edge with many segments", memory},
		{"open", "Opening after kill -9", open},
		{"rebuild", "Index made again from the files", rebuild},
	}
}

const preface = `# Storage: what was measured

Made by ` + "`make bench-storage`" + `, see bench/storage. Values are medians of several rounds with the least and the
most in brackets; peer and project took turns. A ratio is taken in each round.
`

// bench is one run: its settings, and what it has found so far.
type bench struct {
	dir      string // for what is written; on the disk that is measured
	binary   string // branchline
	out      string // the file of results; empty for none
	rounds   int
	seconds  time.Duration // how long a round records
	segments int           // of the large store
	days     int           // of the index that a month is listed of
	keep     bool          // the large store stays, for the next run

	figures []report.Figure
	notes   []string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == openArgument {
		exit(openOnce(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, os.Args[1:]))
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "storage:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, args []string) error {
	var b bench
	flags := flag.NewFlagSet("storage", flag.ContinueOnError)
	flags.StringVar(&b.dir, "dir", filepath.Join(os.TempDir(), "branchline-bench"), "where to write: the disk measured")
	flags.StringVar(&b.binary, "binary", "bin/branchline", "the branchline to measure")
	flags.StringVar(&b.out, "out", "", "file of results; the sections of what is run are replaced")
	flags.IntVar(&b.rounds, "rounds", 5, "how often each figure is taken")
	flags.DurationVar(&b.seconds, "record", time.Minute, "how long a round records")
	flags.IntVar(&b.segments, "segments", 1_000_000, "segments of the large store")
	flags.IntVar(&b.days, "days", 365, "how long the year is of which a month is listed; at least 31")
	flags.BoolVar(&b.keep, "keep", false, "leave the large store for the next run")
	only := flags.String("only", "", "which benchmarks, separated by commas; all if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	known := benchmarks()
	picked := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, name := range picked {
		if !slices.ContainsFunc(known, func(k benchmark) bool { return k.name == name }) {
			return fmt.Errorf("no benchmark is called %q", name)
		}
	}
	for _, k := range known {
		if len(picked) > 0 && !slices.Contains(picked, k.name) {
			continue
		}
		if err := b.measure(ctx, k); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	if b.keep {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// measure runs one benchmark and writes its section.
func (b *bench) measure(ctx context.Context, k benchmark) error {
	b.figures, b.notes = nil, nil
	where, err := report.Machine()
	if err != nil {
		return err
	}
	fsType, disk := diskOf(b.dir)
	where += fmt.Sprintf(" Written to %s on %s.", fsType, disk)
	fmt.Printf("%s: %s\n", k.name, where)
	if err := k.run(ctx, b); err != nil {
		return err
	}
	text := report.Table(b.figures, b.notes)
	fmt.Print(text, "\n")
	file := report.File{Path: b.out, Preface: preface}
	for _, k := range benchmarks() {
		file.Sections = append(file.Sections, k.about)
	}
	return file.Write(k.about, where+"\n\n"+text)
}

// note adds a remark to the section.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// progress tells whoever waits.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "  %s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
