package segstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"

	"github.com/branchline-video/branchline"
)

// errSealedSince: the partial is none any more, so the index knows where the segment is.
var errSealedSince = errors.New("sealed meanwhile")

// reader reads a range of a segment file; on a partial one only what is held. Nothing unverified leaves it.
type reader struct {
	ctx     context.Context
	s       *Store
	id      branchline.SegmentID
	p       *partial // nil for a sealed segment
	sealed  ending   // of a sealed segment, as are init and box
	init    []byte
	box     []byte
	f       *os.File
	content content
	at, end int64 // end is zero while unknown
	once    sync.Once
}

// openPartial opens p's file and checks that the range can be read.
func (r *reader) openPartial(p *partial) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == sealed || p.state == removed {
		return errSealedSince
	}
	if p.state == unborn {
		return fmt.Errorf("segment %v is just being begun: %w", p.id, branchline.ErrUnavailable)
	}
	if r.f, err = os.Open(p.where()); err != nil {
		return err
	}
	r.p, r.init = p, p.init
	r.content = content{file: r.f, open: p.cipher, lent: &r.s.lent, sums: branchline.Verifies(r.ctx)}
	if err = r.checkRange(); err != nil {
		r.f.Close()
		r.p = nil
	}
	return err
}

// checkRange needs the partial's mu.
func (r *reader) checkRange() error {
	p, last := r.p, int64(len(r.p.init))
	if n := len(p.held); n > 0 {
		last = p.held[n-1].End()
	}
	if p.footer != nil {
		last = p.footer.End() + int64(len(p.box))
	}
	switch reach := p.reach(r.at); {
	case r.at > last || r.end > last:
		return fmt.Errorf("bytes %d to %d of segment %v, of which %d are known: %w", r.at, r.end, p.id, last,
			branchline.ErrInvalid)
	case r.end != 0 && r.at+reach < r.end, r.end == 0 && reach == 0 && r.at < last:
		return fmt.Errorf("bytes %d to %d of segment %v: %w", r.at, r.end, p.id, branchline.ErrUnavailable)
	}
	return nil
}

// Read waits for bytes on a segment that still grows.
func (r *reader) Read(b []byte) (int, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, changed, err := r.ready()
		if err != nil {
			return 0, err
		}
		if n > 0 {
			return r.fill(b[:min(int64(len(b)), n)])
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		case <-r.s.closing:
			return 0, fmt.Errorf("read segment: store closed: %w", branchline.ErrUnavailable)
		}
	}
}

// fill reads as much of b as can be had, which is all of it unless something is damaged.
func (r *reader) fill(b []byte) (int, error) {
	for n := 0; ; {
		data, err := r.verified()
		if err != nil && n > 0 {
			return n, nil // the next call says why
		}
		if err != nil {
			return 0, err
		}
		m := copy(b[n:], data)
		r.at += int64(m)
		if n += m; n == len(b) {
			return n, nil
		}
	}
}

// verified returns the bytes at the reader's place up to the end of the part that they are in: init part,
// fragment or footer.
func (r *reader) verified() ([]byte, error) {
	if r.at < int64(len(r.init)) {
		return r.init[r.at:], nil
	}
	row, box := r.part()
	switch {
	case box != nil:
		return box, nil
	case row.Length == 0 && r.p != nil: // another reader found it damaged
		return nil, fmt.Errorf("byte %d of segment %v: %w", r.at, r.id, branchline.ErrUnavailable)
	case row.Length == 0:
		return nil, fmt.Errorf("byte %d of segment %v was left out: %w", r.at, r.id, branchline.ErrGone)
	}
	data, err := r.content.fragment(row)
	if err != nil {
		if data, err = r.unfit(row, err); err != nil {
			return nil, fmt.Errorf("read segment: %w", err)
		}
	}
	return data[r.at-row.Offset:], nil
}

// part returns the fragment at the reader's place, or what is left of the footer.
func (r *reader) part() (branchline.Fragment, []byte) {
	rows, end, box := r.sealed.kept, r.sealed.End(), r.box
	if p := r.p; p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		rows = p.held
		if end = math.MaxInt64; p.state == sealed {
			end, box = p.footer.End(), p.box
		}
	}
	if r.at >= end {
		return branchline.Fragment{}, box[r.at-end:]
	}
	row, _ := rowAt(rows, r.at)
	return row, nil
}

// unfit returns the error for a fragment that could not be read, or its bytes after all. What is sealed
// goes to quarantine; of what is held in part, the fragment is held no longer and may be put again.
func (r *reader) unfit(row branchline.Fragment, err error) ([]byte, error) {
	if !isDamage(err) {
		return nil, err
	}
	if r.p == nil {
		forgetPages(r.f)
		r.content.forget()
		data, err := r.content.fragment(row)
		return data, r.s.unreadable(r.id, err)
	}
	data, done, err := r.p.lose(row, &r.content, r.s.signer == nil)
	switch {
	case err == nil:
		return data, nil
	case done:
		return nil, r.s.unreadable(r.id, err)
	case isDamage(err):
		r.s.log.Error("fragment is damaged", "segment", r.id, "stream", r.p.stream, "cause", err)
		err = fmt.Errorf("segment %v: %w: %s", r.id, branchline.ErrUnavailable, err.Error())
	}
	return nil, err
}

// lose reads a fragment again, that could not be verified, while nobody writes. If it is damaged indeed, a
// replica drops it, unless the segment is complete and about to be sealed. It returns the bytes or why
// there are none, and whether the segment is sealed.
func (p *partial) lose(row branchline.Fragment, c *content, replica bool) (data []byte, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.forget()
	if data, err = c.fragment(row); err == nil || !isDamage(err) || p.state != growing {
		return data, p.state == sealed, err
	}
	i, ok := findRow(p.held, row.Offset)
	if replica && ok && !p.complete() {
		p.held = slices.Delete(p.held, i, i+1)
		p.fresh = slices.DeleteFunc(p.fresh, func(f branchline.Fragment) bool { return sameBytes(f, row) })
		p.lost, p.dirty = append(p.lost, row), true
		p.changed.ring()
	}
	return nil, false, err
}

// ready returns how many bytes can be read now, or else what to wait for.
func (r *reader) ready() (int64, <-chan struct{}, error) {
	if r.end != 0 && r.at >= r.end {
		if r.p == nil && r.content.row.Length > 0 {
			r.s.brake.good()
		}
		r.content.giveBack() // and not in Close, as that may come while somebody reads
		return 0, nil, io.EOF
	}
	if r.p == nil {
		return r.end - r.at, nil, nil
	}
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	reach := p.reach(r.at)
	if r.end != 0 {
		reach = min(reach, r.end-r.at)
	}
	switch {
	case reach > 0:
		return reach, nil, nil
	case p.state == sealed:
		return 0, nil, io.EOF
	case p.state != growing:
		return 0, nil, fmt.Errorf("read: %w", p.usable())
	case p.hole(r.at):
		return 0, nil, fmt.Errorf("byte %d of segment %v: %w", r.at, p.id, branchline.ErrUnavailable)
	}
	return 0, p.changed.heard(), nil
}

// hole reports whether the byte at offset is known to exist and is not held. It needs mu.
func (p *partial) hole(offset int64) bool {
	if p.footer != nil && !p.complete() && offset < p.footer.End() {
		return true
	}
	n := len(p.held)
	return n > 0 && offset < p.held[n-1].Offset
}

// Close ends the reading.
func (r *reader) Close() error {
	err := error(nil)
	r.once.Do(func() {
		err = r.f.Close()
		r.s.release(r.p)
		<-r.s.readers
	})
	return err
}
