package segstore

import (
	"bytes"
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
