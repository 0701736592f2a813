package access

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestGate plays attempts at virtual times. A line is "seconds address user outcome", where the
// outcome is fail, ok (a login that succeeds) or the seconds that the gate says to wait.
func TestGate(t *testing.T) {
	for _, c := range []struct{ what, script string }{
		{"five are free", "0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u 30"},
		{"one more comes free", "0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u fail|" +
			"10 a u 20|30 a u fail|30 a u 30"},
		{"success costs nothing", "0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u ok|0 a u ok|0 a u fail|0 a u 30"},
		{"another user is free", "0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u 30|0 a v ok"},
		{"made-up users of one address", manyUsers(addressBurst) + "0 a v 1|0 b v ok|1 a v ok"},
		{"another address is free", "0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 b u ok"},
		{"refusal costs nothing", "0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u fail|0 a u 30|0 a u 30|30 a u ok"},
		{"one network", "0 2001:db8::1 u fail|0 2001:db8::2 u fail|0 2001:db8::3 u fail|" +
			"0 2001:db8::4 u fail|0 2001:db8::5 u fail|0 2001:db8::6 u 30|0 2001:db8:0:1::1 u ok"},
		{"a user from many addresses", many(userBurst) + "0 b u 10|0 b v ok|10 b u ok"},
	} {
		var g gate
		for i, line := range strings.Split(c.script, "|") {
			var at int64
			var address, user, want string
			if _, err := fmt.Sscan(line, &at, &address, &user, &want); err != nil {
				t.Fatal(err)
			}
			forgive, wait := g.enter(time.Unix(at, 0), address, user)
			free := want == "fail" || want == "ok"
			if got := fmt.Sprint(wait.Seconds()); wait > 0 && got != want || wait == 0 && !free {
				t.Errorf("%s: attempt %d (%s): wait %s", c.what, i, line, got)
			}
			if want == "ok" && wait == 0 {
				forgive()
			}
		}
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "0 a%d u fail|", i)
	}
	return b.String()
}

func manyUsers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "0 a u%d fail|", i)
	}
	return b.String()
}

func TestGateIsBounded(t *testing.T) {
	var g gate
	for i := range maxTracked + 100 {
		g.enter(time.Unix(0, 0), fmt.Sprint("a", i), fmt.Sprint("u", i))
	}
	if len(g.addresses) != maxTracked {
		t.Errorf("%d addresses are remembered, at most %d", len(g.addresses), maxTracked)
	}
	g.enter(time.Unix(3600, 0), "b", "u")
	if len(g.addresses) != 1 {
		t.Errorf("%d addresses are remembered after an hour without failures", len(g.addresses))
	}
}

func TestLoginIsThrottledBeforeThePasswordIsLookedAt(t *testing.T) {
	f := open(t, t.TempDir())
	attempt := Attempt{User: Administrator, Password: "wrong", Address: "192.0.2.1"}
	for range pairBurst {
		if _, _, err := f.Login(t.Context(), attempt); !errors.Is(err, ErrCredentials) {
			t.Fatal(err)
		}
	}
	attempt.Password = f.password
	var throttled Throttled
	if _, _, err := f.Login(t.Context(), attempt); !errors.As(err, &throttled) || throttled.After != pairInterval {
		t.Errorf("the right password after too many wrong ones: %v", err)
	}
	f.pass(throttled.After)
	f.login(t, Administrator, f.password)
}
