package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/branchline-video/branchline"
)

// Limits, and the engine's settings for a box with 512 MB of memory.
const (
	// MaxKey bounds a key, in bytes: two identifiers and some numbers.
	MaxKey = 512
	// MaxValue bounds a value: it stays inline, so the engine's value log remains empty and needs no
	// collection of garbage.
	MaxValue = 64 << 10
	// Reserve is how much must be free on the volume for an Update: twice what the engine allocates
	// by itself between two of our checks (tables being merged, a new log).
	Reserve = 64 << 20

	ballastSize = 32 << 20
	// leastToOpen must be free for the engine to run at all: a table in memory is written out, to 8 MB,
	// and a new log begun.
	leastToOpen = 24 << 20
	// updatesToOpen is how many Updates after Open may write into the reserve: what a node enters when it
	// starts, a few MB.
	updatesToOpen   = 2000
	verifiedAtOnce  = 48 << 20 // of tables, in bytes, before a lazy opening returns: a tenth of a second
	maxOpenings     = 3        // attempts that never finished before the database counts as damaged
	defaultMemoryMB = 24
	valueLogSize    = 32 << 20
)

// Options of a database. The zero value is good.
type Options struct {
	Logger   *slog.Logger // nil: nothing is logged
	MemoryMB int          // what tables in memory and caches may take together; 24 if zero
	// Lazy opens with reading only the newest tables, so in a time that does not grow with them. The
	// caller then calls Verify, and until that returns must not take what is missing for never entered.
	Lazy bool
	// Damaged, if set, is called when damage is read, from any goroutine; it must return at once.
	Damaged func()
}

// DB is an open database. Its methods may be called concurrently.
type DB struct {
	dir   string
	opt   Options
	log   *slog.Logger
	db    *badger.DB // changes only in Reset, while no call runs
	lock  *os.File
	free  func(dir string) (int64, error)
	turn  chan struct{} // holds a token while somebody updates
	spare int           // guarded by turn: how many more Updates may write into the reserve

	mu      sync.Mutex
	fresh   bool
	closed  bool
	resting chan struct{}  // not nil while Reset keeps calls waiting; closed when they may go on
	calls   sync.WaitGroup // running ones; grows only while neither closed nor resting
	waiting []*update      // the longest first
}

// Open opens the database in dir and creates it if there is none; see the package document for what
// it does to a damaged one. It wraps [branchline.ErrBusy] while another process has it open and
// [branchline.ErrUnavailable] when the volume is too full to open it safely.
func Open(dir string, opt Options) (*DB, error) {
	db := &DB{dir: dir, opt: opt, log: opt.Logger, free: FreeSpace, turn: make(chan struct{}, 1), spare: updatesToOpen}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if err := db.open(); err != nil {
		if db.lock != nil {
			db.lock.Close()
		}
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	return db, nil
}

// Close waits for running calls of Update and View and writes what is in memory to disk. Later calls
// get an error wrapping [branchline.ErrUnavailable]. On a full disk it writes nothing, as the engine would
// die of that: all is in the engine's log, and the engine stays as it is until the process ends.
func (db *DB) Close() error {
	db.mu.Lock()
	was := db.closed
	db.closed = true
	db.mu.Unlock()
	db.calls.Wait()
	if was {
		return nil
	}
	err := errors.Join(db.closeEngine(), db.opened(), db.lock.Close())
	if err != nil {
		return fmt.Errorf("close index %s: %w", db.dir, err)
	}
	return nil
}

func (db *DB) closeEngine() error {
	if free, err := db.free(db.dir); err == nil && free < leastToOpen {
		db.log.Warn("disk full: index is closed as it is", "dir", db.dir, "free", free)
		return nil
	}
	return db.db.Close()
}

// enter begins a call, which ends with db.calls.Done.
func (db *DB) enter() error {
	for {
		db.mu.Lock()
		resting := db.resting
		if resting == nil {
			break
		}
		db.mu.Unlock()
		<-resting
	}
	defer db.mu.Unlock()
	if db.closed {
		return fmt.Errorf("index %s is closed: %w", db.dir, branchline.ErrUnavailable)
	}
	db.calls.Add(1)
	return nil
}

// Fresh reports whether the database was made empty by this Open, or by Reset since, because there was
// none or it was damaged.
func (db *DB) Fresh() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.fresh
}

// Reset sets the database aside as damaged and goes on with an empty one, which Fresh then tells. Other
// calls wait meanwhile; it must not be called inside one.
func (db *DB) Reset(cause error) error {
	if err := db.enter(); err != nil {
		return fmt.Errorf("reset index: %w", err)
	}
	db.mu.Lock()
	if db.resting != nil { // another reset is at work, for the same cause
		resting := db.resting
		db.mu.Unlock()
		db.calls.Done()
		<-resting
		return nil
	}
	db.resting = make(chan struct{})
	db.mu.Unlock()
	db.calls.Done()
	db.calls.Wait() // also those that wait for their turn, which nobody keeps from them
	err := db.replace(cause)
	db.mu.Lock()
	close(db.resting)
	db.resting = nil
	db.closed = db.closed || err != nil
	db.mu.Unlock()
	if err != nil {
		return fmt.Errorf("reset index %s: %w", db.dir, err)
	}
	return nil
}

// replace closes the engine, which may not manage that with damaged tables, and opens a new one.
func (db *DB) replace(cause error) (err error) {
	if err := closeDamaged(db.db); err != nil {
		db.log.Warn("damaged index does not close", "dir", db.dir, "cause", err)
	}
	if err := db.setAside(cause); err != nil {
		return err
	}
	db.db, err = openBadger(db.path(), db.opt, db.log)
	return err
}

func closeDamaged(engine *badger.DB) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("engine panicked: %.80v", p)
		}
	}()
	return engine.Close()
}

func (db *DB) open() error {
	if err := os.MkdirAll(db.dir, 0o755); err != nil {
		return err
	}
	var err error
	if db.lock, err = lockFile(filepath.Join(db.dir, "lock")); err != nil {
		return err
	}
	if err := db.roomToOpen(); err != nil {
		return err
	}
	attempts, err := db.countOpening()
	if err != nil {
		return err
	}
	if attempts > maxOpenings {
		if err := db.setAside(fmt.Errorf("%d openings never finished", maxOpenings)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(db.path()); errors.Is(err, fs.ErrNotExist) {
		db.fresh = true
	}
	db.db, err = openBadger(db.path(), db.opt, db.log)
	if err == nil && db.opt.Lazy {
		// What the engine cannot read in a table is for it as if it had never been. So at least the newest
		// tables are read at once, in which there is what changes often.
		err = verifyTables(context.Background(), db.path(), newestFirst(db.db.Tables()), verifiedAtOnce)
		if err != nil {
			err = errors.Join(err, closeDamaged(db.db))
		}
	}
	if err != nil && !db.fresh && !isEnvironment(err) {
		if err := db.setAside(err); err != nil {
			return err
		}
		db.db, err = openBadger(db.path(), db.opt, db.log)
	}
	if err != nil || db.opt.Lazy {
		return err // Verify, or Close, ends the opening
	}
	if err := db.opened(); err != nil {
		db.db.Close()
		return err
	}
	return nil
}

// opened notes that the opening has finished.
func (db *DB) opened() error {
	err := os.Remove(filepath.Join(db.dir, "opening"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (db *DB) path() string { return filepath.Join(db.dir, "db") }

// countOpening notes that an opening begins and returns how many have begun since one finished.
func (db *DB) countOpening() (int64, error) {
	f, err := os.OpenFile(filepath.Join(db.dir, "opening"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	_, err = f.Write([]byte{'.'})
	if err == nil {
		err = f.Sync()
	}
	var size int64
	if info, e := f.Stat(); e == nil {
		size = info.Size()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return size, err
}

// setAside moves the database to damaged/, in place of an earlier one.
func (db *DB) setAside(cause error) error {
	db.log.Error("index is damaged and set aside", "dir", db.dir, "cause", cause)
	damaged := filepath.Join(db.dir, "damaged")
	if err := os.RemoveAll(damaged); err != nil {
		return err
	}
	if err := os.Rename(db.path(), damaged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db.mu.Lock()
	db.fresh = true
	db.mu.Unlock()
	return nil
}

// openBadger opens the engine, and turns a panic of the engine into an error.
func openBadger(dir string, opt Options, log *slog.Logger) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("engine panicked: %v", p)
		}
	}()
	if err := verify(dir, !opt.Lazy); err != nil {
		return nil, err
	}
	mb := int64(opt.MemoryMB)
	if mb == 0 {
		mb = defaultMemoryMB
	}
	unit := max(mb, 12) << 20 / 6 // two tables in memory take 2 units each, the caches one each
	return badger.Open(badger.DefaultOptions(dir).
		WithLogger(engineLog{log}).
		WithSyncWrites(true).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithMemTableSize(2 * unit).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithBlockCacheSize(unit).
		WithIndexCacheSize(unit).
		WithValueThreshold(MaxValue + 1).
		WithValueLogFileSize(valueLogSize).
		WithChecksumVerificationMode(options.OnBlockRead))
}

// isEnvironment reports whether err is the machine's doing and says nothing about the database.
func isEnvironment(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EMFILE,
		syscall.ENFILE, syscall.ENOMEM, syscall.EDQUOT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lockFile takes a lock that ends with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process has it open: %w", branchline.ErrBusy)
	}
	return f, nil
}

// engineLog passes the engine's lines on. What it calls information is detail to anyone else.
type engineLog struct{ log *slog.Logger }

func (l engineLog) Errorf(f string, a ...any)   { l.log.Error("index engine: " + fmt.Sprintf(f, a...)) }
func (l engineLog) Warningf(f string, a ...any) { l.log.Warn("index engine: " + fmt.Sprintf(f, a...)) }
func (l engineLog) Infof(f string, a ...any)    { l.log.Debug("index engine: " + fmt.Sprintf(f, a...)) }
func (l engineLog) Debugf(f string, a ...any)   { l.log.Debug("index engine: " + fmt.Sprintf(f, a...)) }
