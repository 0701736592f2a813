package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	site   = branchline.SiteID("berlin")
	stream = branchline.StreamID("berlin.door.main")
)

// at is a second of the test's time.
func at(seconds float64) time.Time {
	return time.Unix(1_800_000_000, 0).UTC().Add(time.Duration(seconds * float64(time.Second)))
}

func span(from, to float64) branchline.TimeRange {
	return branchline.TimeRange{Start: at(from), End: at(to)}
}

// changes reads a feed such as "open a 0; seal a 0-60; gap 60-70 camera unreachable; gap 80 disk full;
// remove a 0-60 expired; camera". A gap without an end is open.
func changes(text string) []branchline.Change {
	var feed []branchline.Change
	for i, entry := range strings.Split(text, ";") {
		words := strings.Fields(entry)
		if len(words) == 0 {
			continue
		}
		change := branchline.Change{At: branchline.Position{Epoch: 7, Seq: uint64(i + 1)}}
		var id branchline.SegmentID
		if len(words) > 1 {
			id[0] = words[1][0]
		}
		switch words[0] {
		case "camera":
			change.Camera = &branchline.Camera{ID: "door", Added: at(-100),
				Streams: []branchline.Stream{{ID: "door.main"}}}
		case "open":
			change.Opened = &branchline.Segment{ID: id, Stream: "door.main", Span: times(words[2])}
		case "seal":
			change.Sealed = &branchline.Segment{ID: id, Stream: "door.main", Span: times(words[2]), Sealed: true}
		case "remove":
			change.Removed = &branchline.Removal{ID: id, Stream: "door.main", Span: times(words[2]),
				Cause: branchline.Cause(strings.Join(words[3:], " "))}
		case "gap":
			change.Gap = &branchline.Gap{Stream: "door.main", Span: times(words[1]),
				Cause: branchline.Cause(strings.Join(words[2:], " ")), Open: !strings.Contains(words[1], "-")}
		default:
			panic(entry)
		}
		feed = append(feed, change)
	}
	return feed
}

func times(word string) branchline.TimeRange {
	var from, to float64
	if n, _ := fmt.Sscanf(word, "%f-%f", &from, &to); n == 1 {
		to = from
	}
	return span(from, to)
}

// feed is a source that has nothing but a change feed. After its last change it ends with an error, so
// that a test knows when all is applied.
type feed struct {
	branchline.Source
	changes []branchline.Change
	epoch   uint64
	after   []branchline.Position // from where it was asked
	cameras []branchline.Camera
	patient bool // it ends some time after its last change
}

func (f *feed) Cameras(context.Context) ([]branchline.Camera, error) { return f.cameras, nil }

var errEnd = errors.New("end of the test's feed")

func (f *feed) Changes(_ context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	f.after = append(f.after, after)
	return func(yield func(branchline.Change, error) bool) {
		if after.Epoch != 0 && after.Epoch != f.epoch {
			yield(branchline.Change{}, branchline.ErrGone)
			return
		}
		for _, c := range f.changes {
			c.At.Epoch = f.epoch
			if c.At.Seq > after.Seq && !yield(c, nil) {
				return
			}
		}
		if f.patient {
			<-time.After(500 * time.Millisecond)
		}
		yield(branchline.Change{}, errEnd)
	}
}

// fixture is a catalog whose clock stands still unless it is set.
type fixture struct {
	*testing.T
	dir     string
	now     time.Time
	db      *index.DB
	catalog *catalog.Catalog
	notices []catalog.Notice
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, dir: t.TempDir(), now: at(100)}
	f.open()
	t.Cleanup(func() { f.db.Close() })
	return f
}

func (f *fixture) open() {
	f.Helper()
	var err error
	if f.db, err = index.Open(f.dir, index.Options{}); err != nil {
		f.Fatal(err)
	}
	f.catalog, err = catalog.Open(catalog.Options{DB: f.db, Clock: clock.New(func() time.Time { return f.now }),
		Changed: func(n catalog.Notice) { f.notices = append(f.notices, n) }})
	if err != nil {
		f.Fatal(err)
	}
}

// crash opens the catalog anew, without any farewell.
func (f *fixture) crash() {
	f.Helper()
	f.check(f.db.Close())
	f.open()
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// follow applies what is new in the feed.
func (f *fixture) follow(src *feed) {
	f.Helper()
	if src.epoch == 0 {
		src.epoch = 7
	}
	if err := f.catalog.Follow(f.Context(), site, src); !errors.Is(err, errEnd) {
		f.Fatal(err)
	}
}

// dump returns what the catalog knows of the stream: "0-60, gap 60-70 camera unreachable".
func (f *fixture) dump() string {
	f.Helper()
	facts, err := f.catalog.Facts(stream, span(-1000, 1000))
	f.check(err)
	var words []string
	for _, r := range facts.Available {
		words = append(words, seconds(r))
	}
	for _, g := range facts.Gaps {
		words = append(words, strings.TrimSpace(fmt.Sprint("gap ", seconds(g.Span), " ", g.Cause)))
	}
	return strings.Join(words, ", ")
}

func seconds(r branchline.TimeRange) string {
	return fmt.Sprintf("%g-%g", r.Start.Sub(at(0)).Seconds(), r.End.Sub(at(0)).Seconds())
}

func TestFeedBecomesSpans(t *testing.T) {
	for _, c := range []struct{ name, feed, want string }{
		{"one segment", "seal a 0-60", "0-60"},
		{"segments join", "seal a 0-60; seal b 60-120; seal c 120-130", "0-130"},
		{"rounding joins", "seal a 0-60; seal b 60.0005-120", "0-120"},
		{"a lost frame is no rounding", "seal a 0-60; seal b 60.04-120", "0-60, 60.04-120"},
		{"a real hole does not", "seal a 0-60; seal b 61-120", "0-60, 61-120"},
		{"late and out of order", "seal c 120-180; seal a 0-60; seal b 60-120", "0-180"},
		{"told twice", "seal a 0-60; seal a 0-60", "0-60"},
		{"growing to now", "seal a 0-60; open b 60", "0-100"},
		{"growing, then sealed", "open b 60; seal b 60-70", "60-70"},
		{"the next begins first", "open a 0; open b 60; seal a 0-60", "0-100"},
		{"growing until a gap", "open a 0; gap 50 camera unreachable", "0-50, gap 50-100 camera unreachable"},
		{"an open gap ends", "gap 10 camera unreachable; gap 10-30 camera unreachable",
			"gap 10-30 camera unreachable"},
		{"gaps of one cause join", "gap 10-20 disk full; gap 20-30 disk full", "gap 10-30 disk full"},
		{"gaps of two causes do not", "gap 10-20 disk full; gap 20-30 disk slow",
			"gap 10-20 disk full, gap 20-30 disk slow"},
		{"another open gap", "gap 10 disk full; gap 20 disk slow", "gap 10-20 disk full, gap 20-100 disk slow"},
		{"removed from the start", "seal a 0-60; seal b 60-120; remove a 0-60 expired",
			"60-120, gap 0-60 expired"},
		{"removed from the middle", "seal a 0-60; seal b 60-120; seal c 120-180; remove b 60-120 removed early",
			"0-60, 120-180, gap 60-120 removed early"},
		{"removed altogether, rounding too", "seal a 0-60; seal b 60.0005-120; remove a 0-60 expired; " +
			"remove b 60.0005-120 expired", "gap 0-120 expired"},
		{"removed while it grew", "open a 90; remove a 90-95 disk failed", "gap 90-95 disk failed"},
		{"a removal told as a gap too", "seal a 0-60; remove a 0-60 expired; gap 0-60 expired", "gap 0-60 expired"},
		{"lost and back", "seal a 0-60; seal b 60-120; seal c 120-180; remove b 60-120 disk failed; " +
			"gap 60-120 disk failed; seal b 60-120; gap 60-60 disk failed", "0-180"},
		{"two lost and one back", "seal a 0-60; seal b 60-120; seal c 120-180; remove b 60-120 disk failed; " +
			"remove a 0-60 disk failed; seal b 60-120", "60-180, gap 0-60 disk failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.check(f.catalog.LinkUp(site, at(0)))
			f.follow(&feed{changes: changes("camera;" + c.feed)})
			if got := f.dump(); got != c.want {
				t.Errorf("%s\n got  %s\n want %s", c.feed, got, c.want)
			}
			f.crash()
			f.check(f.catalog.LinkUp(site, at(100)))
			if got := f.dump(); got != c.want {
				t.Errorf("after a restart: %s", got)
			}
		})
	}
}

// TestFollowGoesOn: a feed is read once, in whatever pieces it comes.
func TestFollowGoesOn(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	all := changes("camera; open a 0; seal a 0-60; open b 60; seal b 60-120; gap 120-130 disk full; open c 130")
	for n := range all {
		f.follow(&feed{changes: all[:n+1]})
		if n == 3 {
			f.crash()
		}
	}
	src := &feed{changes: all}
	f.follow(src)
	if want := (branchline.Position{Epoch: 7, Seq: 7}); len(src.after) != 1 || src.after[0] != want {
		t.Errorf("asked from %v, expected once from %v", src.after, want)
	}
	if got := f.dump(); got != "0-120, gap 120-130 disk full" {
		t.Error(got)
	}
	if len(f.notices) != 1+len(all) {
		t.Errorf("told %d times of %d changes and a link", len(f.notices), len(all))
	}
}

// TestAnotherEpoch: after the edge's disk was replaced nothing of the old one is left.
func TestAnotherEpoch(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	f.follow(&feed{changes: changes("camera; seal a 0-60; gap 60-70 disk failed; open b 70")})
	f.check(f.catalog.LinkUp("paris", at(0)))
	other := &feed{changes: changes("camera; seal a 0-10"), epoch: 7}
	if err := f.catalog.Follow(t.Context(), "paris", other); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	src := &feed{changes: changes("camera; seal a 80-90"), epoch: 8, patient: true}
	f.follow(src)
	if got := f.dump(); got != "80-90" {
		t.Error(got)
	}
	if want := []branchline.Position{{Epoch: 7, Seq: 4}, {}}; !slices.Equal(src.after, want) {
		t.Errorf("asked from %v, expected %v", src.after, want)
	}
	if held, err := f.catalog.Available("paris.door.main", span(0, 100)); err != nil || len(held) != 1 {
		t.Errorf("another site's recordings: %v, %v", held, err)
	}
}

// TestOutages uses "up 10", "down 20" and "crash 30" with the last sign of life every ten seconds.
func TestOutages(t *testing.T) {
	for _, c := range []struct{ name, events, want string }{
		{"never linked", "", ""},
		{"linked since", "up 10", ""},
		{"once down", "up 10; down 20; up 35", "20-35"},
		{"still down", "up 10; down 20", "20-100 open"},
		{"down twice", "up 10; down 20; up 35; down 40; up 50", "20-35, 40-50"},
		{"down, told twice", "up 10; down 20; down 30; up 35", "20-35"},
		{"the hub dies", "up 10; crash 45; up 60", "40-60"},
		{"the hub dies at once", "up 10; crash 15; up 60", "10-60"},
		{"the hub dies while it is down", "up 10; down 20; crash 45; up 60", "20-60"},
		{"the hub dies, and the site stays away", "up 10; crash 45", "40-100 open"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			for _, event := range strings.Split(c.events, ";") {
				var what string
				var when float64
				if n, _ := fmt.Sscan(event, &what, &when); n < 2 {
					continue
				}
				switch what {
				case "up":
					f.check(f.catalog.LinkUp(site, at(when)))
				case "down":
					f.check(f.catalog.LinkDown(site, at(when), catalog.Why{}))
				case "crash":
					f.now = at(float64(int(when) / 10 * 10))
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					_ = f.catalog.Run(ctx) // one sign of life
					f.crash()
				}
			}
			f.now = at(100)
			outages, err := f.catalog.Outages(site, span(0, 200))
			f.check(err)
			var words []string
			for _, o := range outages {
				word := seconds(o.Span)
				if o.Open {
					word += " open"
				}
				words = append(words, word)
			}
			if got := strings.Join(words, ", "); got != c.want {
				t.Errorf("%s: %s, expected %s", c.events, got, c.want)
			}
		})
	}
}

// TestDark: what grew when the site was last heard of ends there.
func TestDark(t *testing.T) {
	f := newFixture(t)
	f.check(f.catalog.LinkUp(site, at(0)))
	f.follow(&feed{changes: changes("camera; seal a 0-60; open b 60")})
	if doing, _, err := f.catalog.Recording(stream); doing != catalog.RecordingOn || err != nil {
		t.Error(doing, err)
	}
	f.check(f.catalog.LinkDown(site, at(80), catalog.Why{}))
	if got := f.dump(); got != "0-80" {
		t.Errorf("dark: %s", got)
	}
	growing, err := f.catalog.Growing(stream)
	if err != nil || seconds(growing) != "60-80" {
		t.Errorf("growing %s, %v", seconds(growing), err)
	}
	state, err := f.catalog.Site(site)
	if err != nil || state.Linked || !state.Since.Equal(at(80)) || !state.LastContact.Equal(at(80)) ||
		state.Cameras != 1 {
		t.Errorf("%+v, %v", state, err)
	}
	f.check(f.catalog.LinkUp(site, at(95)))
	f.follow(&feed{changes: changes("camera; seal a 0-60; open b 60; gap 85 camera unreachable")})
	if doing, cause, err := f.catalog.Recording(stream); doing != catalog.RecordingOff ||
		cause != branchline.CauseUnreachable || err != nil {
		t.Error(doing, cause, err)
	}
	if _, err := f.catalog.Site("nowhere"); !errors.Is(err, branchline.ErrNotFound) {
		t.Error(err)
	}
}

// TestSizeDoesNotGrow: a week of segments is one span, and a month of removals behind it one gap.
func TestSizeDoesNotGrow(t *testing.T) {
	f := newFixture(t)
	f.now = at(1e7)
	f.check(f.catalog.LinkUp(site, at(0)))
	src := &feed{changes: changes("camera")}
	for i := range 3000 {
		from := float64(i) * 60
		id := branchline.SegmentID{byte(i >> 8), byte(i)}
		src.changes = append(src.changes, branchline.Change{Sealed: &branchline.Segment{
			ID: id, Stream: "door.main", Span: span(from, from+60)}})
		if i >= 1000 {
			old := float64(i-1000) * 60
			src.changes = append(src.changes, branchline.Change{Removed: &branchline.Removal{
				Stream: "door.main", Span: span(old, old+60), Cause: branchline.CauseExpired}})
		}
	}
	for i := range src.changes {
		src.changes[i].At.Seq = uint64(i + 1)
	}
	f.follow(src)
	facts, err := f.catalog.Facts(stream, span(0, 1e7))
	if err != nil || len(facts.Available) != 1 || len(facts.Gaps) != 1 ||
		seconds(facts.Available[0]) != "120000-180000" || seconds(facts.Gaps[0].Span) != "0-120000" {
		t.Errorf("%+v, %v", facts, err)
	}
	rows := 0
	f.check(f.db.View(func(tx *index.Tx) error {
		for range tx.Scan([]byte("catalog/"), nil) {
			rows++
		}
		return nil
	}))
	if rows > 6 {
		t.Errorf("%d rows for one stream", rows)
	}
}
