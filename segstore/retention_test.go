package segstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
	"github.com/branchline-video/branchline/segstore/retain"
)

// segmentOf builds a segment of n fragments of any stream, which starts at any time.
func segmentOf(stream branchline.StreamID, number uint32, start time.Time, n int) testSegment {
	id := branchline.SegmentID{0: 2, 6: 0x70, 8: 0x80}
	binary.BigEndian.PutUint32(id[12:], number)
	copy(id[9:12], stream)
	s := testSegment{start: branchline.SegmentStart{ID: id, Stream: stream, Run: 1, Number: number,
		Start: start, Codecs: "avc1.42c01f", Init: testInit()}}
	s.file = append(s.file, s.start.Init...)
	for i := range n {
		s.add(start.Add(time.Duration(i)*500*time.Millisecond), i%2 == 0)
	}
	box, hash, err := SealFooter(Footer{ID: id, Stream: stream, Run: 1, Number: number, Codecs: s.start.Codecs,
		Fragments: s.fragments}, s.start.Init, testKey())
	if err != nil {
		panic(err)
	}
	s.file = append(s.file, box...)
	s.seal = branchline.SegmentSeal{ID: id, Hash: hash, Footer: box, Size: int64(len(s.file))}
	return s
}

func recordSegment(t testing.TB, s *Store, seg testSegment) {
	t.Helper()
	must(t, s.Begin(seg.start.Stream, seg.start))
	for i, f := range seg.fragments {
		must(t, s.Put(seg.start.ID, f, seg.data(i)))
	}
	must(t, s.Seal(seg.start.ID, seg.seal))
}

func span(s testSegment) branchline.TimeRange {
	return branchline.TimeRange{Start: s.fragments[0].Start, End: s.fragments[len(s.fragments)-1].Span().End}
}

// removal is the action that removes a segment.
func removal(s testSegment, cause branchline.Cause) retain.Action {
	return retain.Action{Kind: retain.Remove, Cause: cause, Why: "the test says so",
		Segment: retain.Segment{ID: s.start.ID, Stream: s.start.Stream, Span: span(s), Bytes: s.seal.Size}}
}

// timeline returns the stream's sealed segments and gaps.
func timeline(t testing.TB, s *Store, stream branchline.StreamID) (segments, gaps []branchline.TimeRange) {
	t.Helper()
	must(t, s.ix.View(func(tx *index.Tx) error {
		l := ledger{tx: tx}
		all, err := l.facts()
		for _, record := range all {
			e, e2 := s.parseEntry(record)
			if ch := e.change; e2 == nil && ch.Gap != nil && ch.Gap.Stream == stream && !ch.Gap.Span.Empty() {
				gaps = append(gaps, ch.Gap.Span)
			}
		}
		return err
	}))
	found, err := s.entries(stream, always(), false)
	must(t, err)
	for _, seg := range found {
		if seg.Sealed {
			segments = append(segments, seg.Span)
		}
	}
	return segments, gaps
}

// checkCoverage: segments and gaps cover all of the range, no gap overlaps anything, and holes of roundings
// are between segments alone.
func checkCoverage(t testing.TB, s *Store, stream branchline.StreamID, all branchline.TimeRange) {
	t.Helper()
	segments, gaps := timeline(t, s, stream)
	for i, g := range gaps {
		for _, o := range append(slices.Clone(gaps[:i]), segments...) {
			if g.Overlaps(o) {
				t.Errorf("%s: gap %s overlaps %s", stream, between(g), between(o))
			}
		}
	}
	for _, hole := range (branchline.Spans{all}).Minus(branchline.NewSpans(append(segments, gaps...)...)) {
		atGap := slices.ContainsFunc(gaps, func(g branchline.TimeRange) bool {
			return g.End.Equal(hole.Start) || g.Start.Equal(hole.End)
		})
		if hole.Duration() >= joinWithin || atGap {
			t.Errorf("%s: nothing is told of %s; gaps %v", stream, between(hole), gaps)
		}
	}
}

func between(r branchline.TimeRange) string { return seconds(r.Start) + "-" + seconds(r.End) }

// TestSegmentsAndGapsCoverAll does random things with a stream, and in the end loses the index.
func TestSegmentsAndGapsCoverAll(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, true)
	covered := map[branchline.StreamID]branchline.TimeRange{}
	number, streams := uint32(0), 0
	rapid.Check(t, func(rt *rapid.T) {
		streams++
		stream := branchline.StreamID(fmt.Sprintf("c%d.main", streams))
		at := testStart()
		var there []testSegment
		var locks []branchline.Lock
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0, 1, 2:
				number++
				start := at.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 300, -300, 4e6}).Draw(rt, "hole")) * time.Microsecond)
				if start.Sub(at) > time.Second {
					must(t, s.RecordGap(branchline.Gap{Stream: stream, Span: branchline.TimeRange{Start: at, End: start},
						Cause: branchline.CauseUnreachable}))
				}
				seg := segmentOf(stream, number, start, rapid.IntRange(1, 3).Draw(rt, "fragments"))
				recordSegment(t, s, seg)
				there, at = append(there, seg), span(seg).End
			case 3, 4:
				most := len(there) - 2 // the newest stays: what follows it may begin a rounding before its end
				if most < 0 {
					continue
				}
				from := rapid.IntRange(0, most).Draw(rt, "from") * rapid.IntRange(0, 1).Draw(rt, "not oldest")
				to := rapid.IntRange(from, most).Draw(rt, "to") + 1
				cause := branchline.CauseExpired
				if rapid.Bool().Draw(rt, "early") {
					cause = branchline.CauseRemovedEarly
				}
				var left []testSegment
				for i, seg := range there {
					isLocked := func(l branchline.Lock) bool { return l.Span.Overlaps(span(seg)) }
					if i < from || i >= to || slices.ContainsFunc(locks, isLocked) {
						left = append(left, seg)
					}
				}
				retireSome(t, s, there[from:to], cause)
				there = left
				checkThere(t, s, there)
			case 5:
				l := branchline.Lock{ID: fmt.Sprint(stream, len(locks)), Stream: stream, Reason: "case", Span: branchline.TimeRange{
					Start: testStart().Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "lock")) * time.Second)}}
				l.Span.End = l.Span.Start.Add(time.Duration(rapid.IntRange(1, 3000).Draw(rt, "for")) * time.Millisecond)
				must(t, s.Lock(t.Context(), l))
				locks = append(locks, l)
			}
			covered[stream] = branchline.TimeRange{Start: testStart().Add(joinWithin), End: at}
			checkCoverage(t, s, stream, covered[stream])
			if t.Failed() {
				rt.FailNow()
			}
		}
		for _, l := range locks {
			must(t, s.Unlock(t.Context(), l.ID))
		}
	})
	must(t, s.Close())
	must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
	s = openStore(t, dir, true)
	for stream, all := range covered {
		checkCoverage(t, s, stream, all)
	}
}

// retireSome removes segments, but what is locked.
func retireSome(t testing.TB, s *Store, segs []testSegment, cause branchline.Cause) {
	t.Helper()
	var batch []retain.Action
	for _, seg := range segs {
		batch = append(batch, removal(seg, cause))
	}
	must(t, s.retire(batch))
}

func checkThere(t testing.TB, s *Store, segs []testSegment) {
	t.Helper()
	for _, seg := range segs {
		if known, err := s.lookup(seg.start.ID); err != nil || !known.Sealed {
			t.Errorf("segment at %s is gone: %v", seconds(seg.start.Start), err)
		}
	}
}

// TestGapsOfRemovalsGrow writes down gaps after removals in several orders.
func TestGapsOfRemovalsGrow(t *testing.T) {
	s := openStore(t, t.TempDir(), true)
	for i, c := range []struct{ remove, want string }{
		{"0x 1x 2x", "0-6 expired"},
		{"0x 1e 2e", "0-2 expired, 2-6 removed early"},
		{"2x 1x 0x", "0-2 expired, 2-4 expired, 4-6 expired"}, // never out of order in practice, and right all the same
		{"0x 2x", "0-2 expired, 4-6 expired"},
		{"0x 1x 3x 4x", "0-4 expired, 6-6.5 camera unreachable, 6.5-10.5 expired"},
	} {
		stream := branchline.StreamID(fmt.Sprintf("c%d.main", i))
		var segs []testSegment
		for n, at := range []float64{0, 2, 4, 6.5, 8.5} {
			seg := segmentOf(stream, uint32(100*i+n), day(at, at).Start, 4)
			recordSegment(t, s, seg)
			segs = append(segs, seg)
		}
		if strings.Contains(c.want, "unreachable") {
			g := gap(6, 6.5, branchline.CauseUnreachable, false)
			g.Stream = stream
			must(t, s.RecordGap(g))
		}
		for f := range strings.FieldsSeq(c.remove) {
			cause := map[byte]branchline.Cause{'x': branchline.CauseExpired, 'e': branchline.CauseRemovedEarly}[f[1]]
			must(t, s.retire([]retain.Action{removal(segs[f[0]-'0'], cause)}))
		}
		var got []string
		must(t, s.ix.View(func(tx *index.Tx) error {
			all, err := (&ledger{tx: tx}).facts()
			for _, record := range all {
				e, e2 := s.parseEntry(record)
				if ch := e.change; e2 == nil && ch.Gap != nil && ch.Gap.Stream == stream {
					got = append(got, strings.TrimPrefix(describe(ch), "gap "))
				}
			}
			return err
		}))
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", c.remove, got, c.want)
		}
	}
}

// TestStopAtEveryStepOfRetention stops a store before each change on disk that a removal of three segments
// makes. After the next start, also without an index, each is there or is a gap, and not both.
func TestStopAtEveryStepOfRetention(t *testing.T) {
	for _, c := range []struct{ full, lost bool }{{false, false}, {false, true}, {true, false}} {
		t.Run(fmt.Sprintf("full %v, index lost %v", c.full, c.lost), func(t *testing.T) {
			t.Parallel()
			for k, finished := 0, false; !finished; k++ {
				if finished = stopRetentionAt(t, k, c.full, c.lost); k > 100 || t.Failed() {
					t.Fatalf("stopped at change %d", k)
				}
			}
		})
	}
}

func stopRetentionAt(t *testing.T, k int, full, lost bool) (finished bool) {
	dir := t.TempDir()
	d := &stopping{left: 1 << 30}
	s, err := openStill(dir, Options{Signer: testKey()}, d)
	must(t, err)
	var segs []testSegment
	for i := range 4 {
		segs = append(segs, segmentOf(testStream, uint32(i), day(float64(2*i), 0).Start, 4))
		recordSegment(t, s, segs[i])
	}
	if full { // but not the index, which asks the disk itself
		s.free = func(string) (int64, error) { return 1, nil }
	}
	d.mu.Lock()
	d.left = k
	d.mu.Unlock()
	one, two, three := removal(segs[0], branchline.CauseExpired), removal(segs[1], branchline.CauseExpired),
		removal(segs[2], branchline.CauseExpired)
	finished = s.retire([]retain.Action{one, two}) == nil && s.retire([]retain.Action{three}) == nil
	s.Close()
	d.mu.Lock()
	finished = finished && d.left > 0
	d.mu.Unlock()
	if lost {
		must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
	}
	for range 2 { // what the next start has put right stays so
		s = openStore(t, dir, true)
		checkCoverage(t, s, testStream, day(0, 8))
		checkFiles(t, dir)
		if segments, gaps := timeline(t, s, testStream); finished && (len(segments) != 1 || len(gaps) != 1) {
			t.Errorf("finished: segments %v and gaps %v", segments, gaps)
		}
		must(t, s.Close())
	}
	if t.Failed() {
		t.Logf("stopped at change %d", k)
	}
	return finished
}

// TestQuotaIsKept records far more than the quota, with a decision now and then.
func TestQuotaIsKept(t *testing.T) {
	one := segmentOf(testStream, 0, testStart(), 4).seal.Size
	s, err := Open(t.TempDir(), Options{Signer: testKey(), Retention: retain.Rules{Quota: 6 * one}})
	must(t, err)
	defer s.Close()
	lock := branchline.Lock{ID: "case-1", Stream: testStream, Span: day(4, 5)}
	must(t, s.Lock(t.Context(), lock))
	for i := range 30 {
		recordSegment(t, s, segmentOf(testStream, uint32(i), day(float64(2*i), 0).Start, 4))
		s.retain()
		if got := s.Stats().Bytes; got > 6*one {
			t.Fatalf("%d bytes after segment %d, quota of %d", got, i, 6*one)
		}
	}
	segments, gaps := timeline(t, s, testStream)
	if n := len(segments); n < 5 || between(segments[0]) != "4-6" || between(segments[n-1]) != "58-60" || len(gaps) != 2 {
		t.Errorf("%d segments from %v on, and gaps %v", n, segments[0], gaps)
	}
	checkCoverage(t, s, testStream, day(0, 60))
	st, last := s.RetentionStats(), s.Removals()
	if n := 30 - len(segments); st.Removed[branchline.CauseRemovedEarly] != uint64(n) || len(last) != n ||
		st.Bytes[branchline.CauseRemovedEarly] != uint64(int64(n)*one) {
		t.Errorf("stats %+v, %d removals, want %d", st, len(last), n)
	}
	if !strings.Contains(last[0].Why, "over its quota of") ||
		last[0].Segment.Span.Start.Before(last[1].Segment.Span.Start) {
		t.Errorf("last removal %+v", last[0])
	}
}

// TestRetentionPlan only tells, and age removes what it told.
func TestRetentionPlan(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Signer: testKey(), Retention: retain.Rules{
		Rules: []retain.Rule{{Streams: "entrance.*", Keep: time.Hour, ThinAfter: time.Minute}}}})
	must(t, err)
	defer s.Close()
	old := segmentOf(testStream, 0, testStart(), 4) // long ago
	recordSegment(t, s, old)
	recordSegment(t, s, segmentOf("yard.main", 1, testStart(), 4))
	for range 2 {
		plan, err := s.RetentionPlan(t.Context())
		must(t, err)
		if len(plan.Actions) != 1 || plan.Actions[0].Segment.ID != old.start.ID ||
			!strings.HasPrefix(plan.Actions[0].Why, "older than 1h00m by ") {
			t.Fatalf("plan %+v", plan)
		}
	}
	s.retain()
	if _, err := s.lookup(old.start.ID); !errors.Is(err, branchline.ErrGone) {
		t.Errorf("over its age: %v", err)
	}
	got := allChanges(t, s)
	if !strings.HasSuffix(got, "removed 0-2 expired, gap 0-2 expired") {
		t.Errorf("feed %s", got)
	}
}

// TestDroppedAndGivenAgain: a replica tells what it has dropped, until it is given that again.
func TestDroppedAndGivenAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, false)
	var segs []testSegment
	for i := range 4 {
		segs = append(segs, segmentOf(testStream, uint32(i), day(float64(2*i), 0).Start, 4))
		recordSegment(t, s, segs[i])
	}
	must(t, s.RecordGap(gap(20, 30, branchline.CauseUnreachable, false)))
	retireSome(t, s, segs, branchline.CauseRemovedEarly)
	for _, c := range []struct {
		again int
		want  string
	}{{-1, "0-8"}, {1, "0-2 4-8"}, {0, "4-8"}, {3, "4-6"}, {2, ""}} {
		if c.again >= 0 {
			recordSegment(t, s, segs[c.again])
		}
		for _, lost := range []bool{false, true} {
			dropped, err := s.Dropped(testStream, day(-5, 50))
			must(t, err)
			var got []string
			for _, r := range dropped {
				got = append(got, between(r))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("after segment %d, index lost %v: dropped %q, want %q", c.again, lost, got, c.want)
			}
			checkCoverage(t, s, testStream, day(0, 8))
			must(t, s.Close())
			if lost {
				must(t, os.RemoveAll(filepath.Join(dir, indexDir)))
			}
			s = openStore(t, dir, false)
		}
	}
}
