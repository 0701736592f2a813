package volume

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// The file systems that can be made.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
)

// Least is the smallest size of a volume, in bytes: XFS refuses less.
const Least = 320 << 20

// Volume is a mounted file system. Its methods are not to be called concurrently.
type Volume struct {
	Dir    string // where it is mounted
	device string // what is mounted: a file
	kind   string
	up     bool
}

// Missing returns why volumes cannot be made here, nil if they can.
func Missing(programs ...string) error {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("loop devices are needed: %w", err)
	}
	for _, p := range append(programs, "mount", "umount", "mkfs.ext4", "mkfs.xfs") {
		if _, err := exec.LookPath(p); err != nil {
			return err
		}
	}
	return nil
}

// Make makes a file system of a size in the file dir.img, which takes no space until it is used, and
// mounts it at dir.
func Make(dir, kind string, size int64) (*Volume, error) {
	image := dir + ".img"
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(size)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	return MakeOn(image, dir, kind)
}

// MakeOn makes a file system on a file or device that is there, and mounts it at dir.
func MakeOn(device, dir, kind string) (*Volume, error) {
	args := map[string][]string{Ext4: {"-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"}, XFS: {"-q", "-f"}}
	if err := run("mkfs."+kind, append(args[kind], device)...); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	v := &Volume{Dir: dir, device: device, kind: kind}
	return v, v.Mount()
}

// Mount mounts the volume, which goes by its journal first.
func (v *Volume) Mount() error {
	err := run("mount", "-o", "loop", "-t", v.kind, v.device, v.Dir)
	v.up = v.up || err == nil
	return err
}

// Unmount unmounts the volume, if it is mounted. No process may use it any more.
func (v *Volume) Unmount() error {
	if !v.up {
		return nil
	}
	err := run("umount", v.Dir)
	v.up = err != nil
	return err
}

// Cut cuts the power of the volume that dir is on: from now on nothing reaches its device, and all use of
// it fails until it is mounted again. It is what xfs_io -x -c shutdown does, and ext4 knows it, too.
func Cut(dir string) error {
	const goingDown, withoutFlush = 0x8004587d, 2 // _IOR('X', 125, uint32) of both, NOLOGFLUSH
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cut power: %w", err)
	}
	defer d.Close()
	how := uint32(withoutFlush)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), goingDown, uintptr(unsafe.Pointer(&how)))
	if errno != 0 {
		return fmt.Errorf("cut power of %s: %w", filepath.Base(dir), errno)
	}
	return nil
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
