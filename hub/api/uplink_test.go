package api

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/budget"
)

func testRefusal() error {
	return fmt.Errorf("site berlin: %w", &budget.Refusal{
		Budget: 2_000_000, Until: time.Date(2026, 11, 30, 17, 0, 0, 0, time.UTC), Zone: "Europe/Berlin", Used: 1_800_000,
		Viewers: 2, Need: 4_100_000,
		Instead: []budget.Alternative{{Stream: "berlin.door.sub", KeyFrames: true, Need: 90_000}},
	})
}

// TestRefusalIsTold: what a site's budget refuses is told in words and numbers, with what would fit instead.
func TestRefusalIsTold(t *testing.T) {
	w := httptest.NewRecorder()
	a := newFixture(t)
	a.fail(w, httptest.NewRequest(http.MethodGet, "/api/v1/streams/berlin.door.main/play.mp4", nil), testRefusal())
	var told Error
	if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || told.Error.Code != ErrorCodeBudget || w.Header().Get("Retry-After") == "" ||
		!strings.HasPrefix(told.Error.Message, "the uplink's budget now is 2.0 Mbit/s until 18:00 Europe/Berlin, "+
			"1.8 Mbit/s in use by 2 viewers; this stream needs 4.1 Mbit/s") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r := told.Error.Refusal
	want := Alternative{Stream: "berlin.door.sub", KeyFrames: true, Need: 90_000}
	if r == nil || len(r.Instead) != 1 || r.Instead[0] != want {
		t.Errorf("refusal %+v", r)
	}
}

// refusing refuses whole streams and remembers how it was asked.
type refusing struct{ branchline.Source }

func (refusing) Live(ctx context.Context, _ branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		if !federation.KeyFrames(ctx) {
			yield(branchline.Item{}, testRefusal())
			return
		}
		<-ctx.Done()
	}
}

func TestLiveTellsTheRefusal(t *testing.T) {
	f := newFixture(t)
	f.Source = refusing{f.Source}
	conn, _ := dial(t, f.local, livePath, nil)
	var m LiveMessage
	if err := json.Unmarshal([]byte(receiveLive(t, conn, nil)), &m); err != nil {
		t.Fatal(err)
	}
	if m.Type != LiveMessageTypeRefused || m.Refusal == nil || m.Refusal.Need != 4_100_000 ||
		m.Cause == nil || !strings.Contains(*m.Cause, "1.8 Mbit/s in use by 2 viewers") {
		t.Errorf("got %+v", m)
	}
	if got := receiveLive(t, conn, nil); !strings.HasPrefix(got, "closed") || !strings.Contains(got, "2.0 Mbit/s") {
		t.Errorf("then %s", got)
	}
	if _, a := dial(t, f.local, livePath+"?keyFrames=perhaps", nil); a.StatusCode != http.StatusBadRequest {
		t.Errorf("no word for yes or no: %s", a.Status)
	}
}
