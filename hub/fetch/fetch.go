package fetch

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/catalog"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/index"
)

// Options are what a fetcher needs. DB, Store and Catalog stay the caller's.
type Options struct {
	DB       *index.DB
	Store    *segstore.Store // where the recordings go
	Catalog  *catalog.Catalog
	Policies []policy.Policy
	Clock    clock.Clock
	Logger   *slog.Logger
	// LiveAt returns the time up to which the hub's own live recording of a stream has come, and
	// false while there is none: what is later is on its way and not fetched.
	LiveAt func(branchline.StreamID) (time.Time, bool)
	// Revoked, if set, tells whether a site is never coming back.
	Revoked func(branchline.SiteID) (bool, error)
	// Changed, if set, is told of a job's new state and, a few times a second, of its progress. It is
	// called without locks held and must return at once.
	Changed func(Job)
	// Moved, if set, is told in the same way where a time line changed: a transfer began or ended, or
	// has come on.
	Moved func(branchline.StreamID, branchline.TimeRange)
}

// Counters are what a fetcher did since it was opened.
type Counters struct {
	Bytes     int64 // fetched from sites
	Came      int64 // bytes that sites sent for that, with what came twice or in vain
	Fragments int64 // fetched and stored
	Preempted int64 // bulk transfers that made room for something more urgent
	Failures  int64 // transfers that failed, to be tried again
}

// Fetcher keeps the jobs and works them off, together with what policies want, over the links that
// are up. Its methods may be called concurrently.
type Fetcher struct {
	db       *index.DB
	store    *segstore.Store
	catalog  *catalog.Catalog
	policies []policy.Policy
	clock    clock.Clock
	log      *slog.Logger
	liveAt   func(branchline.StreamID) (time.Time, bool)
	revoked  func(branchline.SiteID) (bool, error)
	changed  func(Job)
	moved    func(branchline.StreamID, branchline.TimeRange)
	counters struct{ bytes, fragments, preempted, failures atomic.Int64 }
	all      tally

	mu     sync.Mutex
	jobs   map[string]*Job
	newest uint64 // the highest number of a job
	sites  map[branchline.SiteID]*site

	learned     bool   // what was lost is in the sites
	quarantined uint64 // how often the store had put something aside by then
}

// site is what is known of the work at one site, whether it is linked or not. The fetcher's mutex
// guards all but wake.
type site struct {
	wake    chan struct{} // holds a token when there may be something to do
	linked  bool
	running map[*task]bool
	// checked is time whose recordings, as far as they are wanted, were seen to be held. It is only a
	// shortcut: what is in it is not looked up again.
	checked map[branchline.StreamID]branchline.Spans
	// refused is where transfers fail again and again, since the site was linked.
	refused map[branchline.StreamID]branchline.Spans
	// sealed is time in which the edge has sealed segments that the hub may hold without their seal.
	sealed map[branchline.StreamID]branchline.Spans
	// news is segments that the edge has just sealed, to be held against the hub's copies.
	news map[branchline.SegmentID]*news
	// lost is segments that the hub held and has put into quarantine.
	lost map[branchline.SegmentID]*loss
}

// Open returns a fetcher with the jobs that are kept in opt.DB.
func Open(opt Options) (*Fetcher, error) {
	f := &Fetcher{
		db: opt.DB, store: opt.Store, catalog: opt.Catalog, policies: opt.Policies,
		clock: opt.Clock, log: opt.Logger, liveAt: opt.LiveAt, changed: opt.Changed,
		revoked: opt.Revoked, moved: opt.Moved, sites: make(map[branchline.SiteID]*site),
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.liveAt == nil {
		f.liveAt = func(branchline.StreamID) (time.Time, bool) { return time.Time{}, false }
	}
	if f.revoked == nil {
		f.revoked = func(branchline.SiteID) (bool, error) { return false, nil }
	}
	if f.changed == nil {
		f.changed = func(Job) {}
	}
	if f.moved == nil {
		f.moved = func(branchline.StreamID, branchline.TimeRange) {}
	}
	for _, p := range f.policies {
		if !p.Valid() {
			return nil, fmt.Errorf("open fetcher: policy %q for %q: %w", p.Kind, p.Streams, branchline.ErrInvalid)
		}
	}
	jobs, err := loadJobs(f.db)
	if err != nil {
		return nil, fmt.Errorf("open fetcher: %w", err)
	}
	f.jobs = jobs
	for _, j := range jobs {
		f.newest = max(f.newest, j.Number)
	}
	return f, nil
}

// Counters returns what the fetcher did so far.
func (f *Fetcher) Counters() Counters {
	return Counters{
		Bytes: f.counters.bytes.Load(), Came: f.all.came.Load(), Fragments: f.counters.fragments.Load(),
		Preempted: f.counters.preempted.Load(), Failures: f.counters.failures.Load(),
	}
}

// Policies returns the policies that the fetcher follows, which nobody may change.
func (f *Fetcher) Policies() []policy.Policy { return f.policies }

// Notice takes what the catalog tells. It returns at once.
func (f *Fetcher) Notice(n catalog.Notice) {
	if n.Stream == "" {
		return
	}
	f.mu.Lock()
	s := f.siteLocked(n.Site)
	if n.Sealed != nil {
		s.noteSealed(n.Stream, n.Span)
		s.noteNews(*n.Sealed, f.clock.Now())
	}
	f.mu.Unlock()
	s.rouse()
}

// maxNoted bounds the separate spans noted for one stream; over it they count as one.
const maxNoted = 1000

func (s *site) noteSealed(stream branchline.StreamID, span branchline.TimeRange) {
	noted := s.sealed[stream].Union(branchline.NewSpans(span))
	if len(noted) > maxNoted {
		noted = branchline.NewSpans(hull(noted))
	}
	s.sealed[stream] = noted
}

func (s *site) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (f *Fetcher) siteLocked(id branchline.SiteID) *site {
	s := f.sites[id]
	if s == nil {
		s = &site{
			wake:    make(chan struct{}, 1),
			running: make(map[*task]bool),
			checked: make(map[branchline.StreamID]branchline.Spans),
			refused: make(map[branchline.StreamID]branchline.Spans),
			sealed:  make(map[branchline.StreamID]branchline.Spans),
			news:    make(map[branchline.SegmentID]*news),
			lost:    make(map[branchline.SegmentID]*loss),
		}
		f.sites[id] = s
	}
	return s
}

func (f *Fetcher) site(id branchline.SiteID) *site {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.siteLocked(id)
}

// hull returns the range from the first to the last instant of the set.
func hull(s branchline.Spans) branchline.TimeRange {
	if len(s) == 0 {
		return branchline.TimeRange{}
	}
	return branchline.TimeRange{Start: s[0].Start, End: s[len(s)-1].End}
}

// Settle is how long a recording that the hub also receives live is left to that before it is
// fetched: more than a fragment, its way and its sync take.
const Settle = 3 * time.Second

// liveStale is the age from which a live position no longer holds up fetching: live recording is then
// stuck or hopelessly behind.
const liveStale = 30 * time.Second

// settled returns the time before which a stream's recordings are to be fetched if they are not held.
func (f *Fetcher) settled(stream branchline.StreamID) time.Time {
	now := f.clock.Now()
	live, ok := f.liveAt(stream)
	if ok && now.Sub(live) > Settle && now.Sub(live) < liveStale {
		return live
	}
	return now.Add(-Settle)
}

// facts returns what there is to plan with in the range: what exists, what is held, the outages.
func (f *Fetcher) facts(stream branchline.StreamID, r branchline.TimeRange) (policy.Facts, error) {
	known, err := f.catalog.Facts(stream, r)
	if err != nil {
		return policy.Facts{}, err
	}
	facts := policy.Facts{Stream: stream, Exists: known.Available, Settled: f.settled(stream),
		Told: known.Told}
	for _, o := range known.Outages {
		facts.Outages = append(facts.Outages, o.Span)
	}
	facts.Dropped, err = f.store.Dropped(stream, r)
	return facts, err
}

// held returns what the hub holds of the stream where it matters: in the hull of exists.
func (f *Fetcher) held(stream branchline.StreamID, exists branchline.Spans) (branchline.Spans, error) {
	if len(exists) == 0 {
		return nil, nil
	}
	held, err := f.store.Held(stream, hull(exists))
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		return nil, fmt.Errorf("look up what is held of %s: %w", stream, err)
	}
	return branchline.NewSpans(held...), nil
}

// Transfers returns what is on its way to the hub, or queued for it, in a range of a stream's time
// line, the most urgent first. It works whether the site is linked or not.
func (f *Fetcher) Transfers(
	stream branchline.StreamID, r branchline.TimeRange,
) ([]catalog.Transfer, error) {
	facts, err := f.facts(stream, r)
	if err != nil {
		return nil, err
	}
	if facts.Held, err = f.held(stream, facts.Exists); err != nil {
		return nil, err
	}
	wants := policy.Wants(f.policies, facts)
	var transfers []catalog.Transfer
	f.mu.Lock()
	s := f.siteLocked(stream.Site())
	for t := range s.running {
		if t.stream == stream {
			transfers = append(transfers, catalog.Transfer{
				Span: t.span, Active: true, Share: t.share(), Reason: t.reason})
		}
	}
	for _, j := range f.jobs {
		if part := j.part(stream); part != nil && !j.State.Final() && !part.Complete {
			wants = append(wants, policy.Want{
				Stream: stream, Span: j.Span, Priority: j.Priority, Reason: j.Reason})
		}
	}
	for _, r := range s.lost {
		if r.Stream == stream && !r.asked {
			wants = append(wants, policy.Want{Stream: stream, Span: r.Span, Priority: policy.Bulk, Reason: reasonLost})
		}
	}
	facts.Held = facts.Held.Union(s.checked[stream]).Union(s.refused[stream])
	f.mu.Unlock()
	for _, w := range policy.Plan(wants, []policy.Facts{facts}) {
		transfers = append(transfers, catalog.Transfer{Span: w.Span, Reason: w.Reason})
	}
	return transfers, nil
}
