package segstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// MaxVolumes bounds the volumes of a store: a shelf of disks.
	MaxVolumes = 32
	// slowAfter is how long a volume's sync may take before new segments go to another one.
	slowAfter = 2 * time.Second
	// minFreeOnVolume must be free on a volume other than the store's own for segments to be written:
	// some seconds of everything that a node records, so that retention has time to act.
	minFreeOnVolume = 32 << 20

	storeFile   = "store"   // in the store's directory: its identifier
	volumeFile  = "volume"  // on a volume: the identifier of its store
	volumesFile = "volumes" // in the store's directory: which volumes were ever used, a path in each line
)

// volume is a directory that segments are kept in, usually the root of a disk of its own.
type volume struct {
	dir     string
	home    bool         // it is the store's own directory, with the index
	records bool         // new segments go there
	used    bool         // it is, or will be, among those that the store lists
	lock    func() error // ends this process's claim on it; nil for home and while absent
	clock   clock.Clock
	log     *slog.Logger

	mu      sync.Mutex
	absent  error     // why the volume cannot be used: not mounted, say
	device  uint64    // which it is on
	inode   uint64    // of its directory there
	failed  error     // a sync or removal failed: new segments go elsewhere while there is an elsewhere
	since   time.Time // of the same
	spared  time.Time // until then retention leaves it alone, as nothing could be removed
	syncing time.Time // when the sync that is under way began; zero while none is
}

// VolumeStats tells how a volume is. Its JSON names are a contract with scripts.
type VolumeStats struct {
	Dir     string    `json:"dir"`
	Free    int64     `json:"free"`              // bytes
	Size    int64     `json:"size"`              // bytes
	Absent  string    `json:"absent,omitempty"`  // why it cannot be used
	Suspect string    `json:"suspect,omitempty"` // how its disk failed
	Since   time.Time `json:"since,omitzero"`    // when it did
	Slow    bool      `json:"slow,omitempty"`    // a sync is taking long
}

// openVolumes finds the store's volumes: those of the options, those that it had before, which only keep what
// they have, and so does the store's own directory when there are others.
func (s *Store) openVolumes(dirs []string) (err error) {
	if len(dirs) > MaxVolumes {
		return fmt.Errorf("%d volumes: %w", len(dirs), branchline.ErrTooLarge)
	}
	if s.id, err = s.ownID(); err != nil {
		return err
	}
	if _, err := os.ReadFile(filepath.Join(s.dir, volumesFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read which volumes were used: %w", err)
	}
	used := volumeDirs(s.dir)[1:]
	for _, dir := range dirs {
		dir = filepath.Clean(dir)
		s.volumes = append(s.volumes, &volume{dir: dir, records: true, used: slices.Contains(used, dir),
			clock: s.clock, log: s.log})
	}
	for _, dir := range used {
		if !slices.ContainsFunc(s.volumes, func(v *volume) bool { return v.dir == dir }) {
			s.volumes = append(s.volumes, &volume{dir: dir, used: true, clock: s.clock, log: s.log})
			s.log.Warn("volume is not configured any more: what is on it is still kept and served; once it is gone "+
				"for good, delete its line", "dir", dir, "line in", filepath.Join(s.dir, volumesFile))
		}
	}
	home := &volume{dir: s.dir, home: true, records: len(dirs) == 0, clock: s.clock, log: s.log}
	s.volumes = append(s.volumes, home)
	for _, v := range s.volumes {
		err := s.prepareVolume(v)
		if v.home && err != nil {
			return err
		}
		v.away(err)
	}
	return s.listVolumes()
}

// ownID returns the identifier of the store, which its volumes carry.
func (s *Store) ownID() (string, error) {
	path := filepath.Join(s.dir, storeFile)
	text, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the store's identifier: %w", err)
	}
	var random [8]byte
	rand.Read(random[:])
	id := fmt.Sprintf("%x", random)
	return id, writeWhole(s.fs, path, []byte(id+"\n"))
}

// listVolumes notes durably which volumes the store has, so that none is forgotten while it is away.
func (s *Store) listVolumes() error {
	var lines []string
	listed := len(volumeDirs(s.dir)) - 1
	for _, v := range s.volumes {
		if !v.home && (v.used || v.present()) {
			v.used = true
			lines = append(lines, v.dir)
		}
	}
	if len(lines) == listed {
		return nil
	}
	return writeWhole(s.fs, filepath.Join(s.dir, volumesFile), []byte(strings.Join(lines, "\n")+"\n"))
}

// volumeDirs returns the directories in which a store's segments may be: its own, and those of all volumes
// that it ever had.
func volumeDirs(dir string) []string {
	dirs := []string{filepath.Clean(dir)}
	text, err := os.ReadFile(filepath.Join(dir, volumesFile))
	if err != nil {
		return dirs // one that cannot be read is taken for none; its volumes are then not looked at
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			dirs = append(dirs, line)
		}
	}
	return dirs
}

// prepareVolume makes the volume's directories. One that was used before is recognised by its mark, or by what
// is on it, so that nothing is written below a mount point while the disk is not there; and one of another
// store by its mark, so that no store takes another's recordings for its own.
func (s *Store) prepareVolume(v *volume) error {
	mark := filepath.Join(v.dir, volumeFile)
	text, err := os.ReadFile(mark)
	switch {
	case v.home:
	case err == nil && strings.TrimSpace(string(text)) != s.id:
		return fmt.Errorf("it is of another store, %.40q; to have this one take it over, delete %s: %w", text, mark,
			branchline.ErrDenied)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil && v.used:
		if names, err := readNames(filepath.Join(v.dir, segmentsDir)); err != nil || len(names) == 0 {
			return fmt.Errorf("the disk seems not to be mounted: there is no %s and no recording: %w", mark,
				branchline.ErrUnavailable)
		}
	}
	for _, d := range []string{segmentsDir, growingDir, trashDir} {
		if err := s.fs.MkdirAll(filepath.Join(v.dir, d)); err != nil {
			return err
		}
	}
	if v.home {
		return v.recognise() // its entries are synced by open
	}
	if err := s.fs.SyncDir(v.dir); err != nil {
		return err
	}
	if v.lock == nil {
		lock, err := lockDir(filepath.Join(v.dir, lockName))
		if err != nil {
			return err
		}
		v.lock = lock
	}
	if err != nil {
		if err := writeWhole(s.fs, mark, []byte(s.id+"\n")); err != nil {
			return err
		}
	}
	return v.recognise()
}

// recognise notes which directory of which disk the volume is.
func (v *volume) recognise() error {
	var st syscall.Stat_t
	if err := syscall.Stat(v.dir, &st); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.device, v.inode = uint64(st.Dev), st.Ino //nolint:unconvert // 32 bits wide on some machines
	return nil
}

// there returns an error while the volume is away, or something else is in its place, as when its disk was
// unmounted; then it is away from now on.
func (v *volume) there() error {
	var st syscall.Stat_t
	err := syscall.Stat(v.dir, &st)
	v.mu.Lock()
	absent, same := v.absent, uint64(st.Dev) == v.device && st.Ino == v.inode //nolint:unconvert // as above
	v.mu.Unlock()
	switch {
	case absent != nil:
		return fmt.Errorf("volume %s is away: %w: %w", v.dir, branchline.ErrUnavailable, absent)
	case err == nil && same:
		return nil
	case err == nil:
		err = errors.New("its disk seems to have been unmounted")
	}
	v.away(err)
	return fmt.Errorf("volume %s is away: %w: %w", v.dir, branchline.ErrUnavailable, err)
}

// away notes why the volume cannot be used, or that it can, and logs what is new of that.
func (v *volume) away(err error) {
	v.mu.Lock()
	was := v.absent
	v.absent = err
	v.mu.Unlock()
	switch {
	case err == nil && was != nil:
		v.log.Info("volume is there again", "dir", v.dir)
	case err != nil && (was == nil || was.Error() != err.Error()):
		v.log.Error("volume is not usable", "dir", v.dir, "cause", err)
	}
}

// writeWhole replaces a small file durably.
func writeWhole(fsys files, path string, data []byte) error {
	f, err := fsys.Open(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(path+".new", path)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(path))
	}
	return err
}

// unlockVolumes ends what prepareVolume began.
func (s *Store) unlockVolumes() error {
	var errs []error
	for _, v := range s.volumes {
		if v.lock != nil {
			errs = append(errs, v.lock())
		}
	}
	return errors.Join(errs...)
}

// present reports whether the volume can be used.
func (v *volume) present() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.absent == nil
}

// isFull reports whether the error is one for want of space.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// suspect notes a failed sync or removal; not so one for want of space, which says nothing of the disk.
func (v *volume) suspect(err error) {
	if isFull(err) {
		return
	}
	v.mu.Lock()
	first := v.failed == nil
	if first {
		v.failed, v.since = err, v.clock.Now()
	}
	v.mu.Unlock()
	if first {
		v.log.Error("volume is suspect: new segments go to others while there are any; check its disk",
			"dir", v.dir, "cause", err)
	}
}

// spare leaves the volume alone for retainEvery, so that retention goes on with the others.
func (v *volume) spare() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spared = v.clock.Now().Add(retainEvery)
}

// removable reports whether retention may try to remove something from the volume.
func (v *volume) removable() bool {
	now := v.clock.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.absent == nil && !now.Before(v.spared)
}

// rank orders volumes for new segments: good ones first, then slow ones, then those whose disk failed.
func (v *volume) rank() int {
	now := v.clock.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.absent != nil:
		return 3
	case v.failed != nil:
		return 2
	case v.slow(now):
		return 1
	}
	return 0
}

// slow needs mu.
func (v *volume) slow(now time.Time) bool {
	return !v.syncing.IsZero() && now.Sub(v.syncing) > slowAfter
}

// sync notes that a sync of the volume's files begins, and returns how to note its end.
func (v *volume) sync() (end func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.syncing = v.clock.Now()
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.syncing = time.Time{}
	}
}

// rejoin looks whether absent volumes are there again, and reports whether one is.
func (s *Store) rejoin() bool {
	again := false
	for _, v := range s.volumes {
		if v.home || v.there() == nil {
			continue
		}
		err := s.prepareVolume(v)
		v.away(err)
		again = again || err == nil
	}
	if again {
		if err := s.listVolumes(); err != nil {
			s.log.Error("list of volumes is not written", "cause", err)
		}
	}
	return again
}

// Volumes tells how the store's volumes are, in the order of the options; the store's own directory last.
func (s *Store) Volumes() []VolumeStats {
	now := s.clock.Now()
	var all []VolumeStats
	for _, v := range s.volumes {
		st := VolumeStats{Dir: v.dir}
		var fsys syscall.Statfs_t
		if syscall.Statfs(v.dir, &fsys) == nil {
			st.Free = int64(fsys.Bavail) * int64(fsys.Bsize) //nolint:unconvert // 32 bits wide on some machines
			st.Size = int64(fsys.Blocks) * int64(fsys.Bsize) //nolint:unconvert // the same
		}
		v.mu.Lock()
		if v.absent != nil {
			st.Absent = v.absent.Error()
		}
		if v.failed != nil {
			st.Suspect, st.Since = v.failed.Error(), v.since
		}
		st.Slow = v.slow(now)
		v.mu.Unlock()
		all = append(all, st)
	}
	return all
}
