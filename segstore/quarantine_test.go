package segstore

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/branchline-video/branchline"
)

// resealed is the segment with another footer: chained to another hash.
func resealed(at, n int) testSegment {
	return makeSegment(0, at, n, branchline.Hash{1})
}

// TestQuarantine replaces a segment that the origin has sealed differently, sealed or in part.
func TestQuarantine(t *testing.T) {
	for _, part := range []bool{false, true} {
		t.Run(fmt.Sprintf("held in part %v", part), func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, false)
			old, fresh := makeSegment(0, 0, 4, branchline.Hash{}), resealed(0, 4)
			id := old.start.ID
			if part {
				must(t, s.Begin(testStream, old.start))
				must(t, s.Put(id, old.fragments[0], old.data(0)))
			} else {
				record(t, s, old)
				if err := s.Seal(id, fresh.seal); !errors.Is(err, branchline.ErrMismatch) {
					t.Errorf("sealed anew: %v", err)
				}
			}
			_, err := s.Segments(t.Context(), testStream, day(0, 9)) // remembers the footer
			must(t, err)
			must(t, s.Quarantine(id, "the site has another hash"))
			if got := allChanges(t, s); part && got != "removed 0-0 failed" || !part && got != "removed 0-2 failed" {
				t.Errorf("feed: %s", got)
			}
			if err := s.Quarantine(id, ""); !errors.Is(err, branchline.ErrGone) {
				t.Errorf("again: %v", err)
			}
			kept, _ := filepath.Glob(filepath.Join(dir, quarantineDir, id.String()+".*.mp4"))
			if len(kept) != 1 {
				t.Fatalf("in quarantine: %v", kept)
			}
			if data, err := os.ReadFile(kept[0]); err != nil || !part && !bytes.Equal(data, old.file) {
				t.Errorf("%d bytes in quarantine, want %d: %v", len(data), len(old.file), err)
			}
			record(t, s, fresh)
			list, err := s.Segments(t.Context(), testStream, day(0, 9))
			if err != nil || len(list) != 1 || list[0].Hash != fresh.seal.Hash || len(list[0].Fragments) != 4 {
				t.Errorf("segments %+v %v", list, err)
			}
			must(t, s.Close())
			s = openStore(t, dir, false)
			if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, fresh.file) {
				t.Error("differs from the origin's")
			}
		})
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	record(t, s, seg)
	must(t, os.Mkdir(filepath.Join(dir, quarantineDir), 0o755))
	for i := range maxQuarantined {
		must(t, os.WriteFile(filepath.Join(dir, quarantineDir, fmt.Sprint(i)), nil, 0o644))
	}
	if err := s.Quarantine(seg.start.ID, "full"); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("over the limit: %v", err)
	}
	if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
		t.Error("the segment is changed")
	}
}

// TestLaterFooterCounts: a footer came before all of its fragments, then the origin's other one, and
// then the replica was killed.
func TestLaterFooterCounts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	old, fresh := makeSegment(0, 0, 4, branchline.Hash{}), resealed(0, 4)
	id := old.start.ID
	must(t, s.Begin(testStream, old.start))
	must(t, s.Put(id, old.fragments[0], old.data(0)))
	for _, seg := range []testSegment{old, fresh} {
		must(t, s.Seal(id, seg.seal))
		must(t, s.Sync(t.Context(), id))
	}
	s = openStore(t, snapshot(t, dir), false)
	for i := 1; i < 4; i++ {
		must(t, s.Put(id, old.fragments[i], old.data(i)))
	}
	if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, fresh.file) {
		t.Error("sealed by the footer that was replaced")
	}
}

// TestTrust: a footer of a key that is not the stream's seals nothing, and after its key was taken
// back a footer that waited for fragments does not either.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	trusted := false
	opt := Options{Trust: func(stream branchline.StreamID, key ed25519.PublicKey) error {
		if stream != testStream || !key.Equal(testKey().Public()) {
			t.Errorf("asked about %x for %s", key, stream)
		}
		if !trusted {
			return branchline.ErrDenied
		}
		return nil
	}}
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	id := seg.start.ID
	s, err := Open(dir, opt)
	must(t, err)
	must(t, s.Begin(testStream, seg.start))
	must(t, s.Put(id, seg.fragments[0], seg.data(0)))
	if err := s.Seal(id, seg.seal); !errors.Is(err, branchline.ErrDenied) {
		t.Errorf("seal by another's key: %v", err)
	}
	trusted = true
	must(t, s.Seal(id, seg.seal))
	must(t, s.Close())
	trusted = false
	s, err = Open(dir, opt)
	must(t, err)
	defer s.Close()
	for i, f := range seg.fragments {
		must(t, s.Put(id, f, seg.data(i)))
	}
	if s.Stats().Segments != 0 {
		t.Error("sealed by a key that is not trusted any more")
	}
	trusted = true
	must(t, s.Seal(id, seg.seal))
	if got := fetchAll(t, s, id, branchline.ByteRange{}); !bytes.Equal(got, seg.file) {
		t.Error("differs from the origin's")
	}
}
