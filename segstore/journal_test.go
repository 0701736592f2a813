package segstore

import (
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// TestJournalHasAlwaysRoom enters far more gaps than there is room for, of two streams.
func TestJournalHasAlwaysRoom(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	s.journalMost, s.journalLimit = 6000, 6000
	must(t, s.PutCamera(branchline.Camera{ID: "entrance", Name: "Door"}))
	for i := range 300 {
		g := gap(float64(i), float64(i)+0.5, branchline.CauseUnreachable, false)
		if i%2 == 0 {
			g.Stream = "yard.main"
		}
		must(t, s.RecordGap(g))
		if s.journal.size > s.journalMost+200 {
			t.Fatalf("journal of %d bytes, at most %d", s.journal.size, s.journalMost)
		}
	}
	for range 2 {
		got := allChanges(t, s)
		if n := strings.Count(got, "gap"); n < 20 || n > 150 {
			t.Errorf("%d gaps are left", n)
		}
		if !strings.Contains(got, "gap 299-299.5") || !strings.Contains(got, "camera entrance") {
			t.Errorf("the newest are gone: %s", got)
		}
		must(t, s.Close())
		s = openStore(t, dir, true)
	}
}

// TestOldGapsAreForgotten enters gaps of three days more than a year apart, and opens the store anew.
func TestOldGapsAreForgotten(t *testing.T) {
	dir, now := t.TempDir(), testStart()
	open := func() *Store {
		s, err := Open(dir, Options{Signer: testKey(), Clock: clock.New(func() time.Time { return now })})
		must(t, err)
		return s
	}
	s := open()
	must(t, s.RecordGap(gap(0, 1, branchline.CauseUnreachable, false)))
	must(t, s.RecordGap(gap(2, 3, branchline.CauseUnreachable, false)))
	now = now.Add(gapAge + 2*time.Second)
	must(t, s.RecordGap(gap(5, 6, branchline.CauseUnreachable, false)))
	for range 2 {
		if got := allChanges(t, s); got != "gap 2-3 camera unreachable, gap 5-6 camera unreachable" {
			t.Errorf("feed: %s", got)
		}
		must(t, s.Close())
		s = open()
	}
	must(t, s.Close())
}
