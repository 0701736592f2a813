package power

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/e2e/volume"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/internal/testcam"
)

const (
	// mostLost is how much of a stream a power cut may cost: the second since the last sync, and the
	// fragment in the making.
	mostLost = 1500 * time.Millisecond
	// streams is how many cameras are recorded.
	streams = 8
	// cutsOfVolume is how many cuts a volume goes through, one after the other, before a new one is taken.
	cutsOfVolume = 30
)

// trial is a store that is stopped again and again, with all that it has acknowledged.
type trial struct {
	dir     string
	cams    []*testcam.Camera
	cfgs    []edge.CameraConfig
	rand    *rand.Rand
	stop    func(p *process) error // power or process
	restore func() error           // after it
	exact   bool                   // nothing that was written may be lost

	acked record
	last  []line    // of the process before
	cut   time.Time // when that was stopped

	sealed, gaps, stops, early int
	written, shown, opening    []time.Duration // lost, and the time to open
}

// round opens the store, checks it against what was acknowledged, records for a while and stops it.
func (c *trial) round(t *testing.T) {
	t.Helper()
	p := start(t, nodeConfig{Dir: c.dir, Cameras: c.cfgs})
	if c.early++; c.early%6 == 0 { // while it opens, or soon after
		wait(c.rand, 0, 400*time.Millisecond)
		c.end(t, p, nil)
		return
	}
	c.check(t, p)
	from := len(p.told())
	for i := range c.cams {
		if c.rand.IntN(4) == 0 {
			wait(c.rand, 0, 100*time.Millisecond)
			c.cams[i].Drop()
		}
	}
	wait(c.rand, 800*time.Millisecond, 6*time.Second)
	c.end(t, p, func(lines []line) []line { return lines[from:] })
}

// end stops the process. What it acknowledged before is noted.
func (c *trial) end(t *testing.T, p *process, since func([]line) []line) {
	t.Helper()
	cut := time.Now()
	err := c.stop(p)
	p.kill()
	if err == nil {
		err = c.restore()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.stops++
	c.acked.add(p.told(), cut)
	if since != nil {
		c.last, c.cut = since(p.told()), cut
	}
}

// check compares what is found after opening with what is acknowledged.
func (c *trial) check(t *testing.T, p *process) {
	t.Helper()
	checked := p.until(t, "the store", func(l line) bool { return l.Kind == "checked" || l.Kind == "bad" })
	found := newRecord()
	found.add(p.told(), checked.At)
	var wrong []string
	for _, l := range p.told() {
		switch l.Kind {
		case "bad":
			wrong = append(wrong, l.Text)
		case "opened":
			c.opening = append(c.opening, l.Took)
		}
	}
	wrong = append(wrong, c.acked.missing(found)...)
	wrong = append(wrong, found.overlaps()...)
	most := mostLost
	if c.exact {
		most = 0
	}
	written, shown := losses(c.last, c.cut, found)
	for _, cfg := range c.cfgs {
		stream := cfg.ID.Stream(edge.Main)
		d := written[stream]
		c.written = append(c.written, d)
		if d > most {
			wrong = append(wrong, fmt.Sprintf("%v of %s were written and are lost", d, stream))
		}
	}
	for _, d := range shown {
		c.shown = append(c.shown, d)
	}
	c.sealed, c.gaps = max(c.sealed, len(c.acked.sealed)), max(c.gaps, len(c.acked.gaps))
	c.acked = found
	if len(wrong) > 0 {
		wrong = append(wrong, fmt.Sprint("stopped at ", c.cut.UTC().Format(clockTime), " after"))
		for _, l := range c.last {
			wrong = append(wrong, l.At.UTC().Format(clockTime)+" "+l.String())
		}
	}
	c.last = nil
	complain(t, p, wrong)
}

func worst(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", slices.Max(all).Seconds())
}

func median(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f", all[len(all)/2].Seconds())
}

// head names the columns of trial.row.
func head() string {
	return "on    stops segments gaps lost  of what was written     of what was shown       opening\n" +
		"            acknowledged        median s  worst s      median s  worst s    median s  worst s"
}

func (c *trial) row(name string) string {
	return fmt.Sprintf("%-5s %5d %8d %4d %4d %9s %8s %13s %8s %11s %8s", name, c.stops, c.sealed, c.gaps, 0,
		median(c.written), worst(c.written), median(c.shown), worst(c.shown), median(c.opening), worst(c.opening))
}

// merge adds the counts of another trial, over another store.
func (c *trial) merge(o *trial) {
	c.stops, c.sealed, c.gaps = c.stops+o.stops, c.sealed+o.sealed, c.gaps+o.gaps
	c.written, c.shown = append(c.written, o.written...), append(c.shown, o.shown...)
	c.opening = append(c.opening, o.opening...)
}

// option returns a number from the environment.
func option(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestKill kills the recorder at random moments: nothing that it had written may be lost.
func TestKill(t *testing.T) {
	kills := option(t, "KILLS", 8)
	cams, cfgs := cameras(t, 0, streams)
	c := &trial{dir: t.TempDir(), cams: cams, cfgs: cfgs, exact: true, acked: newRecord(),
		rand: rand.New(rand.NewPCG(uint64(kills), 1)),
		stop: func(p *process) error { p.kill(); return nil }, restore: func() error { return nil }}
	for range kills {
		c.round(t)
	}
	c.early = 0
	c.round(t)
	t.Logf("\n%s\n%s", head(), c.row("kill"))
}

// needVolumes skips the test unless real volumes are wanted and can be had.
func needVolumes(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv("BRANCHLINE_POWER") == "" {
		t.Skip("real volumes are for make test-power alone")
	}
	if err := volume.Missing(programs...); err != nil {
		t.Skip("real volumes cannot be had here: ", err)
	}
}

// TestPowerCut cuts the power of real volumes at random moments.
func TestPowerCut(t *testing.T) {
	needVolumes(t)
	cuts := option(t, "CUTS", 60)
	table := []string{head()}
	for _, kind := range []string{volume.Ext4, volume.XFS} {
		total := &trial{}
		for done := 0; done < cuts/2; done += cutsOfVolume {
			n := min(cutsOfVolume, cuts/2-done)
			t.Run(fmt.Sprintf("%s from %d", kind, done), func(t *testing.T) { total.merge(powerCuts(t, kind, uint64(done), n)) })
			if t.Failed() {
				return
			}
		}
		table = append(table, total.row(kind))
	}
	fmt.Printf("power cuts, %d streams:\n%s\n", streams, strings.Join(table, "\n"))
}

// imageDir is where the volumes' files are: DIR, or else in memory where that can be had. What is lost must
// not hang on how busy the disk of the machine is.
func imageDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(cmp.Or(os.Getenv("DIR"), "/dev/shm"), "power-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func powerCuts(t *testing.T, kind string, seed uint64, n int) *trial {
	v, err := volume.Make(filepath.Join(imageDir(t), "v"), kind, 2<<30)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Unmount(); err != nil {
			t.Error(err)
		}
	})
	cams, cfgs := cameras(t, 0, streams)
	c := &trial{dir: filepath.Join(v.Dir, "store"), cams: cams, cfgs: cfgs, acked: newRecord(),
		rand: rand.New(rand.NewPCG(seed, 2)),
		stop: func(*process) error { return volume.Cut(v.Dir) },
		restore: func() error {
			if err := v.Unmount(); err != nil {
				return err
			}
			return v.Mount()
		}}
	for range n {
		c.round(t)
	}
	p := start(t, nodeConfig{Dir: c.dir, Cameras: c.cfgs})
	c.check(t, p)
	p.kill()
	return c
}
