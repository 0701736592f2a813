package edge

import (
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
)

// full is a store without room until somebody makes some.
type full struct {
	mu   sync.Mutex
	room bool
	gaps []branchline.Gap
}

func (f *full) RecordGap(g branchline.Gap) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.room {
		return syscall.ENOSPC
	}
	f.gaps = append(f.gaps, g)
	return nil
}

func (f *full) PutCamera(branchline.Camera) error { return nil }

func (f *full) makeRoom() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = true
}

// TestGapsWaitForRoom: nothing that is asked for while a disk is full is lost, and of a gap its newest
// state is entered, also when there is room only at the end.
func TestGapsWaitForRoom(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := &full{}
			l := newLedger(store, slog.New(slog.DiscardHandler))
			var done sync.WaitGroup
			done.Go(l.run)
			at := time.Now()
			gap := func(stream branchline.StreamID, from, to int, open bool) {
				start := at.Add(time.Duration(from) * time.Second)
				l.gap(branchline.Gap{Stream: stream, Open: open, Cause: branchline.CauseUnreachable,
					Span: branchline.TimeRange{Start: start, End: at.Add(time.Duration(to) * time.Second)}})
			}
			gap("a.main", 0, 0, true)
			synctest.Wait() // it has failed once
			gap("b.main", 0, 0, true)
			gap("a.main", 0, 4, false)
			gap("a.main", 6, 6, true)
			if !late {
				store.makeRoom()
				<-time.After(noteAgain + time.Second)
				synctest.Wait()
				if len(store.gaps) != 3 {
					t.Errorf("entered before the end: %v", store.gaps)
				}
			}
			store.makeRoom()
			l.end()
			done.Wait()
			got := make(map[branchline.StreamID]branchline.Gap)
			for _, g := range store.gaps {
				got[g.Stream] = g
			}
			if len(store.gaps) != 3 || store.gaps[0].Open && store.gaps[0].Stream == "a.main" || !got["b.main"].Open ||
				!got["a.main"].Span.Start.Equal(at.Add(6*time.Second)) {
				t.Errorf("entered: %v", store.gaps)
			}
		})
	}
}

// TestAddNeverWaits asks for more than may wait while nothing is entered.
func TestAddNeverWaits(t *testing.T) {
	l := newLedger(&full{}, slog.New(slog.DiscardHandler))
	for i := range maxNotes + 10 {
		start := time.Unix(int64(i), 0)
		l.gap(branchline.Gap{Stream: "a.main", Span: branchline.TimeRange{Start: start, End: start}})
	}
	if n := len(l.notes); n != maxNotes || l.notes[n-1].gap.Span.Start.Unix() != maxNotes+9 {
		t.Errorf("%d notes wait", n)
	}
}
