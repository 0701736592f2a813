package segstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline"
)

// TestDamagedFileIsGone damages the middle one of three sealed files. Whoever asks for it is told that it
// is gone, the feed that the disk failed, the file is kept aside, and its neighbours are as before.
func TestDamagedFileIsGone(t *testing.T) {
	cut := func(to int64) func(path string) error {
		return func(path string) error { return os.Truncate(path, to) }
	}
	flip := func(back int64) func(path string) error {
		return func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[int64(len(data))-back] ^= 1
			return os.WriteFile(path, data, 0o644)
		}
	}
	for _, c := range []struct {
		name   string
		damage func(path string) error
		warm   bool // the footer was read before
		list   bool // asked for by Segments, else by Fetch
	}{
		{"cut, listed", cut(1000), false, true},
		{"cut, fetched", cut(1000), false, false},
		{"cut to nothing, fetched", cut(0), false, false},
		{"cut after it was read, fetched", cut(1000), true, false},
		{"footer's trailer, listed", flip(2), false, true},
		{"footer's middle, fetched", flip(200), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, true)
			one := makeSegment(0, 0, 4, branchline.Hash{})
			two := makeSegment(1, 2, 4, one.seal.Hash)
			three := makeSegment(2, 4, 4, two.seal.Hash)
			for _, seg := range []testSegment{one, two, three} {
				record(t, s, seg)
			}
			if !c.warm {
				must(t, s.Close())
				s = openStore(t, dir, true)
			}
			id := two.start.ID
			must(t, c.damage(Path(dir, testStream, id, two.start.Start)))
			if c.list {
				list, err := s.Segments(t.Context(), testStream, day(0, 9))
				if err != nil || len(list) != 2 {
					t.Errorf("listed %d: %v", len(list), err)
				}
			}
			for range 2 {
				if _, err := s.Fetch(t.Context(), id, branchline.ByteRange{}); !errors.Is(err, branchline.ErrGone) ||
					errors.Is(err, branchline.ErrMismatch) {
					t.Errorf("fetch: %v", err)
				}
			}
			if got := allChanges(t, s); !strings.HasSuffix(got, "removed 2-4 disk failed, gap 2-4 disk failed") {
				t.Errorf("feed: %s", got)
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, quarantineDir, id.String()+".*.mp4")); len(kept) != 1 {
				t.Errorf("in quarantine: %v", kept)
			}
			for _, seg := range []testSegment{one, three} {
				if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
					t.Error("a neighbour differs")
				}
			}
		})
	}
}

// TestMissingFileIsNotQuarantined: its volume may only be away.
func TestMissingFileIsNotQuarantined(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, seg)
	path := Path(dir, testStream, seg.start.ID, seg.start.Start)
	must(t, os.Rename(path, path+".away"))
	if _, err := s.Fetch(t.Context(), seg.start.ID, branchline.ByteRange{}); !errors.Is(err, branchline.ErrGone) {
		t.Errorf("fetch: %v", err)
	}
	must(t, os.Rename(path+".away", path))
	if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
		t.Error("differs")
	}
}

// TestManyDamagedFilesStay: readers put no more aside than the scrub would, until a good fragment was read or
// some time has passed.
func TestManyDamagedFilesStay(t *testing.T) {
	for _, list := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, false)
			const n = maxRotInRow + 5
			var segs []testSegment
			for i := range uint32(n + 1) {
				seg := makeSegment(i, 2*int(i), 2, branchline.Hash{})
				record(t, s, seg)
				segs = append(segs, seg)
				at := int64(500)
				if list {
					at = -2
				}
				if i < n {
					flipByte(t, Path(dir, testStream, seg.start.ID, seg.start.Start), at)
				}
			}
			must(t, s.Close())
			s, scrub := scrubbed(t, dir, Options{})
			read := func() (gone, later int) {
				if list {
					_, err := s.Segments(t.Context(), testStream, day(0, 99))
					must(t, err)
				}
				for _, seg := range segs[:n] {
					switch _, err := served(t, s, seg.start.ID); {
					case errors.Is(err, branchline.ErrGone):
						gone++
					case errors.Is(err, branchline.ErrUnavailable):
						later++
					}
				}
				return gone, later
			}
			for range 2 {
				if gone, later := read(); gone != maxRotInRow || later != n-maxRotInRow || s.Quarantined() != maxRotInRow {
					t.Errorf("gone %d, unavailable %d", gone, later)
				}
			}
			if err := scrub.scrub(t.Context()); !isDamage(err) || s.Quarantined() != maxRotInRow {
				t.Errorf("the scrub goes on: %v", err)
			}
			if list {
				<-time.After(rotPause)
			} else {
				fetchAll(t, s, segs[n].start.ID, branchline.ByteRange{})
			}
			if gone, later := read(); gone != n || later != 0 || s.Quarantined() != n {
				t.Errorf("later: gone %d, unavailable %d", gone, later)
			}
			must(t, s.Close())
		})
	}
}

// TestReadErrorOnce: a read error alone makes the volume suspect and harms no segment, unless it stays.
func TestReadErrorOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), true)
		seg := makeSegment(0, 0, 4, branchline.Hash{})
		record(t, s, seg)
		id := seg.start.ID
		for _, c := range []struct {
			after time.Duration
			want  error
		}{{0, branchline.ErrUnavailable}, {failsAgain / 2, branchline.ErrUnavailable}, {failsAgain, branchline.ErrGone}} {
			<-time.After(c.after)
			if err := s.unreadable(id, syscall.EIO); !errors.Is(err, c.want) {
				t.Errorf("after %v: %v, want %v", c.after, err, c.want)
			}
			if s.Volumes()[0].Suspect == "" {
				t.Error("the volume is not suspect")
			}
			if _, err := s.lookup(id); (err == nil) != (c.want == branchline.ErrUnavailable) {
				t.Errorf("after %v: %v", c.after, err)
			}
		}
		must(t, s.Close())
		var b brake
		at := testStart()
		for _, after := range []time.Duration{0, failsAtMost, failsAtMost} { // mended in between
			if at = at.Add(after); b.fails(id, at) {
				t.Errorf("long ago: counts after %v", after)
			}
		}
	})
}

// TestDamageShowsTwice: what is whole when it is read again stays, and is served.
func TestDamageShowsTwice(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, seg)
	found, err := s.reader(t.Context(), seg.start.ID, branchline.ByteRange{})
	must(t, err)
	defer found.f.Close()
	data, err := found.unfit(seg.fragments[1], branchline.ErrMismatch)
	if err != nil || !bytes.Equal(data, seg.data(1)) || s.Quarantined() != 0 {
		t.Errorf("%d bytes: %v", len(data), err)
	}
}
