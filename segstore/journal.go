package segstore

import (
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
)

// The journal has every gap, camera, lock and hold as it was recorded, so that an index can be made again. What a
// later record supersedes is dropped when the journal has twice the size that it had after the last
// time, but at least journalSlack and at most journalMost. Gaps are forgotten gapAge after their end;
// and the oldest ones of a stream sooner while all that counts takes more than two thirds of journalMost,
// which is some 300,000 gaps, so that there is always room for what happens now.
const (
	journalSlack = 1 << 20
	journalMost  = maxLog / 4 * 3
	gapAge       = 400 * 24 * time.Hour
)

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
	if s.journal.size >= s.journalLimit {
		live, err := l.facts()
		if err != nil {
			return err
		}
		claims, err := l.claims()
		if err != nil {
			return err
		}
		return s.rewriteJournal(live, claims...)
	}
	if err := s.journal.append(records...); err != nil {
		return err
	}
	return s.journal.sync()
}

// facts returns all gaps and cameras.
func (l *ledger) facts() ([]branchline.Change, error) {
	var live []branchline.Change
	var seq uint64
	for _, v := range l.tx.Scan([]byte("G"), nil) {
		var g branchline.Gap
		if err := decode("gap", v, sequenced(&seq, func(c *codec) { c.gap(&g) })); err != nil {
			return nil, err
		}
		live = append(live, branchline.Change{Gap: &g})
	}
	for _, v := range l.tx.Scan([]byte("M"), nil) {
		var m branchline.Camera
		if err := decode("camera", v, sequenced(&seq, func(c *codec) { c.camera(&m) })); err != nil {
			return nil, err
		}
		live = append(live, branchline.Change{Camera: &m})
	}
	return live, nil
}

// fact enters a gap or camera.
func (l *ledger) fact(ch branchline.Change) (err error) {
	switch {
	case ch.Gap != nil:
		_, err = l.gap(*ch.Gap)
	case ch.Camera != nil:
		_, err = l.camera(*ch.Camera)
	}
	return err
}

// replay enters what the journal has and the index has not. Of several records of one gap or camera
// the last one counts.
func (s *Store) replay(records [][]byte) error {
	records, err := s.replayClaims(records)
	if err != nil {
		return err
	}
	var live []branchline.Change
	place := make(map[string]int)
	for _, r := range records {
		var ch branchline.Change
		if err := decode("journal", r, func(c *codec) { c.change(&ch) }); err != nil {
			s.log.Error("journal entry is not readable", "cause", err)
			continue
		}
		if ch.Gap != nil && !ch.Gap.Open && ch.Gap.Span.End.Before(s.clock.Now().Add(-gapAge)) {
			continue // forgotten
		}
		key := journalKey(ch)
		i, ok := place[key]
		if !ok {
			i = len(live)
			place[key], live = i, append(live, ch)
		}
		live[i] = ch
	}
	for batch := range slices.Chunk(live, adoptBatch) {
		err := s.commit(func(l *ledger) error {
			for _, ch := range batch {
				if err := l.fact(ch); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func journalKey(ch branchline.Change) string {
	if ch.Gap != nil {
		return string(keyAt('G', ch.Gap.Stream, ch.Gap.Span.Start))
	}
	if ch.Camera != nil {
		return string(keyCamera(ch.Camera.ID))
	}
	return ""
}

// rewriteJournal replaces the journal by one with these changes, and these locks and holds, alone.
func (s *Store) rewriteJournal(live []branchline.Change, claims ...[]byte) error {
	path := filepath.Join(s.dir, journalFile)
	s.discard(path + ".new")
	fresh, _, err := openLog(s.fs, path+".new")
	if err != nil {
		return err
	}
	err = fresh.fill(live, claims)
	if err == nil {
		err = s.fs.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, fresh.close())
	}
	old := s.journal
	s.journal, s.journalLive = fresh, fresh.size
	s.journalLimit = min(max(journalSlack, 2*fresh.size), s.journalMost)
	return errors.Join(s.fs.SyncDir(s.dir), old.close())
}

// fill writes changes and further records durably.
func (l *recordLog) fill(live []branchline.Change, more [][]byte) error {
	records := make([][]byte, len(live))
	for i := range live {
		var err error
		if records[i], err = encode(func(c *codec) { c.change(&live[i]) }); err != nil {
			return err
		}
	}
	if err := l.append(append(records, more...)...); err != nil {
		return err
	}
	return l.sync()
}
