package segstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

const (
	// adoptBatch bounds how much one update of the index takes in while it is made from files.
	// The engine sorts what an update has changed for each scan in it, so that large ones cost more than a sync.
	adoptBatch = 100
	// adoptAhead is how many updates are prepared and made at once: the files of one are read while the index
	// takes in another.
	adoptAhead = 2
	// adoptReaders is how many files are read at a time for that.
	adoptReaders = 16
	// rejoinEvery is how often absent volumes are looked for.
	rejoinEvery = 10 * time.Second
	// mendAgain is the pause before a comparison that failed is tried again.
	mendAgain = time.Minute
)

// Settled returns a channel that is closed when what Open does in the background is done: the index is
// verified, and was made again if it was damaged; it agrees with the files; nothing is left in trash/. All
// methods work before, only that a segment of which the index has lost its entry is not known yet, and one
// whose removal was under way when the process ended still passes for sealed, though it cannot be fetched.
func (s *Store) Settled() <-chan struct{} { return s.settled }

// settle does the background work of opening, and again what is needed when damage is found, or a volume
// comes back.
func (s *Store) settle() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.work.Go(func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	rejoin := time.NewTicker(rejoinEvery)
	defer rejoin.Stop()
	for first := true; ; {
		var again <-chan time.Time
		err := s.settleOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("index does not agree with the files yet", "dir", s.dir, "cause", err)
			again = time.After(mendAgain)
		case first:
			close(s.settled)
			first = false
		}
		for waiting := true; waiting; {
			select {
			case <-s.closing:
				return
			case <-again:
				waiting = false
			case <-s.mend:
				waiting = false
			case <-rejoin.C:
				waiting = !s.rejoin()
				if !waiting && s.signer != nil {
					if err := s.resumeAll(); err != nil {
						s.log.Error("what grew on the volume is not sealed yet", "cause", err)
					}
				}
			}
		}
	}
}

// settleOnce makes the index agree with the files.
func (s *Store) settleOnce(ctx context.Context) error {
	began := s.clock.Now()
	if err := s.verifyIndex(ctx); err != nil {
		return err
	}
	if err := s.enterLater(); err != nil {
		return fmt.Errorf("enter the journal: %w", err)
	}
	causes, err := s.emptyTrash()
	if err != nil {
		return fmt.Errorf("empty trash: %w", err)
	}
	if s.signer == nil {
		if err := s.revivePartials(ctx); err != nil {
			return err
		}
	}
	var counts tally
	if err := s.compareAll(ctx, causes, &counts); err != nil {
		return err
	}
	if s.allPresent() { // else what is away would be taken for never recorded
		if err := s.explain(); err != nil {
			return err
		}
	}
	if took := s.clock.Now().Sub(began); counts.changed() || took > time.Second {
		s.log.Info("index agrees with the files", "dir", s.dir, "segments", counts.segments,
			"found", counts.found, "missing", counts.missing, "took", took)
	}
	return nil
}

// tally counts what a comparison saw.
type tally struct {
	segments, found, missing int
	told                     func(segments int) // after each day
}

func (t *tally) changed() bool { return t.found+t.missing > 0 }

// verifyIndex reads all of the index, and makes it again if it is damaged.
func (s *Store) verifyIndex(ctx context.Context) error {
	err := s.ix.Verify(ctx)
	if errors.Is(err, index.ErrDamaged) {
		err = s.refill(err)
	}
	if err == nil {
		err = s.commit(func(*ledger) error { s.whole = true; return nil })
	}
	if err != nil {
		return err
	}
	select {
	case <-s.sound:
	default:
		close(s.sound)
	}
	return nil
}

// askMending asks for the index to be looked at. It never waits.
func (s *Store) askMending() {
	select {
	case s.mend <- struct{}{}:
	default:
	}
}

// Rebuild makes the index of a store that nobody has open again from its files, and tells now and then how
// many segments it has seen. What grows is left for the next Open. It wraps [branchline.ErrBusy] while a
// process has the store open.
func Rebuild(ctx context.Context, dir string, opt Options, told func(segments int)) (segments int, err error) {
	opt.Signer = nil
	if len(opt.Volumes) == 0 {
		opt.Volumes = volumeDirs(dir)[1:]
	}
	s, err := openStill(dir, opt, disk{})
	if err != nil {
		return 0, fmt.Errorf("rebuild index: %w", err)
	}
	counts := tally{told: told}
	err = s.refill(errors.New("it is made again, as asked"))
	if err == nil {
		err = s.enterLater()
	}
	if err == nil { // what is in trash/ is for the next Open, which knows whether it is the origin
		err = s.compareAll(ctx, nil, &counts)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return counts.segments, fmt.Errorf("rebuild index of %s: %w", dir, err)
	}
	return counts.segments, nil
}

// refill replaces a damaged index by an empty one and enters what the files do not tell.
func (s *Store) refill(cause error) error {
	if err := s.retention.take(context.Background()); err != nil { // locks and holds are entered anew
		return err
	}
	defer s.retention.give()
	s.filling <- struct{}{}
	defer func() { <-s.filling }()
	err := s.commit(func(*ledger) error { s.whole, s.behind = false, true; return nil })
	if err != nil {
		return err
	}
	if err := s.ix.Reset(cause); err != nil {
		return err
	}
	err = s.commit(func(l *ledger) error {
		records, _, err := readLog(filepath.Join(s.dir, journalFile))
		if err != nil {
			return err
		}
		_, records = splitGeneration(records)
		s.later = nil
		s.setLater(records, 0, l.meta.head)
		s.behind, s.whole = false, true // it is new, and lacks just what is to be entered later
		return l.tx.Set(keyVersion(), indexVersion())
	})
	if err != nil {
		return err
	}
	if err := s.enterUrgent(); err != nil {
		return err
	}
	s.mu.Lock()
	all := s.list()
	s.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		opened, ok := p.opened(), p.state == growing || p.state == broken
		p.mu.Unlock()
		if !ok {
			continue
		}
		if err := s.commit(func(l *ledger) error { return l.segment(opened) }); err != nil {
			return err
		}
	}
	if s.signer == nil {
		return nil
	}
	return s.seed()
}

// seed enters into an empty index the segments that tell where streams stand: those of the newest run,
// which the journal has, of the newest day on which there are any.
func (s *Store) seed() error {
	streams, err := s.streamsIn(segmentsDir)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		var st streamState
		err := s.ix.View(func(tx *index.Tx) (err error) { st, err = readStream(tx, stream); return err })
		if err != nil {
			return err
		}
		days, err := s.days(stream)
		if err != nil {
			return err
		}
		for _, day := range slices.Backward(days) {
			files, err := s.filesOf(stream, day)
			if err != nil {
				return err
			}
			found := s.readFiles(stream, files)
			if err := s.adopt(found); err != nil {
				return err
			}
			newest := func(seg branchline.Segment) bool { return seg.Run >= st.lastRun }
			if slices.ContainsFunc(found, newest) || day < st.runStart.UTC().Format(dayLayout) {
				break
			}
		}
	}
	return nil
}

// emptyTrash deletes what is on the way out and returns why each segment was removed.
func (s *Store) emptyTrash() (map[branchline.SegmentID]branchline.Cause, error) {
	causes := make(map[branchline.SegmentID]branchline.Cause)
	for _, v := range s.volumes {
		names, err := readNames(filepath.Join(v.dir, trashDir))
		if err != nil && v.present() {
			return nil, err
		}
		for _, name := range names {
			id, cause, err := parseTrashName(name)
			if err != nil {
				continue
			}
			if err := s.finishRemoval(id, cause, filepath.Join(v.dir, trashDir, name)); err != nil {
				return nil, err
			}
			causes[id] = cause
		}
	}
	return causes, nil
}

// finishRemoval ends a removal that was under way: the index forgets the segment, unless it was put again.
func (s *Store) finishRemoval(id branchline.SegmentID, cause branchline.Cause, trash string) error {
	defer s.seize(id)()
	if _, err := os.Stat(trash); errors.Is(err, fs.ErrNotExist) {
		return nil // it was finished meanwhile
	}
	seg, err := s.lookup(id)
	path := s.sealedPath(seg)
	if err == nil && !seg.Sealed {
		path = s.growingPath(seg.Stream, id)
	}
	_, there := os.Stat(path)
	if s.partial(id) == nil && (err != nil || errors.Is(there, fs.ErrNotExist)) && cause != thinnedName {
		err := s.takeOutTrash(trash, id, cause)
		if err != nil && !errors.Is(err, branchline.ErrNotFound) && !errors.Is(err, branchline.ErrGone) {
			return err
		}
	}
	s.discard(trash)
	return nil
}

// revivePartials makes the index know what a replica holds in part, and seals what is complete.
func (s *Store) revivePartials(ctx context.Context) error {
	streams, err := s.streamsIn(growingDir)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		paths, err := s.growingFiles(stream)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.revive(stream, path); err != nil {
				return fmt.Errorf("revive %s: %w", path, err)
			}
		}
	}
	return nil
}

// revive goes on with one partial that is not in memory. What holds nothing of use is deleted.
func (s *Store) revive(stream branchline.StreamID, path string) error {
	id, err := branchline.ParseSegmentID(filepath.Base(path[:len(path)-len(filepath.Ext(path))]))
	if err != nil {
		return nil // nothing of ours
	}
	p, err := s.reload(id, stream, path)
	if p == nil || err != nil {
		return err
	}
	defer s.release(p)
	p.mu.Lock()
	complete := p.complete() && p.state == growing
	p.mu.Unlock()
	if complete {
		if err := s.finish(p); err != nil { // the next Put or Seal tries again
			s.log.Error("complete segment is not sealed", "segment", id, "stream", stream, "cause", err)
		}
	}
	return nil
}

// reload brings a partial into memory if the index does not know it or it may be complete; else nil.
func (s *Store) reload(id branchline.SegmentID, stream branchline.StreamID, path string) (*partial, error) {
	s.loading <- struct{}{}
	defer func() { <-s.loading }()
	if s.partial(id) != nil {
		return nil, nil
	}
	p, err := s.load(stream, path)
	if err != nil && !useless(err) {
		s.log.Error("incomplete segment is not readable and stays as it is", "path", path, "cause", err)
		return nil, nil
	}
	if err != nil {
		s.log.Warn("incomplete segment is given up", "path", path, "cause", err)
		s.discard(path)
		s.discard(sidecarPath(path))
		s.mu.Lock()
		s.onDisk--
		s.mu.Unlock()
		return nil, nil
	}
	if _, known, err := s.incompleteEntry(id); err != nil || known && !p.complete() {
		return nil, err
	}
	if err := s.makeRoom(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.partials[id] = p
	s.onDisk--
	s.uses++
	p.users, p.used = 1, s.uses
	s.mu.Unlock()
	return p, s.enter(p)
}
