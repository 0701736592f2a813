package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
)

// verify reads every table of the database and returns an error for a damaged or missing part. The
// engine would check them too, but in goroutines of its own, whose panics end the process.
func verify(dir string) error {
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
		if err := verifyTable(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("table %s: %w", f.Name(), err)
		}
	}
	return nil
}

func verifyTable(path string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable: %.80v", p)
		}
	}()
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := verifyEnd(data); err != nil {
		return err
	}
	t, err := table.OpenInMemoryTable(data, 1, &table.Options{
		BlockSize: 4 << 10, Compression: options.Snappy, ChkMode: options.OnTableAndBlockRead})
	if err != nil {
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
