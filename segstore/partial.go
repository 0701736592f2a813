package segstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/branchline-video/branchline"
)

// partial is a segment that is not sealed yet: growing at its origin, or held in part.
//
// Whoever syncs, seals, closes or removes the file holds turn; whoever only writes or reads needs mu.
// turn is taken before mu.
type partial struct {
	id       branchline.SegmentID
	stream   branchline.StreamID // as this node calls it
	run      uint64
	number   uint32
	start    branchline.SegmentStart // without Init
	init     []byte
	fs       files
	trust    func(branchline.StreamID, ed25519.PublicKey) error
	turn     chan struct{}   // holds a token while taken
	vol      *volume         // where it is kept; set before it takes fragments
	path     string          // where it grows
	origin   bool            // the sidecar lists what is synced, and the file shows the rest
	listed   bool            // the sidecar lists all that is held; not at the origin
	lists    int             // guarded by turn: how often the origin's sidecar was written and not synced
	cipher   *cipher         // how its fragments stand in the file; nil: in plain
	side     int64           // guarded by turn: the sidecar's length; zero if it is to be read first
	stepped  bool            // guarded by turn: its directory entries are durable
	recorded branchline.Hash // guarded by turn: of the footer that stands in the sidecar

	users int    // guarded by the store's mu: calls and readers at work with it
	used  uint64 // guarded by the store's mu: when it was used last, by the count of uses

	mu      sync.Mutex
	state   state
	failed  error                 // why state is broken
	file    file                  // nil while closed
	renamed bool                  // it is at final; changes only under turn, too
	final   string                // where it is sealed
	held    []branchline.Fragment // sorted by offset
	fresh   []branchline.Fragment // held and not yet in the sidecar
	lost    []branchline.Fragment // found damaged, which the sidecar does not know yet
	loaded  []branchline.Fragment // held as the sidecar said when it was read: nobody has looked at the bytes since
	dirty   bool                  // something is not synced
	footer  *Footer               // stays as it is once the segment is complete, and so does box
	box     []byte
	changed bell
}

type state int

const (
	unborn  state = iota // Begin has not finished
	growing              // takes fragments
	broken               // a sync failed: takes nothing more, is not sealed
	sealed               // durable and in the index
	removed
	closed // the store is
)

func (s *Store) newPartial(stream branchline.StreamID, start branchline.SegmentStart) *partial {
	init := bytes.Clone(start.Init)
	start.Init = nil
	return &partial{
		id: start.ID, stream: stream, run: start.Run, number: start.Number, start: start, init: init, fs: s.fs,
		trust: s.trust, turn: make(chan struct{}, 1), origin: s.signer != nil, listed: s.signer == nil,
	}
}

func (p *partial) take() { p.turn <- struct{}{} }

// takeOr is take that gives up when ctx ends.
func (p *partial) takeOr(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *partial) give() { <-p.turn }

// usable returns the error of the state unless the partial takes fragments. It needs mu.
func (p *partial) usable() error {
	switch p.state {
	case growing:
		return nil
	case broken:
		return fmt.Errorf("segment %v: disk failed earlier: %w", p.id, p.failed)
	case removed:
		return fmt.Errorf("segment %v was removed: %w", p.id, branchline.ErrGone)
	case closed:
		return fmt.Errorf("segment %v: store closed: %w", p.id, branchline.ErrUnavailable)
	}
	return fmt.Errorf("segment %v: %w", p.id, branchline.ErrNotFound)
}

// grows reports whether the partial takes fragments.
func (p *partial) grows() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == growing
}

// open opens the data file if it is closed. It needs mu. It reports whether it did.
func (p *partial) open() (bool, error) {
	if p.file != nil {
		return false, nil
	}
	f, err := p.fs.Open(p.where(), os.O_RDWR)
	if err != nil {
		return false, fmt.Errorf("open segment %v: %w", p.id, err)
	}
	p.file = f
	return true, nil
}

// where returns the data file's present path. It needs mu.
func (p *partial) where() string {
	if p.renamed {
		return p.final
	}
	return p.path
}

// fits reports whether fragment f is to be written. It is not when it is held already, or when the
// known footer ends before it. It needs mu.
func (p *partial) fits(f branchline.Fragment) (bool, error) {
	if p.footer != nil {
		if f.Offset >= p.footer.End() {
			return false, nil
		}
		i, ok := findRow(p.footer.Fragments, f.Offset)
		if !ok || !sameBytes(p.footer.Fragments[i], f) {
			return false, fmt.Errorf("put fragment at %d of %v: not in its footer: %w", f.Offset, p.id,
				branchline.ErrMismatch)
		}
	}
	i, ok := findRow(p.held, f.Offset)
	switch {
	case ok && sameBytes(p.held[i], f):
		return false, nil
	case ok:
		return false, fmt.Errorf("put fragment at %d of %v: held is %v, put is %v: %w", f.Offset, p.id,
			p.held[i].Hash, f.Hash, branchline.ErrMismatch)
	case f.Offset < int64(len(p.init)) || i > 0 && p.held[i-1].End() > f.Offset ||
		i < len(p.held) && f.End() > p.held[i].Offset:
		return false, fmt.Errorf("put fragment at %d of %v: overlaps what is held: %w", f.Offset, p.id,
			branchline.ErrMismatch)
	case len(p.held) >= MaxFragments:
		return false, fmt.Errorf("put fragment of %v: %w", p.id, branchline.ErrTooLarge)
	}
	return true, nil
}

// put writes a verified fragment and reports whether the segment is now complete.
func (p *partial) put(f branchline.Fragment, data []byte) (complete, opened bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == sealed {
		return false, false, nil
	}
	if err := p.usable(); err != nil {
		return false, false, err
	}
	if write, err := p.fits(f); err != nil || !write {
		return false, false, err
	}
	if opened, err = p.open(); err != nil {
		return false, opened, err
	}
	if data, err = p.cipher.encrypt(data, f.Offset); err != nil {
		return false, opened, err
	}
	if _, err := p.file.WriteAt(data, f.Offset); err != nil {
		return false, opened, fmt.Errorf("write fragment of %v: %w", p.id, err)
	}
	i, _ := findRow(p.held, f.Offset)
	p.held = slices.Insert(p.held, i, f)
	p.fresh = append(p.fresh, f)
	p.dirty = true
	p.changed.ring()
	return p.complete(), opened, nil
}

// complete reports whether all that the footer lists is held. It needs mu.
func (p *partial) complete() bool { return p.footer != nil && len(p.held) == len(p.footer.Fragments) }

// accept takes the segment's footer after holding it against everything known, drops fragments that
// the origin lost after they were sent, and reports whether the segment is complete. Its error wraps
// ErrMismatch and says both hashes.
func (p *partial) accept(seal branchline.SegmentSeal) (complete bool, dropped int, err error) {
	f, err := ParseFooter(seal.Footer)
	if err != nil {
		return false, 0, err
	}
	mismatch := func(what string, want, got any) (bool, int, error) {
		return false, 0, fmt.Errorf("seal segment %v: %s: held or announced is %v, footer says %v: %w",
			p.id, what, want, got, branchline.ErrMismatch)
	}
	switch {
	case f.ID != p.id:
		return mismatch("identifier", p.id, f.ID)
	case f.Hash != seal.Hash:
		return mismatch("hash", seal.Hash, f.Hash)
	case f.End()+int64(len(seal.Footer)) != seal.Size:
		return mismatch("size", seal.Size, f.End()+int64(len(seal.Footer)))
	case f.Run != p.run || f.Number != p.number:
		return mismatch("run", p.run, f.Run)
	case p.stream != f.Stream && !strings.HasSuffix(string(p.stream), "."+string(f.Stream)):
		return mismatch("stream", p.stream, f.Stream)
	}
	if err := f.Verify(p.init); err != nil {
		return false, 0, err
	}
	if err := p.trust(p.stream, f.PublicKey); err != nil {
		return false, 0, fmt.Errorf("seal segment %v: signed by %x: %w", p.id, f.PublicKey, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.footer != nil && p.footer.Hash == f.Hash
	switch err := p.usable(); {
	case same && (err == nil || p.state == sealed):
		return p.complete(), 0, nil
	case err != nil:
		return false, 0, err
	case p.complete(): // it is being sealed, so nothing may change any more
		return mismatch("hash", p.footer.Hash, f.Hash)
	}
	keep := len(p.held)
	for keep > 0 && p.held[keep-1].Offset >= f.End() {
		keep--
	}
	for _, h := range p.held[:keep] {
		i, ok := findRow(f.Fragments, h.Offset)
		if !ok {
			return mismatch(fmt.Sprintf("fragment at %d", h.Offset), h.Hash, "no such fragment")
		}
		if !sameBytes(f.Fragments[i], h) {
			return mismatch(fmt.Sprintf("fragment at %d", h.Offset), h.Hash, f.Fragments[i].Hash)
		}
	}
	dropped = len(p.held) - keep
	p.held = p.held[:keep:keep]
	p.footer, p.box, p.dirty = &f, bytes.Clone(seal.Footer), true
	p.changed.ring()
	return p.complete(), dropped, nil
}

// reach returns how many bytes from offset on are held without a hole. It needs mu.
func (p *partial) reach(offset int64) int64 {
	end := int64(len(p.init))
	if p.state == sealed {
		return p.footer.End() + int64(len(p.box)) - offset
	}
	i, ok := findRow(p.held, end)
	if offset >= end {
		i, ok = findRow(p.held, offset)
		if !ok && i > 0 && p.held[i-1].End() > offset {
			i, ok = i-1, true
		}
		end = offset
	}
	for ; ok && i < len(p.held) && p.held[i].Offset <= end; i++ {
		end = p.held[i].End()
	}
	return end - offset
}

// segment describes what is held.
func (p *partial) segment() branchline.Segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == sealed {
		return p.footer.Segment(p.stream, p.footer.End()+int64(len(p.box)))
	}
	s := p.opened()
	s.Fragments = slices.Clone(p.held)
	if n := len(p.held); n > 0 {
		s.Span = branchline.TimeRange{Start: p.held[0].Start, End: p.held[n-1].Span().End}
		s.Size = p.held[n-1].End()
	}
	return s
}

// opened describes the segment as it was begun.
func (p *partial) opened() branchline.Segment {
	return branchline.Segment{ID: p.id, Stream: p.stream, Run: p.run, Number: p.number,
		Span:   branchline.TimeRange{Start: p.start.Start, End: p.start.Start},
		Codecs: p.start.Codecs, InitSize: int64(len(p.init)), Size: int64(len(p.init))}
}

// matches reports whether a second Begin means the same segment.
func (p *partial) matches(stream branchline.StreamID, start branchline.SegmentStart) error {
	if p.stream != stream || p.run != start.Run || p.number != start.Number || !bytes.Equal(p.init, start.Init) {
		return fmt.Errorf("differs from what was begun: %w", branchline.ErrMismatch)
	}
	return nil
}

// findRow returns where a row with the offset is, or would be.
func findRow(rows []branchline.Fragment, offset int64) (int, bool) {
	return slices.BinarySearchFunc(rows, offset, func(r branchline.Fragment, o int64) int {
		return int(min(max(r.Offset-o, -1), 1))
	})
}

func sameBytes(a, b branchline.Fragment) bool {
	return a.Offset == b.Offset && a.Length == b.Length && a.Hash == b.Hash
}

// checkFragment verifies data as the fragment f.
func checkFragment(f branchline.Fragment, data []byte) error {
	if err := checkLength(f, data); err != nil {
		return err
	}
	if got := branchline.Hash(sha256.Sum256(data)); got != f.Hash {
		return fmt.Errorf("hash is %v and should be %v: %w", got, f.Hash, branchline.ErrMismatch)
	}
	if !checksumHolds(data) {
		return fmt.Errorf("no valid checksum box at the end: %w", branchline.ErrInvalid)
	}
	return nil
}

// checkMade verifies data whose hash and checksum this process has just made, by the checksum alone.
func checkMade(f branchline.Fragment, data []byte) error {
	if err := checkLength(f, data); err != nil {
		return err
	}
	if !checksumHolds(data) {
		return fmt.Errorf("checksum of the bytes differs from that at their end: %w", branchline.ErrMismatch)
	}
	return nil
}

func checkLength(f branchline.Fragment, data []byte) error {
	if err := checkRow(f); err != nil {
		return err
	}
	if int64(len(data)) != f.Length {
		return fmt.Errorf("%d bytes instead of %d: %w", len(data), f.Length, branchline.ErrMismatch)
	}
	return nil
}
