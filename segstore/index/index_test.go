package index

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
)

// TestMain leaves out two goroutines that the engine itself forgets when its opening fails.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

func open(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(dir, Options{MemoryMB: 12})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func put(t *testing.T, db *DB, pairs ...string) {
	t.Helper()
	err := db.Update(func(tx *Tx) error {
		for _, p := range pairs {
			k, v, _ := strings.Cut(p, "=")
			if err := tx.Set([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func dump(t *testing.T, db *DB, prefix, from string, reverse bool) string {
	t.Helper()
	var out []string
	err := db.View(func(tx *Tx) error {
		var f []byte
		if from != "" {
			f = []byte(from)
		}
		scan := tx.Scan
		if reverse {
			scan = tx.ScanReverse
		}
		for k, v := range scan([]byte(prefix), f) {
			out = append(out, fmt.Sprintf("%s=%s", k, v))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestScan(t *testing.T) {
	db := open(t, t.TempDir())
	defer db.Close()
	put(t, db, "a1=x", "b1=1", "b2=2", "b3=3", "b\xff\xff=last", "c1=y")
	for _, c := range []struct {
		prefix, from string
		reverse      bool
		want         string
	}{
		{"b", "", false, "b1=1 b2=2 b3=3 b\xff\xff=last"},
		{"b", "b2", false, "b2=2 b3=3 b\xff\xff=last"},
		{"b", "a", false, "b1=1 b2=2 b3=3 b\xff\xff=last"},
		{"b", "", true, "b\xff\xff=last b3=3 b2=2 b1=1"},
		{"b", "b2", true, "b2=2 b1=1"},
		{"b", "b25", true, "b2=2 b1=1"},
		{"d", "", false, ""},
		{"d", "", true, ""},
	} {
		if got := dump(t, db, c.prefix, c.from, c.reverse); got != c.want {
			t.Errorf("%q from %q reverse %v: %q, want %q", c.prefix, c.from, c.reverse, got, c.want)
		}
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	put(t, db, "a=1")
	broken := errors.New("broken")
	err := db.Update(func(tx *Tx) error {
		tx.Set([]byte("a"), []byte("2"))
		tx.Set([]byte("b"), []byte("2"))
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("update returned %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	defer db.Close()
	if got := dump(t, db, "", "", false); got != "a=1" || db.Fresh() {
		t.Errorf("after reopening: %q, fresh %v", got, db.Fresh())
	}
	err = db.View(func(tx *Tx) error { _, err := tx.Get([]byte("b")); return err })
	if !errors.Is(err, branchline.ErrNotFound) {
		t.Errorf("get of a missing key: %v", err)
	}
}

func TestLimits(t *testing.T) {
	db := open(t, t.TempDir())
	defer db.Close()
	for _, c := range []struct{ key, value, keys int }{
		{MaxKey + 1, 1, 1}, {1, MaxValue + 1, 1}, {0, 1, 1}, {9, 99, 100_000},
	} {
		err := db.Update(func(tx *Tx) error {
			for i := range c.keys {
				key := bytes.Repeat([]byte{'k'}, c.key)
				if c.keys > 1 {
					key = fmt.Appendf(nil, "%0*d", c.key, i)
				}
				if err := tx.Set(key, make([]byte, c.value)); err != nil {
					return err
				}
			}
			return nil
		})
		if !errors.Is(err, branchline.ErrTooLarge) {
			t.Errorf("%d keys of %d with %d bytes: %v", c.keys, c.key, c.value, err)
		}
	}
	put(t, db, strings.Repeat("k", MaxKey)+"="+strings.Repeat("v", MaxValue))
}

func TestSecondOpenIsBusy(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	defer db.Close()
	if _, err := Open(dir, Options{}); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("second open: %v", err)
	}
}

// TestFullDisk shows that nothing is written into the reserve, that a full disk is no reason not to
// open, and that writing resumes with space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	put(t, db, "a=1")
	ballast := filepath.Join(dir, "ballast")
	size := func() int64 {
		info, err := os.Stat(ballast)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	set := func() error { return db.Update(func(tx *Tx) error { return tx.Set([]byte("b"), []byte("2")) }) }
	free := int64(Reserve - 1)
	db.free = func(string) (int64, error) { return free, nil }
	for i := range updatesToOpen {
		if err := set(); err != nil {
			t.Fatalf("update %d in the reserve: %v", i, err)
		}
	}
	if err := set(); !errors.Is(err, branchline.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("update on a full disk: %v", err)
	}
	if got := dump(t, db, "", "", false); got != "a=1 b=2" {
		t.Errorf("reading on a full disk: %q", got)
	}
	free = 1 << 40
	if err := set(); err != nil || size() != ballastSize {
		t.Errorf("update with space again: %v, ballast %d", err, size())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	// Filled by something else to the last byte: the ballast is all there is.
	full := &DB{dir: dir, opt: Options{MemoryMB: 12}, log: db.log, turn: make(chan struct{}, 1), spare: updatesToOpen}
	full.free = func(string) (int64, error) { return ballastSize - size(), nil }
	if err := full.open(); err != nil || size() != 0 {
		t.Fatalf("open on a full disk: %v, ballast %d", err, size())
	}
	defer full.Close()
	if got := dump(t, full, "", "", false); got != "a=1 b=2" {
		t.Errorf("reading after opening on a full disk: %q", got)
	}
	put(t, full, "c=3")
	full.free = func(string) (int64, error) { return leastToOpen - 1, nil }
	if err := full.Update(func(*Tx) error { return nil }); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("update below the least: %v", err)
	}
	full.free = FreeSpace
	put(t, full, "d=4")
	if size() != ballastSize {
		t.Error("ballast not taken back")
	}
}

// TestDamage damages each file of the database: afterwards it opens, either with everything
// or fresh and empty, and never with wrong content.
func TestDamage(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lazy %v", lazy), func(t *testing.T) { testDamage(t, lazy) })
	}
}

func testDamage(t *testing.T, lazy bool) {
	for _, c := range []struct {
		name, glob string
		damage     func(path string) error
		fresh      bool
	}{
		{"table flipped", "*.sst", flip, true},
		{"table cut", "*.sst", func(p string) error { return os.Truncate(p, 100) }, true},
		{"table gone", "*.sst", os.Remove, true},
		{"manifest flipped", "MANIFEST", flip, true},
		{"manifest gone", "MANIFEST", os.Remove, true},
		{"key registry cut", "KEYREGISTRY", func(p string) error { return os.Truncate(p, 3) }, true},
		{"nothing", "*.sst", func(string) error { return nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			db := open(t, dir)
			random := rand.New(rand.NewPCG(1, 2))
			for i := range 50 {
				value := make([]byte, 1000)
				for j := range value {
					value[j] = byte(random.Uint32())
				}
				put(t, db, fmt.Sprintf("key%03d=%x", i, value))
			}
			want := dump(t, db, "", "", false)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "db", c.glob))
			if len(files) == 0 {
				t.Fatal("nothing to damage")
			}
			for _, f := range files {
				if err := c.damage(f); err != nil {
					t.Fatal(err)
				}
			}
			db, err := Open(dir, Options{MemoryMB: 12, Lazy: lazy})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.Verify(t.Context()); errors.Is(err, ErrDamaged) && lazy {
				reset(t, db, err)
				c.fresh = true
			} else if err != nil {
				t.Fatal(err)
			}
			if db.Fresh() != c.fresh {
				t.Errorf("fresh %v", db.Fresh())
			}
			if c.fresh {
				want = ""
			}
			if got := dump(t, db, "", "", false); got != want {
				t.Errorf("content: %d bytes, want %d", len(got), len(want))
			}
			if _, err := os.Stat(filepath.Join(dir, "damaged")); (err == nil) != c.fresh {
				t.Errorf("damaged/: %v", err)
			}
		})
	}
}

// reset sets the database aside, and sees that it can be used afterwards.
func reset(t *testing.T, db *DB, cause error) {
	if err := db.Reset(cause); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a=1")
	if got := dump(t, db, "", "", false); got != "a=1" {
		t.Errorf("after the reset: %q", got)
	}
	if err := db.Update(func(tx *Tx) error { return tx.Delete([]byte("a")) }); err != nil {
		t.Fatal(err)
	}
}

// TestResetUnderLoad: calls during a reset wait, and those after it see the empty database.
func TestResetUnderLoad(t *testing.T) {
	db, err := Open(t.TempDir(), Options{MemoryMB: 12, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var work sync.WaitGroup
	busy := make(chan struct{}, 4)
	for w := range 4 {
		work.Go(func() {
			for i := range 200 {
				select {
				case busy <- struct{}{}:
				default:
				}
				key := fmt.Appendf(nil, "%d-%d", w, i)
				if err := db.Update(func(tx *Tx) error { return tx.Set(key, key) }); err != nil {
					t.Error(err)
				}
				get := func(tx *Tx) error { _, err := tx.Get([]byte("none")); return err }
				if err := db.View(get); !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		for range 2 * cap(busy) { // some are at work, and others wait for their turn
			<-busy
		}
		if err := db.Reset(errors.New("test")); err != nil {
			t.Error(err)
		}
	}
	work.Wait()
	put(t, db, "last=1")
	if err := db.Verify(t.Context()); err != nil || !db.Fresh() {
		t.Errorf("after resets: fresh %v, %v", db.Fresh(), err)
	}
}

func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o644)
}

// TestLazyOpeningIsUnfinished until the tables were read, so that a process that dies of them comes up.
func TestLazyOpeningIsUnfinished(t *testing.T) {
	dir := t.TempDir()
	mark := filepath.Join(dir, "opening")
	for _, verify := range []bool{true, false} {
		db, err := Open(dir, Options{MemoryMB: 12, Lazy: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(mark); err != nil {
			t.Errorf("no mark while unverified: %v", err)
		}
		if verify {
			if err := db.Verify(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			db.Close()
		}
		if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mark stays after verify %v: %v", verify, err)
		}
		db.Close()
	}
}

func TestOpeningsThatNeverFinish(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	put(t, db, "a=1")
	db.Close()
	for _, c := range []struct {
		marks string
		fresh bool
	}{{"..", false}, {"...", true}} {
		if err := os.WriteFile(filepath.Join(dir, "opening"), []byte(c.marks), 0o644); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir)
		if db.Fresh() != c.fresh {
			t.Errorf("after %d unfinished openings: fresh %v", len(c.marks), db.Fresh())
		}
		db.Close()
	}
}
