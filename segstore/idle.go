package segstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/branchline-video/branchline"
)

// At a replica a segment may stay in part for ever, when nobody wants the rest. So only those in use, or
// used lately, are in memory, and any number of them is on disk alone: their files and sidecars, and the
// index that has them as opened.

// use returns the segment's partial, from memory or from disk, for the caller to give back to release;
// nil if the segment is sealed, removed or unknown.
func (s *Store) use(id branchline.SegmentID) (*partial, error) {
	if p := s.inMemory(id); p != nil || s.signer != nil {
		return p, nil
	}
	_, ok, err := s.incompleteEntry(id)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return s.inMemory(id), nil // one that is just being begun, if any
	}
	return s.obtain(id, nil)
}

// incompleteEntry returns the index's entry of a segment if that is opened and not sealed.
func (s *Store) incompleteEntry(id branchline.SegmentID) (branchline.Segment, bool, error) {
	seg, err := s.lookup(id)
	if errors.Is(err, branchline.ErrNotFound) || errors.Is(err, branchline.ErrGone) {
		return seg, false, nil
	}
	return seg, err == nil && !seg.Sealed, err
}

// obtain is use that makes the partial if there is none and fresh is not nil.
func (s *Store) obtain(id branchline.SegmentID, fresh func() *partial) (*partial, error) {
	s.loading <- struct{}{}
	defer func() { <-s.loading }()
	if p := s.inMemory(id); p != nil {
		return p, nil
	}
	p, err := s.fromDisk(id)
	if err != nil {
		return nil, err
	}
	idle := p != nil
	if p == nil && fresh != nil {
		p = fresh()
	}
	if p == nil {
		return nil, nil
	}
	if err := s.makeRoom(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("segment %v: store closed: %w", id, branchline.ErrUnavailable)
	}
	s.partials[id] = p
	if idle {
		s.onDisk--
	}
	s.uses++
	p.users, p.used = 1, s.uses
	return p, nil
}

func (s *Store) inMemory(id branchline.SegmentID) *partial {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.partials[id]
	if p != nil {
		s.uses++
		p.users, p.used = p.users+1, s.uses
	}
	return p
}

// release ends what use, inMemory or obtain began; of nil nothing.
func (s *Store) release(p *partial) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.users--
}

// fromDisk reads a partial that is not in memory; nil if there is none.
func (s *Store) fromDisk(id branchline.SegmentID) (*partial, error) {
	if s.signer != nil {
		return nil, nil
	}
	seg, ok, err := s.incompleteEntry(id)
	if err != nil || !ok {
		return nil, err
	}
	p, err := s.load(seg.Stream, s.growingPath(seg.Stream, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is being removed
	}
	return p, err
}

// makeRoom sees to it that one more partial may be in memory. It leaves the ones used longest ago to the
// disk, a sixteenth at a time, and wraps ErrBusy if all are in use.
func (s *Store) makeRoom() error {
	s.mu.Lock()
	var old []*partial
	if len(s.partials) >= s.limit && s.signer == nil {
		for _, p := range s.partials {
			if p.users == 0 {
				old = append(old, p)
			}
		}
		slices.SortFunc(old, func(a, b *partial) int { return cmp.Compare(a.used, b.used) })
		old = old[:min(len(old), s.limit/16+1)]
	}
	for _, p := range old {
		p.users++
	}
	s.mu.Unlock()
	for _, p := range old {
		s.leaveToDisk(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.partials) >= s.limit {
		return fmt.Errorf("%d segments are being written: %w", s.limit, branchline.ErrBusy)
	}
	return nil
}

// leaveToDisk takes p, which the caller uses, out of memory if all of it is durable and nobody else uses
// it. What is broken or waits to be sealed stays.
func (s *Store) leaveToDisk(p *partial) {
	s.mu.Lock()
	used := p.used
	s.mu.Unlock()
	p.take()
	defer p.give()
	s.syncPartial(p)
	p.closeFile()
	p.mu.Lock()
	durable := p.state == growing && !p.dirty && !p.complete()
	p.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.users--
	if durable && p.users == 0 && p.used == used && !s.closed {
		delete(s.partials, p.id)
		s.onDisk++
	}
}
