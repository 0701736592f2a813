package segstore

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
)

// scrubbed opens a store with a scrub that only the test runs.
func scrubbed(t *testing.T, dir string, opt Options) (*Store, *scrubber) {
	t.Helper()
	s, err := Open(dir, opt)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	c := newScrubber(s, Scrub{Every: DefaultScrubEvery, Rate: 1 << 30})
	must(t, c.load())
	return s, c
}

// flipByte flips a bit of a file's byte, counted from its end if at is negative.
func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if at < 0 {
		at += int64(len(data))
	}
	data[at] ^= 4
	must(t, os.WriteFile(path, data, 0o644))
}

// TestScrubFindsRot damages one of three sealed files: the scrub moves it to quarantine, the feed tells of the
// removal and, at the origin, of the gap, and the others stay.
func TestScrubFindsRot(t *testing.T) {
	seg := makeSegment(1, 2, 4, branchline.Hash{})
	size := int64(len(seg.file))
	type place struct {
		name string
		at   int64
	}
	places := []place{{"init part", 20}, {"first fragment", seg.fragments[0].Offset + 100},
		{"last fragment", seg.fragments[3].End() - 60}, {"checksum", seg.fragments[1].End() - 1},
		{"table", size - 300}, {"signature", size - 20}, {"trailer", size - 1}}
	for _, origin := range []bool{true, false} {
		for _, c := range places {
			t.Run(fmt.Sprintf("%s, origin %v", c.name, origin), func(t *testing.T) {
				dir := t.TempDir()
				opt := Options{}
				if origin {
					opt.Signer = testKey()
				}
				s, scrub := scrubbed(t, dir, opt)
				for i := range uint32(3) {
					record(t, s, makeSegment(i, 2*int(i), 4, branchline.Hash{}))
				}
				must(t, scrub.scrub(t.Context()))
				if st := scrub.report(); st.Segments != 3 || st.Rotten != 0 || st.Ended.IsZero() || st.Progress != 1 {
					t.Errorf("before: %+v", st)
				}
				flipByte(t, Path(dir, testStream, seg.start.ID, seg.start.Start), c.at)
				must(t, scrub.scrub(t.Context()))
				if st := scrub.report(); st.Segments != 6 || st.Rotten != 1 || st.Unread+st.Untrusted != 0 {
					t.Errorf("after: %+v", st)
				}
				want := "sealed 0-2, sealed 4-6, removed 2-4 disk failed"
				if origin {
					want += ", gap 2-4 disk failed"
				}
				if got := allChanges(t, s); got != want {
					t.Errorf("feed: %s", got)
				}
				lost, err := s.Lost()
				if err != nil || len(lost) != 1 || lost[0].ID != seg.start.ID || lost[0].Stream != testStream {
					t.Errorf("lost: %+v %v", lost, err)
				}
				kept, err := filepath.Glob(filepath.Join(dir, quarantineDir, seg.start.ID.String()+".*.mp4"))
				if err != nil || len(kept) != 1 || s.Quarantined() != 1 {
					t.Errorf("in quarantine: %v %v", kept, err)
				}
			})
		}
	}
}

// TestNotRot: what cannot be read for another reason than its bytes stays what and where it is.
func TestNotRot(t *testing.T) {
	trusted := true
	trust := func(branchline.StreamID, ed25519.PublicKey) error {
		if trusted {
			return nil
		}
		return branchline.ErrDenied
	}
	for _, c := range []struct {
		name string
		harm func(t *testing.T, path string) (mend func() error)
		want ScrubStats
	}{
		{"volume away", func(t *testing.T, path string) func() error {
			day := filepath.Dir(path)
			must(t, os.Rename(day, day+".away"))
			return func() error { return os.Rename(day+".away", day) }
		}, ScrubStats{Unread: 1}},
		{"newer version", func(t *testing.T, path string) func() error {
			data, err := os.ReadFile(path)
			must(t, err)
			f, err := ReadFooter(bytes.NewReader(data), int64(len(data)))
			must(t, err)
			newer := bytes.Clone(data)
			newer[f.End()+boxHeaderSize] = Version + 1
			must(t, os.WriteFile(path, newer, 0o644))
			return func() error { return os.WriteFile(path, data, 0o644) }
		}, ScrubStats{Unread: 1}},
		{"key not trusted", func(t *testing.T, path string) func() error {
			trusted = false
			return func() error { trusted = true; return nil }
		}, ScrubStats{Segments: 1, Untrusted: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, scrub := scrubbed(t, dir, Options{Trust: trust})
			seg := makeSegment(0, 0, 4, branchline.Hash{})
			record(t, s, seg)
			mend := c.harm(t, Path(dir, testStream, seg.start.ID, seg.start.Start))
			must(t, scrub.scrub(t.Context()))
			got := scrub.report()
			if got.Rotten != 0 || got.Unread != c.want.Unread || got.Untrusted != c.want.Untrusted ||
				got.Segments != c.want.Segments {
				t.Errorf("%+v", got)
			}
			must(t, mend())
			if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
				t.Error("differs")
			}
		})
	}
}

// TestMuchRotIsAnotherFault: of a volume or key that makes all files look rotten only some are moved aside.
func TestMuchRotIsAnotherFault(t *testing.T) {
	dir := t.TempDir()
	s, scrub := scrubbed(t, dir, Options{})
	for i := range uint32(maxRotInRow + 5) {
		seg := makeSegment(i, 2*int(i), 2, branchline.Hash{})
		record(t, s, seg)
		flipByte(t, Path(dir, testStream, seg.start.ID, seg.start.Start), 500)
	}
	if err := scrub.scrub(t.Context()); !errors.Is(err, branchline.ErrMismatch) {
		t.Errorf("goes on: %v", err)
	}
	if st := s.Stats(); st.Segments != 5 || scrub.report().Rotten != maxRotInRow {
		t.Errorf("%+v, %+v", st, scrub.report())
	}
}

// TestScrubGoesOn stops a round after any number of segments: the next process reads the rest and no more,
// and what was sealed since the round began is left to the next one.
func TestScrubGoesOn(t *testing.T) {
	const n = 5
	for stop := range n + 1 {
		dir := t.TempDir()
		s, scrub := scrubbed(t, dir, Options{})
		for i := range uint32(n) {
			record(t, s, makeSegment(i, 2*int(i), 2, branchline.Hash{}))
		}
		must(t, scrub.begin())
		record(t, s, makeSegment(n, 2*n, 2, branchline.Hash{}))
		batch, _, err := scrub.next()
		if err != nil || len(batch) != n {
			t.Fatalf("%d to read: %v", len(batch), err)
		}
		for _, found := range batch[:stop] {
			must(t, scrub.one(t.Context(), found.Segment))
			scrub.move(found.seq, found.Size)
		}
		began := scrub.report().Began
		must(t, scrub.save(true))
		must(t, s.Close())
		_, scrub = scrubbed(t, dir, Options{})
		must(t, scrub.scrub(t.Context()))
		if st := scrub.report(); st.Segments != int64(n-stop) || !st.Began.Equal(began) {
			t.Errorf("stopped after %d: %+v", stop, st)
		}
	}
}

// TestScrubKeepsTime runs the store's own scrub for days of virtual time: rounds begin as often as they are
// asked for, and rot is found in one.
func TestScrubKeepsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		began := time.Now()
		s, err := Open(dir, Options{Signer: testKey(), Scrub: Scrub{Every: 24 * time.Hour, Rate: MinScrubRate}})
		must(t, err)
		defer s.Close()
		seg := makeSegment(0, 0, 4, branchline.Hash{})
		record(t, s, seg)
		<-time.After(time.Minute)
		first := s.ScrubStats()
		if first.Segments != 1 || first.Bytes < int64(len(seg.file)) || first.Began.Sub(began) < scrubStart {
			t.Errorf("after a minute: %+v", first)
		}
		flipByte(t, Path(dir, testStream, seg.start.ID, seg.start.Start), 500)
		<-time.After(23 * time.Hour)
		if st := s.ScrubStats(); st != first {
			t.Errorf("after 23 hours: %+v", st)
		}
		<-time.After(time.Hour)
		if st := s.ScrubStats(); st.Rotten != 1 || st.Began.Sub(first.Began) < 24*time.Hour {
			t.Errorf("after 24 hours: %+v", st)
		}
	})
}

// TestScrubRate holds the rate to what is to be read in which time, and to its limits.
func TestScrubRate(t *testing.T) {
	const hour = time.Hour
	for _, c := range []struct {
		name        string
		total, read int64
		since       time.Duration
		want        float64
	}{
		{"little", 1 << 30, 0, 0, MinScrubRate},
		{"much", 7500 << 30, 0, 0, 7500 << 30 / (75 * 3600.0)},
		{"half is read in half of the time", 750 << 30, 375 << 30, 37*hour + hour/2, 750 << 30 / (75 * 3600.0)},
		{"after a long stop", 750 << 30, 0, 74 * hour, 40 << 20},
		{"too late", 750 << 30, 0, 80 * hour, 40 << 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &Store{}
			scrub := newScrubber(s, Scrub{Every: 100 * hour, Rate: 40 << 20})
			scrub.round = scrubRound{began: time.Now().Add(-c.since), total: c.total, read: c.read}
			scrub.pace()
			if got := float64(scrub.pacer.Limit()); got < c.want*0.999 || got > c.want*1.001 {
				t.Errorf("%s: %.0f bytes/s, want %.0f", c.name, got, c.want)
			}
		})
	}
}

// TestQuarantineWithoutRoom: with a full quarantine a rotten file stays, and the round goes on.
func TestQuarantineWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	s, scrub := scrubbed(t, dir, Options{})
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	record(t, s, seg)
	must(t, os.Mkdir(filepath.Join(dir, quarantineDir), 0o755))
	for i := range maxQuarantined {
		must(t, os.WriteFile(filepath.Join(dir, quarantineDir, fmt.Sprint(i)), nil, 0o644))
	}
	path := Path(dir, testStream, seg.start.ID, seg.start.Start)
	flipByte(t, path, 500)
	must(t, scrub.scrub(t.Context()))
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || scrub.report().Rotten != 1 {
		t.Errorf("%v, %+v", err, scrub.report())
	}
	if got := allChanges(t, s); strings.Contains(got, "removed") {
		t.Errorf("feed: %s", got)
	}
}
