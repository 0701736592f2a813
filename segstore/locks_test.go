package segstore

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/retain"
)

// TestLockSurvivesEverything: age, quota, a reopening, the loss of the index, and a journal written anew.
func TestLockSurvivesEverything(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(dir, Options{Signer: testKey(), Retention: retain.Rules{Quota: 1,
			Rules: []retain.Rule{{Keep: time.Second}}}})
		must(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open()
	safe := segmentOf(testStream, 1, day(2, 0).Start, 4)
	lock := branchline.Lock{ID: "case-1", Stream: testStream, Span: day(3, 3.1), By: "police", Reason: "theft",
		Created: testStart()}
	must(t, s.Lock(t.Context(), lock))
	taken := branchline.Lock{ID: "case-2", Stream: testStream, Span: day(0, 9)}
	must(t, s.Lock(t.Context(), taken))
	must(t, s.Unlock(t.Context(), "case-2"))
	must(t, s.Unlock(t.Context(), "case-2"))
	recordSegment(t, s, segmentOf(testStream, 0, day(0, 0).Start, 4))
	recordSegment(t, s, safe)
	for _, harm := range []func(){
		func() {},
		func() { must(t, os.RemoveAll(filepath.Join(dir, indexDir))) },
		func() {
			s = open()
			s.journalLimit = 0
			must(t, s.RecordGap(gap(20, 21, branchline.CauseUnreachable, false)))
			must(t, s.Close())
			must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
		},
	} {
		s.retain()
		segments, _ := timeline(t, s, testStream)
		if len(segments) != 1 || between(segments[0]) != "2-4" {
			t.Errorf("segments %v", segments)
		}
		if st := s.RetentionStats(); len(st.Shortages) != 1 || !strings.Contains(st.Shortages[0].Why, `"case-1"`) {
			t.Errorf("shortages %+v", st.Shortages)
		}
		must(t, s.Close())
		harm()
		s = open()
		if got, err := s.Locks(t.Context()); err != nil || !slices.Equal(got, []branchline.Lock{lock}) {
			t.Fatalf("locks %+v, %v", got, err)
		}
	}
	must(t, s.Unlock(t.Context(), lock.ID))
	s.retain()
	if _, err := s.lookup(safe.start.ID); !errors.Is(err, branchline.ErrGone) {
		t.Errorf("after the lock was taken off: %v", err)
	}
	checkCoverage(t, s, testStream, day(0, 4))
}

func TestHoldsPostponeAndEnd(t *testing.T) {
	dir := t.TempDir()
	var now atomic.Int64
	now.Store(day(3600, 0).Start.UnixNano())
	open := func() *Store {
		s, err := Open(dir, Options{Signer: testKey(), Clock: clock.New(func() time.Time { return time.Unix(0, now.Load()) }),
			Retention: retain.Rules{Rules: []retain.Rule{{Keep: time.Minute, Extend: 3 * time.Hour}}}})
		must(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open()
	recordSegment(t, s, segmentOf(testStream, 0, day(0, 0).Start, 4))
	recordSegment(t, s, segmentOf(testStream, 1, day(2, 0).Start, 4))
	h := branchline.Hold{Holder: "hub", Stream: testStream, Spans: branchline.Spans{day(0, 1)}, Known: day(9, 0).Start,
		Until: day(7200, 0).Start}
	must(t, s.Hold(t.Context(), branchline.Hold{Holder: "hub", Stream: testStream, Until: day(9000, 0).Start})) // replaced
	must(t, s.Hold(t.Context(), h))
	must(t, s.Hold(t.Context(), branchline.Hold{Holder: "other", Stream: testStream, Until: day(9000, 0).Start}))
	must(t, s.Hold(t.Context(), branchline.Hold{Holder: "other", Stream: testStream})) // given back
	for _, step := range []struct {
		at   float64
		want string
	}{{3600, "0-2"}, {7201, "0-2"}, {7200 + 3*3600, ""}} {
		now.Store(day(step.at, 0).Start.UnixNano())
		s.retain()
		segments, _ := timeline(t, s, testStream)
		var got []string
		for _, r := range segments {
			got = append(got, between(r))
		}
		if strings.Join(got, " ") != step.want {
			t.Errorf("after %g s: %q, want %q", step.at, got, step.want)
		}
		holds, err := s.Holds(t.Context())
		if err != nil || (len(holds) == 1 && fmt.Sprint(holds[0]) == fmt.Sprint(h)) != (step.want != "") || len(holds) > 1 {
			t.Errorf("after %g s: holds %+v, %v", step.at, holds, err)
		}
		must(t, s.Close())
		must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
		s = open()
	}
}

func TestLocksAndHoldsAreChecked(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	long := strings.Repeat("x", branchline.MaxName+1)
	good := branchline.Lock{ID: "a", Stream: testStream, Span: day(0, 1)}
	for _, c := range []struct {
		name   string
		change func(l *branchline.Lock)
	}{
		{"no identifier", func(l *branchline.Lock) { l.ID = "" }},
		{"long identifier", func(l *branchline.Lock) { l.ID = strings.Repeat("x", branchline.MaxLockID+1) }},
		{"no stream", func(l *branchline.Lock) { l.Stream = "" }},
		{"empty span", func(l *branchline.Lock) { l.Span.End = l.Span.Start }},
		{"a time of no place", func(l *branchline.Lock) { l.Span.End = day(0, 0).Start.AddDate(1000, 0, 0) }},
		{"ended", func(l *branchline.Lock) { l.Until = day(0, 0).Start }},
		{"long reason", func(l *branchline.Lock) { l.Reason = long }},
		{"long name", func(l *branchline.Lock) { l.By = long }},
	} {
		l := good
		c.change(&l)
		if err := s.Lock(t.Context(), l); !errors.Is(err, branchline.ErrInvalid) {
			t.Errorf("lock: %s: %v", c.name, err)
		}
	}
	many := make(branchline.Spans, branchline.MaxHoldSpans+1)
	for i := range many {
		many[i] = day(float64(i), float64(i)+0.5)
	}
	until := s.clock.Now().Add(time.Hour)
	for _, c := range []struct {
		name string
		hold branchline.Hold
		want error
	}{
		{"no holder", branchline.Hold{Stream: testStream, Until: until}, branchline.ErrInvalid},
		{"no stream", branchline.Hold{Holder: "hub", Until: until}, branchline.ErrInvalid},
		{"a time of no place", branchline.Hold{Holder: "hub", Stream: testStream, Until: until.AddDate(1000, 0, 0)},
			branchline.ErrInvalid},
		{"too many spans", branchline.Hold{Holder: "hub", Stream: testStream, Spans: many, Until: until},
			branchline.ErrTooLarge},
		{"as many as may be", branchline.Hold{Holder: "hub", Stream: testStream, Spans: many[1:], Until: until}, nil},
	} {
		if err := s.Hold(t.Context(), c.hold); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("hold: %s: %v", c.name, err)
		}
	}
}

// TestLocksAreLimited fills the index with claims by itself, as ten thousand syncs take long.
func TestLocksAreLimited(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	err := s.commit(func(l *ledger) error {
		for i := range 2000 {
			if err := l.tx.Set(keyLock(fmt.Sprint("case-", i)), []byte{1}); err != nil {
				return err
			}
		}
		for _, c := range []struct {
			id   string
			most int
			want error
		}{{"new", 2000, branchline.ErrTooLarge}, {"case-7", 2000, nil}, {"new", 2001, nil}} {
			if _, err := l.claim(claim{kindLock, keyLock(c.id), []byte{2}}, c.most); !errors.Is(err, c.want) {
				t.Errorf("%s, at most %d: %v", c.id, c.most, err)
			}
		}
		return errStopped
	})
	if !errors.Is(err, errStopped) {
		t.Error(err)
	}
}

// TestRecordingGoesOnWhenSpaceIsMade: a full volume wakes retention, which removes what it may.
func TestRecordingGoesOnWhenSpaceIsMade(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	var base atomic.Int64
	base.Store(1 << 40)
	s.free = func(string) (int64, error) { // each file in segments/ takes a GB
		days, err := filepath.Glob(filepath.Join(s.dir, segmentsDir, "*", "*", "*"))
		return base.Load() - int64(len(days))<<30, err
	}
	s.retention.volume = func(string) (int64, error) { return 0, nil }
	s.retention.rouse() // which also hands the two over
	for i := range 6 {
		recordSegment(t, s, segmentOf(testStream, uint32(i), day(float64(2*i), 0).Start, 4))
	}
	must(t, s.Lock(t.Context(), branchline.Lock{ID: "case-1", Stream: testStream, Span: day(3, 4)}))
	next := segmentOf(testStream, 6, day(12, 0).Start, 4)
	must(t, s.Begin(testStream, next.start))
	told := s.feed.heard()
	base.Store(6<<30 + minFree - 1)
	if err := s.Put(next.start.ID, next.fragments[0], next.data(0)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("put on a full volume: %v", err)
	}
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is removed")
	}
	must(t, s.retention.take(t.Context())) // the removal is under way up to here
	s.retention.give()
	recordSegment(t, s, next)
	segments, gaps := timeline(t, s, testStream)
	if len(segments) != 2 || between(segments[0]) != "2-4" || len(gaps) != 2 { // they are small, as it knows them
		t.Errorf("segments %v and gaps %v", segments, gaps)
	}
	if last := s.Removals(); len(last) != 5 || !strings.Contains(last[0].Why, "free of") ||
		cmp.Or(last[0].Cause, "none") != branchline.CauseRemovedEarly {
		t.Errorf("removals %+v", last)
	}
}
