package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
)

// enrolled makes a site with a node, whose clock is the fixture's.
func (f *fixture) enrolled(site branchline.SiteID) *identity.Node {
	f.t.Helper()
	text := must[string](f.t)(f.Authority.AddSite(site, []string{"hub:1"}))
	token := must[identity.Token](f.t)(identity.ParseToken(text))
	n := must[*identity.Node](f.t)(identity.OpenNode(f.t.TempDir(), f.Clock))
	c := must[identity.Certificate](f.t)(f.Authority.Enrol(token.Secret[:], must[[]byte](f.t)(n.Request())))
	if err := n.Enrolled(token, c); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fixture) siteNamed(id string) Site {
	f.t.Helper()
	sites := ask[SiteList](f, "GET /api/v1/sites", nil).Sites
	i := slices.IndexFunc(sites, func(s Site) bool { return s.Id == id })
	if i < 0 {
		f.t.Fatalf("no site %s in %+v", id, sites)
	}
	return sites[i]
}

func (f *fixture) order(line string, body any, want int) {
	f.t.Helper()
	if a := do(f.t, f.local, request{line: line, body: body}); a.StatusCode != want {
		f.t.Errorf("%s: %s %s, want %d", line, a.Status, a.body, want)
	}
}

// TestApproval shows a site that waits, refuses it, approves it, and finds all of it in the audit log.
func TestApproval(t *testing.T) {
	f := newFixture(t)
	n := f.enrolled("munich")
	f.order("POST /api/v1/sites/munich/approve", Approval{}, http.StatusBadRequest)
	f.now.Add(int64(identity.CertificateLife + time.Hour))
	back := identity.Returning{Leaf: n.Certificate().Raw, CSR: must[[]byte](t)(n.Request()), Addr: "192.0.2.1:7"}
	if _, err := f.Authority.Return(back); err == nil {
		t.Fatal("came back without approval")
	}
	s := f.siteNamed("munich")
	if s.State != SiteStateWaiting || s.Waiting == nil || s.Waiting.Address != "192.0.2.1:7" ||
		!s.Waiting.Expired.Equal(n.Certificate().NotAfter) {
		t.Errorf("site %+v", s)
	}
	f.order("POST /api/v1/sites/munich/refuse", nil, http.StatusNoContent)
	if s := f.siteNamed("munich"); s.Waiting == nil || s.Waiting.Refused == nil {
		t.Errorf("refused: %+v", s.Waiting)
	}
	f.order("POST /api/v1/sites/munich/approve", Approval{}, http.StatusNoContent)
	if _, err := f.Authority.Return(back); err != nil {
		t.Errorf("approved: %v", err)
	}
	if s := f.siteNamed("munich"); s.State == SiteStateWaiting || s.CertificateUntil == nil {
		t.Errorf("back: %+v", s)
	}
	var got []string
	for _, e := range ask[AuditList](f, "GET /api/v1/audit?limit=2", nil).Entries {
		got = append(got, e.Action+" "+e.Object)
	}
	if want := []string{"site-approve munich", "site-refuse munich"}; !slices.Equal(got, want) {
		t.Errorf("audit %q, want %q", got, want)
	}
}

// TestQuarantineInTheAPI shows both nodes of a quarantined site and approves one of them.
func TestQuarantineInTheAPI(t *testing.T) {
	f := newFixture(t)
	n := f.enrolled("munich")
	greet := func(instance uint64) error {
		f.now.Add(int64(time.Second))
		return f.Authority.Greet(identity.Greeting{Leaf: n.Certificate().Raw, Addr: "192.0.2.1:7", Since: f.Clock.Now(),
			Life: identity.Life{Instance: instance, Opens: 3}, Linked: true})
	}
	for _, instance := range []uint64{1, 2, 2} {
		_ = greet(instance)
	}
	s := f.siteNamed("munich")
	if s.State != SiteStateQuarantined || s.Quarantine == nil || len(s.Quarantine.Nodes) != 2 ||
		s.Quarantine.Cause != QuarantineCause(identity.CauseDuplicate) {
		t.Fatalf("site %+v", s)
	}
	f.order("POST /api/v1/sites/munich/approve", Approval{}, http.StatusBadRequest)
	wrong := "x"
	f.order("POST /api/v1/sites/munich/approve", Approval{Instance: &wrong}, http.StatusBadRequest)
	f.order("POST /api/v1/sites/munich/approve", Approval{Instance: &s.Quarantine.Nodes[0].Instance}, http.StatusNoContent)
	if err := greet(2); err != nil {
		t.Errorf("the approved node: %v", err)
	}
	if s := f.siteNamed("munich"); s.Quarantine == nil || s.Quarantine.Approved == nil {
		t.Errorf("approved and not linked: %+v", s)
	}
	if err := f.Catalog.LinkUp("munich", f.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	if s := f.siteNamed("munich"); s.State != SiteStateUp || s.Quarantine != nil {
		t.Errorf("approved: %+v", s)
	}
}

func TestAuthorityInTheAPI(t *testing.T) {
	f := newFixture(t)
	f.enrolled("munich")
	before := ask[Authority](f, "GET /api/v1/authority", nil)
	hours := 24.0
	f.order("POST /api/v1/authority/rotate", Rotation{OverlapHours: &hours}, http.StatusOK)
	after := ask[Authority](f, "GET /api/v1/authority", nil)
	if after.Fingerprint == before.Fingerprint || len(after.Former) != 1 || after.Behind != 1 || after.Sites != 1 ||
		after.Former[0].Fingerprint != before.Fingerprint || !strings.Contains(after.Certificate, "BEGIN CERTIFICATE") ||
		!after.Former[0].Until.Equal(f.Clock.Now().Add(24*time.Hour)) {
		t.Errorf("authority %+v", after)
	}
	hours = -1
	f.order("POST /api/v1/authority/rotate", Rotation{OverlapHours: &hours}, http.StatusBadRequest)
}
