package api

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/hub/access"
)

// operations reads the operations of the description, which keeps to two spaces for paths and four
// for methods.
func operations(t *testing.T) []string {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile("openapi.yaml")))
	var all []string
	path := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if p, ok := strings.CutPrefix(line, "  /"); ok {
			path = "/" + strings.TrimSuffix(p, ":")
		}
		for _, method := range []string{"get", "post", "put", "delete"} {
			if line == "    "+method+":" {
				all = append(all, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(all)
	return all
}

// patterns collects what is registered.
type patterns struct {
	*http.ServeMux
	all []string
}

func (p *patterns) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	p.all = append(p.all, pattern)
	p.ServeMux.HandleFunc(pattern, handler)
}

func TestWhatIsServedIsWhatIsDescribed(t *testing.T) {
	f := newFixture(t)
	p := &patterns{ServeMux: http.NewServeMux()}
	f.routes(p)
	served := slices.DeleteFunc(p.all, func(s string) bool { return s == "/" || s == "/api/" })
	slices.Sort(served)
	described := operations(t)
	if !slices.Equal(served, described) || len(served) < 20 {
		t.Errorf("served    %q\ndescribed %q", served, described)
	}
}

func TestEveryOperationNeedsARole(t *testing.T) {
	f := newFixture(t)
	tokens := map[string]string{
		"viewer": f.user("vera", access.RoleViewer), "operator": f.user("otto", access.RoleOperator),
	}
	const viewers, operators, administrators = "viewer operator", "operator", ""
	allowed := map[string]string{
		"GET /api/v1/session": viewers, "DELETE /api/v1/session": "", // tested elsewhere: it ends the session
		"GET /api/v1/sites": viewers, "POST /api/v1/sites": administrators, "GET /api/v1/sites/{site}/outages": viewers,
		"POST /api/v1/sites/{site}/approve": administrators, "POST /api/v1/sites/{site}/refuse": administrators,
		"GET /api/v1/authority": administrators, "POST /api/v1/authority/rotate": administrators,
		"GET /api/v1/sites/{site}/uplink": viewers, "GET /api/v1/sites/{site}/link": viewers,
		"GET /api/v1/above": viewers, "GET /api/v1/sites/{site}/qlog": administrators,
		"POST /api/v1/sites/{site}/qlog": administrators, "DELETE /api/v1/sites/{site}/qlog": administrators,
		"POST /api/v1/sites/{site}/revoke": administrators, "PUT /api/v1/demo/sites/{site}/link": administrators,
		"GET /api/v1/cameras": viewers, "GET /api/v1/cameras/{camera}/timeline": viewers,
		"GET /api/v1/streams/{stream}/play.mp4": viewers, "GET /api/v1/streams/{stream}/live": viewers,
		"GET /api/v1/retrievals": viewers, "POST /api/v1/retrievals": operators,
		"GET /api/v1/retrievals/{retrieval}": viewers, "DELETE /api/v1/retrievals/{retrieval}": operators,
		"GET /api/v1/locks": operators, "POST /api/v1/locks": operators, "DELETE /api/v1/locks/{lock}": operators,
		"GET /api/v1/events": viewers, "GET /api/v1/users": administrators, "POST /api/v1/users": administrators,
		"DELETE /api/v1/users/{user}": administrators, "GET /api/v1/audit": administrators,
	}
	open := []string{"POST /api/v1/session", "GET /healthz", "GET /metrics"}
	for _, op := range operations(t) {
		line := strings.NewReplacer("{site}", "nowhere", "{camera}", "nowhere.x", "{stream}", "nowhere.x.y",
			"{retrieval}", "x", "{lock}", "x", "{user}", "nobody").Replace(op)
		nobody := do(t, f.network, request{line: line})
		if slices.Contains(open, op) {
			if nobody.StatusCode == http.StatusUnauthorized {
				t.Errorf("%s needs a session", op)
			}
			continue
		}
		if nobody.StatusCode != http.StatusUnauthorized || nobody.code() != ErrorCodeUnauthenticated {
			t.Errorf("%s without a session: %s %s", op, nobody.Status, nobody.body)
		}
		roles, listed := allowed[op]
		if !listed {
			t.Errorf("%s: not in this test's table", op)
		}
		if op == "DELETE /api/v1/session" {
			continue
		}
		for role, token := range tokens {
			a := do(t, f.network, request{line: line, header: bearer(token)})
			if may := strings.Contains(roles, role); (a.StatusCode == http.StatusForbidden) == may {
				t.Errorf("%s as %s: %s %s", op, role, a.Status, a.body)
			}
		}
	}
}

func TestSession(t *testing.T) {
	f := newFixture(t)
	login := func(password string) answered {
		return do(t, f.network, request{line: "POST /api/v1/session", body: Login{User: "admin", Password: password}})
	}
	if a := login("wrong"); a.StatusCode != http.StatusUnauthorized || a.code() != ErrorCodeUnauthenticated ||
		len(a.Cookies()) != 0 {
		t.Errorf("wrong password: %s %s %v", a.Status, a.body, a.Cookies())
	}
	a := login(f.password)
	if a.StatusCode != http.StatusOK || len(a.Cookies()) != 1 {
		t.Fatalf("right password: %s %s %v", a.Status, a.body, a.Cookies())
	}
	c := a.Cookies()[0]
	if c.Name != cookieName || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" {
		t.Errorf("cookie %v", c)
	}
	if strings.Contains(string(a.body), c.Value) {
		t.Error("the answer tells scripts of the page the token")
	}
	with := map[string]string{"Cookie": c.Name + "=" + c.Value}
	if a := do(t, f.network, request{line: "GET /api/v1/session", header: with}); a.StatusCode != http.StatusOK ||
		!strings.Contains(string(a.body), `"role":"administrator"`) || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("session: %s %s %v", a.Status, a.body, a.Header)
	}
	a = do(t, f.network, request{line: "DELETE /api/v1/session", header: with})
	if a.StatusCode != http.StatusNoContent || len(a.Cookies()) != 1 || a.Cookies()[0].MaxAge >= 0 {
		t.Errorf("logout: %s %s %v", a.Status, a.body, a.Cookies())
	}
	a = do(t, f.network, request{line: "GET /api/v1/session", header: with})
	if a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after logout: %s %s", a.Status, a.body)
	}
}

func TestCookieIsSecureOverTLS(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewUnstartedServer(f.Handler(false))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.StartTLS()
	defer server.Close()
	a := do(t, server, request{line: "POST /api/v1/session", body: Login{User: "admin", Password: f.password}})
	if len(a.Cookies()) != 1 || !a.Cookies()[0].Secure {
		t.Errorf("%s %v", a.Status, a.Cookies())
	}
	for scheme, want := range map[string]bool{"https": true, "http": false} { // behind a proxy, and directly
		a := do(t, f.network, request{
			line: "POST /api/v1/session", body: Login{User: "admin", Password: f.password},
			header: map[string]string{"Origin": scheme + "://" + strings.TrimPrefix(f.network.URL, "http://")},
		})
		if len(a.Cookies()) != 1 || a.Cookies()[0].Secure != want {
			t.Errorf("%s: %s %v, want secure: %v", scheme, a.Status, a.Cookies(), want)
		}
	}
}

func TestTokenForScripts(t *testing.T) {
	f := newFixture(t)
	yes := true
	a := do(t, f.network, request{
		line: "POST /api/v1/session", body: Login{User: "admin", Password: f.password, Bearer: &yes},
	})
	_, rest, _ := strings.Cut(string(a.body), `"token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if a.StatusCode != http.StatusOK || token == "" || len(a.Cookies()) != 0 {
		t.Fatalf("%s %s %v", a.Status, a.body, a.Cookies())
	}
	if a := do(t, f.network, request{line: "GET /api/v1/sites", header: bearer(token)}); a.StatusCode != http.StatusOK {
		t.Errorf("%s %s", a.Status, a.body)
	}
}

func TestTooManyFailedLogins(t *testing.T) {
	f := newFixture(t)
	try := func(password string) answered {
		return do(t, f.network, request{line: "POST /api/v1/session", body: Login{User: "admin", Password: password}})
	}
	for i := range 5 {
		if a := try("wrong"); a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("attempt %d: %s", i, a.Status)
		}
	}
	a := try(f.password)
	if a.StatusCode != http.StatusTooManyRequests || a.code() != ErrorCodeTooManyAttempts ||
		a.Header.Get("Retry-After") != "30" {
		t.Errorf("%s %s Retry-After %q", a.Status, a.body, a.Header.Get("Retry-After"))
	}
	f.now.Add(int64(30 * time.Second))
	if a := try(f.password); a.StatusCode != http.StatusOK {
		t.Errorf("half a minute later: %s %s", a.Status, a.body)
	}
}

// TestForeignPages sends what a browser sends on behalf of some page, with the session's cookie.
func TestForeignPages(t *testing.T) {
	f := newFixture(t)
	cookie := cookieName + "=" + f.user("ann", access.RoleAdministrator)
	own := f.network.URL
	for _, c := range []struct {
		what   string
		line   string
		header map[string]string
		want   int
	}{
		{"own page", "POST /api/v1/users", map[string]string{"Origin": own, "Sec-Fetch-Site": "same-origin"}, 400},
		{"own page in an old browser", "POST /api/v1/users", map[string]string{"Origin": own}, 400},
		{"a program", "POST /api/v1/users", nil, 400},
		{"foreign page", "POST /api/v1/users", map[string]string{"Origin": "https://evil.example"}, 403},
		{"foreign page, as the browser says", "POST /api/v1/users",
			map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"neighbouring page", "DELETE /api/v1/session", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"page from a file", "POST /api/v1/users", map[string]string{"Origin": "null"}, 403},
		{"own page, another port", "POST /api/v1/users", map[string]string{"Origin": "http://127.0.0.1:1"}, 403},
		{"login from a foreign page", "POST /api/v1/session", map[string]string{"Origin": "https://evil.example"}, 403},
	} {
		header := map[string]string{"Cookie": cookie}
		for k, v := range c.header {
			header[k] = v
		}
		if a := do(t, f.network, request{line: c.line, header: header}); a.StatusCode != c.want {
			t.Errorf("%s: %s %s, want %d", c.what, a.Status, a.body, c.want)
		}
	}
}

func TestUsersAndAudit(t *testing.T) {
	f := newFixture(t)
	made := ask[Credentials](f, "POST /api/v1/users", User{Name: "ann", Role: RoleViewer})
	a := do(t, f.network, request{line: "POST /api/v1/session", body: Login{User: "ann", Password: made.Password}})
	if a.StatusCode != http.StatusOK {
		t.Fatalf("login of a new user: %s %s", a.Status, a.body)
	}
	users := ask[UserList](f, "GET /api/v1/users", nil)
	if fmt.Sprint(users) != "{[{admin administrator} {ann viewer}]}" {
		t.Errorf("users %v", users)
	}
	if a := do(t, f.local, request{line: "DELETE /api/v1/users/ann"}); a.StatusCode != http.StatusNoContent {
		t.Errorf("remove: %s %s", a.Status, a.body)
	}
	var got []string
	for _, e := range ask[AuditList](f, "GET /api/v1/audit?limit=3", nil).Entries {
		got = append(got, strings.TrimSpace(e.User+" "+e.Action+" "+e.Address+" "+e.Object))
	}
	want := []string{"local user-remove local ann", "ann login 127.0.0.1", "local user-set local ann viewer"}
	if !slices.Equal(got, want) {
		t.Errorf("audit %q, want %q", got, want)
	}
}
