package segstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/branchline-video/branchline"
)

// Where files go, and where they are.

// volumeFor returns where a new segment of the stream goes. Streams are spread evenly and stay where they
// are while their volume is well; then they go to the next. It wraps ENOSPC and ErrUnavailable when every
// volume is full.
func (s *Store) volumeFor(stream branchline.StreamID) (*volume, error) {
	best, bestRank, bestWeight := (*volume)(nil), 3, uint64(0)
	var full, gone error
	for _, v := range s.recording() {
		if err := v.there(); err != nil {
			gone = err
			continue
		}
		rank := v.rank()
		if err := s.room(v); err != nil {
			full = err
			continue
		}
		if w := weight(stream, v.dir); best == nil || rank < bestRank || rank == bestRank && w > bestWeight {
			best, bestRank, bestWeight = v, rank, w
		}
	}
	switch {
	case best != nil:
		return best, nil
	case full != nil:
		return nil, full
	}
	return nil, fmt.Errorf("no volume is there: %w: %w", syscall.EIO, gone)
}

// recording returns the volumes that new segments go to.
func (s *Store) recording() []*volume {
	return slices.DeleteFunc(slices.Clone(s.volumes), func(v *volume) bool { return !v.records })
}

// weight orders the volumes for a stream (rendezvous hashing): one that comes or goes moves only its own.
func weight(stream branchline.StreamID, dir string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", dir, stream)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], h.Sum64())
	h.Write(b[:]) // once more, for the last bytes to spread
	return h.Sum64()
}

// least is how much must be free on the volume for segments to be written.
func (v *volume) least() int64 {
	if v.home {
		return minFree
	}
	return minFreeOnVolume
}

// leastFloor is how much retention keeps free on the volume whatever the rules say.
func (v *volume) leastFloor() int64 { return v.least() + untilLooked }

// room returns an error while the volume, or that of the index, is too full for segments.
func (s *Store) room(v *volume) error {
	if err := s.roomOn(s.dir, minFree); err != nil || v.home {
		return err
	}
	return s.roomOn(v.dir, v.least())
}

func (s *Store) roomOn(dir string, least int64) error {
	free, err := s.free(dir)
	if err == nil && free < least {
		s.retention.rouse()
		err = fmt.Errorf("%d bytes free in %s and %d needed: %w: %w", free, dir, least, syscall.ENOSPC,
			branchline.ErrUnavailable)
	}
	return err
}

// volumeOf returns the volume of a path in the store.
func (s *Store) volumeOf(path string) *volume {
	best := s.volumes[len(s.volumes)-1]
	for _, v := range s.volumes {
		if strings.HasPrefix(path, v.dir+string(filepath.Separator)) && (best.home || len(v.dir) > len(best.dir)) {
			best = v
		}
	}
	return best
}

// find returns the path on the first volume that has the file which at makes from a volume's directory;
// where none has it, the path on the volume for new files.
func (s *Store) find(at func(dir string) string) string {
	path, _ := s.locate(at)
	return path
}

// locate is find, and reports whether it is sure: not so where the file may be on a volume that cannot be
// looked at.
func (s *Store) locate(at func(dir string) string) (path string, sure bool) {
	if len(s.volumes) == 1 {
		return at(s.volumes[0].dir), true
	}
	sure = true
	for _, v := range s.volumes {
		path := at(v.dir)
		_, err := os.Stat(path)
		if err == nil {
			return path, true
		}
		sure = sure && errors.Is(err, fs.ErrNotExist)
	}
	return at(s.volumes[0].dir), sure && s.allPresent()
}

// allPresent reports whether no volume is absent, so that what is not found is nowhere.
func (s *Store) allPresent() bool {
	return !slices.ContainsFunc(s.volumes, func(v *volume) bool { return !v.home && v.there() != nil })
}
