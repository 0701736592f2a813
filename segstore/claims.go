package segstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// claim is a lock or hold as it is kept: in the index the value under the key, in the journal the value
// behind its kind. Of an unlock the value is the lock's identifier.
type claim struct {
	kind       byte
	key, value []byte
}

func (c claim) record() []byte { return append([]byte{c.kind}, c.value...) }

// claimOne enters a claim durably if there are fewer than most of its kind; with most of zero it takes
// away what stands under the key. It waits until no removal is under way, which would not see it.
func (s *Store) claimOne(ctx context.Context, c claim, most int) error {
	if err := s.retention.take(ctx); err != nil {
		return err
	}
	defer s.retention.give()
	if err := s.finishRetired(); err != nil {
		return err
	}
	err := s.commit(func(l *ledger) error {
		changed, err := l.claim(c, most)
		if err != nil || !changed {
			return err
		}
		return s.noteRecords(l, c.record())
	})
	if err == nil && c.kind == kindHold && most > 0 {
		s.retention.mu.Lock()
		s.retention.held[string(c.key)] = true
		s.retention.mu.Unlock()
	}
	return err
}

// claim enters a claim, or takes it away if most is zero. It reports whether anything changed.
func (l *ledger) claim(c claim, most int) (bool, error) {
	old, err := l.tx.Get(c.key)
	known := err == nil
	switch {
	case err != nil && !errors.Is(err, branchline.ErrNotFound):
		return false, err
	case most == 0 && known:
		return true, l.tx.Delete(c.key)
	case most == 0, known && bytes.Equal(old, c.value):
		return false, nil
	}
	if !known {
		n := 0
		for range l.tx.Scan(c.key[:1], nil) {
			n++
		}
		if n >= most {
			return false, fmt.Errorf("there are %d already: %w", n, branchline.ErrTooLarge)
		}
	}
	return true, l.tx.Set(c.key, bytes.Clone(c.value))
}

// claims returns all locks and holds as the journal keeps them.
func (l *ledger) claims() [][]byte {
	var all [][]byte
	for _, kind := range []byte{kindLock, kindHold} {
		prefix := []byte("L")
		if kind == kindHold {
			prefix = []byte("H")
		}
		for _, v := range l.tx.Scan(prefix, nil) {
			all = append(all, claim{kind: kind, value: v}.record())
		}
	}
	return all
}

// isClaim reports whether a journal record is of a lock or hold.
func isClaim(record []byte) bool {
	return len(record) > 0 && (record[0] == kindLock || record[0] == kindUnlock || record[0] == kindHold)
}

// readClaim reads a journal record; nil if it is none of a lock or hold. With most of zero it takes away.
func (s *Store) readClaim(record []byte) (c *claim, most int, err error) {
	if len(record) == 0 {
		return nil, 0, nil
	}
	c = &claim{kind: record[0], value: record[1:]}
	switch c.kind {
	case kindLock:
		var l branchline.Lock
		err = decode("lock", c.value, func(c *codec) { c.lock(&l) })
		c.key = keyLock(l.ID)
		if l.Active(s.clock.Now()) {
			most = branchline.MaxLocks
		}
	case kindUnlock:
		c.key = keyLock(string(c.value))
	case kindHold:
		var h branchline.Hold
		err = decode("hold", c.value, func(c *codec) { c.hold(&h) })
		c.key = keyHold(h.Stream, h.Holder)
		if s.counts(h) {
			most = maxHolds
		}
	default:
		return nil, 0, nil
	}
	return c, most, err
}

// counts reports whether a hold still means anything: its lease lasts, or it tells what is not retrieved.
func (s *Store) counts(h branchline.Hold) bool {
	return s.clock.Now().Before(h.Until.Add(s.retention.rules.For(h.Stream).Extend))
}

// dropEnded takes locks and holds that count no more out of the index; the journal loses them when it is
// written anew.
func (s *Store) dropEnded() error {
	var ended [][]byte
	err := s.ix.View(func(tx *index.Tx) error {
		locks, err := readLocks(tx)
		if err != nil {
			return err
		}
		holds, err := readHolds(tx)
		for _, l := range locks {
			if !l.Active(s.clock.Now()) {
				ended = append(ended, keyLock(l.ID))
			}
		}
		for _, h := range holds {
			if !s.counts(h) {
				ended = append(ended, keyHold(h.Stream, h.Holder))
			}
		}
		return err
	})
	if err != nil || len(ended) == 0 {
		return err
	}
	return s.commit(func(l *ledger) error {
		for _, key := range ended[:min(len(ended), adoptBatch)] {
			if err := l.tx.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}

func readLocks(tx *index.Tx) ([]branchline.Lock, error) {
	var all []branchline.Lock
	for _, v := range tx.Scan([]byte("L"), nil) {
		var l branchline.Lock
		if err := decode("lock", v, func(c *codec) { c.lock(&l) }); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func readHolds(tx *index.Tx) ([]branchline.Hold, error) {
	var all []branchline.Hold
	for _, v := range tx.Scan([]byte("H"), nil) {
		var h branchline.Hold
		if err := decode("hold", v, func(c *codec) { c.hold(&h) }); err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

// readThinned returns the time of a stream in which its segments are thinned.
func readThinned(tx *index.Tx, stream branchline.StreamID) (branchline.Spans, error) {
	var set branchline.Spans
	b, err := tx.Get(keyThinned(stream))
	if errors.Is(err, branchline.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return set, decode("thinned time", b, func(c *codec) { c.spans(&set, maxThinned) })
}

// settle notes that segments in these spans of a stream need no thinning any more. Of too many spans the
// oldest are forgotten, and looked at again.
func (l *ledger) settle(stream branchline.StreamID, more branchline.Spans) error {
	set, err := readThinned(l.tx, stream)
	if err != nil {
		return err
	}
	set = set.Union(more)
	set = set[max(0, len(set)-maxThinned):]
	for i := range set {
		if set[i].Start.Before(time.Unix(0, 0)) {
			set[i].Start = time.Unix(0, 0).UTC() // the dawn of time has no place in the index
		}
	}
	return l.set(keyThinned(stream), func(c *codec) { c.spans(&set, maxThinned) })
}

// maxThinned bounds the spans of a stream that are known to be thinned: they are interrupted by locks,
// holds, and what could not be thinned.
const maxThinned = 2000

func keyThinned(stream branchline.StreamID) []byte { return append([]byte("N"), stream...) }
