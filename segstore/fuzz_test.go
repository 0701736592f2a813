package segstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// recordKinds are all that index, journal and sidecars keep, each by how it is moved.
func recordKinds() map[byte]func(c *codec) {
	var (
		seg   branchline.Segment
		row   branchline.Fragment
		gone  branchline.Removal
		gap   branchline.Gap
		cam   branchline.Camera
		ch    branchline.Change
		m     meta
		st    streamState
		start branchline.SegmentStart
		n     int64
		hash  branchline.Hash
		run   lineRun
		lock  branchline.Lock
		hold  branchline.Hold
		seq   uint64
	)
	return map[byte]func(c *codec){
		0:  func(c *codec) { c.change(&ch) },
		1:  sequenced(&seq, func(c *codec) { c.segment(&seg) }),
		2:  func(c *codec) { c.fragment(&row) },
		3:  func(c *codec) { c.removal(&gone) },
		4:  sequenced(&seq, func(c *codec) { c.gap(&gap) }),
		5:  sequenced(&seq, func(c *codec) { c.camera(&cam) }),
		6:  m.move,
		7:  st.move,
		8:  func(c *codec) { c.begin(&start, &n, &hash) },
		9:  func(c *codec) { c.run(&run) },
		10: func(c *codec) { c.lock(&lock) },
		11: func(c *codec) { c.hold(&hold) },
	}
}

// FuzzRecords reads any bytes as a log, and as a value of each kind that the index has: what is understood
// is written again the same.
func FuzzRecords(f *testing.F) {
	gap := gap(0, 1, branchline.CauseDamaged, true)
	seg := makeSegment(0, 0, 2, branchline.Hash{})
	sealed := branchline.Segment{ID: seg.start.ID, Stream: testStream, Run: 1, Span: day(0, 1), Sealed: true}
	changes := []branchline.Change{{Gap: &gap}, {Sealed: &sealed}, {Opened: &branchline.Segment{Stream: "a.main"}},
		{Camera: &branchline.Camera{ID: "entrance", Streams: make([]branchline.Stream, 2)}},
		{Removed: &branchline.Removal{ID: seg.start.ID, Stream: testStream, Cause: branchline.CauseExpired}}}
	for _, ch := range changes {
		b, err := encode(func(c *codec) { c.change(&ch) })
		must(f, err)
		f.Add(byte(0), b)
		f.Add(byte(1), append(make([]byte, 8), b[1:]...))
	}
	for kind, move := range recordKinds() {
		if b, err := encode(move); kind != 0 {
			must(f, err)
			f.Add(kind, b)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		records, rest := splitLog(b)
		for _, r := range records {
			rest += 8 + len(r)
		}
		if rest != len(b) {
			t.Errorf("%d of %d bytes", rest, len(b))
		}
		move := recordKinds()[kind%9]
		if decode("record", b, move) != nil {
			return
		}
		if again, err := encode(move); err != nil || !bytes.Equal(again, b) {
			t.Errorf("kind %d, written again, differs: %v", kind%9, err)
		}
	})
}

// FuzzIndexKey reads any bytes as a key, and shows that keys of a line are in the order of its times.
func FuzzIndexKey(f *testing.F) {
	f.Add(keyChange(7), int64(0), int64(1))
	f.Add(keyTombstone(1<<63), int64(-5), int64(5))
	f.Add(keySegment(branchline.Segment{Stream: testStream, Span: day(0, 1)}), testStart().UnixNano(), int64(1)<<62)
	f.Add([]byte("C"), int64(-1)<<63, int64(1)<<62)
	f.Fuzz(func(t *testing.T, key []byte, a, b int64) {
		if seq, err := keySequence(key); err == nil && !bytes.Equal(keyChange(seq)[1:], key[1:]) {
			t.Errorf("key %x is of change %d", key, seq)
		}
		one, two := keyAt('S', testStream, time.Unix(0, a)), keyAt('S', testStream, time.Unix(0, b))
		if slices.Compare(one, two) > 0 && a < b || slices.Compare(one, two) < 0 && a > b {
			t.Errorf("keys of %d and %d are in another order", a, b)
		}
	})
}

// logOf returns records as a log has them.
func logOf(records ...[]byte) []byte {
	var b []byte
	for _, r := range records {
		b = binary.BigEndian.AppendUint32(b, uint32(len(r)))
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(r, crc32.MakeTable(crc32.Castagnoli)))
		b = append(b, r...)
	}
	return b
}

// FuzzSidecar reads any two records behind a good first one as the sidecar of a partly held segment: what it
// then holds is in order and does not overlap.
func FuzzSidecar(f *testing.F) {
	seg := makeSegment(0, 0, 3, branchline.Hash{})
	size := int64(len(seg.start.Init))
	hash := branchline.Hash(sha256.Sum256(seg.start.Init))
	begin, err := encode(func(c *codec) { c.begin(&seg.start, &size, &hash) })
	must(f, err)
	row := func(kind byte, i int) []byte {
		b, err := encode(func(c *codec) { c.fragment(&seg.fragments[i]) })
		must(f, err)
		return append([]byte{kind}, b...)
	}
	f.Add(row(sideFragment, 0), row(sideFragment, 2))
	f.Add(row(sideFragment, 1), row(sideLost, 1))
	f.Add(append([]byte{sideKey}, make([]byte, 16)...), append([]byte{sideFooter}, seg.seal.Footer...))
	f.Add([]byte{sideKey}, []byte{'?'})
	dir := f.TempDir()
	path := growingPath(dir, testStream, seg.start.ID)
	must(f, os.MkdirAll(filepath.Dir(path), 0o755))
	must(f, os.WriteFile(path, seg.file, 0o644))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		side := logOf(append([]byte{sideBegin}, begin...), a, b)
		must(t, os.WriteFile(sidecarPath(path), side, 0o644))
		p, err := partOf(dir, testStream, path, nil)
		if err != nil {
			return
		}
		end := size
		for _, h := range p.held {
			if h.Offset < end || checkRow(h) != nil {
				t.Errorf("held %+v after %d", h, end)
			}
			end = h.End()
		}
		if report, err := (Files{}).Check(path); err != nil {
			t.Errorf("%v: %v", report, err)
		}
	})
}
