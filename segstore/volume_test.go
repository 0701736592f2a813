package segstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/branchline-video/branchline"
)

// volumes makes three directories: of the store, and of two volumes.
func volumes(t *testing.T) (dir string, vols []string) {
	root := t.TempDir()
	return filepath.Join(root, "home"), []string{filepath.Join(root, "disk1"), filepath.Join(root, "disk2")}
}

func openVolumes(t *testing.T, dir string, vols []string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Signer: testKey(), Volumes: vols})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	<-s.Settled()
	return s
}

// kept returns the names of the volumes on which there are sealed files, with their number.
func kept(dirs ...string) string {
	var all []string
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, segmentsDir, "*", "*", "*.mp4"))
		all = append(all, fmt.Sprintf("%s %d", filepath.Base(dir), len(files)))
	}
	return strings.Join(all, ", ")
}

func TestStreamsSpreadOverVolumes(t *testing.T) {
	dir, vols := volumes(t)
	s := openVolumes(t, dir, vols)
	count := make(map[string]int)
	for i := range 200 {
		stream := branchline.StreamID(fmt.Sprintf("camera%d.main", i))
		v, err := s.volumeFor(stream)
		must(t, err)
		again, err := s.volumeFor(stream)
		must(t, err)
		if v != again {
			t.Fatalf("%s goes to %s and then to %s", stream, v.dir, again.dir)
		}
		count[v.dir]++
	}
	if count[vols[0]] < 60 || count[vols[1]] < 60 || len(count) != 2 {
		t.Errorf("streams are not spread: %v", count)
	}
}

// harmed is a disk on which nothing below a directory can be synced.
type harmed struct {
	disk
	below *string
}

func (d harmed) Open(path string, flag int) (file, error) {
	f, err := d.disk.Open(path, flag)
	if *d.below != "" && strings.HasPrefix(path, *d.below) && filepath.Ext(path) == ".mp4" {
		f = unsyncable{f}
	}
	return f, err
}

// TestRecordingMovesFromAFailedVolume, and what is on it stays readable and is never trusted again.
func TestRecordingMovesFromAFailedVolume(t *testing.T) {
	dir, vols := volumes(t)
	below := ""
	s, err := openWith(dir, Options{Signer: testKey(), Volumes: vols}, harmed{below: &below})
	must(t, err)
	defer s.Close()
	segs := make([]testSegment, 4)
	for i := range segs {
		segs[i] = makeSegment(uint32(i), i*2, 4, branchline.Hash{})
	}
	record(t, s, segs[0])
	first, err := s.volumeFor(testStream)
	must(t, err)
	below = first.dir
	must(t, s.Begin(testStream, segs[1].start))
	must(t, s.Put(segs[1].start.ID, segs[1].fragments[0], segs[1].data(0)))
	s.syncAll()
	if err := s.Put(segs[1].start.ID, segs[1].fragments[1], segs[1].data(1)); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("put after a failed sync: %v", err)
	}
	record(t, s, segs[2])
	record(t, s, segs[3])
	other := vols[0]
	if other == first.dir {
		other = vols[1]
	}
	if got, want := kept(first.dir, other, dir), fmt.Sprintf("%s 1, %s 2, home 0",
		filepath.Base(first.dir), filepath.Base(other)); got != want {
		t.Errorf("kept on %s, want %s", got, want)
	}
	for _, v := range s.Volumes() {
		if (v.Suspect != "") != (v.Dir == first.dir) {
			t.Errorf("volume %+v", v)
		}
	}
	if got := fetchAll(t, s, segs[0].start.ID, branchline.ByteRange{}); string(got) != string(segs[0].file) {
		t.Error("what was sealed before differs")
	}
}

func TestAFullVolumeIsPassedOver(t *testing.T) {
	dir, vols := volumes(t)
	s := openVolumes(t, dir, vols)
	first, err := s.volumeFor(testStream)
	must(t, err)
	full := map[string]bool{first.dir: true}
	s.free = func(dir string) (int64, error) {
		if full[dir] {
			return minFreeOnVolume - 1, nil
		}
		return 1 << 40, nil
	}
	a := makeSegment(0, 0, 2, branchline.Hash{})
	record(t, s, a)
	if got := kept(first.dir); !strings.HasSuffix(got, " 0") {
		t.Errorf("kept on the full volume: %s", got)
	}
	full[vols[0]], full[vols[1]] = true, true
	err = s.Begin(testStream, makeSegment(1, 2, 2, branchline.Hash{}).start)
	if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("begun on full volumes: %v", err)
	}
}

// TestAnAbsentVolumeIsWaitedFor: what is on it is not given up, nothing is written in its place, and it is
// served again when it is back.
func TestAnAbsentVolumeIsWaitedFor(t *testing.T) {
	dir, vols := volumes(t)
	s := openVolumes(t, dir, vols)
	first, err := s.volumeFor(testStream)
	must(t, err)
	a := makeSegment(0, 0, 4, branchline.Hash{})
	record(t, s, a)
	must(t, s.Close())
	away := first.dir + ".away"
	must(t, os.Rename(first.dir, away))
	must(t, os.Mkdir(first.dir, 0o755)) // an empty mount point

	s = openVolumes(t, dir, vols)
	b := makeSegment(1, 2, 2, a.seal.Hash)
	record(t, s, b)
	if _, err := s.Fetch(t.Context(), a.start.ID, branchline.ByteRange{}); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("fetch from an absent volume: %v", err)
	}
	if entries, _ := os.ReadDir(first.dir); len(entries) > 0 {
		t.Errorf("written below the mount point: %v", entries)
	}
	if held, _ := s.Held(testStream, day(0, 9)); len(held) != 1 || held[0] != day(0, 3) {
		t.Errorf("held %v", held)
	}
	must(t, os.Remove(first.dir))
	must(t, os.Rename(away, first.dir))
	if !s.rejoin() {
		t.Error("the volume does not rejoin")
	}
	must(t, s.settleOnce(t.Context()))
	for _, seg := range []testSegment{a, b} {
		if got := fetchAll(t, s, seg.start.ID, branchline.ByteRange{}); string(got) != string(seg.file) {
			t.Errorf("segment %v differs", seg.start.ID)
		}
	}
	if got := allChanges(t, s); strings.Contains(got, "removed") {
		t.Errorf("feed: %s", got)
	}
}

// TestVolumesAreAddedLater to a store that kept all in its own directory.
func TestVolumesAreAddedLater(t *testing.T) {
	dir, vols := volumes(t)
	s := openStore(t, dir, true)
	a := makeSegment(0, 0, 2, branchline.Hash{})
	record(t, s, a)
	must(t, s.Close())
	s = openVolumes(t, dir, vols)
	b := makeSegment(1, 2, 2, a.seal.Hash)
	record(t, s, b)
	if got := kept(dir); got != "home 1" {
		t.Errorf("kept: %s", got)
	}
	must(t, s.Remove(a.start.ID, branchline.CauseExpired))
	must(t, s.Remove(b.start.ID, branchline.CauseExpired))
	if got := kept(dir, vols[0], vols[1]); got != "home 0, disk1 0, disk2 0" {
		t.Errorf("kept after removal: %s", got)
	}
	other, err := Open(filepath.Join(filepath.Dir(dir), "other"), Options{Volumes: vols})
	must(t, err)
	defer other.Close()
	if st := other.Volumes(); !strings.Contains(st[0].Absent, "another store") {
		t.Errorf("a volume is shared: %+v", st)
	}
}
