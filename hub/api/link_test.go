package api

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/internal/clock"
)

// testLinks has a link to berlin and one hub above, and a real log.
type testLinks struct{ log *link.Qlog }

func (testLinks) Link(site branchline.SiteID) (federation.PeerState, bool) {
	return federation.PeerState{
		Site: site, Addr: "192.0.2.7:4711", Carrier: link.CarrierQUIC, Since: epoch(), Stats: link.Stats{
			RTT: 80 * time.Millisecond, MinRTT: 75 * time.Millisecond, Sent: 1000, Received: 2000, Lost: 10, Connections: 3,
			Handshakes: 5,
		},
	}, site == testSite
}

func (testLinks) Above() []federation.AboveState {
	return []federation.AboveState{
		{Name: "hq", UplinkState: federation.UplinkState{Up: true, Since: epoch(), Hub: "hq:7563", Carrier: link.CarrierTCP,
			Uplink: "lte"}, Stats: link.Stats{MTU: 1400, CongestionWindow: 12000, Bulk: true}},
		{Name: "far", UplinkState: federation.UplinkState{Err: errors.New("no answer")}},
	}
}

func (l testLinks) StartQlog(_ context.Context, site branchline.SiteID, d time.Duration, n int64) error {
	return l.log.Start(string(site), d, n)
}
func (l testLinks) StopQlog(site branchline.SiteID) { l.log.Stop(string(site)) }
func (l testLinks) Qlog(site branchline.SiteID) (link.QlogState, error) {
	return l.log.State(string(site))
}

func newTestLinks(t *testing.T) testLinks {
	l := testLinks{link.NewQlog(filepath.Join(t.TempDir(), "qlog"), clock.Clock{})}
	t.Cleanup(func() { l.log.Close() })
	return l
}

func TestLinkFigures(t *testing.T) {
	f := newFixture(t)
	l := ask[Link](f, "GET /api/v1/sites/berlin/link", nil)
	if l.Carrier != LinkCarrierQuic || l.Connections != 3 || l.Handshakes != 5 || l.RttMs != 80 || l.LeastRttMs != 75 ||
		l.BulkOverTcp != nil || l.SentBytes != 1000 ||
		l.ReceivedBytes != 2000 || l.LostBytes != 10 || l.Mtu != nil || l.Since != stamp(epoch()) {
		t.Errorf("%+v", l)
	}
	if a := do(t, f.local, request{line: "GET /api/v1/sites/paris/link"}); a.StatusCode != http.StatusNoContent {
		t.Errorf("no link: %s %s", a.Status, a.body)
	}
	above := ask[AboveList](f, "GET /api/v1/above", nil).Hubs
	if len(above) != 2 || above[0].Link == nil || above[0].Link.Way == nil || *above[0].Link.Way != "lte" ||
		*above[0].Link.Mtu != 1400 || above[0].Link.BulkOverTcp == nil ||
		above[1].Link != nil || above[1].Error == nil || *above[1].Error != "no answer" {
		t.Errorf("%+v", above)
	}
}

// TestQlogByAPI: only an administrator logs a link, within bounds, and the audit tells.
func TestQlogByAPI(t *testing.T) {
	f := newFixture(t)
	const line = "/api/v1/sites/berlin/qlog"
	for _, role := range []access.Role{access.RoleViewer, access.RoleOperator} {
		if got := needs("POST /api/v1/sites/{site}/qlog"); role.Includes(got) {
			t.Errorf("%s may log a link, which needs %s", role, got)
		}
	}
	for _, bad := range []NewQlog{{Bytes: 100_000}, {Seconds: 10, Bytes: 10}, {Seconds: 10_000_000, Bytes: 100_000},
		{Seconds: -1, Bytes: 100_000}} {
		if a := do(t, f.local, request{line: "POST " + line, body: bad}); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%+v: %s %s", bad, a.Status, a.body)
		}
	}
	on := ask[Qlog](f, "POST "+line, NewQlog{Seconds: 60, Bytes: link.MinQlogBytes})
	if !on.On || on.Until == nil || on.LeftBytes == nil || len(on.Files) != 0 {
		t.Errorf("%+v", on)
	}
	if off := ask[Qlog](f, "DELETE "+line, nil); off.On {
		t.Errorf("stopped: %+v", off)
	}
	if now := ask[Qlog](f, "GET "+line, nil); now.On {
		t.Errorf("afterwards: %+v", now)
	}
	entries, err := f.Access.Audit(2)
	if err != nil || len(entries) != 2 || entries[0].Action != access.ActionQlogStop ||
		entries[1].Action != access.ActionQlogStart || !strings.HasPrefix(entries[1].Object, "berlin for 1m0s") {
		t.Errorf("%+v, %v", entries, err)
	}
}
