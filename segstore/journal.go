package segstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// The journal has every gap, camera, run, lock and hold as it was recorded, so that an index can be made again. It
// begins with a random generation, and the index knows up to where of which generation it has it; so at
// opening only what came after is entered. What a later record supersedes is dropped when the journal has
// twice the size that it had after the last time, but at least journalSlack and at most journalMost. Gaps
// are forgotten gapAge after their end; and the oldest ones of a stream sooner while all that counts takes
// more than two thirds of journalMost, which is some 300,000 gaps, so that there is always room for what
// happens now.
const (
	journalSlack = 1 << 20
	journalMost  = maxLog / 4 * 3
	gapAge       = 400 * 24 * time.Hour
)

// The records of the journal that are no changes of the feed, by their first byte.
const (
	noteGeneration = 'j' // u64 generation, always first
	noteRun        = 'r' // a run of a stream that this node makes
)

// lineRun is the beginning of a run, which the files alone do not show in order.
type lineRun struct {
	stream branchline.StreamID
	run    uint64
	start  time.Time
}

func (c *codec) run(r *lineRun) {
	text(c, &r.stream, branchline.MaxID)
	number(c, &r.run, 8)
	c.instant(&r.start)
}

// note writes changes that are already in l to the journal, durably and together.
func (s *Store) note(l *ledger, changes ...branchline.Change) error {
	records := make([][]byte, len(changes))
	for i := range changes {
		var err error
		if records[i], err = encode(func(c *codec) { c.change(&changes[i]) }); err != nil {
			return err
		}
	}
	return s.noteRecords(l, records...)
}

// noteRecords is note of records as they stand in the journal.
func (s *Store) noteRecords(l *ledger, records ...[]byte) error {
	if len(records) == 0 {
		return nil
	}
	if s.unnamed {
		if err := s.fs.SyncDir(s.dir); err != nil {
			return err
		}
		s.unnamed = false
	}
	if s.journal.size >= s.journalLimit && len(s.later) == 0 && s.whole && !s.behind {
		return s.rewriteJournal(l)
	}
	if err := s.journal.append(records...); err != nil {
		return err
	}
	if err := s.journal.sync(); err != nil {
		return err
	}
	s.mark(l)
	return nil
}

// mark notes in the index that it has all of the journal, unless some of that is still to be entered.
func (s *Store) mark(l *ledger) {
	if len(s.later) == 0 && !s.behind {
		l.meta.generation, l.meta.journaled = s.generation, uint64(s.journal.size)
	}
}

// facts returns a record of each gap, camera, newest run, lock and hold, for a new journal.
func (l *ledger) facts() ([][]byte, error) {
	var live [][]byte
	for _, kind := range []struct {
		prefix byte
		record byte
	}{{'G', kindGap}, {'M', kindCamera}} {
		for _, v := range l.tx.Scan([]byte{kind.prefix}, nil) {
			if len(v) < 8 {
				return nil, fmt.Errorf("entry of %d bytes: %w", len(v), branchline.ErrInvalid)
			}
			live = append(live, append([]byte{kind.record}, v[8:]...)) // behind the number of its change
		}
	}
	for k, v := range l.tx.Scan([]byte("T"), nil) {
		var st streamState
		if err := decode("stream", v, st.move); err != nil {
			return nil, err
		}
		if st.runStart.IsZero() {
			continue
		}
		run := lineRun{branchline.StreamID(k[1:]), st.lastRun, st.runStart}
		record, err := encode(func(c *codec) { c.run(&run) })
		if err != nil {
			return nil, err
		}
		live = append(live, append([]byte{noteRun}, record...))
	}
	return append(live, l.claims()...), nil
}

// begun enters a run that this node begins to make, and notes it in the journal.
func (s *Store) begun(l *ledger, r lineRun) error {
	changed, err := l.run(r)
	if err != nil || !changed {
		return err
	}
	record, err := encode(func(c *codec) { c.run(&r) })
	if err != nil {
		return err
	}
	return s.noteRecords(l, append([]byte{noteRun}, record...))
}

// run enters a run if it is newer than all of its stream.
func (l *ledger) run(r lineRun) (bool, error) {
	st, err := readStream(l.tx, r.stream)
	if err != nil || r.run < st.lastRun || r.run == st.lastRun && !st.runStart.IsZero() {
		return false, err
	}
	st.lastRun, st.runStart = r.run, r.start
	return true, l.set(keyStream(r.stream), st.move)
}

// entry is a record of the journal that is to be entered.
type entry struct {
	key    string // of several records with one key the last one counts
	change branchline.Change
	run    *lineRun
	claim  *claim // a lock or hold
	most   int    // of claims of its kind; zero takes it away
}

// parseEntry reads a record of the journal.
func (s *Store) parseEntry(record []byte) (entry, error) {
	c, most, err := s.readClaim(record)
	switch {
	case err != nil:
		return entry{}, err
	case c == nil:
		return parseEntry(record)
	}
	return entry{key: string(c.key), claim: c, most: most}, nil
}

// parseEntry reads a record that is no lock and no hold.
func parseEntry(record []byte) (entry, error) {
	var e entry
	if record[0] == noteRun {
		e.run = new(lineRun)
		err := decode("journal", record[1:], func(c *codec) { c.run(e.run) })
		e.key = "r" + string(e.run.stream)
		return e, err
	}
	if err := decode("journal", record, func(c *codec) { c.change(&e.change) }); err != nil {
		return e, err
	}
	switch ch := e.change; {
	case ch.Gap != nil:
		e.key = string(keyAt('G', ch.Gap.Stream, ch.Gap.Span.Start))
	case ch.Camera != nil:
		e.key = string(keyCamera(ch.Camera.ID))
	}
	return e, nil
}

// enter puts the entry into the index, unless the index has one that was made since the given change.
func (l *ledger) enter(e entry, since uint64) (err error) {
	if e.run != nil {
		_, err = l.run(*e.run)
		return err
	}
	if e.claim != nil {
		most := e.most
		if most > 0 {
			most = math.MaxInt // it was within the limit once
		}
		_, err = l.claim(*e.claim, most)
		return err
	}
	if v, err := l.tx.Get([]byte(e.key)); err == nil && len(v) >= 8 && binary.BigEndian.Uint64(v) > since {
		return nil
	}
	switch {
	case e.change.Gap != nil:
		_, err = l.gap(*e.change.Gap)
	case e.change.Camera != nil:
		_, err = l.camera(*e.change.Camera)
	}
	return err
}

// catchUp enters what the journal has and the index has not: at once what recording depends on, and many
// closed gaps later, see enterLater. It is called before the store is used.
func (s *Store) catchUp(records [][]byte) error {
	var m meta
	err := s.ix.View(func(tx *index.Tx) (err error) { m, err = readMeta(tx); return err })
	if err != nil {
		return err
	}
	s.generation, records = splitGeneration(records)
	skip := uint64(0)
	if lost := s.generation == 0 || uint64(s.journal.size) < m.journaled; lost && m.generation != 0 &&
		(s.generation == 0 || s.generation == m.generation) {
		// What is left of it is of use only where the index has nothing, which is yet to be verified.
		s.log.Error("journal has lost its end and will be made again from the index", "dir", s.dir)
		s.behind = true
		s.setLater(records, 0, 0)
		return s.enterBatches(len(s.later))
	}
	if s.generation != 0 && s.generation == m.generation {
		skip = m.journaled
	}
	s.setLater(records, skip, m.head)
	if len(s.later) > adoptBatch && s.generation != 0 {
		return s.enterUrgent()
	}
	if err := s.enterLater(); err != nil || s.generation != 0 {
		return err
	}
	return s.commit(s.rewriteJournal) // a new journal, or one from before there were generations
}

// splitGeneration takes the journal's first record off; the generation is zero if there is none.
func splitGeneration(records [][]byte) (uint64, [][]byte) {
	if len(records) == 0 || len(records[0]) != 9 || records[0][0] != noteGeneration {
		return 0, records
	}
	return binary.BigEndian.Uint64(records[0][1:]), records[1:]
}

// setLater sorts out which records are still to be entered: those behind the first skip bytes.
func (s *Store) setLater(records [][]byte, skip, head uint64) {
	s.laterSince = head
	place := make(map[string]int)
	at := uint64(recordHead + 9) // behind the generation
	for _, r := range records {
		at += uint64(recordHead + len(r))
		if at <= skip && !isClaim(r) { // locks count even if the index cannot be read
			continue
		}
		e, err := s.parseEntry(r)
		if err != nil {
			s.log.Error("journal entry is not readable", "cause", err)
			continue
		}
		if g := e.change.Gap; g != nil && !g.Open && g.Span.End.Before(s.clock.Now().Add(-gapAge)) {
			continue // forgotten
		}
		i, ok := place[e.key]
		if !ok {
			i = len(s.later)
			place[e.key], s.later = i, append(s.later, e)
		}
		s.later[i] = e
	}
	slices.SortStableFunc(s.later, func(a, b entry) int { return a.order() - b.order() })
}

// order puts closed gaps behind everything on which recording depends.
func (e entry) order() int {
	if e.change.Gap != nil && !e.change.Gap.Open {
		return 1
	}
	return 0
}

// enterUrgent enters the records on which recording depends, which are the first.
func (s *Store) enterUrgent() error {
	n, _ := slices.BinarySearchFunc(s.later, 1, func(e entry, order int) int { return e.order() - order })
	return s.enterBatches(n)
}

// enterLater enters all that is left of the journal.
func (s *Store) enterLater() error {
	if err := s.enterBatches(len(s.later)); err != nil {
		return err
	}
	return s.commit(func(l *ledger) error {
		if s.behind && s.whole {
			s.behind = false
			return s.rewriteJournal(l)
		}
		s.mark(l)
		return nil
	})
}

func (s *Store) enterBatches(n int) error {
	for n > 0 {
		batch := min(n, adoptBatch)
		err := s.commit(func(l *ledger) error {
			for _, e := range s.later[:batch] {
				if err := l.enter(e, s.laterSince); err != nil {
					return err
				}
			}
			s.later = s.later[batch:]
			return nil
		})
		if err != nil {
			return err
		}
		n -= batch
	}
	return nil
}

// rewriteJournal replaces the journal by one with what the index has, of a new generation.
func (s *Store) rewriteJournal(l *ledger) error {
	live, err := l.facts()
	if err != nil {
		return err
	}
	generation := rand.Uint64() | 1
	path := filepath.Join(s.dir, journalFile)
	s.discard(path + ".new")
	fresh, _, err := openLog(s.fs, path+".new")
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint64([]byte{noteGeneration}, generation)
	err = fresh.append(append([][]byte{head}, live...)...)
	if err == nil {
		err = fresh.sync()
	}
	if err == nil {
		err = s.fs.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, fresh.close())
	}
	old := s.journal
	s.journal, s.journalLive, s.generation = fresh, fresh.size, generation
	s.journalLimit = min(max(journalSlack, 2*fresh.size), s.journalMost)
	s.unnamed = true
	if err := s.fs.SyncDir(s.dir); err != nil {
		return errors.Join(err, old.close())
	}
	s.unnamed = false
	s.mark(l)
	return old.close()
}
