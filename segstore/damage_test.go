package segstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
