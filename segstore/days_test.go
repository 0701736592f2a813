package segstore

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

// lineSegment is a segment of the test stream that only the index has, by its seconds.
func lineSegment(n uint32, from, to float64) branchline.Segment {
	id := branchline.SegmentID{0: 2, 6: 0x70, 8: 0x80}
	binary.BigEndian.PutUint32(id[12:], n)
	return branchline.Segment{ID: id, Stream: testStream, Run: 1, Number: n, Span: day(from, to), Sealed: true,
		Hash: branchline.Hash{1}, Size: 1000}
}

// heldBySegments is what Held says, found from the segments one by one.
func heldBySegments(t *testing.T, s *Store, span branchline.TimeRange) []branchline.TimeRange {
	t.Helper()
	found, err := s.entries(testStream, span, false)
	must(t, err)
	var parts []branchline.TimeRange
	for _, seg := range found {
		parts = append(parts, seg.Span)
	}
	return coalesce(parts, span)
}

// TestHeldIsWhatSegmentsCover enters and removes segments at random, which overlap, touch, leave holes and go
// over midnight, and lists what is held each time. It ends with nothing left of any day.
func TestHeldIsWhatSegmentsCover(t *testing.T) {
	s := openStore(t, t.TempDir(), false)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var there []branchline.Segment
	check := func(what string, seg branchline.Segment) {
		t.Helper()
		from := float64(random.IntN(3 * 86400))
		for _, span := range []branchline.TimeRange{always(), day(from, from+float64(random.IntN(86400))), seg.Span} {
			got, err := s.Held(testStream, span)
			must(t, err)
			if want := heldBySegments(t, s, span); !slices.Equal(got, want) {
				t.Fatalf("after %s of %v, held in %v is\n%v, and by segments\n%v", what, seg.Span, span, got, want)
			}
		}
	}
	for n := range uint32(600) {
		if len(there) > 0 && random.IntN(5) < 2 {
			i := random.IntN(len(there))
			seg := there[i]
			there = slices.Delete(there, i, i+1)
			must(t, s.commit(func(l *ledger) error { return l.remove(seg.ID, branchline.CauseExpired) }))
			check("removal", seg)
			continue
		}
		from := float64(random.IntN(3*1440))*60 + float64(random.IntN(3))*0.0004
		seg := lineSegment(n, from, from+[]float64{60, 60, 60, 30, 60.0003, 3600}[random.IntN(6)])
		there = append(there, seg)
		must(t, s.adopt([]branchline.Segment{seg}))
		check("entry", seg)
	}
	for _, seg := range there {
		must(t, s.commit(func(l *ledger) error { return l.remove(seg.ID, branchline.CauseExpired) }))
	}
	noDays(t, s)
}

func noDays(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.ix.View(func(tx *index.Tx) error {
		for k := range tx.Scan([]byte("D"), nil) {
			t.Errorf("left over: %x", k)
		}
		return nil
	}))
}

// TestCrowdedDay: a day of a camera that came and went all the time is listed, too, and gets short again.
func TestCrowdedDay(t *testing.T) {
	s := openStore(t, t.TempDir(), false)
	var all []branchline.Segment
	for n := range uint32(maxDaySpans + 100) {
		all = append(all, lineSegment(n, float64(n)*20, float64(n)*20+10))
	}
	for batch := range slices.Chunk(all, adoptBatch) {
		must(t, s.adopt(batch))
	}
	count := func() int {
		held, err := s.Held(testStream, always())
		must(t, err)
		if want := heldBySegments(t, s, always()); !slices.Equal(held, want) {
			t.Errorf("held is not what segments cover: %d and %d spans", len(held), len(want))
		}
		return len(held)
	}
	if n := count(); n != len(all) {
		t.Errorf("%d spans of %d", n, len(all))
	}
	for _, seg := range all {
		must(t, s.commit(func(l *ledger) error { return l.remove(seg.ID, branchline.CauseExpired) }))
		if seg.Number == 50 || seg.Number == 150 {
			if n := count(); n != len(all)-int(seg.Number)-1 {
				t.Errorf("%d spans are left after %d were removed", n, seg.Number+1)
			}
		}
	}
	noDays(t, s)
}

// TestHeldOfWhatGrows: an opened segment counts by what it holds, once, and no more when it is removed.
func TestHeldOfWhatGrows(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	seg := makeSegment(0, 0, 4, branchline.Hash{})
	held := func(want ...branchline.TimeRange) {
		t.Helper()
		if got, err := s.Held(testStream, always()); err != nil || !slices.Equal(got, want) {
			t.Errorf("held is %v, should be %v, %v", got, want, err)
		}
	}
	must(t, s.Begin(testStream, seg.start))
	held()
	must(t, s.Put(seg.start.ID, seg.fragments[0], seg.data(0)))
	held(day(0, 0.5))
	for i := range seg.fragments {
		must(t, s.Put(seg.start.ID, seg.fragments[i], seg.data(i)))
	}
	must(t, s.Seal(seg.start.ID, seg.seal))
	held(day(0, 2))
	must(t, s.Begin(testStream, makeSegment(1, 60, 1, seg.seal.Hash).start))
	must(t, s.Remove(makeSegment(1, 60, 1, seg.seal.Hash).start.ID, branchline.CauseStopped))
	must(t, s.Remove(seg.start.ID, branchline.CauseStopped))
	held()
	must(t, s.ix.View(func(tx *index.Tx) error {
		for k := range tx.Scan([]byte("P"), nil) {
			t.Errorf("left over: %x", k)
		}
		return nil
	}))
	noDays(t, s)
}
