package evidence_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/hub/evidence"
	"github.com/branchline-video/branchline/segstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a site that takes locks, or fails in the way of its error.
type edge struct {
	*sourcetest.Memory
	mu    sync.Mutex
	err   error
	calls int
}

func (e *edge) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls++
	return e.err
}

func (e *edge) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

func (e *edge) Lock(ctx context.Context, l branchline.Lock) error {
	if err := e.failure(); err != nil {
		return fmt.Errorf("not here: %w", err)
	}
	return e.Memory.Lock(ctx, l)
}

func (e *edge) Unlock(ctx context.Context, id string) error {
	if err := e.failure(); err != nil {
		return fmt.Errorf("not here: %w", err)
	}
	return e.Memory.Unlock(ctx, id)
}

// fixture is the locks of a hub with a database and the site berlin with a door of two streams.
type fixture struct {
	*testing.T
	dir     string
	db      *index.DB
	store   *sourcetest.Memory
	keep    branchline.Control // the store, or what stands before it
	edge    *edge
	locks   *evidence.Locks
	revoked bool
	unlink  func()
	changed atomic.Int64
}

func memory(prefix string) *sourcetest.Memory {
	return sourcetest.NewMemory(time.Unix(0, 0), branchline.Camera{ID: branchline.CameraID(prefix + "door"),
		Streams: []branchline.Stream{{ID: branchline.StreamID(prefix + "door.main")},
			{ID: branchline.StreamID(prefix + "door.sub")}}})
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, dir: t.TempDir(), store: memory("berlin."), edge: &edge{Memory: memory("")}}
	f.open()
	return f
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) open() {
	f.Helper()
	var err error
	f.db, err = index.Open(f.dir, index.Options{})
	f.check(err)
	f.locks, err = evidence.Open(evidence.Options{DB: f.db, Store: cmp.Or[branchline.Control](f.keep, f.store),
		Known: func(s branchline.StreamID) error {
			if s.Camera() != "berlin.door" {
				return branchline.ErrNotFound
			}
			return nil
		},
		Revoked: func(branchline.SiteID) (bool, error) { return f.revoked, nil },
		Changed: func(evidence.Lock) { f.changed.Add(1) },
	})
	f.check(err)
}

func (f *fixture) restart() {
	f.cut()
	f.check(f.db.Close())
	f.open()
}

func (f *fixture) close() {
	f.cut()
	f.check(f.db.Close())
}

// link serves the site until it is cut; what can be told is told when it returns.
func (f *fixture) link() {
	ctx, stop := context.WithCancel(f.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.locks.Serve(ctx, "berlin", f.edge) }()
	f.unlink = func() { stop(); <-done }
	synctest.Wait()
}

func (f *fixture) cut() {
	if f.unlink != nil {
		f.unlink()
		f.unlink = nil
	}
}

func order() evidence.Order {
	now := time.Now().UTC()
	return evidence.Order{
		Streams: []branchline.StreamID{"berlin.door.main", "berlin.door.sub"}, By: "erika", Reason: "case 12",
		Span: branchline.TimeRange{Start: now.Add(-time.Hour), End: now}, Until: now.Add(20 * time.Minute),
	}
}

func (f *fixture) create() evidence.Lock {
	f.Helper()
	l, err := f.locks.Create(f.Context(), order())
	f.check(err)
	synctest.Wait()
	return l
}

// state tells how the only lock stands: where it is, how the site stands to it, and what stores have it.
func (f *fixture) state() string {
	f.Helper()
	var words []string
	for _, l := range f.locks.Locks() {
		state, cause := l.Edge()
		words = append(words, strings.TrimSpace(fmt.Sprintf("here %v, site %s %s", l.Here(), state, cause)))
	}
	here, err := f.store.Locks(f.Context())
	f.check(err)
	there, err := f.edge.Locks(f.Context())
	f.check(err)
	return strings.Join(append(words, fmt.Sprintf("%d/%d", len(here), len(there))), ", ")
}

// TestLife tells stories of a lock, each as words of what happens and the state that follows.
func TestLife(t *testing.T) {
	const dark = "here true, site pending the site is not linked, 2/0"
	const leaving, refuses = "here false, site pending the site is not linked, 0/2",
		"here false, site refused not here: denied, 0/2"
	const placed, none = "here true, site placed, 2/2", "0/0"
	denied := "here true, site refused not here: denied, 2/0"
	for name, story := range map[string][]string{
		"while linked":    {"link", none, "lock", placed, "cut", placed, "link", placed, "unlock", none},
		"while dark":      {"lock", dark, "link", placed, "cut", placed},
		"over a restart":  {"lock", dark, "restart", dark, "link", placed, "restart", placed, "link", placed},
		"taken off, dark": {"link", none, "lock", placed, "cut", placed, "unlock", leaving, "link", none},
		"taken off, restart": {"link", none, "lock", placed, "cut", placed, "unlock", leaving, "restart", leaving,
			"link", none},
		"never told":         {"lock", dark, "unlock", "here false, site pending the site is not linked, 0/0", "link", none},
		"refused":            {"deny", none, "link", none, "lock", denied, "1m", denied, "allow", denied, "10m", placed},
		"refused, next link": {"deny", none, "link", none, "lock", denied, "allow", denied, "cut", denied, "link", placed},
		"refused, taken off": {"deny", none, "link", none, "lock", denied, "unlock", none},
		"kept by the site": {"link", none, "lock", placed, "deny", placed, "unlock",
			refuses, "allow", refuses,
			"10m", none},
		"no answer": {"silence", none, "link", none, "lock", "here true, site pending not here: unavailable, 2/0",
			"allow", "here true, site pending not here: unavailable, 2/0", "1s", placed},
		"the site's disk was replaced": {"link", none, "lock", placed, "replace", "here true, site placed, 2/0",
			"cut", "here true, site placed, 2/0", "link", placed},
		"the hub's store was replaced":    {"lock", dark, "lose store", dark, "link", placed},
		"the hub's database was replaced": {"lock", dark, "lose database", dark, "link", placed},
		"it ends": {"link", none, "lock", placed, "21m", "here true, site gone, 2/0",
			"a month later", none},
		"it ends while dark": {"lock", dark, "21m", dark, "link", "here true, site gone, 2/0"},
		"of a revoked site": {"revoke", none, "lock",
			"here true, site refused the site is revoked, 2/0", "unlock", none},
		"its site is revoked": {"link", none, "lock", placed, "cut", placed, "revoke", placed, "unlock", "0/2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				defer f.close()
				for i := 0; i < len(story); i += 2 {
					f.happens(story[i])
					if got := f.state(); got != story[i+1] {
						t.Fatalf("after %s: %s, want %s", strings.Join(story[:i+1], " > "), got, story[i+1])
					}
				}
			})
		})
	}
}

func (f *fixture) happens(what string) {
	f.Helper()
	switch what {
	case "link":
		f.link()
	case "cut":
		f.cut()
	case "lock":
		f.create()
	case "unlock":
		f.check(f.locks.Remove(f.Context(), f.locks.Locks()[0].ID))
	case "restart":
		f.restart()
	case "deny":
		f.edge.fail(branchline.ErrDenied)
	case "silence":
		f.edge.fail(branchline.ErrUnavailable)
	case "allow":
		f.edge.fail(nil)
	case "replace":
		f.edge.mu.Lock()
		f.edge.Memory = memory("")
		f.edge.mu.Unlock()
	case "a month later":
		f.cut()
		f.check(f.db.Close())
		<-time.After(evidence.KeepEnded) // while nothing runs
		f.open()
	case "lose store":
		f.store = memory("berlin.")
		f.restart()
	case "lose database":
		f.dir = f.TempDir()
		f.restart()
	case "revoke":
		f.revoked = true
	default:
		d, err := time.ParseDuration(what)
		f.check(err)
		<-time.After(d)
	}
	synctest.Wait()
}

// TestLocksAreToldAsTheyAre shows what a site is told of a lock.
func TestLocksAreToldAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.close()
		f.link()
		l := f.create()
		there, err := f.edge.Locks(t.Context())
		f.check(err)
		for i, o := range there {
			want := branchline.Lock{ID: fmt.Sprintf("%s-%d", l.ID, i), Stream: []branchline.StreamID{"door.main", "door.sub"}[i],
				Span: l.Span, Until: l.Until, By: "erika", Reason: "case 12", Created: l.Created}
			if o != want {
				t.Errorf("told %+v, want %+v", o, want)
			}
		}
		f.check(f.locks.SetJob(l.ID, "job"))
		f.restart()
		if l := f.locks.Locks()[0]; l.Job != "job" || len(l.Parts) != 2 {
			t.Errorf("after a restart %+v", l)
		}
		if f.changed.Load() == 0 {
			t.Error("nobody was told")
		}
	})
}

func TestWrongLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.close()
		long, attic := strings.Repeat("x", branchline.MaxName+1), []branchline.StreamID{"berlin.attic.main"}
		for name, c := range map[string]struct {
			change func(*evidence.Order)
			want   error
		}{
			"no stream":           {func(o *evidence.Order) { o.Streams = nil }, branchline.ErrInvalid},
			"a stream twice":      {func(o *evidence.Order) { o.Streams[1] = o.Streams[0] }, branchline.ErrInvalid},
			"two sites":           {func(o *evidence.Order) { o.Streams[1] = "paris.door.main" }, branchline.ErrInvalid},
			"an unknown stream":   {func(o *evidence.Order) { o.Streams = attic }, branchline.ErrNotFound},
			"no time":             {func(o *evidence.Order) { o.Span.End = o.Span.Start }, branchline.ErrInvalid},
			"all time":            {func(o *evidence.Order) { o.Span.Start = time.Unix(0, 0) }, branchline.ErrInvalid},
			"far ahead":           {func(o *evidence.Order) { o.Span.End = o.Span.End.AddDate(0, 2, 0) }, branchline.ErrInvalid},
			"an end that is over": {func(o *evidence.Order) { o.Until = time.Now() }, branchline.ErrInvalid},
			"no reason":           {func(o *evidence.Order) { o.Reason = " " }, branchline.ErrInvalid},
			"a novel":             {func(o *evidence.Order) { o.Reason = long }, branchline.ErrInvalid},
		} {
			o := order()
			c.change(&o)
			if _, err := f.locks.Create(t.Context(), o); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		if got := f.state(); got != "0/0" {
			t.Errorf("wrong locks left %s", got)
		}
		if err := f.locks.Remove(t.Context(), "nothing"); !errors.Is(err, branchline.ErrNotFound) {
			t.Errorf("unlock of nothing: %v", err)
		}
	})
}

// unwilling is a hub's store that takes no lock, and lets something happen before it says so.
type unwilling struct {
	*sourcetest.Memory
	first func()
}

func (u unwilling) Lock(context.Context, branchline.Lock) error {
	u.first()
	return branchline.ErrUnavailable
}

// TestAllOrNothing: a lock that the hub's own store does not take leaves nothing behind, also when the site
// is linked just then.
func TestAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.close()
		f.check(f.db.Close())
		f.keep = unwilling{f.store, f.link}
		f.open()
		if _, err := f.locks.Create(t.Context(), order()); !errors.Is(err, branchline.ErrUnavailable) {
			t.Errorf("locked in a store that does not: %v", err)
		}
		synctest.Wait()
		if n := f.edge.calls; n > 0 {
			t.Errorf("the site was told %d times", n)
		}
		if got := f.state(); got != "0/0" {
			t.Errorf("left behind: %s", got)
		}
	})
}

// watched is a store that tells what is done to it.
type watched struct {
	*sourcetest.Memory
	did []string
}

func (w *watched) Lock(ctx context.Context, l branchline.Lock) error {
	w.did = append(w.did, "lock "+l.ID)
	return w.Memory.Lock(ctx, l)
}

func (w *watched) Unlock(ctx context.Context, id string) error {
	w.did = append(w.did, "unlock "+id)
	return w.Memory.Unlock(ctx, id)
}

// TestPartsKeepTheirNumbers shows that locks which are known from the store alone stand there and at the site
// under the numbers that they have, in whatever order they are listed and whichever is missing.
func TestPartsKeepTheirNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		span := order().Span
		place := func(c branchline.Control, id string, stream branchline.StreamID) {
			f.check(c.Lock(t.Context(), branchline.Lock{ID: id, Stream: stream, Span: span, Created: span.Start}))
		}
		for _, prefix := range []branchline.StreamID{"berlin.", ""} {
			c := map[bool]branchline.Control{true: f.store, false: f.edge}[prefix != ""]
			place(c, "case-10", prefix+"door.sub")
			place(c, "case-2", prefix+"door.main")
		}
		place(f.store, "case-02", "berlin.door.main") // no part of a lock
		place(f.store, "case-x", "berlin.door.main")
		here := &watched{Memory: f.store}
		f.keep = here
		f.restart()
		defer f.close()
		f.link()
		there, err := f.edge.Locks(t.Context())
		f.check(err)
		var got []string
		for _, l := range there {
			got = append(got, fmt.Sprintf("%s %s", l.ID, l.Stream))
		}
		if want := "case-10 door.sub, case-2 door.main"; strings.Join(got, ", ") != want {
			t.Errorf("the site has %q, want %s", got, want)
		}
		if len(here.did) > 0 {
			t.Errorf("the store was changed: %q", here.did)
		}
		if l := f.locks.Locks(); len(l) != 1 || len(l[0].Parts) != 2 {
			t.Errorf("known are %+v", l)
		}
	})
}
