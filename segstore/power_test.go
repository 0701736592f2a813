package segstore

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	disks "github.com/branchline-video/branchline/e2e/volume"
)

// What tells the test binary that it is the process whose power is cut: the store's directory, whether
// it is an origin, whether it is only opened, and before which change the cut comes.
const powerVictim = "BRANCHLINE_POWER_VICTIM"

// cutting is the disk whose power is cut before its k-th change, which ends this process, too.
type cutting struct {
	disk
	dir  string
	left *atomic.Int64
}

func (d cutting) step() {
	if d.left.Add(-1) >= 0 {
		return
	}
	if err := disks.Cut(d.dir); err != nil {
		fmt.Println("not cut:", err)
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (d cutting) Open(path string, flag int) (file, error) {
	d.step()
	f, err := d.disk.Open(path, flag)
	return cuttingFile{f, d}, err
}
func (d cutting) Rename(from, to string) error { d.step(); return d.disk.Rename(from, to) }
func (d cutting) Remove(path string) error     { d.step(); return d.disk.Remove(path) }
func (d cutting) MkdirAll(path string) error   { d.step(); return d.disk.MkdirAll(path) }
func (d cutting) SyncDir(path string) error    { d.step(); return d.disk.SyncDir(path) }

type cuttingFile struct {
	file
	d cutting
}

func (f cuttingFile) WriteAt(b []byte, at int64) (int, error) {
	f.d.step()
	return f.file.WriteAt(b, at)
}
func (f cuttingFile) Truncate(n int64) error { f.d.step(); return f.file.Truncate(n) }
func (f cuttingFile) Sync() error            { f.d.step(); return f.file.Sync() }

// TestPowerVictim is no test but the process whose power TestRealCutAtEveryStep cuts.
func TestPowerVictim(t *testing.T) {
	var dir string
	var origin, openOnly bool
	var k int64
	if _, err := fmt.Sscan(os.Getenv(powerVictim), &dir, &origin, &openOnly, &k); err != nil {
		return
	}
	var opt Options
	if origin {
		opt.Signer = testKey()
	}
	d := cutting{dir: dir, left: new(atomic.Int64)}
	d.left.Store(k)
	s, err := openStill(dir, opt, d)
	must(t, err)
	must(t, s.settleOnce(t.Context()))
	note := func(format string, args ...any) { fmt.Println("noted " + fmt.Sprintf(format, args...)) }
	if openOnly {
		note("end")
	} else {
		must(t, everything(s, fullLife(), note))
	}
	d.left.Store(1 << 40)
	must(t, s.Close())
}

// victim runs the process, and returns what it noted and whether it came to the end.
func victim(t *testing.T, dir string, origin, openOnly bool, k int) (acked []string, finished bool) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerVictim$")
	cmd.Env = append(os.Environ(), powerVictim+"="+fmt.Sprint(dir, " ", origin, " ", openOnly, " ", k))
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	lines := bufio.NewScanner(bytes.NewReader(out.Bytes()))
	for lines.Scan() {
		if what, ok := strings.CutPrefix(lines.Text(), "noted "); ok {
			acked = append(acked, what)
		}
	}
	finished = len(acked) > 0 && acked[len(acked)-1] == "end"
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if killed == finished {
		t.Fatalf("cut before change %d: %v\n%s", k, err, out.String())
	}
	return acked, finished
}

// TestRealCutAtEveryStep cuts the power of a real ext4 and a real XFS volume before every change that a
// store makes in its life, and before every one of opening it after such a cut.
func TestRealCutAtEveryStep(t *testing.T) {
	if os.Getenv("BRANCHLINE_POWER") == "" {
		t.Skip("power is cut by make test-power alone")
	}
	if err := disks.Missing(); err != nil {
		t.Skip("no volume whose power could be cut: ", err)
	}
	for _, kind := range []string{disks.Ext4, disks.XFS} {
		for _, origin := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s origin %v", kind, origin), func(t *testing.T) {
				t.Parallel()
				v, err := disks.Make(filepath.Join(t.TempDir(), "v"), kind, 1<<30)
				must(t, err)
				defer func() { must(t, v.Unmount()) }()
				life := cutRealSteps(t, v, origin, "", nil)
				first := filepath.Join(v.Dir, "first")
				acked := cutOnce(t, v, first, origin, life-2) // while its last segment grows
				base := clone(t, first)
				opening := cutRealSteps(t, v, origin, base, acked)
				fmt.Printf("%s, origin %v: power cut at each of %d steps of a life and %d of opening: nothing lost\n",
					kind, origin, life, opening)
			})
		}
	}
}

// cutOnce cuts power before change k of a life, or of opening the store if it is there, mounts the volume
// again, and returns what was noted; nil if there is no such change.
func cutOnce(t *testing.T, v *disks.Volume, dir string, origin bool, k int) []string {
	t.Helper()
	_, err := os.Stat(dir)
	must(t, os.MkdirAll(dir, 0o755))
	syscall.Sync()
	acked, finished := victim(t, dir, origin, err == nil, k)
	if finished {
		return nil
	}
	must(t, v.Unmount())
	must(t, v.Mount())
	return append(acked, "cut")
}

// cutRealSteps cuts before every change of a new store's life, or, if base is given, of opening a copy of it.
func cutRealSteps(t *testing.T, v *disks.Volume, origin bool, base string, before []string) int {
	t.Helper()
	for k := 0; k < 1000; k++ {
		dir := filepath.Join(v.Dir, strconv.Itoa(k))
		if base != "" {
			must(t, copyAll(base, dir))
		}
		acked := cutOnce(t, v, dir, origin, k)
		if acked == nil {
			return k
		}
		checkOutcome(t, dir, origin, append(acked, before...))
		if t.Failed() {
			t.Fatalf("after a cut before change %d, acknowledged %q and %q", k, before, acked)
		}
		must(t, os.RemoveAll(dir))
	}
	t.Fatal("it never ends")
	return 0
}
