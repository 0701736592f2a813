package segstore

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/crypt"
	"github.com/branchline-video/branchline/segstore/index"
	"github.com/branchline-video/branchline/segstore/retain"
)

// Limits of a store.
const (
	// syncEvery is the pause between two syncs of all growing files. With the time that a sync takes
	// it stays under a second.
	syncEvery = 700 * time.Millisecond
	// maxSyncs bounds how many files are synced at once: the file system joins them to one commit.
	maxSyncs = 8
	// maxPartials bounds the segments that are written at a time: a hub that backfills 64 sites with
	// 16 streams each, four segments at a time.
	maxPartials = 4096
	// maxOpenFiles bounds the open files of partial segments, and maxReaders those of readers, to stay
	// well below the usual 1024 of a process.
	maxOpenFiles = 256
	maxReaders   = 512
	// maxFooters bounds the fragment tables kept in memory: ten kilobytes each for a minute.
	maxFooters = 512
	// minFree must be free on the volume for segments to be written: so that the index, which needs a
	// reserve, can still tell of it, and old segments be removed.
	minFree = 2 * index.Reserve
	// maxQuarantined bounds the files in quarantine, which only people delete: a few GB.
	maxQuarantined = 1000
)

// Options of a store. The zero value is a replica with the system's clock that logs nothing.
type Options struct {
	Clock  clock.Clock
	Logger *slog.Logger
	// Volumes are directories to keep segments in, each usually the root of a disk of its own, at most
	// [MaxVolumes]. Without any the store's own directory is the only one; with some it only keeps what it
	// has, and the index, which wants a reliable disk. One that is not there is waited for.
	Volumes []string
	// Signer is set at the origin of segments, the edge: what a crash left growing is sealed with it.
	// At a replica it is nil, and what a crash left in part stays so until the rest is put.
	Signer ed25519.PrivateKey
	// Trust decides whose footers are sealed: its error refuses a stream's footer by the key that signed
	// it. It is called by Seal and while opening, from several goroutines, and must not call the store.
	// Nil trusts any key, and then a signature shows only that a footer was not changed since.
	Trust func(stream branchline.StreamID, key ed25519.PublicKey) error
	// Retention says what is kept. The zero value keeps all that there is room for: when the volume has
	// less free than [retain.Rules.Floor] says, the oldest goes that no lock covers.
	Retention retain.Rules
	// Scrub reads all sealed files again and again, and puts damaged ones into quarantine.
	Scrub Scrub
	// Keys encrypt what is written from now on, with the first of them, and open what any of them has
	// encrypted; what is in plain stays so. Without a key that is needed, Fetch and the like wrap
	// [branchline.ErrUnavailable] and [crypt.ErrNoKey], and nothing happens to the file.
	Keys *crypt.Keys
	// Plain says that Keys only open, and that nothing is encrypted any more.
	Plain bool
}

// Store is an open store. Its methods may be called concurrently.
type Store struct {
	dir    string
	fs     files
	free   func(dir string) (int64, error)
	clock  clock.Clock
	log    *slog.Logger
	signer ed25519.PrivateKey
	trust  func(branchline.StreamID, ed25519.PublicKey) error
	keys   *crypt.Keys
	plain  bool // keys do not encrypt
	lock   func() error
	ix     *index.DB
	feed   bell
	lent   buffer.Pool // for what is read

	retention *retention

	id      string    // which its volumes carry
	volumes []*volume // the last one is dir
	past    []explained

	journal      *recordLog // used only inside commit, where nobody else is, as those below
	generation   uint64     // of the journal
	journalLimit int64      // size from which superseded records are dropped
	journalMost  int64
	journalLive  int64   // size after they were dropped last
	later        []entry // of the journal, still to be entered
	laterSince   uint64  // what changed after this is newer than they
	renewed      bool    // the epoch was, for what was lost
	whole        bool    // the index was verified, so that it may stand for what the journal had
	behind       bool    // the index lacks something of the journal, beside later
	unnamed      bool    // the journal's name is not durable yet

	readers chan struct{} // one token for each reader
	filling chan struct{} // holds a token while the index is made again, or asked where a stream stands
	loading chan struct{} // holds a token while a partial is brought into memory
	limit   int           // of partials in memory
	closing chan struct{} // closed by Close
	settled chan struct{} // closed when what is in the background of opening is done
	sound   chan struct{} // closed when the index was verified, or made again
	mend    chan struct{} // holds a token when the index or a volume wants to be looked at
	work    sync.WaitGroup
	scrub   *scrubber     // nil if there is none
	moved   atomic.Uint64 // how often something went to quarantine
	brake   brake         // of what goes there because it is damaged

	mu       sync.Mutex
	closed   bool
	partials map[branchline.SegmentID]*partial      // in memory
	moving   map[branchline.SegmentID]chan struct{} // whose files are moved; closed at the end of that
	onDisk   int                                    // how many are on disk alone
	uses     uint64
	footers  footerCache
	thins    uint64     // how many segments were thinned
	opened   []*partial // whose files were opened, the longest ago first
}

// Close syncs what grows, so that opening again finds it, ends the readers and followers with an error
// wrapping [branchline.ErrUnavailable], and waits for the store's own work.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := s.list()
	s.mu.Unlock()
	close(s.closing)
	s.work.Wait()
	var errs []error
	for _, p := range all {
		p.take()
		errs = append(errs, p.sync())
		p.leave(closed)
		p.give()
	}
	errs = append(errs, s.ix.Close(), s.journal.close(), s.unlockVolumes(), s.lock()) // commits use the journal
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}

// list returns the partials in the order of their identifiers. It needs mu.
func (s *Store) list() []*partial {
	all := make([]*partial, 0, len(s.partials))
	for _, p := range s.partials {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *partial) int { return slices.Compare(a.id[:], b.id[:]) })
	return all
}

// partial returns the growing or partly held segment if it is in memory, else nil.
func (s *Store) partial(id branchline.SegmentID) *partial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partials[id]
}

// Begin makes room for a segment, which this node calls part of stream; start.Init is copied. It may be
// repeated, also after sealing, and then does nothing. A segment that was removed may begin anew. It
// wraps [branchline.ErrInvalid] for a malformed start, [branchline.ErrMismatch] if the segment was
// begun differently, [branchline.ErrBusy] when too many segments are written at a time, and ENOSPC and
// [branchline.ErrUnavailable] while the disk is full.
//
// At the origin a stream has one writer, who begins a segment after the one before is done with; one
// that was left unsealed is sealed now, as Cut, with what it holds.
func (s *Store) Begin(stream branchline.StreamID, start branchline.SegmentStart) error {
	if err := stream.Check(); err != nil {
		return err
	}
	if n := len(start.Init); n < 8 || n > MaxInit || len(start.Codecs) > MaxCodecs ||
		start.ID == (branchline.SegmentID{}) || start.Start.IsZero() {
		return fmt.Errorf("begin segment %v of %s: %w", start.ID, stream, branchline.ErrInvalid)
	}
	p, err := s.claim(stream, start)
	if err != nil {
		return err
	}
	defer s.release(p)
	if err := s.begin(p, stream, start); err != nil {
		return fmt.Errorf("begin segment %v of %s: %w", start.ID, stream, err)
	}
	if s.signer != nil {
		s.sealAbandoned(p)
	}
	return nil
}

// begin makes p ready to take fragments, if nobody has before.
func (s *Store) begin(p *partial, stream branchline.StreamID, start branchline.SegmentStart) error {
	p.take()
	defer p.give()
	p.mu.Lock()
	was := p.state
	p.mu.Unlock()
	switch was {
	case unborn:
	case closed:
		return p.usable()
	default:
		return p.matches(stream, start)
	}
	known, err := s.isSealed(p.id)
	if errors.Is(err, branchline.ErrNotFound) || errors.Is(err, branchline.ErrGone) {
		err = nil
	}
	if err == nil && !known {
		if p.vol, err = s.volumeFor(stream); err == nil {
			p.path = growingPath(p.vol.dir, stream, p.id)
			err = s.create(p)
		}
	}
	if known || err != nil {
		p.leave(removed)
		s.drop(p)
	}
	return err
}

// claim returns the segment's partial, a new unborn one if there is none, to be released.
func (s *Store) claim(stream branchline.StreamID, start branchline.SegmentStart) (*partial, error) {
	p, err := s.obtain(start.ID, func() *partial {
		p := s.newPartial(stream, start)
		p.cipher = s.newCipher(start.ID)
		p.listed = p.listed || p.cipher != nil
		return p
	})
	if err != nil {
		return nil, fmt.Errorf("begin segment: %w", err)
	}
	return p, nil
}

// create makes the files of p and tells that it was opened. The caller holds turn.
func (s *Store) create(p *partial) error {
	if err := s.fs.MkdirAll(filepath.Dir(p.path)); err != nil {
		return err
	}
	if err := p.createSidecar(); err != nil {
		return err
	}
	p.mu.Lock()
	err := p.createData()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return s.enter(p)
}

// enter makes p known in the index and ready to take fragments.
func (s *Store) enter(p *partial) error {
	err := s.commit(func(l *ledger) error {
		if s.signer != nil && p.number == 0 {
			if err := s.begun(l, lineRun{p.stream, p.run, p.start.Start}); err != nil {
				return err
			}
		}
		return l.segment(p.opened())
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.state = growing
	p.mu.Unlock()
	s.touch(p)
	return nil
}

func (s *Store) drop(p *partial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partials[p.id] == p {
		delete(s.partials, p.id)
	}
}

// Put adds a fragment with its bytes, in any order and any number of times; data is not kept. The bytes
// are verified first ([branchline.ErrMismatch]; at the origin, whose muxer has just hashed them, by their
// checksum alone) and are on stable storage within a second, or when Put
// returns if it brought the last missing fragment of a segment whose Seal came before. It wraps
// [branchline.ErrNotFound] for a segment that was not begun, [branchline.ErrGone] for a removed one, and
// ENOSPC and [branchline.ErrUnavailable] while the disk is full.
func (s *Store) Put(id branchline.SegmentID, f branchline.Fragment, data []byte) error {
	p, err := s.use(id)
	if err != nil {
		return fmt.Errorf("put fragment: %w", err)
	}
	if p == nil {
		ok, err := s.isSealed(id)
		if err == nil && !ok {
			err = fmt.Errorf("segment %v is just being begun: %w", id, branchline.ErrUnavailable)
		}
		if err != nil {
			return fmt.Errorf("put fragment: %w", err)
		}
		return nil
	}
	defer s.release(p)
	check := checkFragment
	if p.origin {
		check = checkMade
	}
	if err := check(f, data); err != nil {
		return fmt.Errorf("put fragment at %d of %v: %w", f.Offset, id, err)
	}
	if err := s.room(p.vol); err != nil {
		return fmt.Errorf("put fragment at %d of %v: %w", f.Offset, id, err)
	}
	complete, opened, err := p.put(f, data)
	if opened {
		s.touch(p)
	}
	if err != nil || !complete {
		return err
	}
	return s.finish(p)
}

// Seal gives the segment its footer. If every fragment is held, it is sealed and durable on return, and
// announced; otherwise the footer is kept and the Put that brings the last missing fragment seals.
// Fragments beyond the footer's table, which the origin lost in a crash, are dropped. It wraps
// [branchline.ErrMismatch] when the footer contradicts the announced hash, its own signature or what is
// held, and then seals nothing; and the error of [Options.Trust]. Sealing again does nothing.
func (s *Store) Seal(id branchline.SegmentID, seal branchline.SegmentSeal) error {
	p, err := s.use(id)
	if err != nil {
		return fmt.Errorf("seal segment: %w", err)
	}
	if p == nil {
		return s.sealedAlready(id, seal)
	}
	defer s.release(p)
	p.mu.Lock()
	done := p.state == sealed
	p.mu.Unlock()
	if done {
		return s.sealedAlready(id, seal)
	}
	complete, dropped, err := p.accept(seal)
	if err != nil {
		s.log.Error("segment not sealed", "segment", id, "stream", p.stream, "hash", seal.Hash, "cause", err)
		return err
	}
	if dropped > 0 {
		s.log.Warn("fragments dropped that the segment's origin has lost", "segment", id, "stream", p.stream,
			"fragments", dropped)
	}
	if !complete {
		return nil
	}
	return s.finish(p)
}

func (s *Store) sealedAlready(id branchline.SegmentID, seal branchline.SegmentSeal) error {
	seg, err := s.lookup(id)
	if err != nil {
		return fmt.Errorf("seal segment: %w", err)
	}
	if !seg.Sealed {
		return fmt.Errorf("seal segment %v: it is just being begun: %w", id, branchline.ErrUnavailable)
	}
	if seg.Hash != seal.Hash {
		return fmt.Errorf("seal segment %v: sealed as %v, now %v: %w", id, seg.Hash, seal.Hash, branchline.ErrMismatch)
	}
	return nil
}

// lookup returns the index's entry of a segment, without fragments.
func (s *Store) lookup(id branchline.SegmentID) (seg branchline.Segment, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		seg, _, err = find(tx, id)
		return err
	})
	return seg, err
}

// isSealed reports whether the index has the segment as sealed, with find's errors.
func (s *Store) isSealed(id branchline.SegmentID) (bool, error) {
	seg, err := s.lookup(id)
	return err == nil && seg.Sealed, err
}

// RecordGap enters a gap, in place of one with the same stream and start. It is durable on return.
func (s *Store) RecordGap(g branchline.Gap) error {
	if err := g.Stream.Check(); err != nil {
		return err
	}
	if g.Span.Start.IsZero() || g.Span.End.Before(g.Span.Start) {
		return fmt.Errorf("record gap of %s: %w", g.Stream, branchline.ErrInvalid)
	}
	g.Span.Start, g.Span.End = g.Span.Start.UTC().Round(0), g.Span.End.UTC().Round(0)
	err := s.commitBy(s.ix.Relieve, func(l *ledger) error { // why nothing is recorded is told on a full disk, too
		changed, err := l.gap(g)
		if err != nil || !changed {
			return err
		}
		return s.note(l, branchline.Change{Gap: &g})
	})
	if err != nil {
		return fmt.Errorf("record gap of %s: %w", g.Stream, err)
	}
	return nil
}

// PutCamera enters a camera, in place of one with the same identifier. It is durable on return. Nothing
// happens if it is known just so.
func (s *Store) PutCamera(c branchline.Camera) error {
	if err := c.ID.Check(); err != nil {
		return err
	}
	err := s.commit(func(l *ledger) error {
		changed, err := l.camera(c)
		if err != nil || !changed {
			return err
		}
		return s.note(l, branchline.Change{Camera: &c})
	})
	if err != nil {
		return fmt.Errorf("put camera %s: %w", c.ID, err)
	}
	return nil
}
