package retain_test

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/retain"
)

// The notation of facts: fields with a semicolon between them, times in seconds, sizes in bytes.
//
//	now 100
//	a keep 50 thin 20 extend 10: 0-10 10-20=3@e    stream a.main with its rule and segments; one of 3 bytes on volume e
//	a/sub: 0-10                                    stream a.sub
//	lock a 0-10,20-30 until 90                     until: optional
//	hold a 0-10 known 50 until 90                  spans: "-" for none
//	thinned a 0-10
//	quota 5 +1                                     of the store; +1: expected to be written
//	cam a 3                                        a camera's quota
//	vol d 3/5 +1                                   3 bytes free, 5 wanted; the volume of segments is d
//	most 3
//
// And of plans: x removed as expired, e removed early, t thinned, with stream and start; then shortages.

func at(text string) time.Time {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	return time.Unix(0, int64(n*1e9)).UTC()
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func span(text string) branchline.TimeRange {
	from, to, _ := strings.Cut(text, "-")
	return branchline.TimeRange{Start: at(from), End: at(to)}
}

func spans(text string) (set branchline.Spans) {
	for _, s := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		if s != "-" {
			set = append(set, span(s))
		}
	}
	return branchline.NewSpans(set...)
}

func streamID(name string) branchline.StreamID {
	camera, label, ok := strings.Cut(name, "/")
	if !ok {
		label = "main"
	}
	return branchline.CameraID(camera).Stream(label)
}

// words returns the values that follow each key among the words.
func words(w []string) map[string]string {
	m := make(map[string]string)
	for i := 0; i+1 < len(w); i += 2 {
		m[w[i]] = w[i+1]
	}
	return m
}

func seconds(text string) time.Duration {
	if text == "" {
		return 0
	}
	return time.Duration(number(text)) * time.Second
}

// world is a store in memory.
type world struct {
	facts    retain.Facts
	segments map[branchline.StreamID][]retain.Segment
	looked   int
}

func (w *world) stream(name string) *retain.Stream {
	id := streamID(name)
	i := slices.IndexFunc(w.facts.Streams, func(s retain.Stream) bool { return s.ID == id })
	if i < 0 {
		i = len(w.facts.Streams)
		w.facts.Streams = append(w.facts.Streams, retain.Stream{ID: id})
	}
	return &w.facts.Streams[i]
}

func (w *world) list(stream branchline.StreamID, from time.Time) iter.Seq[retain.Segment] {
	return func(yield func(retain.Segment) bool) {
		for _, s := range w.segments[stream] {
			if w.looked++; s.Span.End.After(from) && !yield(s) {
				return
			}
		}
	}
}

func parse(text string) *world {
	w := &world{segments: make(map[branchline.StreamID][]retain.Segment)}
	w.facts.Segments = w.list
	for field := range strings.SplitSeq(text, ";") {
		head, tail, isStream := strings.Cut(strings.TrimSpace(field), ":")
		f := strings.Fields(head)
		if isStream {
			w.parseStream(f, strings.Fields(tail))
			continue
		}
		w.parseFact(f)
	}
	w.total()
	return w
}

func (w *world) parseStream(f, segments []string) {
	s, rule := w.stream(f[0]), words(f[1:])
	s.Rule = retain.Rule{Keep: seconds(rule["keep"]), ThinAfter: seconds(rule["thin"]), Extend: seconds(rule["extend"])}
	for _, text := range segments {
		text, volume, ok := strings.Cut(text, "@")
		if !ok {
			volume = "d"
		}
		text, size, ok := strings.Cut(text, "=")
		if !ok {
			size = "1"
		}
		w.add(retain.Segment{Stream: s.ID, Span: span(text), Bytes: number(size), Volume: volume})
	}
}

func (w *world) add(s retain.Segment) {
	binary.BigEndian.PutUint64(s.ID[:], uint64(len(w.segments[s.Stream])))
	copy(s.ID[8:], s.Stream)
	w.segments[s.Stream] = append(w.segments[s.Stream], s)
}

func (w *world) parseFact(f []string) {
	ahead := int64(0)
	if last := f[len(f)-1]; last[0] == '+' {
		ahead, f = number(last[1:]), f[:len(f)-1]
	}
	switch f[0] {
	case "now":
		w.facts.Now = at(f[1])
	case "most":
		w.facts.Most = int(number(f[1]))
	case "quota":
		w.facts.Store = retain.Usage{Quota: number(f[1]), Ahead: ahead}
	case "cam":
		w.facts.Cameras = append(w.facts.Cameras, retain.Camera{ID: branchline.CameraID(f[1]),
			Usage: retain.Usage{Quota: number(f[2]), Ahead: ahead}})
	case "vol":
		free, floor, _ := strings.Cut(f[2], "/")
		w.facts.Volumes = append(w.facts.Volumes, retain.Volume{Name: f[1], Free: number(free), Floor: number(floor),
			Ahead: ahead})
	case "lock":
		s := w.stream(f[1])
		for _, r := range spans(f[2]) {
			l := branchline.Lock{ID: fmt.Sprint("case-", len(s.Locks)), Stream: s.ID, Span: r}
			if until := words(f[3:])["until"]; until != "" {
				l.Until = at(until)
			}
			s.Locks = append(s.Locks, l)
		}
	case "hold":
		s, m := w.stream(f[1]), words(f[3:])
		s.Holds = append(s.Holds, branchline.Hold{Holder: "hub", Stream: s.ID, Spans: spans(f[2]), Known: at(m["known"]),
			Until: at(m["until"])})
	case "thinned":
		w.stream(f[1]).Thinned = spans(f[2])
	default:
		panic(f[0])
	}
}

// total counts what the quotas' users take.
func (w *world) total() {
	w.facts.Store.Bytes = 0
	for i := range w.facts.Cameras {
		w.facts.Cameras[i].Bytes = 0
	}
	for _, segments := range w.segments {
		for _, s := range segments {
			w.facts.Store.Bytes += s.Bytes
			for i := range w.facts.Cameras {
				if w.facts.Cameras[i].ID == s.Stream.Camera() {
					w.facts.Cameras[i].Bytes += s.Bytes
				}
			}
		}
	}
}

func describe(p retain.Plan) string {
	var out []string
	for _, a := range p.Actions {
		what := map[branchline.Cause]string{
			branchline.CauseExpired: "x", branchline.CauseRemovedEarly: "e", "": "t"}[a.Cause]
		name := string(a.Segment.Stream.Camera())
		if l := a.Segment.Stream.Label(); l != "main" {
			name += "/" + l
		}
		out = append(out, fmt.Sprintf("%s:%s%g", what, name, float64(a.Segment.Span.Start.UnixNano())/1e9))
	}
	for _, s := range p.Shortages {
		why := "empty"
		if strings.Contains(s.Why, "locked") {
			why = "locked"
		}
		out = append(out, fmt.Sprintf("short %d %s", s.Bytes, why))
	}
	if p.More {
		out = append(out, "more")
	}
	return strings.Join(out, " ")
}

type row struct{ name, facts, want string }

// decide checks plans against what they should be.
func decide(t *testing.T, rows []row) {
	t.Helper()
	for _, c := range rows {
		plan := retain.Decide(parse(c.facts).facts)
		if got := describe(plan); got != c.want {
			t.Errorf("%s: %s\n\tgot  %q\n\twant %q", c.name, c.facts, got, c.want)
		}
		for _, a := range plan.Actions {
			if a.Why == "" {
				t.Errorf("%s: no explanation of %+v", c.name, a)
			}
		}
	}
}

const ten = "0-10 10-20 20-30 30-40 40-50 50-60 60-70 70-80 80-90 90-100"

func TestNoRules(t *testing.T) {
	decide(t, []row{
		{"no rules keep everything", "now 100; a: " + ten, ""},
		{"nothing at all", "now 100", ""},
	})
}

func TestAge(t *testing.T) {
	decide(t, []row{
		{"age", "now 100; a keep 70: " + ten, "x:a0 x:a10"},
		{"age counts from a segment's end", "now 100; a keep 79: " + ten, "x:a0 x:a10"},
		{"just of age is kept", "now 100; a keep 90: " + ten, ""},
		{"age of one stream is not another's", "now 100; a keep 80: 0-10 10-20; b: 0-10; c keep 85: 5-6", "x:a0 x:c5"},
		{"age does not ask for pressure", "now 100; vol d 9/5; a keep 85: " + ten, "x:a0"},
		{"age, oldest first over streams", "now 100; b keep 70: 0-10 15-20; a keep 70: 5-10 10-15",
			"x:b0 x:a5 x:a10 x:b15"},
	})
}

func TestLocks(t *testing.T) {
	decide(t, []row{
		{"a lock beats age", "now 100; a keep 70: " + ten + "; lock a 0-10", "x:a10"},
		{"a lock that touches locks all of a segment", "now 100; a keep 55: " + ten + "; lock a 15-16", "x:a0 x:a20 x:a30"},
		{"a lock to a segment's start does not touch it", "now 100; a keep 75: " + ten + "; lock a 5-10", "x:a10"},
		{"a lock across two", "now 100; a keep 55: " + ten + "; lock a 9-11", "x:a20 x:a30"},
		{"an ended lock", "now 100; a keep 75: " + ten + "; lock a 0-20 until 100", "x:a0 x:a10"},
		{"a lock until later", "now 100; a keep 75: " + ten + "; lock a 0-20 until 101", ""},
		{"one of two locks has ended", "now 100; a keep 70: " + ten + "; lock a 0-20 until 50; lock a 0-10", "x:a10"},
		{"a lock of another stream", "now 100; a keep 90: 0-9; a/sub keep 90: 0-9; lock a/sub 0-9", "x:a0"},
	})
}

func TestHolds(t *testing.T) {
	decide(t, []row{
		{"a hold postpones age", "now 100; a keep 70: " + ten + "; hold a 0-10 known 100 until 200", "x:a10"},
		{"up to the lease's end", "now 100; a keep 70: " + ten + "; hold a 0-10 known 100 until 100", "x:a0 x:a10"},
		{"not retrieved: no extension, no delay",
			"now 100; a keep 70: " + ten + "; hold a - known 10 until 200", "x:a0 x:a10"},
		{"not retrieved: kept longer", "now 100; a keep 70 extend 10: " + ten + "; hold a - known 10 until 200", "x:a0"},
		{"but not longer than the extension", "now 100; a keep 60 extend 10: " + ten + "; hold a - known 0 until 200",
			"x:a0 x:a10"},
		{"it counts after the lease's end, too", "now 100; a keep 70 extend 10: " + ten + "; hold a - known 10 until 95",
			"x:a0"},
		{"but not for ever", "now 100; a keep 70 extend 10: " + ten + "; hold a - known 10 until 90", "x:a0 x:a10"},
		{"spans of an ended lease are not retrieved", "now 100; a keep 70 extend 20: " + ten +
			"; hold a 10-20 known 60 until 90", "x:a0"},
		{"recorded across known", "now 100; a keep 70 extend 20: " + ten + "; hold a - known 15 until 90", "x:a0"},
	})
}

func TestQuota(t *testing.T) {
	decide(t, []row{
		{"store over its quota", "now 100; quota 8; a: " + ten, "e:a0 e:a10"},
		{"store at its quota", "now 100; quota 10; a: " + ten, ""},
		{"ahead of need", "now 100; quota 10 +2; a: " + ten, "e:a0 e:a10"},
		{"sizes count", "now 100; quota 10; a: 0-10=4 10-20=4 20-30=4", "e:a0"},
		{"oldest of all streams", "now 100; quota 3; b: 5-15 25-35 45-55; a: 0-10 10-20 20-30", "e:a0 e:b5 e:a10"},
		{"age helps first", "now 100; quota 8; a: " + ten[:23] + "; b keep 40: 50-60 60-70", ""},
		{"what age frees is not freed again", "now 100; quota 2; a: 50-60; b keep 40: 10-20 20-30 70-80",
			"x:b10 x:b20"},
		{"over its age and held, under pressure", "now 100; quota 1; a keep 50: 0-10 10-20; hold a 0-20 known 100 until 200",
			"x:a0"},
	})
}

func TestRanks(t *testing.T) {
	decide(t, []row{
		{"pressure spares what a hub waits for", "now 100; quota 8; a: " + ten + "; hold a 0-10,20-30 known 100 until 200",
			"e:a10 e:a30"},
		{"then what is not retrieved", "now 100; quota 2; a: 0-10 10-20 20-30 30-40; hold a 0-10 known 20 until 200",
			"e:a10 e:a20"},
		{"then what is held", "now 100; quota 1; a: 0-10 10-20 20-30 30-40; hold a 0-10,10-12 known 30 until 200",
			"e:a20 e:a30 e:a0"},
		{"never what is locked", "now 100; quota 1; a: 0-10 10-20 20-30; lock a 0-20", "e:a20 short 1 locked"},
		{"locked and held is locked", "now 100; quota 0; vol d 0/9; a: 0-10; lock a 0-10; hold a 0-10 known 0 until 200",
			"short 9 locked"},
		{"nothing is left", "now 100; vol d 0/3; a: 0-10", "e:a0 short 2 empty"},
		{"one stream's hold is not another's", "now 100; quota 1; a: 0-10; b: 5-15; hold a 0-10 known 100 until 200", "e:b5"},
	})
}

func TestCameraQuota(t *testing.T) {
	decide(t, []row{
		{"camera over its quota", "now 100; cam a 2; a: 10-20 20-30 30-40; b: 0-10", "e:a10"},
		{"its streams count together", "now 100; cam a 2; a: 10-20 20-30; a/sub: 5-15 25-30; b: 0-10", "e:a/sub5 e:a10"},
		{"camera and store together", "now 100; cam a 2; quota 3; a: 10-20 20-30 30-40; b: 0-10", "e:a10"},
		{"camera and store, both", "now 100; cam a 2; quota 2; a: 10-20 20-30 30-40; b: 0-10", "e:a10 e:b0"},
	})
}

func TestVolumes(t *testing.T) {
	decide(t, []row{
		{"a volume's floor", "now 100; vol d 3/5; a: " + ten, "e:a0 e:a10"},
		{"a volume's floor, ahead", "now 100; vol d 5/5 +1; a: " + ten, "e:a0"},
		{"a volume with room", "now 100; vol d 5/5; a: " + ten, ""},
		{"only that volume's", "now 100; vol d 9/5; vol e 4/5; a: 0-10 10-20@e 20-30 30-40@e", "e:a10"},
		{"two volumes", "now 100; vol d 4/5; vol e 4/5; a: 0-10@e 10-20 20-30 30-40@e", "e:a10 e:a0"},
		{"a volume without segments", "now 100; vol f 4/5; a: 0-10", "short 1 empty"},
		{"what the volume frees, the store need not",
			"now 100; vol d 9/9; vol e 4/5; quota 2; a: 0-10 10-20@e 20-30", "e:a10"},
		{"but not what is older than what is removed", "now 100; vol d 4/5; quota 6; a: 0-10=1 10-20=5 20-30=2",
			"e:a0 e:a10"},
		{"what turns out unneeded is spared", "now 100; vol e 4/5; cam a 1; a: 10-20=5@e 20-30; b: 0-10@e", "e:a10"},
	})
}

func TestThinning(t *testing.T) {
	decide(t, []row{
		{"thinning", "now 100; a thin 70: " + ten, "t:a0 t:a10"},
		{"already thinned", "now 100; a thin 55: " + ten + "; thinned a 0-20", "t:a20 t:a30"},
		{"a lock beats thinning", "now 100; a thin 70: " + ten + "; lock a 5-6", "t:a10"},
		{"a hold postpones thinning", "now 100; a thin 70: " + ten + "; hold a 0-10 known 100 until 200", "t:a10"},
		{"not retrieved postpones it", "now 100; a thin 70 extend 10: " + ten + "; hold a - known 0 until 200", "t:a0"},
		{"removed is not thinned", "now 100; a keep 75 thin 55: " + ten, "x:a0 x:a10 t:a20 t:a30"},
		{"thinned is removed all the same", "now 100; a keep 85 thin 60: " + ten + "; thinned a 0-40", "x:a0"},
		{"pressure does not thin", "now 100; quota 9; a thin 95: " + ten, "e:a0"},
	})
}

func TestBounds(t *testing.T) {
	decide(t, []row{
		{"no more than it may", "now 100; most 3; a keep 50: " + ten, "x:a0 x:a10 x:a20 more"},
		{"pressure too", "now 100; most 2; quota 1; a: " + ten, "e:a0 e:a10 more"},
		{"and thinning", "now 100; most 2; a thin 50: " + ten, "t:a0 t:a10 more"},
		{"what is spared leaves its place", "now 100; most 2; vol e 4/5; cam a 1; a: 10-20=5@e 20-30; b thin 50: 0-10@e",
			"e:a10 t:b0"},
		{"segments that overlap by a rounding", "now 100; a keep 70: 0-10.0003 10-20 20-30", "x:a0 x:a10"},
		{"a lock as far as a rounding", "now 100; a keep 60: 0-10.5 10-20 20-30; lock a 10.2-10.3", "x:a20"},
	})
}

func TestExplanations(t *testing.T) {
	const days30 = "now 2700000; a keep 2592000 extend 1209600 thin 604800"
	for _, c := range []struct{ facts, why, short string }{
		{days30 + ": 0-10", "older than 30 days by 29h59m", ""},
		{"now 9000000; a keep 86400 extend 172800: 0-10; hold a - known 0 until 9999999",
			"older than 1 day by 103 days: not yet retrieved, for which it was kept up to 2 days longer", ""},
		{"now 700000; a thin 604800: 0-10", "older than 7 days by 26h26m: only key fragments stay", ""},
		{"now 100; quota 2000000000000; a: 0-10=1300000000 10-20=2000000000000",
			"store is over its quota of 2.0 TB by 1.3 GB: oldest of what no hub waits for", ""},
		{"now 100; quota 10 +3; a: 0-10=8", "store will be over its quota of 10 bytes by 1 bytes: " +
			"oldest of what no hub waits for", ""},
		{"now 100; cam a 10; a: 0-10=12; hold a - known 5 until 200", "camera a is over its quota of 10 bytes by 2 bytes: " +
			"oldest of what no hub has retrieved yet, as nothing else is left", ""},
		{"now 100; vol /disk1 3100000000/5000000000; a: 0-10=2000000000@/disk1; hold a 0-10 known 100 until 200",
			"volume /disk1 has 3.1 GB free of 5.0 GB wanted: oldest of what a hub holds, as nothing else is left", ""},
		{"now 100; vol d 6/5 +2; a: 0-10", "volume d will soon have 4 bytes free of 5 bytes wanted: " +
			"oldest of what no hub waits for", ""},
		{"now 100; vol d 3/5; a: 0-10; lock a 3-4", "", "volume d has 3 bytes free of 5 bytes wanted: " +
			`all that is left is locked as evidence, the oldest on a.main by lock "case-0"`},
		{"now 100; vol d 3/5", "", "volume d has 3 bytes free of 5 bytes wanted: no complete segment is left"},
	} {
		plan := retain.Decide(parse(c.facts).facts)
		var why, short string
		if len(plan.Actions) > 0 {
			why = plan.Actions[0].Why
		}
		if len(plan.Shortages) > 0 {
			short = plan.Shortages[0].Rule + ": " + plan.Shortages[0].Why
		}
		if why != c.why || short != c.short {
			t.Errorf("%s:\n\tgot  %q %q\n\twant %q %q", c.facts, why, short, c.why, c.short)
		}
	}
}

// TestSettles: what thinning settles reaches over holes, and never over what was postponed.
func TestSettles(t *testing.T) {
	w := parse("now 100; a thin 20: 0-10 20-30 30-40 40-50 60-70; thinned a 0-10; lock a 35-36")
	var got []string
	for _, a := range retain.Decide(w.facts).Actions {
		got = append(got, fmt.Sprintf("%d-%d", a.Settles.Start.Unix(), a.Settles.End.Unix()))
	}
	if want := "10-30 40-50 50-70"; strings.Join(got, " ") != want {
		t.Errorf("settles %v, want %s", got, want)
	}
}

func TestFloor(t *testing.T) {
	const gib, tib = int64(1) << 30, int64(1) << 40
	for _, c := range []struct {
		free              retain.Share
		size, least, want int64
	}{
		{retain.Share{}, 100 * gib, 1, 100 * gib / 1000 * 20},
		{retain.Share{}, 4 * tib, 1, 16 * gib},
		{retain.Share{}, gib, gib / 5, gib / 5},
		{retain.Share{Bytes: 30 * gib}, 4 * tib, 1, 30 * gib},
		{retain.Share{Bytes: 30 * gib, Thousands: 50}, 4 * tib, 1, 4 * tib / 1000 * 50},
		{retain.Share{Bytes: 1}, 4 * tib, gib, gib},
	} {
		if got := (retain.Rules{Free: c.free}).Floor(c.size, c.least); got != c.want {
			t.Errorf("floor of %+v: %d, want %d", c, got, c.want)
		}
	}
}

func TestFirstRuleCounts(t *testing.T) {
	r := retain.Rules{Rules: []retain.Rule{{Streams: "berlin.*", Quota: 1}, {Streams: "[", Quota: 2}, {Quota: 3}}}
	for stream, want := range map[branchline.StreamID]int64{"berlin.door.main": 1, "paris.door.main": 3} {
		if got := r.For(stream).Quota; got != want {
			t.Errorf("rule for %s is number %d, want %d", stream, got, want)
		}
	}
	if (retain.Rules{}).For("a.main") != (retain.Rule{}) {
		t.Error("a rule from nowhere")
	}
}

// TestLooksOnlyWhereItMust plans for 200,000 segments of which the first half is held and the second
// not retrieved, but one in the middle.
func TestLooksOnlyWhereItMust(t *testing.T) {
	w := parse("now 4000000; quota 200000; a:; hold a 0-1000000 known 1000010 until 9000000")
	for i := range 200_001 {
		start := time.Unix(int64(i)*10, 0).UTC()
		w.add(retain.Segment{Stream: "a.main", Bytes: 1, Volume: "d",
			Span: branchline.TimeRange{Start: start, End: start.Add(10 * time.Second)}})
	}
	w.total()
	sought := 0
	w.facts.Segments = func(stream branchline.StreamID, from time.Time) iter.Seq[retain.Segment] {
		all := w.segments[stream]
		i := max(0, min(len(all), int(from.Unix()/10)))
		return func(yield func(retain.Segment) bool) {
			for _, s := range all[i:] {
				if sought++; !yield(s) {
					return
				}
			}
		}
	}
	if got := describe(retain.Decide(w.facts)); got != "e:a1e+06" || sought > 10 {
		t.Errorf("plan %q after looking at %d segments", got, sought)
	}
}
