package segstore

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/branchline-video/branchline"
)

const flips = 1000

// flipped records as many segments as there are to be flipped, and flips one bit anywhere in each file.
func flipped(t *testing.T) (*Store, []testSegment, []int) {
	t.Helper()
	s := openStore(t, memoryDir(t), true)
	r := rand.New(rand.NewPCG(1, 2))
	var segs []testSegment
	var places []int
	for i := range flips {
		seg := makeSegment(uint32(i%256), 4*i, 2+i%2, branchline.Hash{})
		record(t, s, seg)
		segs = append(segs, seg)
		places = append(places, r.IntN(8*len(seg.file)))
	}
	for i, seg := range segs {
		damaged := bytes.Clone(seg.file)
		damaged[places[i]/8] ^= 1 << (places[i] % 8)
		must(t, os.WriteFile(Path(s.dir, testStream, seg.start.ID, seg.start.Start), damaged, 0o644))
	}
	return s, segs, places
}

// TestFlippedFilesAreFound: the checker finds one flipped bit in each of many files.
func TestFlippedFilesAreFound(t *testing.T) {
	s, segs, places := flipped(t)
	for i, seg := range segs {
		r, err := Check(Path(s.dir, testStream, seg.start.ID, seg.start.Start))
		if err == nil && r.OK() && r.Sealed {
			t.Errorf("bit %d of %d bytes flipped: %v", places[i], len(seg.file), r)
		}
	}
}

// TestFlippedFilesAreNotServed: of a file with one flipped bit the store serves its own bytes up to where it
// finds the damage, and no other; with footers that it remembers, and after it is opened anew.
func TestFlippedFilesAreNotServed(t *testing.T) {
	s, segs, places := flipped(t)
	found := 0
	for i, seg := range segs {
		if i == flips/2 {
			must(t, s.Close())
			s = openStore(t, s.dir, true)
		}
		got, err := served(t, s, seg.start.ID)
		if !bytes.HasPrefix(seg.file, got) || err == nil && len(got) != len(seg.file) {
			t.Errorf("bit %d of %d bytes flipped: %d bytes served: %v", places[i], len(seg.file), len(got), err)
		}
		if err != nil {
			found++
		}
	}
	t.Logf("%d of %d found", found, flips)
}

// served reads a whole segment, as far as it can be.
func served(t *testing.T, s *Store, id branchline.SegmentID) ([]byte, error) {
	t.Helper()
	r, err := s.Fetch(t.Context(), id, branchline.ByteRange{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
