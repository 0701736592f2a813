package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// fixture is a store on a real database, with a clock that the test moves.
type fixture struct {
	*Store
	db       *index.DB
	password string // of the administrator
	now      atomic.Int64
}

func open(t *testing.T, dir string) *fixture {
	t.Helper()
	db, err := index.Open(dir, index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{db: db}
	f.now.Store(time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC).UnixNano())
	clk := clock.New(func() time.Time { return time.Unix(0, f.now.Load()) })
	if f.Store, f.password, err = Open(db, Options{Clock: clk}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.db.Close() })
	return f
}

func (f *fixture) pass(d time.Duration) { f.now.Add(int64(d)) }

func (f *fixture) login(t *testing.T, user, password string) string {
	t.Helper()
	token, _, err := f.Login(t.Context(), Attempt{User: user, Password: password, Address: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestFirstOpenMakesTheAdministratorOnce(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	if len(f.password) < 20 {
		t.Fatalf("password of %d characters", len(f.password))
	}
	token := f.login(t, Administrator, f.password)
	f.db.Close()

	again := open(t, dir)
	if again.password != "" {
		t.Error("the second opening made another password")
	}
	who, err := again.Check(token)
	if err != nil || who.User != Administrator || who.Role != RoleAdministrator {
		t.Errorf("session after reopening: %+v, %v", who, err)
	}
	again.login(t, Administrator, f.password)
}

func TestNothingSecretIsStored(t *testing.T) {
	f := open(t, t.TempDir())
	token := f.login(t, Administrator, f.password)
	if _, _, err := f.Login(t.Context(), Attempt{User: Administrator, Password: "hunter2hunter2"}); err == nil {
		t.Fatal("logged in with a wrong password")
	}
	err := f.db.View(func(tx *index.Tx) error {
		for key, value := range tx.Scan([]byte("access/"), nil) {
			for _, secret := range []string{token, f.password, "hunter2hunter2"} {
				if bytes.Contains(key, []byte(secret)) || bytes.Contains(value, []byte(secret)) {
					t.Errorf("%q holds a secret: %q", key, value)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogin(t *testing.T) {
	f := open(t, t.TempDir())
	for _, c := range []struct {
		what, user, password string
		want                 error
	}{
		{"right", Administrator, f.password, nil},
		{"wrong password", Administrator, "x" + f.password[1:], ErrCredentials},
		{"empty password", Administrator, "", ErrCredentials},
		{"right password and more", Administrator, f.password + strings.Repeat("x", 300), ErrCredentials},
		{"no such user", "nobody", f.password, ErrCredentials},
		{"no user", "", "", ErrCredentials},
		{"a key that is too long", strings.Repeat("x", 10_000), "", ErrCredentials},
	} {
		f.pass(time.Hour)
		_, _, err := f.Login(t.Context(), Attempt{User: c.user, Password: c.password, Address: "192.0.2.1"})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

// TestSessionEnds lets a session's time pass in steps; a use is a Check that must succeed.
func TestSessionEnds(t *testing.T) {
	for _, c := range []struct {
		what string
		uses []time.Duration // each after the one before
		wait time.Duration
		ends bool
	}{
		{"just in time", nil, SessionIdle - time.Second, false},
		{"idle", nil, SessionIdle, true},
		{"prolonged by use", []time.Duration{10 * time.Hour, 10 * time.Hour}, 10 * time.Hour, false},
		{"idle after use", []time.Duration{10 * time.Hour}, SessionIdle, true},
		{"in use for too long", slices.Repeat([]time.Duration{8 * time.Hour}, 20), 8 * time.Hour, true},
	} {
		f := open(t, t.TempDir())
		token := f.login(t, Administrator, f.password)
		for i, d := range c.uses {
			f.pass(d)
			if _, err := f.Check(token); err != nil {
				t.Fatalf("%s: use %d: %v", c.what, i, err)
			}
		}
		f.pass(c.wait)
		if _, err := f.Check(token); errors.Is(err, ErrNoSession) != c.ends {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestSessionsEndWithLogoutAndWithTheirUser(t *testing.T) {
	f := open(t, t.TempDir())
	set := func(role Role) string {
		password, err := f.SetUser(t.Context(), "ann", role)
		if err != nil {
			t.Fatal(err)
		}
		return password
	}
	for _, c := range []struct {
		what string
		end  func(token string) error
	}{
		{"logout", f.Logout},
		{"changed user", func(string) error { set(RoleViewer); return nil }},
		{"removed user", func(string) error { return f.RemoveUser("ann") }},
	} {
		token := f.login(t, "ann", set(RoleOperator))
		admin := f.login(t, Administrator, f.password)
		if who, err := f.Check(token); err != nil || who.Role != RoleOperator {
			t.Fatalf("%s: before: %+v, %v", c.what, who, err)
		}
		if err := c.end(token); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if _, err := f.Check(token); !errors.Is(err, ErrNoSession) {
			t.Errorf("%s: the session goes on: %v", c.what, err)
		}
		if _, err := f.Check(admin); err != nil {
			t.Errorf("%s: another user's session: %v", c.what, err)
		}
	}
}

func TestTooManySessionsEndTheOldest(t *testing.T) {
	f := open(t, t.TempDir())
	add := func(token string) {
		now := f.clock.Now()
		users, err := f.Users()
		if err != nil {
			t.Fatal(err)
		}
		o := session{User: Administrator, Created: now, Expires: now.Add(SessionIdle)}
		if err := f.addSession(token, o, users[0].Hash); err != nil {
			t.Fatal(err)
		}
		f.pass(time.Second)
	}
	for i := range MaxSessions + 1 {
		add(fmt.Sprint(i))
	}
	for i, want := range map[int]error{0: ErrNoSession, 1: nil, MaxSessions: nil} {
		if _, err := f.Check(fmt.Sprint(i)); !errors.Is(err, want) {
			t.Errorf("session %d: %v, want %v", i, err, want)
		}
	}
}

func TestUsers(t *testing.T) {
	f := open(t, t.TempDir())
	set := func(name string, role Role) error { _, err := f.SetUser(t.Context(), name, role); return err }
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"a bad name", func() error { return set("Ann B", RoleViewer) }, branchline.ErrInvalid},
		{"a dotted name", func() error { return set("a.b", RoleViewer) }, branchline.ErrInvalid},
		{"a bad role", func() error { return set("ann", "king") }, branchline.ErrInvalid},
		{"remove nobody", func() error { return f.RemoveUser("ann") }, branchline.ErrNotFound},
		{"remove the last administrator", func() error { return f.RemoveUser(Administrator) }, branchline.ErrDenied},
		{"demote the last administrator", func() error { return set(Administrator, RoleViewer) }, branchline.ErrDenied},
		{"a second administrator", func() error { return set("ann", RoleAdministrator) }, nil},
		{"remove the first administrator", func() error { return f.RemoveUser(Administrator) }, nil},
	} {
		if err := c.do(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	users, err := f.Users()
	if err != nil || len(users) != 1 || users[0].Name != "ann" {
		t.Errorf("users at the end: %+v, %v", users, err)
	}
}

func TestRolesIncludeEachOther(t *testing.T) {
	for _, c := range []struct {
		role, needed Role
		want         bool
	}{
		{RoleViewer, RoleViewer, true},
		{RoleViewer, RoleOperator, false},
		{RoleOperator, RoleViewer, true},
		{RoleOperator, RoleAdministrator, false},
		{RoleAdministrator, RoleOperator, true},
		{"king", RoleViewer, false},
		{"", "", false},
	} {
		if c.role.Includes(c.needed) != c.want {
			t.Errorf("%q includes %q: %v", c.role, c.needed, !c.want)
		}
	}
}

func TestAuditKeepsOrderAcrossOpening(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	token := f.login(t, Administrator, f.password)
	if _, _, err := f.Login(t.Context(), Attempt{User: "eve", Address: "192.0.2.9"}); !errors.Is(err, ErrCredentials) {
		t.Fatal(err)
	}
	f.db.Close()
	f = open(t, dir)
	long := strings.Repeat("x", 10*maxObject)
	if err := f.Record(Entry{User: Administrator, Action: ActionPlay, Object: long}); err != nil {
		t.Fatal(err)
	}
	entries, err := f.Audit(10)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.At.IsZero() || len(e.Object) > maxObject || strings.Contains(fmt.Sprint(e), token) {
			t.Errorf("entry %+v", e)
		}
		got = append(got, fmt.Sprint(e.User, " ", e.Action, " ", e.Address))
	}
	want := []string{"admin play ", "eve login-failed 192.0.2.9", "admin login 192.0.2.1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if entries, err = f.Audit(1); err != nil || len(entries) != 1 || entries[0].Action != ActionPlay {
		t.Errorf("limited to one: %+v, %v", entries, err)
	}
}

func TestAuditForgetsTheOldest(t *testing.T) {
	f := open(t, t.TempDir())
	f.login(t, Administrator, f.password) // entry 1
	f.last = MaxAudit
	if err := f.Record(Entry{User: Administrator, Action: ActionLogout}); err != nil {
		t.Fatal(err)
	}
	entries, err := f.Audit(10)
	if err != nil || len(entries) != 1 || entries[0].Action != ActionLogout {
		t.Errorf("got %+v, %v", entries, err)
	}
}

// TestPlaysAreOneEntryAMinute plays windows one after the other. A line is the second of the time of day
// and, in minutes of the footage, where the window starts and ends; an "!" means that it is another user.
func TestPlaysAreOneEntryAMinute(t *testing.T) {
	for _, c := range []struct{ what, script, want string }{
		{"a player goes on", "0 0.1 0.2|5 0.2 0.3|10 0.9 1|15 1 1.1", "ann 08:00-08:02"},
		{"the next minute of time", "0 0 1|59 1 2|60 2 3", "ann 08:02-08:03|ann 08:00-08:02"},
		{"another place", "0 0 1|1 30 31", "ann 08:00-08:01 08:30-08:31"},
		{"many places", "0 0 1|1 2 3|2 4 5|3 6 7|4 8 9|5 10 11|6 12 13", "ann 08:00-08:13"},
		{"another user", "0 0 1|1! 0 1", "bob 08:00-08:01|ann 08:00-08:01"},
	} {
		f := open(t, t.TempDir())
		start := f.clock.Now()
		for line := range strings.SplitSeq(c.script, "|") {
			at, window, _ := strings.Cut(line, " ")
			user := "ann"
			if strings.HasSuffix(at, "!") {
				user = "bob"
			}
			var second int64
			var from, to float64
			fmt.Sscan(strings.TrimSuffix(at, "!"), &second)
			fmt.Sscan(window, &from, &to)
			f.now.Store(start.Add(time.Duration(second) * time.Second).UnixNano())
			minute := func(m float64) time.Time { return start.Add(time.Duration(m * float64(time.Minute))) }
			span := branchline.TimeRange{Start: minute(from), End: minute(to)}
			if err := f.RecordPlay(Entry{User: user}, "berlin.entrance.main", span); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := f.Audit(10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			line := e.User
			for _, r := range e.Played {
				line += r.Start.Format(" 15:04-") + r.End.Format("15:04")
			}
			if e.Action == ActionPlay {
				got = append(got, line)
			}
			if e.At.IsZero() || !strings.HasPrefix(e.Object, "berlin.entrance.main 2026-03-01T08:0") {
				t.Errorf("%s: %+v", c.what, e)
			}
		}
		if got := strings.Join(got, "|"); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// TestPlaysAtOnce loses no window of those that are recorded at the same moment.
func TestPlaysAtOnce(t *testing.T) {
	f := open(t, t.TempDir())
	start := f.clock.Now()
	var players sync.WaitGroup
	for i := range 20 {
		players.Go(func() {
			span := branchline.TimeRange{Start: start.Add(time.Duration(i) * time.Minute)}
			span.End = span.Start.Add(time.Second)
			if err := f.RecordPlay(Entry{User: "ann"}, "berlin.entrance.main", span); err != nil {
				t.Error(err)
			}
		})
	}
	players.Wait()
	entries, err := f.Audit(10)
	all := branchline.TimeRange{Start: start, End: start.Add(20 * time.Minute)}
	if err != nil || len(entries) != 1 || !entries[0].Played.Covers(all) {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestHashesAtOnceAreBounded(t *testing.T) {
	h := newHasher()
	for range maxHashes {
		h.running <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("while all are in use: %v", err)
	}
	for range maxWaiting {
		h.waiting <- struct{}{}
	}
	if _, err := h.hash(t.Context(), "x"); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("while too many wait: %v", err)
	}
}
