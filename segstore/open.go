package segstore

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Open opens the store in dir, which it creates if need be. It does what recording needs, in a time that
// does not grow with what is kept: gaps that the index does not know yet, and what was growing when the
// process ended. Everything else that a crash or damage may have left is mended in the background, see
// [Store.Settled]. It wraps [branchline.ErrBusy] while another process has the store open.
func Open(dir string, opt Options) (*Store, error) {
	return openWith(dir, opt, disk{})
}

func openWith(dir string, opt Options, fsys files) (*Store, error) {
	s, err := openStill(dir, opt, fsys)
	if err != nil {
		return nil, err
	}
	for _, v := range s.volumes {
		s.work.Go(func() { s.keepSynced(v) })
	}
	s.work.Go(s.settle)
	s.work.Go(s.keepRetained)
	s.startChores(opt)
	return s, nil
}

// openStill opens without any work in the background.
func openStill(dir string, opt Options, fsys files) (*Store, error) {
	s := &Store{
		dir: filepath.Clean(dir), fs: fsys, free: index.FreeSpace, clock: opt.Clock, log: opt.Logger,
		signer: opt.Signer, trust: opt.Trust,
		readers: make(chan struct{}, maxReaders), closing: make(chan struct{}), settled: make(chan struct{}),
		sound: make(chan struct{}), filling: make(chan struct{}, 1),
		mend: make(chan struct{}, 1), journalMost: journalMost,
		loading: make(chan struct{}, 1), limit: maxPartials,
		partials: make(map[branchline.SegmentID]*partial), moving: make(map[branchline.SegmentID]chan struct{}),
		retention: newRetention(opt.Retention),
		keys:      opt.Keys, plain: opt.Plain,
	}
	if s.trust == nil {
		s.trust = anyKey
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.open(opt.Volumes); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

func anyKey(branchline.StreamID, ed25519.PublicKey) error { return nil }

// open does the steps of opening, and undoes them if one fails.
func (s *Store) open(volumes []string) (err error) {
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return err
	}
	if s.lock, err = lockDir(filepath.Join(s.dir, lockName)); err != nil {
		return err
	}
	if err := s.openVolumes(volumes); err != nil {
		return errors.Join(err, s.unlockVolumes(), s.lock())
	}
	var records [][]byte
	if s.journal, records, err = openLog(s.fs, filepath.Join(s.dir, journalFile)); err != nil {
		return errors.Join(err, s.unlockVolumes(), s.lock())
	}
	s.journalLimit = min(max(journalSlack, s.journal.size), s.journalMost)
	if err := s.fs.SyncDir(s.dir); err != nil { // else a cut may take all that is in a new store
		return errors.Join(err, s.journal.close(), s.unlockVolumes(), s.lock())
	}
	s.ix, err = index.Open(filepath.Join(s.dir, indexDir), index.Options{Logger: s.log, Lazy: true, Damaged: s.askMending})
	if err != nil {
		return errors.Join(err, s.journal.close(), s.unlockVolumes(), s.lock())
	}
	if err = s.start(records); err == nil {
		return nil
	}
	for _, p := range s.list() {
		p.leave(closed)
	}
	return errors.Join(err, s.ix.Close(), s.journal.close(), s.unlockVolumes(), s.lock())
}

// lockDir takes the store's lock and returns how to give it back. It ends with the process, too.
func lockDir(path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process has it open: %w", branchline.ErrBusy)
	}
	return f.Close, nil
}

// start makes the store ready to record and to serve.
func (s *Store) start(journal [][]byte) error {
	if err := s.startIndex(); err != nil {
		return err
	}
	if err := s.catchUp(journal); err != nil {
		return fmt.Errorf("catch up with the journal: %w", err)
	}
	if s.signer == nil {
		return s.countPartials()
	}
	if s.ix.Fresh() {
		if err := s.seed(); err != nil {
			return fmt.Errorf("find where streams stand: %w", err)
		}
	}
	if err := s.resumeAll(); err != nil {
		return err
	}
	var err error
	s.past, err = s.history()
	return err
}

// resumeAll ends what was growing of all streams, and nobody works with.
func (s *Store) resumeAll() error {
	streams, err := s.streamsIn(growingDir)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(maxSyncs)
	for _, stream := range streams {
		group.Go(func() error {
			if err := s.resume(stream); err != nil {
				return fmt.Errorf("resume %s: %w", stream, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// startIndex gives a new index its epoch and its version. An index of another version is set aside, as it
// is made from the files anyway.
func (s *Store) startIndex() error {
	var version []byte
	err := s.ix.View(func(tx *index.Tx) (err error) {
		version, err = tx.Get(keyVersion())
		return err
	})
	if string(version) != string(indexVersion()) && !s.ix.Fresh() {
		if err := s.ix.Reset(fmt.Errorf("index is of version %x, not %x (%w)", version, indexVersion(), err)); err != nil {
			return err
		}
	}
	return s.commit(func(l *ledger) error { return l.tx.Set(keyVersion(), indexVersion()) })
}

// streamsIn returns the streams that have a folder in this one of some volume, in order.
func (s *Store) streamsIn(folders ...string) ([]branchline.StreamID, error) {
	seen := make(map[string]bool)
	for _, v := range s.volumes {
		if !v.present() {
			continue
		}
		for _, d := range folders {
			names, err := readNames(filepath.Join(v.dir, d))
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				seen[n] = true
			}
		}
	}
	return sortedStreams(seen), nil
}

// streams returns every stream that the files or the index know, in order.
func (s *Store) streams() ([]branchline.StreamID, error) {
	found, err := s.streamsIn(segmentsDir, growingDir)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, stream := range found {
		seen[string(stream)] = true
	}
	err = s.ix.View(func(tx *index.Tx) error {
		for k := range tx.Scan([]byte("T"), nil) {
			seen[string(k[1:])] = true
		}
		return nil
	})
	return sortedStreams(seen), err
}

// readNames lists a directory, sorted; one that is not there is empty.
func readNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// sealedIn returns the sealed files in a directory, by segment.
func sealedIn(dir string) (map[branchline.SegmentID]string, error) {
	names, err := readNames(dir)
	found := make(map[branchline.SegmentID]string, len(names))
	for _, name := range names {
		if id, err := branchline.ParseSegmentID(strings.TrimSuffix(name, ".mp4")); err == nil {
			found[id] = filepath.Join(dir, name)
		}
	}
	return found, err
}

// sealedFiles returns the sealed files of a stream in one volume by segment.
func sealedFiles(dir string, stream branchline.StreamID) (map[branchline.SegmentID]string, error) {
	found := make(map[branchline.SegmentID]string)
	root := filepath.Join(dir, segmentsDir, string(stream))
	days, err := readNames(root)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		files, err := sealedIn(filepath.Join(root, day))
		if err != nil {
			return nil, err
		}
		maps.Copy(found, files)
	}
	return found, nil
}
