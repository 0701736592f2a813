package index

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/branchline-video/branchline"
)

// makeRoom returns an error unless the reserve is free. Short of it, it gives up the ballast, so that
// merging that the engine has begun can end; with plenty, it takes the ballast back.
func (db *DB) makeRoom() error {
	free, err := db.free(db.dir)
	if err != nil {
		return fmt.Errorf("read free space: %w", err)
	}
	ballast := filepath.Join(db.dir, "ballast")
	if free >= Reserve {
		if free >= Reserve+2*ballastSize {
			return allocate(ballast, ballastSize)
		}
		return nil
	}
	if info, err := os.Stat(ballast); err == nil && info.Size() > 0 {
		db.log.Warn("disk almost full: index gives up its ballast", "dir", db.dir, "free", free)
		if err := os.Truncate(ballast, 0); err != nil {
			return fmt.Errorf("give up ballast: %w", err)
		}
		if free, err = db.free(db.dir); err != nil {
			return fmt.Errorf("read free space: %w", err)
		}
	}
	if free < Reserve {
		return fmt.Errorf("disk full, %d bytes free and %d needed: %w", free, int64(Reserve), branchline.ErrUnavailable)
	}
	return nil
}

// allocate makes a file of really allocated bytes, unless it has that size already.
func allocate(path string, size int64) error {
	if info, err := os.Stat(path); err == nil && info.Size() >= size {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err == nil {
		return nil
	}
	zero := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zero)) {
		if _, err := f.WriteAt(zero, at); err != nil {
			return fmt.Errorf("allocate ballast: %w", err)
		}
	}
	return nil
}

// freeSpace returns how many bytes an ordinary user may still write on dir's volume.
func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // 32 bits wide on some machines
}
