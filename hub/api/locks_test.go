package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/branchline-video/branchline/hub/access"
)

func TestLocks(t *testing.T) {
	f := newFixture(t)
	f.record(run(t, 1, 0, 3, false))
	camera, until, no := string(testCamera), at(7200), false
	streams := []string{"berlin.entrance.main", "berlin.entrance.sub"}
	changed := f.Feed.subscribe()
	defer changed.stop()
	made := ask[Lock](f, "POST /api/v1/locks", NewLock{
		Camera: &camera, From: at(0), To: at(3), Until: &until, Reason: "case 12/34",
	})
	if made.User != "local" || made.State != LockStateLocked || !slices.Equal(made.Streams, streams) || !made.AtHub ||
		made.AtSite != LockAtSitePending || made.Cause == nil || !made.Until.Equal(until) || made.Reason != "case 12/34" {
		t.Errorf("made %+v", made)
	}
	if d, err := changed.next(t.Context()); err != nil || !d.locks {
		t.Errorf("told %+v, %v", d, err)
	}
	if made.Retrieval == nil || made.RetrievalCause != nil {
		t.Fatalf("not retrieved: %+v", made)
	}
	job := ask[Retrieval](f, "GET /api/v1/retrievals/"+*made.Retrieval, nil)
	if !slices.Equal(job.Streams, streams) || !job.From.Equal(at(0)) || !job.To.Equal(at(3)) || job.User != "local" {
		t.Errorf("retrieval %+v", job)
	}
	one := ask[Lock](f, "POST /api/v1/locks", NewLock{
		Streams: &[]string{string(testStream)}, From: at(1), To: at(2), Reason: "x", Retrieve: &no,
	})
	if one.Retrieval != nil || one.Until != nil {
		t.Errorf("not to be retrieved: %+v", one)
	}
	if n := len(ask[RetrievalList](f, "GET /api/v1/retrievals", nil).Retrievals); n != 1 {
		t.Errorf("%d retrievals, want 1", n)
	}
	list := ask[LockList](f, "GET /api/v1/locks", nil).Locks
	if len(list) != 2 || list[0].Id == list[1].Id {
		t.Errorf("list %+v", list)
	}
	f.now.Store(at(8000).UnixNano())
	if a := do(t, f.local, request{line: "DELETE /api/v1/locks/" + one.Id}); a.StatusCode != http.StatusNoContent {
		t.Errorf("unlock: %s %s", a.Status, a.body)
	}
	states := map[string]LockState{}
	for _, l := range ask[LockList](f, "GET /api/v1/locks", nil).Locks {
		states[l.Id] = l.State
	}
	if states[one.Id] != LockStateUnlocking || states[made.Id] != LockStateEnded {
		t.Errorf("states %v", states)
	}
	f.auditedLocks(one.Id)
}

// auditedLocks checks what the audit log tells of the locks of TestLocks.
func (f *fixture) auditedLocks(removed string) {
	f.t.Helper()
	entries, err := f.Access.Audit(100)
	if err != nil {
		f.t.Fatal(err)
	}
	var told []string
	for _, e := range entries {
		if e.Action == access.ActionLockCreate || e.Action == access.ActionLockRemove {
			told = append(told, string(e.Action)+" "+e.Object)
		}
	}
	want := []string{
		"lock-remove " + removed + ": berlin.entrance.main 2026-03-01T08:00:01Z/2026-03-01T08:00:02Z (x)",
		"lock-create berlin.entrance.main 2026-03-01T08:00:01Z/2026-03-01T08:00:02Z (x)",
		"lock-create berlin.entrance.main,berlin.entrance.sub 2026-03-01T08:00:00Z/2026-03-01T08:00:03Z (case 12/34)",
	}
	if !slices.Equal(told, want) {
		f.t.Errorf("audited %q, want %q", told, want)
	}
}

func TestWrongLocks(t *testing.T) {
	f := newFixture(t)
	camera, other, past := string(testCamera), "berlin.entrance.other", at(0)
	for _, c := range []struct {
		what string
		body any
		code ErrorCode
	}{
		{"nothing", NewLock{From: at(0), To: at(1), Reason: "x"}, ErrorCodeInvalid},
		{"no reason", NewLock{Camera: &camera, From: at(0), To: at(1)}, ErrorCodeInvalid},
		{"a novel", NewLock{Camera: &camera, From: at(0), To: at(1), Reason: strings.Repeat("x", 201)}, ErrorCodeInvalid},
		{"no range", NewLock{Camera: &camera, Reason: "x"}, ErrorCodeInvalid},
		{"over already", NewLock{Camera: &camera, From: at(0), To: at(1), Reason: "x", Until: &past}, ErrorCodeInvalid},
		{"unknown stream", NewLock{Streams: &[]string{other}, From: at(0), To: at(1), Reason: "x"}, ErrorCodeNotFound},
	} {
		if a := do(t, f.local, request{line: "POST /api/v1/locks", body: c.body}); a.code() != c.code {
			t.Errorf("%s: %s %s, want %s", c.what, a.Status, a.body, c.code)
		}
	}
	if a := do(t, f.local, request{line: "DELETE /api/v1/locks/x"}); a.code() != ErrorCodeNotFound {
		t.Errorf("unlock of nothing: %s %s", a.Status, a.body)
	}
	if n := len(ask[RetrievalList](f, "GET /api/v1/retrievals", nil).Retrievals); n != 0 {
		t.Errorf("%d retrievals of what was not locked", n)
	}
}
