package index

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestRelieve: on a full disk what frees space is entered when nothing else is, and the ballast given up
// only when there is no other way.
func TestRelieve(t *testing.T) {
	db, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	free := int64(Reserve + 2*ballastSize)
	db.free = func(string) (int64, error) { return free, nil }
	ballast := func() int64 {
		info, err := os.Stat(db.ballast())
		if err != nil {
			return 0
		}
		return info.Size()
	}
	set := func(tx *Tx) error { return tx.Set([]byte("k"), []byte("v")) }
	if err := db.Update(set); err != nil || ballast() != ballastSize {
		t.Fatalf("with plenty of space: %v, ballast of %d", err, ballast())
	}
	db.spare = 0
	for _, c := range []struct {
		name         string
		free         int64
		given        int64 // by the ballast, when it is given up
		update, okay bool
		ballast      int64
	}{
		{"below the reserve", Reserve - 1, 0, false, true, ballastSize},
		{"as little as may be", leastToOpen, 0, false, true, ballastSize},
		{"less, but for the ballast", 0, ballastSize, false, true, 0},
		{"less, and no ballast", 0, 0, false, false, 0},
		{"space again", Reserve, 0, true, true, 0},
		{"plenty of it", Reserve + 2*ballastSize, 0, true, true, ballastSize},
	} {
		free = c.free
		if err := db.Update(set); (err == nil) != c.update {
			t.Errorf("%s: update: %v", c.name, err)
		}
		db.free = func(string) (int64, error) {
			if ballast() == 0 {
				return c.free + c.given, nil
			}
			return c.free, nil
		}
		err := db.Relieve(set)
		full := errors.Is(err, syscall.ENOSPC) && errors.Is(err, branchline.ErrUnavailable)
		if (err == nil) != c.okay || err != nil && !full {
			t.Errorf("%s: relieve: %v", c.name, err)
		}
		if ballast() != c.ballast {
			t.Errorf("%s: ballast of %d, want %d", c.name, ballast(), c.ballast)
		}
		db.free = func(string) (int64, error) { return free, nil }
	}
}
