package index

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/branchline-video/branchline"
)

// errFull is about a volume with too little free space. It wraps [branchline.ErrUnavailable] and ENOSPC.
func errFull(free, needed int64) error {
	return fmt.Errorf("%d bytes free and %d needed: %w: %w", free, needed, syscall.ENOSPC, branchline.ErrUnavailable)
}

// room returns an error unless an Update may write. With plenty of space it takes the ballast back.
func (db *DB) room() error {
	free, err := db.free(db.dir)
	switch {
	case err != nil:
		return fmt.Errorf("read free space: %w", err)
	case free >= Reserve+2*ballastSize:
		return allocate(db.ballast(), ballastSize)
	case free >= Reserve:
		return nil
	case free >= leastToOpen && db.spare > 0:
		db.spare--
		return nil
	}
	return errFull(free, Reserve)
}

// roomToOpen gives up the ballast if the disk is almost full, so that a node starts on a disk that
// something else has filled. Its error means that even that is too little.
func (db *DB) roomToOpen() error {
	free, err := db.free(db.dir)
	if err != nil {
		return fmt.Errorf("read free space: %w", err)
	}
	if free >= Reserve {
		return nil
	}
	if info, err := os.Stat(db.ballast()); err == nil && info.Size() > 0 {
		db.log.Warn("disk almost full: index gives up its ballast", "dir", db.dir, "free", free)
		if err := os.Truncate(db.ballast(), 0); err != nil {
			return fmt.Errorf("give up ballast: %w", err)
		}
		if free, err = db.free(db.dir); err != nil {
			return fmt.Errorf("read free space: %w", err)
		}
	}
	if free < leastToOpen {
		return errFull(free, leastToOpen)
	}
	return nil
}

func (db *DB) ballast() string { return filepath.Join(db.dir, "ballast") }

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

// FreeSpace returns how many bytes an ordinary user may still write on dir's volume.
func FreeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // 32 bits wide on some machines
}

// VolumeSize returns the size in bytes of dir's volume.
func VolumeSize(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Blocks) * int64(s.Bsize), nil //nolint:unconvert // 32 bits wide on some machines
}
