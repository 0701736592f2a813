package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// The bounds of what is logged of links, so that a log that was forgotten never fills a disk.
const (
	MaxQlogTime  = time.Hour
	MinQlogBytes = 100_000
	MaxQlogBytes = 200_000_000
	// MaxQlogs bounds the links that are logged at once.
	MaxQlogs = 4
	// A log has at most so many files, one for each connection.
	maxQlogConns = 2 * MaxConnections
	// All logs together keep at most so many files and bytes: the oldest files go when a log is started.
	maxQlogFiles = 1024
	maxQlogKept  = 1_000_000_000
	// qlogFree is how much of the disk stays free: with less nothing is written.
	qlogFree = 1_000_000_000
	qlogMode = 0o600
	qlogExt  = ".sqlog"
)

// Qlog logs packets of links to files in the qlog format, which qvis and others show. It logs nothing until it is
// told to. What is written has times, sizes, numbers of packets and addresses, and nothing of what streams carry; the
// tokens of QUIC are left out. Methods may be called concurrently.
type Qlog struct {
	dir   string
	clock clock.Clock
	free  func(dir string) (int64, error) // bytes
	on    atomic.Int32                    // logs

	mu   sync.Mutex
	taps map[string]*Tap
}

// QlogState is how the log of a link stands.
type QlogState struct {
	On      bool      `json:"on"`
	Until   time.Time `json:"until,omitzero"`      // when it ends by itself
	Left    int64     `json:"leftBytes,omitempty"` // bytes that it may still write
	Lost    uint64    `json:"lost,omitempty"`      // events that came faster than the disk took them
	Problem string    `json:"problem,omitempty"`   // why it ended early
	Files   []string  `json:"files"`               // paths of all that is kept of the link, oldest first
}

// NewQlog returns a log whose files are in the directory, which is made when it is needed. The caller closes it
// after the links.
func NewQlog(dir string, clk clock.Clock) *Qlog {
	return &Qlog{dir: dir, clock: clk, free: freeBytes, taps: make(map[string]*Tap)}
}

func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // the types differ between platforms
}

// Tap is where the connections of one link are logged; nil logs nothing.
type Tap struct {
	name    string
	run     atomic.Pointer[qlogRun]
	problem atomic.Pointer[string] // why the last log ended early; nil if it did not
}

// Tap returns that of the link of the name, which becomes part of the files' names: a label or several with dots.
func (q *Qlog) Tap(name string) *Tap {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.taps[name]
	if t == nil {
		t = &Tap{name: name}
		q.taps[name] = t
	}
	return t
}

// tap returns that of a link that was ever logged, or nil.
func (q *Qlog) tap(name string) *Tap {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.taps[name]
}

// Start logs the link for so long and up to so many bytes, in place of a log of it that goes on. It returns an error
// wrapping [branchline.ErrInvalid] outside of the bounds, [branchline.ErrBusy] with too many logs, and
// [branchline.ErrUnavailable] with too little free space.
func (q *Qlog) Start(name string, length time.Duration, bytes int64) error {
	if length <= 0 || length > MaxQlogTime || bytes < MinQlogBytes || bytes > MaxQlogBytes {
		return fmt.Errorf("log link for %v and %d bytes: at most %v, and %d to %d bytes: %w", length, bytes,
			MaxQlogTime, MinQlogBytes, MaxQlogBytes, branchline.ErrInvalid)
	}
	t := q.Tap(name)
	q.Stop(name)
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return fmt.Errorf("log link: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.run.Load() != nil || q.on.Load() >= MaxQlogs {
		return fmt.Errorf("log link: %d links are being logged, at most %d: %w", q.on.Load(), MaxQlogs,
			branchline.ErrBusy)
	}
	if err := q.prune(bytes); err != nil {
		return fmt.Errorf("log link: %w", err)
	}
	if free, err := q.free(q.dir); err != nil || free < qlogFree+bytes {
		return errors.Join(fmt.Errorf("log link: %d MB are free at %s, and %d MB are to stay free: %w", free/1e6, q.dir,
			qlogFree/1_000_000, branchline.ErrUnavailable), err)
	}
	r := newQlogRun(q, name, length, bytes)
	q.on.Add(1)
	t.problem.Store(nil)
	t.run.Store(r)
	go func() {
		if err := r.write(); err != nil {
			text := err.Error()
			t.problem.Store(&text)
		}
		t.run.CompareAndSwap(r, nil)
		q.on.Add(-1)
		close(r.done)
	}()
	return nil
}

// prune removes the oldest files until there is room for one more log.
func (q *Qlog) prune(bytes int64) error {
	files, err := q.files("")
	if err != nil {
		return err
	}
	sizes := make([]int64, len(files))
	// What goes on may still become as large as was asked for.
	sum, count := bytes, len(files)+maxQlogConns
	for _, t := range q.taps {
		if r := t.run.Load(); r != nil {
			sum += r.left.Load()
			count += maxQlogConns
		}
	}
	for i, f := range files {
		if info, err := os.Stat(f); err == nil {
			sizes[i] = info.Size()
			sum += sizes[i]
		}
	}
	for i, f := range files {
		if sum <= maxQlogKept && count <= maxQlogFiles {
			return nil
		}
		if err := os.Remove(f); err != nil {
			return err
		}
		sum, count = sum-sizes[i], count-1
	}
	return nil
}

// files returns the paths of what is kept, of one link or of all, oldest first.
func (q *Qlog) files(name string) ([]string, error) {
	pattern := "*"
	if name != "" {
		pattern = name + "_*"
	}
	all, err := filepath.Glob(filepath.Join(q.dir, pattern+qlogExt))
	if err != nil {
		return nil, err
	}
	age := make(map[string]time.Time)
	for _, f := range all {
		if info, err := os.Stat(f); err == nil {
			age[f] = info.ModTime()
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return age[a].Compare(age[b]) })
	return all, nil
}

// Stop ends the log of the link, if there is one, and waits until its files are closed. They stay.
func (q *Qlog) Stop(name string) {
	t := q.tap(name)
	if t == nil {
		return
	}
	if r := t.run.Load(); r != nil {
		r.end()
		<-r.done
	}
}

// State tells how the log of the link stands.
func (q *Qlog) State(name string) (QlogState, error) {
	s := QlogState{}
	if t := q.tap(name); t != nil {
		if r := t.run.Load(); r != nil {
			s.On, s.Until, s.Left, s.Lost = true, r.until, r.left.Load(), r.lost.Load()
		}
		if p := t.problem.Load(); p != nil {
			s.Problem = *p
		}
	}
	files, err := q.files(name)
	if err != nil {
		return s, fmt.Errorf("list logs of link %s: %w", name, err)
	}
	s.Files = files
	return s, nil
}

// Close ends all logs and waits for their files.
func (q *Qlog) Close() error {
	q.mu.Lock()
	var names []string
	for name := range q.taps {
		names = append(names, name)
	}
	q.mu.Unlock()
	for _, name := range names {
		q.Stop(name)
	}
	return nil
}

// slot carries a connection's recorder from its trace to where its peer becomes known.
type slot struct{ r *qlogRecorder }

type slotKey struct{}

// context prepares for a connection that is accepted.
func (q *Qlog) context(ctx context.Context) context.Context {
	if q == nil || q.on.Load() == 0 {
		return ctx
	}
	return context.WithValue(ctx, slotKey{}, &slot{})
}

// named says whose link the connection with the context is.
func (q *Qlog) named(ctx context.Context, name string) {
	s, _ := ctx.Value(slotKey{}).(*slot)
	if s == nil || s.r == nil {
		return
	}
	s.r.settle(q.tap(name))
}
