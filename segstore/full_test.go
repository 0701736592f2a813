package segstore

import (
	"bytes"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// TestFullDisk: on a full disk no segment is begun or goes on, what is held is read, and a gap is told;
// with space it all goes on.
func TestFullDisk(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	var full atomic.Bool
	s.free = func(dir string) (int64, error) {
		if full.Load() {
			return minFree - 1, nil
		}
		return index.FreeSpace(dir)
	}
	one, two := makeSegment(0, 0, 4, branchline.Hash{}), makeSegment(1, 2, 4, branchline.Hash{})
	must(t, s.Begin(testStream, one.start))
	must(t, s.Put(one.start.ID, one.fragments[0], one.data(0)))
	full.Store(true)
	isFull := func(err error) bool {
		return errors.Is(err, branchline.ErrUnavailable) && errors.Is(err, syscall.ENOSPC)
	}
	if err := s.Put(one.start.ID, one.fragments[1], one.data(1)); !isFull(err) {
		t.Errorf("put: %v", err)
	}
	if err := s.Begin(testStream, two.start); !isFull(err) {
		t.Errorf("begin: %v", err)
	}
	must(t, s.RecordGap(branchline.Gap{Stream: testStream, Span: day(0, 1), Cause: branchline.CauseDiskFull}))
	want := one.file[:one.fragments[0].End()]
	if got := fetchAll(t, s, one.start.ID, branchline.ByteRange{End: int64(len(want))}); !bytes.Equal(got, want) {
		t.Error("what was held is read differently")
	}
	full.Store(false)
	record(t, s, two)
	if st := s.Stats(); st.Segments != 2 {
		t.Errorf("with space again: %+v", st)
	}
}
