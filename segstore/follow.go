package segstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/branchline-video/branchline"
)

// errSealedSince: the partial is none any more, so the index knows where the segment is.
var errSealedSince = errors.New("sealed meanwhile")

// reader reads a range of a segment file; on a partial one only what is held.
type reader struct {
	ctx     context.Context
	s       *Store
	p       *partial // nil for a sealed segment
	f       *os.File
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
	r.p = p
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
			n, err := r.f.ReadAt(b[:min(int64(len(b)), n)], r.at)
			r.at += int64(n)
			if n > 0 && errors.Is(err, io.EOF) {
				err = nil
			} else if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the file is shorter than what it is known to hold
			}
			return n, err
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		case <-r.s.closing:
			return 0, fmt.Errorf("read segment: store closed: %w", branchline.ErrUnavailable)
		}
	}
}

// ready returns how many bytes can be read now, or else what to wait for.
func (r *reader) ready() (int64, <-chan struct{}, error) {
	if r.end != 0 && r.at >= r.end {
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
