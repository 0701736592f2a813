package fetch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSite = branchline.SiteID("berlin")
	door     = branchline.StreamID("berlin.door.main")
)

// at is a second of the test's time, in which it is 100000 now.
func at(seconds float64) time.Time {
	return time.Unix(1_800_000_000, 0).UTC().Add(time.Duration(seconds * float64(time.Second)))
}

func span(from, to float64) branchline.TimeRange {
	return branchline.TimeRange{Start: at(from), End: at(to)}
}

// feed is a site that has cameras and a change feed, and nothing else.
type feed struct {
	branchline.Source
	changes []branchline.Change
}

var errEnd = errors.New("end of the test's feed")

func (f feed) Cameras(context.Context) ([]branchline.Camera, error) {
	return []branchline.Camera{{ID: "door", Streams: []branchline.Stream{{ID: "door.main"}, {ID: "door.sub"}}}}, nil
}

func (f feed) Changes(context.Context, branchline.Position) iter.Seq2[branchline.Change, error] {
	return func(yield func(branchline.Change, error) bool) {
		for i, c := range f.changes {
			if c.At = (branchline.Position{Epoch: 1, Seq: uint64(i + 1)}); !yield(c, nil) {
				return
			}
		}
		yield(branchline.Change{}, errEnd)
	}
}

// fixture is a fetcher with a real database, store and catalog, in which berlin's door has recorded.
type fixture struct {
	*testing.T
	dir     string
	db      *index.DB
	store   *segstore.Store
	fetcher *Fetcher
	opt     Options
}

func newFixture(t *testing.T, policies []policy.Policy, recorded ...branchline.TimeRange) *fixture {
	f := &fixture{T: t, dir: t.TempDir()}
	var err error
	if f.store, err = segstore.Open(t.TempDir(), segstore.Options{}); err != nil {
		t.Fatal(err)
	}
	f.opt = Options{Store: f.store, Policies: policies, Clock: clock.New(func() time.Time { return at(100_000) })}
	f.open()
	t.Cleanup(func() { f.db.Close(); f.store.Close() })
	if err := f.opt.Catalog.LinkUp(testSite, at(-1000)); err != nil {
		t.Fatal(err)
	}
	var src feed
	for i, r := range recorded {
		src.changes = append(src.changes, branchline.Change{Sealed: &branchline.Segment{
			ID: branchline.SegmentID{byte(i + 1)}, Stream: "door.main", Span: r, Sealed: true}})
	}
	if err := f.opt.Catalog.Follow(t.Context(), testSite, src); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) open() {
	f.Helper()
	var err error
	if f.db, err = index.Open(f.dir, index.Options{}); err != nil {
		f.Fatal(err)
	}
	f.opt.DB = f.db
	if f.opt.Catalog, err = catalog.Open(catalog.Options{DB: f.db, Clock: f.opt.Clock}); err != nil {
		f.Fatal(err)
	}
	if f.fetcher, err = Open(f.opt); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) restart() {
	f.Helper()
	if err := f.db.Close(); err != nil {
		f.Fatal(err)
	}
	f.open()
}

func (f *fixture) link() *link {
	return &link{f: f.fetcher, id: testSite, site: f.fetcher.site(testSite), wakened: true,
		retry: make(map[branchline.StreamID]backoff), damaged: make(map[branchline.SegmentID]int),
		jobs: make(map[string]backoff)}
}

func (f *fixture) order(r branchline.TimeRange) Job {
	f.Helper()
	j, err := f.fetcher.Create(Order{Streams: []branchline.StreamID{door}, Span: r})
	if err != nil {
		f.Fatal(err)
	}
	return j
}

func words(tasks []*task) string {
	var all []string
	for _, t := range tasks {
		all = append(all, fmt.Sprintf("%g-%g", t.span.Start.Sub(at(0)).Seconds(), t.span.End.Sub(at(0)).Seconds()))
	}
	return strings.Join(all, " ")
}

// TestWindows: what policies want and do not have becomes tasks of at most a window, the older first,
// without what was seen to be held and what is refused.
func TestWindows(t *testing.T) {
	always := []policy.Policy{{Streams: "*", Kind: policy.Always, Since: at(0)}}
	for _, c := range []struct {
		name             string
		policies         []policy.Policy
		recorded         []branchline.TimeRange
		checked, refused branchline.Spans
		want             string
	}{
		{"nothing recorded", always, nil, nil, nil, ""},
		{"nothing wanted", nil, []branchline.TimeRange{span(0, 60)}, nil, nil, ""},
		{"one", always, []branchline.TimeRange{span(0, 60)}, nil, nil, "0-60"},
		{"before the policy", always, []branchline.TimeRange{span(-60, 30)}, nil, nil, "0-30"},
		{"windows", always, []branchline.TimeRange{span(0, 1500)}, nil, nil, "0-600 600-1200 1200-1500"},
		{"a hole", always, []branchline.TimeRange{span(0, 700), span(800, 900)}, nil, nil, "0-600 600-700 800-900"},
		{"checked", always, []branchline.TimeRange{span(0, 1500)}, branchline.Spans{span(100, 1400)}, nil,
			"0-100 1400-1500"},
		{"refused", always, []branchline.TimeRange{span(0, 1500)}, nil, branchline.Spans{span(0, 600)},
			"600-1200 1200-1500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, c.policies, c.recorded...)
			l := f.link()
			l.site.checked[door] = c.checked
			l.site.refused[door] = c.refused
			if err := l.plan(t.Context(), f.fetcher.clock.Now()); err != nil {
				t.Fatal(err)
			}
			if got := words(l.queue); got != c.want {
				t.Errorf("%s, expected %s", got, c.want)
			}
		})
	}
}

// TestRefusedPieceBlocksNothing: a piece that fails the same way again and again stands aside.
func TestRefusedPieceBlocksNothing(t *testing.T) {
	f := newFixture(t, []policy.Policy{{Streams: "*", Kind: policy.Always, Since: at(0)}}, span(0, 1000))
	l := f.link()
	now := f.fetcher.clock.Now()
	for n := range maxMismatches + 2 {
		l.planned = time.Time{}
		failures := l.retry[door].failures
		l.retry[door] = backoff{failures: failures} // its pause is over
		if err := l.plan(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		first := words(l.queue[:1])
		if want := "0-600"; n <= maxMismatches && first != want || n > maxMismatches && first == want {
			t.Fatalf("try %d begins with %s", n, first)
		}
		l.finishBulk(result{task: l.queue[0], err: branchline.ErrMismatch})
	}
}

// TestResumeOffsets writes a plan as byte ranges: a segment with an init part of 10 bytes, fragments of
// 10 bytes, one a second, and a footer of 5.
func TestResumeOffsets(t *testing.T) {
	seg := branchline.Segment{ID: branchline.SegmentID{1}, InitSize: 10, Size: 65, Sealed: true, Span: span(0, 5)}
	for i := range 5 {
		seg.Fragments = append(seg.Fragments, branchline.Fragment{
			Offset: int64(10 + 10*i), Length: 10, Start: at(float64(i)), Duration: time.Second, Key: true})
	}
	seg.Size = 65
	long := seg // its only key frame is the second fragment's
	long.Fragments = slices.Clone(seg.Fragments)
	for i := range long.Fragments {
		long.Fragments[i].Key = i == 1
	}
	thinned, first := seg, seg // at the site
	thinned.Fragments = []branchline.Fragment{seg.Fragments[0], seg.Fragments[2]}
	first.Fragments, first.Size = seg.Fragments[:1], 1000
	growing := seg
	growing.Sealed, growing.Size = false, 60
	for _, c := range []struct {
		name string
		seg  branchline.Segment
		take taking
		span branchline.TimeRange
		held string // fragments, "-" if nothing was begun
		want string
	}{
		{"all", seg, takeWhole, span(0, 5), "-", "0-10 10-20 20-30 30-40 40-50 50-60 60-65"},
		{"whole, though less is wanted", seg, takeWhole, span(1, 2), "-", "0-10 10-20 20-30 30-40 40-50 50-60 60-65"},
		{"a span", seg, takeSpan, span(1.5, 3), "-", "0-10 20-30 30-40"},
		{"from the key frame before", long, takeSpan, span(3.5, 4), "-", "0-10 20-30 30-40 40-50"},
		{"which is held", long, takeSpan, span(3.5, 4), "1", "30-40 40-50"},
		{"no key frame before", long, takeSpan, span(0.5, 1), "-", "0-10 10-20"},
		{"the rest", seg, takeWhole, span(0, 5), "01", "30-40 40-50 50-60 60-65"},
		{"a hole", seg, takeWhole, span(0, 5), "0134", "30-40 60-65"},
		{"the span is held", seg, takeSpan, span(0, 2), "01", ""},
		{"the span completes it", seg, takeSpan, span(4, 5), "0123", "50-60 60-65"},
		{"only the footer", seg, takeFooter, span(0, 5), "01234", "60-65"},
		{"no footer for a part", seg, takeFooter, span(0, 5), "0123", ""},
		{"thinned", thinned, takeWhole, span(0, 5), "-", "0-10 10-20 30-40"},
		{"thinned to its first", first, takeWhole, span(0, 5), "-", "0-10 10-20"},
		{"thinned, all held", first, takeWhole, span(0, 5), "0", ""},
		{"growing", growing, takeWhole, span(3, 9), "-", "0-10 40-50 50-60"},
		{"growing, all held", growing, takeWhole, span(0, 9), "01234", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var here branchline.Segment
			if c.held != "-" {
				here = branchline.Segment{ID: seg.ID, InitSize: 10}
				for _, i := range c.held {
					here.Fragments = append(here.Fragments, seg.Fragments[i-'0'])
				}
			}
			st := &segmentTransfer{seg: c.seg, task: &task{take: c.take, span: c.span}}
			some := st.plan(here)
			var got []string
			for _, p := range st.parts {
				got = append(got, fmt.Sprintf("%d-%d", p.bytes.Start, p.bytes.End))
			}
			if text := strings.Join(got, " "); text != c.want || some != (c.want != "") {
				t.Errorf("%s, expected %s", text, c.want)
			}
		})
	}
}

// TestPreemption: a request cancels what policies transfer, and only that, and comes before the plan.
func TestPreemption(t *testing.T) {
	f := newFixture(t, nil, span(0, 1500))
	l := f.link()
	var cancelled []string
	for _, t := range []*task{{reason: "bulk"}, {reason: "other bulk"}, {reason: "request", job: "x"}} {
		t.cancel = func() { cancelled = append(cancelled, t.reason) }
		l.site.running[t] = true
	}
	l.queue = []*task{{}}
	l.preempt()
	l.preempt()
	slices.Sort(cancelled)
	if got := strings.Join(cancelled, ", "); got != "bulk, other bulk" || len(l.queue) > 0 {
		t.Errorf("cancelled %s, %d planned", got, len(l.queue))
	}
	if n := f.fetcher.Counters().Preempted; n != 2 {
		t.Errorf("counted %d", n)
	}
	first, second := f.order(span(0, 1500)), f.order(span(100, 200))
	tasks, _ := l.requests(f.fetcher.clock.Now())
	if len(tasks) != 1 || tasks[0].job != first.ID || words(tasks) != "0-600" {
		t.Errorf("of %s and %s begins %v", first.ID, second.ID, tasks)
	}
}

// TestJobsInOrder: jobs are in the order of their creation, also those of one moment, and over a restart.
func TestJobsInOrder(t *testing.T) {
	f := newFixture(t, nil, span(0, 1500))
	var want []string
	for range 4 {
		want = slices.Insert(want, 0, f.order(span(0, 1500)).ID)
	}
	f.restart()
	want = slices.Insert(want, 0, f.order(span(0, 1500)).ID)
	var got []string
	for _, j := range f.fetcher.Jobs() {
		got = append(got, j.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

// TestCancelledStaysCancelled: a save that had to wait stores what the job is by then.
func TestCancelledStaysCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, span(0, 60))
		id := f.order(span(0, 60)).ID
		release := make(chan struct{})
		var work sync.WaitGroup
		work.Go(func() {
			if err := f.db.Update(func(*index.Tx) error { <-release; return nil }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		work.Go(func() {
			if err := f.fetcher.saveAndTell(id); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		f.fetcher.mu.Lock()
		f.fetcher.jobs[id].State = Cancelled
		f.fetcher.mu.Unlock()
		close(release)
		work.Wait()
		f.restart()
		if j, err := f.fetcher.Job(id); err != nil || j.State != Cancelled {
			t.Errorf("after the restart the job is %s, %v", j.State, err)
		}
	})
}

// TestDroppedStaysDropped: a late result does not bring back a job that was forgotten.
func TestDroppedStaysDropped(t *testing.T) {
	f := newFixture(t, nil, span(0, 60))
	job := f.order(span(0, 60))
	f.fetcher.mu.Lock()
	delete(f.fetcher.jobs, job.ID)
	f.fetcher.mu.Unlock()
	if err := f.fetcher.saveAndTell(job.ID); err != nil {
		t.Fatal(err)
	}
	f.restart()
	if jobs := f.fetcher.Jobs(); len(jobs) != 0 {
		t.Errorf("after the restart there are %d jobs", len(jobs))
	}
}

// TestMaxActive: no more jobs get in at once than there is room for.
func TestMaxActive(t *testing.T) {
	f := newFixture(t, nil, span(0, 60))
	for i := range MaxActive - 5 {
		id := fmt.Sprint(i)
		f.fetcher.jobs[id] = &Job{ID: id, State: Waiting, Order: Order{Streams: []branchline.StreamID{door}}}
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 20 {
		work.Go(func() {
			_, err := f.fetcher.Create(Order{Streams: []branchline.StreamID{door}, Span: span(0, 60)})
			if err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			} else if !errors.Is(err, branchline.ErrBusy) {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if made != 5 {
		t.Errorf("%d jobs made where five had room", made)
	}
}
