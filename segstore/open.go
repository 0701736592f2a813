package segstore

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// Open opens the store in dir, which it creates if need be, and first repairs what a crash left there,
// see the package document. It wraps [branchline.ErrBusy] while another process has it open.
func Open(dir string, opt Options) (*Store, error) {
	return openWith(dir, opt, disk{})
}

func openWith(dir string, opt Options, fsys files) (*Store, error) {
	s := &Store{
		dir: dir, fs: fsys, free: index.FreeSpace, clock: opt.Clock, log: opt.Logger, signer: opt.Signer, trust: opt.Trust,
		readers: make(chan struct{}, maxReaders), closing: make(chan struct{}), synced: make(chan struct{}),
		journalMost: journalMost,
		loading:     make(chan struct{}, 1), limit: maxPartials,
		moving: make(chan struct{}, 1), keys: opt.Keys, plain: opt.Plain,
		partials: make(map[branchline.SegmentID]*partial),
	}
	if s.trust == nil {
		s.trust = anyKey
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	go s.keepSynced()
	return s, nil
}

func anyKey(branchline.StreamID, ed25519.PublicKey) error { return nil }

// open does the steps of opening, and undoes them if one fails.
func (s *Store) open() (err error) {
	for _, d := range []string{segmentsDir, growingDir, trashDir} {
		if err := s.fs.MkdirAll(filepath.Join(s.dir, d)); err != nil {
			return err
		}
	}
	if s.lock, err = lockDir(filepath.Join(s.dir, lockName)); err != nil {
		return err
	}
	var records [][]byte
	if s.journal, records, err = openLog(s.fs, filepath.Join(s.dir, journalFile)); err != nil {
		return errors.Join(err, s.lock())
	}
	s.journalLimit = min(max(journalSlack, s.journal.size), s.journalMost)
	if s.ix, err = index.Open(filepath.Join(s.dir, indexDir), index.Options{Logger: s.log}); err != nil {
		return errors.Join(err, s.journal.close(), s.lock())
	}
	if err = s.repair(records); err == nil {
		return nil
	}
	for _, p := range s.list() {
		p.leave(closed)
	}
	return errors.Join(err, s.ix.Close(), s.journal.close(), s.lock())
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

// repair makes the index agree with the files and ends or goes on with what was growing.
func (s *Store) repair(journal [][]byte) error {
	if err := s.commit(func(l *ledger) error { return nil }); err != nil { // gives a new index its epoch
		return err
	}
	if err := s.replay(journal); err != nil {
		return fmt.Errorf("replay journal: %w", err)
	}
	causes, err := s.emptyTrash()
	if err != nil {
		return fmt.Errorf("empty trash: %w", err)
	}
	streams, err := s.streams()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		if err := s.adoptFiles(stream); err != nil {
			return fmt.Errorf("compare %s with its files: %w", stream, err)
		}
		if err := s.resume(stream); err != nil {
			return fmt.Errorf("resume %s: %w", stream, err)
		}
		if err := s.dropMissing(stream, causes); err != nil {
			return fmt.Errorf("compare %s with its files: %w", stream, err)
		}
	}
	return nil
}

// adoptBatch bounds how much one update of the index takes in while it is made from files.
const adoptBatch = 500

// emptyTrash deletes what is on the way out and returns why each segment was removed.
func (s *Store) emptyTrash() (map[branchline.SegmentID]branchline.Cause, error) {
	dir := filepath.Join(s.dir, trashDir)
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	causes := make(map[branchline.SegmentID]branchline.Cause)
	for _, name := range names {
		id, cause, err := parseTrashName(name)
		if err != nil {
			continue
		}
		if seg, err := s.lookup(id); err == nil && seg.Sealed {
			if _, err := os.Stat(s.sealedPath(seg)); err == nil {
				s.discard(filepath.Join(dir, name)) // removed once and put again since
				continue
			}
		}
		causes[id] = cause
		err = s.commit(func(l *ledger) error { return l.remove(id, cause) })
		if err != nil && !errors.Is(err, branchline.ErrNotFound) && !errors.Is(err, branchline.ErrGone) {
			return nil, err
		}
		s.discard(filepath.Join(dir, name))
	}
	return causes, nil
}

// streams returns every stream that the files or the index know, in order.
func (s *Store) streams() ([]branchline.StreamID, error) {
	seen := make(map[string]bool)
	for _, d := range []string{segmentsDir, growingDir} {
		names, err := readNames(filepath.Join(s.dir, d))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			seen[n] = true
		}
	}
	err := s.ix.View(func(tx *index.Tx) error {
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

// sealedFiles returns the sealed files of a stream by segment.
func sealedFiles(dir string, stream branchline.StreamID) (map[branchline.SegmentID]string, error) {
	found := make(map[branchline.SegmentID]string)
	root := filepath.Join(dir, segmentsDir, string(stream))
	days, err := readNames(root)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		names, err := readNames(filepath.Join(root, day))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if id, err := branchline.ParseSegmentID(strings.TrimSuffix(name, ".mp4")); err == nil {
				found[id] = filepath.Join(root, day, name)
			}
		}
	}
	return found, nil
}
