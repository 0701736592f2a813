package segstore

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/branchline-video/branchline"
)

// A damaged file goes aside only if damage shows twice, as memory and cables err, too; and not after many
// others in a row, when it is rather the volume, or a wrong key.

const (
	// maxRotInRow is how many damaged files may follow one another before no more go aside for rotPause.
	maxRotInRow = 8
	rotPause    = time.Hour
	// A read error counts as damage if it is met again so much later, but not after it may have been mended.
	failsAgain  = time.Minute
	failsAtMost = 24 * time.Hour
	// maxFailing bounds the segments of which a read error is remembered.
	maxFailing = 1000
)

// brake holds back who would put many files aside. It is safe for concurrent use.
type brake struct {
	mu      sync.Mutex
	inRow   int       // damaged files, the last ones
	until   time.Time // while there are maxRotInRow
	failing map[branchline.SegmentID]time.Time
}

// good notes that fragments of a file were read to the end of what was asked for, and are what they should be.
func (b *brake) good() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inRow = 0
}

// rotten notes a damaged file. It reports whether that may go aside, and whether it is the last one for now.
func (b *brake) rotten(now time.Time) (aside, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inRow >= maxRotInRow {
		if left := b.until.Sub(now); left > 0 && left <= rotPause { // else the clock was set
			return false, false
		}
		b.inRow = 0
	}
	if b.inRow++; b.inRow == maxRotInRow {
		b.until = now.Add(rotPause)
	}
	return true, b.inRow == maxRotInRow
}

// fails notes a read error of the segment, and reports whether it is one that stays.
func (b *brake) fails(id branchline.SegmentID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	since := now.Sub(b.failing[id])
	if since >= failsAgain && since < failsAtMost {
		return true
	}
	if since >= 0 && since < failsAgain {
		return false
	}
	if b.failing == nil || len(b.failing) >= maxFailing {
		b.failing = make(map[branchline.SegmentID]time.Time)
	}
	b.failing[id] = now
	return false
}

// errDoubted wraps [branchline.ErrUnavailable]: what is damaged is rather not the segment's file.
var errDoubted = fmt.Errorf("read again later, as it may be the disk's fault: %w", branchline.ErrUnavailable)

// unreadable returns the error for who asks for a segment whose file failed twice, the second time with err.
// If it is the file that is damaged, the segment goes to quarantine and is announced as removed, because the
// disk failed; it is [branchline.ErrGone]. If that may be the volume's fault, nothing happens to the file, and
// the error wraps errDoubted.
func (s *Store) unreadable(id branchline.SegmentID, err error) error {
	if !isDamage(err) {
		return err
	}
	seg, e := s.lookup(id)
	if e != nil { // removed meanwhile
		return e
	}
	if errors.Is(err, syscall.EIO) {
		s.volumeOf(s.sealedPath(seg)).suspect(err)
		if !s.brake.fails(id, s.clock.Now()) {
			return fmt.Errorf("segment %v: %w: %s", id, errDoubted, err.Error())
		}
	}
	aside, last := s.brake.rotten(s.clock.Now())
	if !aside {
		return fmt.Errorf("segment %v: %w: %s", id, errDoubted, err.Error())
	}
	if e := s.quarantine(id, branchline.CauseDiskFailed, err.Error()); e != nil && !errors.Is(e, branchline.ErrGone) {
		s.log.Error("damaged segment stays where it is", "segment", id, "damage", err, "cause", e)
	}
	if last {
		s.log.Error("many damaged files in a row: no more are put aside for a while; check the disk and the keys",
			"files", maxRotInRow, "pause", rotPause, "cause", err)
	}
	return fmt.Errorf("segment %v is damaged: %w: %s", id, branchline.ErrGone, err.Error())
}

// isDamage reports whether err, of reading a sealed file, means that the file is damaged; not so one
// that is missing, as when its volume is, or being removed.
func isDamage(err error) bool {
	for _, e := range []error{branchline.ErrInvalid, branchline.ErrMismatch, io.EOF, io.ErrUnexpectedEOF, syscall.EIO} {
		if errors.Is(err, e) {
			return !errors.Is(err, ErrNewer)
		}
	}
	return false
}
