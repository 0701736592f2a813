package segstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// The comparison of the index with the files, a stream's day at a time.

// days returns the names of a stream's folders of sealed segments, in order.
func (s *Store) days(stream branchline.StreamID) ([]string, error) {
	seen := make(map[string]bool)
	for _, v := range s.volumes {
		if !v.present() {
			continue
		}
		names, err := readNames(filepath.Join(v.dir, segmentsDir, string(stream)))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			seen[n] = true
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// filesOf returns the sealed files of a stream's day.
func (s *Store) filesOf(stream branchline.StreamID, day string) (map[branchline.SegmentID]string, error) {
	all := make(map[branchline.SegmentID]string)
	for _, v := range slices.Backward(s.volumes) {
		if !v.present() {
			continue
		}
		files, err := sealedIn(filepath.Join(v.dir, segmentsDir, string(stream), day))
		if err != nil {
			return nil, err
		}
		maps.Copy(all, files)
	}
	return all, nil
}

// readFiles returns the segments of those files that are some.
func (s *Store) readFiles(stream branchline.StreamID, files map[branchline.SegmentID]string) []branchline.Segment {
	paths := slices.Sorted(maps.Values(files))
	found := make([]branchline.Segment, len(paths))
	var group errgroup.Group
	group.SetLimit(adoptReaders)
	for i, path := range paths {
		group.Go(func() error {
			seg, f, err := readSealed(path, stream)
			if err == nil && files[seg.ID] != path {
				err = fmt.Errorf("footer is of segment %v: %w", seg.ID, branchline.ErrMismatch)
			}
			if err == nil {
				err = s.belongs(stream, f)
			}
			if err == nil {
				found[i] = seg
			} else if !errors.Is(err, fs.ErrNotExist) {
				s.log.Error("file is no segment and stays unused", "path", path, "cause", err)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
	found = slices.DeleteFunc(found, func(seg branchline.Segment) bool { return !seg.Sealed })
	orderSegments(found)
	return found
}

// compareAll makes the index agree with the files of all streams.
func (s *Store) compareAll(ctx context.Context, causes map[branchline.SegmentID]branchline.Cause, counts *tally) error {
	streams, err := s.streams()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		if err := s.compare(ctx, stream, causes, counts); err != nil {
			return fmt.Errorf("compare %s with its files: %w", stream, err)
		}
	}
	return nil
}

// compare makes the index agree with the files of a stream, a day at a time, the newest first.
func (s *Store) compare(ctx context.Context, stream branchline.StreamID,
	causes map[branchline.SegmentID]branchline.Cause, counts *tally) error {
	days, err := s.days(stream)
	if err != nil {
		return err
	}
	entered, err := s.enteredDays(stream)
	if err != nil {
		return err
	}
	days = slices.Compact(slices.Sorted(slices.Values(append(days, entered...))))
	for _, day := range slices.Backward(days) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.compareDay(stream, day, causes, counts); err != nil {
			return err
		}
		if counts.told != nil {
			counts.told(counts.segments)
		}
	}
	return nil
}

// enteredDays returns the days for which the index has segments of the stream.
func (s *Store) enteredDays(stream branchline.StreamID) (days []string, err error) {
	err = s.ix.View(func(tx *index.Tx) error {
		for _, kind := range []byte{'D', 'P'} {
			for k := range tx.Scan(keyLine(kind, stream), nil) {
				t := timeOfKey(k[:len(keyLine(kind, stream))+8])
				days = append(days, t.Format(dayLayout))
			}
		}
		return nil
	})
	return days, err
}

func (s *Store) compareDay(stream branchline.StreamID, day string,
	causes map[branchline.SegmentID]branchline.Cause, counts *tally) error {
	start, err := time.Parse(dayLayout, day)
	if err != nil {
		return nil //nolint:nilerr // nothing of ours
	}
	files, err := s.filesOf(stream, day)
	if err != nil {
		return err
	}
	counts.segments += len(files)
	same, err := s.agrees(stream, start, files)
	if err != nil {
		return err
	}
	if same {
		files = nil // so that nothing is left to look at but what is not sealed
	}
	known, err := s.entered(stream, start, same)
	if err != nil {
		return err
	}
	for _, seg := range known {
		if _, ok := files[seg.ID]; ok {
			if seg.Sealed {
				delete(files, seg.ID)
			}
			continue
		}
		gone, err := s.dropMissing(seg, causes[seg.ID])
		if err != nil {
			return err
		}
		if gone {
			counts.missing++
		}
	}
	var group errgroup.Group
	group.SetLimit(adoptAhead)
	var found atomic.Int64
	for batch := range slices.Chunk(slices.SortedFunc(maps.Keys(files), compareIDs), adoptBatch) {
		group.Go(func() error {
			n, err := s.adoptUnknown(stream, batch, files)
			found.Add(int64(n))
			return err
		})
	}
	err = group.Wait()
	counts.found += int(found.Load())
	return err
}

// entered returns the segments that the index has of a day; without the sealed ones where those are the day's
// files, as they nearly always are, so that most of the index is never read.
func (s *Store) entered(stream branchline.StreamID, day time.Time, same bool) ([]branchline.Segment, error) {
	if same {
		return s.unsealed(stream, day)
	}
	known, err := s.entries(stream, branchline.TimeRange{Start: day, End: day.Add(24 * time.Hour)}, false)
	return slices.DeleteFunc(known, func(seg branchline.Segment) bool { return seg.Span.Start.Before(day) }), err
}

func compareIDs(a, b branchline.SegmentID) int { return slices.Compare(a[:], b[:]) }

// adoptUnknown enters sealed files that the index does not know as such, and returns how many.
func (s *Store) adoptUnknown(stream branchline.StreamID, ids []branchline.SegmentID,
	files map[branchline.SegmentID]string) (int, error) {
	unknown := make(map[branchline.SegmentID]string)
	for _, id := range ids {
		defer s.seize(id)()
		if sealed, err := s.isSealed(id); sealed || s.partial(id) != nil {
			continue // its sealing is under way
		} else if errors.Is(err, index.ErrDamaged) {
			return 0, err
		}
		unknown[id] = files[id]
	}
	found := s.readFiles(stream, unknown)
	if len(found) == 0 {
		return 0, nil
	}
	return len(found), s.adopt(found)
}

// adopt enters segments. A segment of which the index has never heard means that it has lost changes that
// followers have seen, so they must start again: a new epoch, unless the index is new anyway.
func (s *Store) adopt(batch []branchline.Segment) error {
	return s.commit(func(l *ledger) error {
		for _, seg := range batch {
			_, _, err := find(l.tx, seg.ID)
			if errors.Is(err, branchline.ErrNotFound) && !s.ix.Fresh() && !s.renewed {
				l.meta.epoch, s.renewed = rand.Uint64()|1, true
			}
			if err := l.segment(seg); err != nil {
				return err
			}
			if err := s.noteSize(l, seg); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropMissing takes a segment out of the index that has neither a sealed file nor a partial, and reports
// whether it did. While a volume is absent nothing is missing.
func (s *Store) dropMissing(seg branchline.Segment, cause branchline.Cause) (bool, error) {
	if s.partial(seg.ID) != nil || !s.allPresent() {
		return false, nil
	}
	if err := s.retention.take(context.Background()); err != nil { // which moves files, too
		return false, err
	}
	defer s.retention.give()
	if err := s.finishRetired(); err != nil {
		return false, err
	}
	defer s.seize(seg.ID)()
	now, err := s.lookup(seg.ID)
	switch {
	case errors.Is(err, branchline.ErrNotFound) || errors.Is(err, branchline.ErrGone):
		return false, nil
	case err != nil:
		return false, err
	}
	if now.Sealed {
		_, err = os.Stat(s.sealedPath(now))
		cause = cmp.Or(cause, branchline.CauseDiskFailed)
	} else {
		_, err = os.Stat(s.growingPath(now.Stream, now.ID))
		cause = cmp.Or(cause, branchline.CauseStopped)
	}
	if !errors.Is(err, fs.ErrNotExist) || s.partial(seg.ID) != nil {
		return false, nil
	}
	if now.Sealed {
		s.log.Error("file of a sealed segment is missing", "segment", now.ID, "stream", now.Stream)
	}
	err = s.commit(func(l *ledger) error { return l.takeOut(now.ID, cause) })
	return err == nil, err
}

// readSealed returns the segment that the file at path contains, without its fragments, after
// verifying its footer. Without a stream it is called as at its edge.
func readSealed(path string, stream branchline.StreamID) (branchline.Segment, Footer, error) {
	r, err := os.Open(path)
	if err != nil {
		return branchline.Segment{}, Footer{}, err
	}
	defer r.Close()
	f, size, err := verifiedFooter(r)
	if err != nil {
		return branchline.Segment{}, f, err
	}
	seg := f.Segment(cmp.Or(stream, f.Stream), size)
	seg.Fragments = nil
	return seg, f, nil
}

// belongs returns an error unless a segment may be the stream's: it is a recording of that, and at a replica
// signed by whom is trusted. The origin's own may be of an earlier key of its.
func (s *Store) belongs(stream branchline.StreamID, f Footer) error {
	switch {
	case stream != f.Stream && (s.signer != nil || !strings.HasSuffix(string(stream), "."+string(f.Stream))):
		return fmt.Errorf("it is a recording of %s: %w", f.Stream, branchline.ErrMismatch)
	case s.signer == nil:
		return s.trust(stream, f.PublicKey)
	case !bytes.Equal(f.PublicKey, s.signer.Public().(ed25519.PublicKey)):
		s.log.Warn("segment was signed with another key than this node has", "segment", f.ID, "stream", stream,
			"key", fmt.Sprintf("%x", f.PublicKey))
	}
	return nil
}

func sortedStreams(seen map[string]bool) []branchline.StreamID {
	var all []branchline.StreamID
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if s := branchline.StreamID(name); s.Check() == nil {
			all = append(all, s)
		}
	}
	return all
}

// always is every time that a segment can have.
func always() branchline.TimeRange {
	return branchline.TimeRange{Start: time.Unix(0, 0).UTC(), End: time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// verifiedFooter reads and verifies the footer of an open segment file. It returns the segment's size as a
// whole, not that of an excerpt.
func verifiedFooter(r *os.File) (Footer, int64, error) {
	e, err := verifiedEnding(r)
	return e.Footer, e.wholeSize(), err
}
