package segstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/crypt"
	"github.com/branchline-video/branchline/segstore/index"
	"github.com/branchline-video/branchline/segstore/retain"
)

// Package retain decides what goes; here it is carried out, by one goroutine of the store: every minute,
// and at once when the volume is short of space. The most that is removed in one go is retireBatch
// segments, so that recording, whose updates of the index wait meanwhile, never waits long.

const (
	// retainEvery is the time between two decisions, and glanceEvery that between two looks at the free
	// space, which bring a decision forward when there is too little.
	retainEvery = time.Minute
	glanceEvery = 5 * time.Second
	// retainPause is the least time between two decisions: on a disk that stays full every fragment asks
	// for one.
	retainPause = time.Second
	// retireBatch bounds what one update of the index removes.
	retireBatch = 32
	// maxRemovals bounds the removals that are kept with their explanations: half an hour of 32 streams.
	maxRemovals = 1000
	// untilLooked is what is written until somebody looks: it must stay free on a volume, whatever the rules
	// say, beside what recording needs.
	untilLooked = 64 << 20
)

// Removed is a segment that retention has removed or thinned, and when.
type Removed struct {
	At time.Time
	retain.Action
}

// RetentionStats is what retention has done since the store was opened, and what it could not do.
type RetentionStats struct {
	Removed, Bytes        map[branchline.Cause]uint64 // segments and bytes removed
	Thinned, ThinnedBytes uint64                      // segments thinned, and the bytes that this freed
	Shortages             []retain.Shortage           // of the last decision
}

// retention is what the store needs for it.
type retention struct {
	rules  retain.Rules
	wake   chan struct{}
	turn   chan struct{}   // holds a token while segments are removed, or locks and holds change
	stuck  []retired       // guarded by turn: in trash/, and not yet taken out of the index
	dirs   map[string]bool // guarded by turn: to be synced before that
	again  bool            // used only by the goroutine: not all of a plan counts by now, and the next may do more
	thins  bool            // used only by the goroutine: thinning works
	volume func(dir string) (int64, error)

	mu      sync.Mutex
	paces   paces
	keyless map[branchline.StreamID]branchline.Spans // not to be thinned, as the key is missing until the next opening
	stats   RetentionStats
	held    map[string]bool // by their keys, the holds placed since the last decision to be carried out
	recent  []Removed       // the oldest first
}

// retired is a segment on its way out, and where its file is.
type retired struct {
	retain.Action
	trash string
}

func newRetention(rules retain.Rules) *retention {
	return &retention{
		rules: rules, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		dirs: make(map[string]bool), keyless: make(map[branchline.StreamID]branchline.Spans), thins: true,
		volume: index.VolumeSize,
		held:   make(map[string]bool),
		stats:  RetentionStats{Removed: make(map[branchline.Cause]uint64), Bytes: make(map[branchline.Cause]uint64)},
	}
}

func (r *retention) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *retention) give() { <-r.turn }

// isHeld reports whether a hold was placed on the stream that the plan does not know; then the next plan is
// made at once. The caller holds turn.
func (r *retention) isHeld(stream branchline.StreamID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.held {
		if strings.HasPrefix(key, string(keyHold(stream, ""))) {
			r.again = true
			return true
		}
	}
	return false
}

// rouse asks for a decision soon. It never waits.
func (r *retention) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// keepRetained carries out what is decided, until the store closes.
func (s *Store) keepRetained() {
	r := s.retention
	glance := time.NewTicker(glanceEvery)
	defer glance.Stop()
	var since time.Duration // the last decision
	var pause <-chan time.Time
	wake := r.wake
	select { // a lock must not be overlooked for damage that is still to be found
	case <-s.sound:
	case <-time.After(retainEvery):
	case <-s.closing:
	}
	for {
		select {
		case <-s.closing:
			return
		case <-pause:
			pause, wake = nil, r.wake
			continue
		case <-wake:
		case <-glance.C:
			if since += glanceEvery; since < retainEvery && !s.short() {
				continue
			}
		}
		s.retain()
		since, wake, pause = 0, nil, time.After(retainPause)
	}
}

// short reports whether a volume is short of space.
func (s *Store) short() bool {
	return slices.ContainsFunc(s.recording(), func(v *volume) bool {
		free, err := s.free(v.dir)
		return err == nil && v.present() && free < v.leastFloor()
	})
}

// retain decides and carries out, over and over until nothing more is to be done. What fails is logged, and
// tried again by the next one.
func (s *Store) retain() {
	r := s.retention
	if err := s.dropEnded(); err != nil {
		s.log.Warn("locks and holds that have ended stay until later", "cause", err)
	}
	for more := true; more; {
		plan, err := s.decide(retireBatch, true)
		if err != nil {
			s.log.Error("nothing is decided on what to keep", "cause", err)
			return
		}
		if more, err = s.carryOut(plan); err != nil {
			s.log.Error("removal by retention failed", "cause", err)
			if !more {
				return
			}
		}
		r.mu.Lock()
		was := r.stats.Shortages
		r.stats.Shortages = plan.Shortages
		r.mu.Unlock()
		for _, short := range plan.Shortages {
			if !slices.ContainsFunc(was, func(w retain.Shortage) bool { return w.Why == short.Why }) {
				s.log.Warn("retention cannot free enough", "rule", short.Rule, "missing", short.Bytes, "why", short.Why)
			}
		}
		select {
		case <-s.closing:
			return
		default:
		}
	}
}

// carryOut does what a plan says and reports whether there may be more to do.
func (s *Store) carryOut(plan retain.Plan) (more bool, err error) {
	n := slices.IndexFunc(plan.Actions, func(a retain.Action) bool { return a.Kind != retain.Remove })
	if n < 0 {
		n = len(plan.Actions)
	}
	if err := s.retire(plan.Actions[:n]); err != nil || s.retention.again {
		return s.retention.again, err
	}
	if n == len(plan.Actions) {
		return plan.More && n > 0, nil
	}
	return s.thinAll(plan.Actions[n:]) && (plan.More || s.retention.again), nil
}

// retire removes segments, and leaves a gap for each, in this order: files to trash/, directories synced,
// index and journal, files unlinked. Nothing that is locked by now is removed, nor of a
// stream on which a hold was placed since the decision. After an error what is in
// trash/ waits for the next call, or for the next start. A volume from which nothing can be moved costs the
// others nothing; that is an error only if nothing at all could be moved.
func (s *Store) retire(batch []retain.Action) error {
	r := s.retention
	if err := r.take(context.Background()); err != nil {
		return err
	}
	defer r.give()
	if r.again = false; len(batch) == 0 {
		return s.finishRetired()
	}
	if err := s.finishRetired(); err != nil {
		return err
	}
	locks, err := s.Locks(context.Background())
	if err != nil {
		return err
	}
	failed := make(map[*volume]error)
	for _, a := range batch {
		isLocked := func(l branchline.Lock) bool {
			return l.Stream == a.Segment.Stream && l.Span.Overlaps(a.Segment.Span)
		}
		seg, err := s.lookup(a.Segment.ID)
		if err != nil || !seg.Sealed || slices.ContainsFunc(locks, isLocked) {
			continue // gone by another way, or locked since
		}
		path, sure := s.locateSealed(seg)
		v := s.volumeOf(path)
		if !sure || failed[v] != nil || r.isHeld(a.Segment.Stream) {
			continue // it may be on a volume that is absent
		}
		if err := s.toTrash(a, path, v); err != nil {
			failed[v] = err
		}
	}
	var errs []error
	for v, err := range failed {
		onIt := func(a retired) bool { return s.volumeOf(a.trash) == v }
		if isFull(err) && slices.ContainsFunc(r.stuck, onIt) {
			continue // its directory must grow, and what is moved makes room
		}
		v.suspect(err)
		v.spare()
		r.again = true
		errs = append(errs, err)
	}
	if len(r.stuck) == 0 {
		return errors.Join(errs...)
	}
	return s.finishRetired()
}

// toTrash moves a segment's file to trash/ of its volume. The caller holds the retention's turn.
func (s *Store) toTrash(a retain.Action, path string, v *volume) error {
	r := s.retention
	trash := filepath.Join(v.dir, trashDir, trashName(a.Segment.ID, a.Cause))
	if err := s.fs.Rename(path, trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.stuck = append(r.stuck, retired{a, trash})
	r.dirs[filepath.Dir(path)], r.dirs[filepath.Dir(trash)] = true, true
	return nil
}

// syncRetired makes durable that files were moved to trash/. The caller holds the retention's turn.
func (s *Store) syncRetired() error {
	for _, dir := range slices.Sorted(maps.Keys(s.retention.dirs)) {
		err := s.fs.SyncDir(dir)
		if err != nil && (filepath.Base(dir) == trashDir || !errors.Is(err, fs.ErrNotExist)) {
			return err // but a folder that somebody has deleted holds nothing any more
		}
	}
	clear(s.retention.dirs)
	return nil
}

// finishRetired takes what was moved to trash/ out of the index. Where there is no space for that, the files are
// emptied first. The caller holds the retention's turn.
func (s *Store) finishRetired() error {
	r := s.retention
	if len(r.stuck) == 0 {
		return nil
	}
	if err := s.syncRetired(); err != nil {
		return err
	}
	if free, err := s.free(s.dir); err == nil && free < index.Reserve {
		for _, a := range r.stuck {
			if err := s.empty(a.trash); err != nil {
				return fmt.Errorf("empty what is removed: %w", err)
			}
		}
	}
	var gone []retain.Action
	err := s.commitBy(s.ix.Relieve, func(l *ledger) error {
		for _, a := range r.stuck {
			err := l.takeOut(a.Segment.ID, a.Cause)
			if errors.Is(err, branchline.ErrNotFound) || errors.Is(err, branchline.ErrGone) {
				continue
			}
			if err != nil {
				return err
			}
			gone = append(gone, a.Action)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take out of the index: %w", err)
	}
	s.mu.Lock()
	for _, a := range r.stuck {
		s.footers.drop(a.Segment.ID)
	}
	s.mu.Unlock()
	for _, a := range r.stuck {
		s.discard(a.trash)
	}
	r.stuck = nil
	s.tellRetired(gone)
	return nil
}

// tellRetired logs removals, counts them, and keeps them for who asks why.
func (s *Store) tellRetired(gone []retain.Action) {
	if len(gone) == 0 {
		return
	}
	r := s.retention
	var bytes int64
	r.mu.Lock()
	for _, a := range gone {
		bytes += a.Segment.Bytes
		r.stats.Removed[a.Cause]++
		r.stats.Bytes[a.Cause] += uint64(a.Segment.Bytes)
	}
	r.keep(gone, s.clock.Now())
	r.paces.freed(gone)
	r.mu.Unlock()
	s.log.Info("segments removed", "segments", len(gone), "bytes", bytes, "first", gone[0].Segment.ID,
		"stream", gone[0].Segment.Stream, "start", gone[0].Segment.Span.Start, "cause", gone[0].Cause, "why", gone[0].Why)
}

// keep remembers what was done. It needs mu.
func (r *retention) keep(done []retain.Action, now time.Time) {
	for _, a := range done {
		r.recent = append(r.recent, Removed{At: now, Action: a})
	}
	r.recent = slices.Delete(r.recent, 0, max(0, len(r.recent)-maxRemovals))
}

// thinAll thins segments and reports whether that works at all.
func (s *Store) thinAll(batch []retain.Action) bool {
	r := s.retention
	settled := make(map[branchline.StreamID]branchline.Spans)
	var done []retain.Action
	works, freed, passed := true, int64(0), false
	for _, a := range batch {
		n, err := s.thinUnlocked(a.Segment)
		freed += n
		if errors.Is(err, crypt.ErrNoKey) {
			r.pass(a, err, s.log)
			passed = true
			continue
		}
		if errors.Is(err, branchline.ErrUnavailable) || errors.Is(err, branchline.ErrBusy) {
			if r.thins {
				s.log.Warn("segments are not thinned for the present", "cause", err)
			}
			works = false
			break
		}
		if errors.Is(err, branchline.ErrDenied) || errors.Is(err, branchline.ErrGone) && !s.allPresent() {
			continue // locked since, or on a volume that is absent since
		}
		if err != nil && !errors.Is(err, branchline.ErrNotFound) && !errors.Is(err, branchline.ErrGone) {
			s.log.Error("segment is not thinned", "segment", a.Segment.ID, "stream", a.Segment.Stream, "cause", err)
			continue
		}
		if err == nil {
			done = append(done, a)
		}
		settled[a.Segment.Stream] = settled[a.Segment.Stream].Union(branchline.Spans{a.Settles})
	}
	r.thins = works
	err := s.commit(func(l *ledger) error {
		for _, stream := range slices.Sorted(maps.Keys(settled)) {
			if err := l.settle(stream, settled[stream]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("segments will be looked at again for thinning", "cause", err)
		works = false
	}
	if len(done) > 0 {
		s.log.Info("segments thinned", "segments", len(done), "bytes", freed, "first", done[0].Segment.ID,
			"stream", done[0].Segment.Stream, "why", done[0].Why)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Thinned += uint64(len(done))
	r.stats.ThinnedBytes += uint64(freed)
	r.keep(done, s.clock.Now())
	return works && (passed || len(settled) > 0 || r.again)
}

// pass notes that a segment cannot be thinned until the store is opened with its key.
func (r *retention) pass(a retain.Action, err error, log *slog.Logger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stream := a.Segment.Stream
	if len(r.keyless[stream]) == 0 {
		log.Warn("segments whose key is missing are not thinned", "stream", stream, "cause", err)
	}
	set := r.keyless[stream].Union(branchline.Spans{a.Settles})
	r.keyless[stream] = set[max(0, len(set)-maxThinned):]
}

// thinUnlocked thins a segment and returns how many bytes that freed. It wraps [branchline.ErrDenied] for
// one that is locked, or may be held, by now.
func (s *Store) thinUnlocked(seg retain.Segment) (freed int64, err error) {
	if err := s.retention.take(context.Background()); err != nil {
		return 0, err
	}
	defer s.retention.give()
	locks, err := s.Locks(context.Background())
	if err != nil {
		return 0, err
	}
	if s.retention.isHeld(seg.Stream) {
		return 0, fmt.Errorf("held by now: %w", branchline.ErrDenied)
	}
	for _, l := range locks {
		if l.Stream == seg.Stream && l.Span.Overlaps(seg.Span) {
			return 0, fmt.Errorf("locked by %q: %w", l.ID, branchline.ErrDenied)
		}
	}
	if err := s.Thin(seg.ID); err != nil {
		return 0, err
	}
	after, err := s.lookup(seg.ID)
	if err != nil {
		return 0, err
	}
	if info, err := os.Stat(s.sealedPath(after)); err == nil {
		freed = max(seg.Bytes-info.Size(), 0)
	}
	return freed, nil
}
