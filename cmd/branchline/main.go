package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/branchline-video/branchline/internal/clock"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
	exitPoor    = 3 // of a test: it works, and not as it should
)

// usageError is an error of the person who started the program.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// terminal is what a command may touch of the world.
type terminal struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
}

// now is the time of day to which relative times of the command line refer.
func (t *terminal) now() time.Time { return clock.Clock{}.Now() }

// commands is the command line, as kong reads it.
type commands struct {
	LogLevel string `help:"Least level to log: debug, info, warn or error; the demo's default is warn." default:""`
	LogJSON  bool   `help:"Log as JSON lines."`

	Edge edgeCommand  `cmd:"" help:"Run the node of a branch: record cameras, answer hubs."`
	Hub  hubCommand   `cmd:"" help:"Run the node at the centre: follow sites, fetch, serve the page."`
	Demo demoCommand  `cmd:"" help:"Run a hub, two sites and four synthetic cameras in one process."`
	Site siteCommands `cmd:"" help:"Add, list, approve and revoke sites; on the hub's machine."`

	Link linkCommands `cmd:"" help:"Test, show and log the links of an edge; on its machine."`

	Authority authorityCommands `cmd:"" help:"The authority that issues the sites' certificates; on the hub's machine."`

	Uplink  uplinkCommand  `cmd:"" help:"Tell how an edge's uplink stands: budget, month, who watches; on its machine."`
	Camera  cameraCommand  `cmd:"" help:"Run a synthetic RTSP camera."`
	Seg     segCommands    `cmd:"" help:"Inspect recordings on disk."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program as a value: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c commands
	helped := false
	parser, err := kong.New(&c, kong.Name("branchline"),
		kong.Description("An interconnect for video surveillance: branches record, the centre plays."),
		kong.Writers(stdout, stderr), kong.UsageOnError(), kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}))
	if err != nil {
		return report(stderr, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return report(stderr, usageError{fmt.Errorf("%w; see branchline --help", err)})
	}
	log, err := c.logger(stderr, parsed.Command() == "demo")
	if err != nil {
		return report(stderr, err)
	}
	return report(stderr, parsed.Run(&terminal{ctx: ctx, stdout: stdout, stderr: stderr, log: log}))
}

func (c *commands) logger(w io.Writer, quiet bool) (*slog.Logger, error) {
	level := slog.LevelInfo
	if quiet {
		level = slog.LevelWarn
	}
	if c.LogLevel != "" {
		if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return nil, usageError{fmt.Errorf("--log-level %q: is none of debug, info, warn, error", c.LogLevel)}
		}
	}
	opt := &slog.HandlerOptions{Level: level}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return slog.New(slog.NewTextHandler(w, opt)), nil
}

func report(stderr io.Writer, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usageError)):
		fmt.Fprintln(stderr, "branchline:", err)
		return exitUsage
	case errors.Is(err, errPoor):
		fmt.Fprintln(stderr, "branchline:", err)
		return exitPoor
	default:
		fmt.Fprintln(stderr, "branchline:", err)
		return exitFailure
	}
}

type versionCommand struct {
	JSON bool `help:"Print JSON."`
}

// Run prints the version, the Go release and the platform.
func (v *versionCommand) Run(t *terminal) error {
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	if v.JSON {
		return printJSON(t.stdout, map[string]string{"version": version, "revision": revision,
			"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	_, err := fmt.Fprintf(t.stdout, "branchline %s (%s, %s)\n", version, runtime.Version(), platform)
	return err
}

// checkFor returns an error for a --for that cannot be meant.
func checkFor(d time.Duration) error {
	if d < 0 {
		return usageError{fmt.Errorf("--for %v is negative", d)}
	}
	return nil
}

// wait returns when ctx ends, or after d unless that is zero.
func wait(ctx context.Context, d time.Duration) {
	if d == 0 {
		<-ctx.Done()
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
