package index

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sys/unix"
)

// ErrDamaged is about a database that cannot be trusted: what it says may be wrong, and what it lacks
// may have been there.
var ErrDamaged = errors.New("index is damaged")

// Verify reads all tables that are in use and ends a lazy opening. It wraps [ErrDamaged] for a damaged
// or missing one, upon which the caller should Reset and fill the database again; and ctx's error.
func (db *DB) Verify(ctx context.Context) error {
	if err := db.enter(); err != nil {
		return err
	}
	tables := newestFirst(db.db.Tables())
	db.calls.Done()
	if err := verifyTables(ctx, db.path(), tables, math.MaxInt64); err != nil {
		return fmt.Errorf("verify index %s: %w", db.dir, err)
	}
	if err := db.opened(); err != nil {
		return fmt.Errorf("verify index %s: %w", db.dir, err)
	}
	return nil
}

// newestFirst sorts tables by level: what changes often has its newest state in the first ones.
func newestFirst(tables []badger.TableInfo) []badger.TableInfo {
	slices.SortFunc(tables, func(a, b badger.TableInfo) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(b.ID, a.ID))
	})
	return tables
}

// verifyTables reads tables, in order, as long as they have no more bytes than most.
func verifyTables(ctx context.Context, dir string, tables []badger.TableInfo, most int64) error {
	for _, t := range tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if most -= int64(t.OnDiskSize); most < 0 {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, table.IDToFilename(t.ID)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // merged with others meanwhile
		}
		if err == nil {
			err = verifyTable(data, true)
		}
		if err != nil {
			return fmt.Errorf("table %d: %w: %w", t.ID, ErrDamaged, err)
		}
	}
	return nil
}

// verify looks at every table of the database and returns an error for a damaged or missing part: of
// tables only the parts that the engine reads at opening, or with all everything. The engine would check
// them too, but in goroutines of its own, whose panics end the process.
func verify(dir string, all bool) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(files) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST")); err != nil {
		return fmt.Errorf("list of tables is missing: %w", err)
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".sst" {
			continue
		}
		if err := verifyFile(filepath.Join(dir, f.Name()), all); err != nil {
			return fmt.Errorf("table %s: %w", f.Name(), err)
		}
	}
	return nil
}

// verifyFile maps the file, so that only what is looked at is read.
func verifyFile(path string, all bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < 8 {
		return errors.New("too short")
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	return errors.Join(verifyTable(data, all), unix.Munmap(data))
}

func verifyTable(data []byte, all bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable: %.80v", p)
		}
	}()
	if err := verifyEnd(data); err != nil {
		return err
	}
	t, err := table.OpenInMemoryTable(data, 1, &table.Options{
		BlockSize: 4 << 10, Compression: options.Snappy, ChkMode: options.OnBlockRead})
	if err != nil || !all {
		return err
	}
	return t.VerifyChecksum()
}

// verifyEnd checks the two lengths at a table's end (index, its length, checksum, its length), with
// which the engine reads out of bounds and ends the process when they are wrong.
func verifyEnd(data []byte) error {
	n := int64(len(data))
	if n < 8 {
		return errors.New("too short")
	}
	checksum := int64(binary.BigEndian.Uint32(data[n-4:]))
	if checksum > n-8 {
		return errors.New("checksum out of bounds")
	}
	if index := int64(binary.BigEndian.Uint32(data[n-8-checksum:])); index > n-8-checksum {
		return errors.New("index out of bounds")
	}
	return nil
}

// damaged wraps what the engine says of damage with [ErrDamaged].
func (tx *Tx) damaged(err error) error {
	if !errors.Is(err, y.ErrChecksumMismatch) {
		return err
	}
	if tx.db.opt.Damaged != nil {
		tx.db.opt.Damaged()
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
