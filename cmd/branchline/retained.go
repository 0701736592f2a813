package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/retain"
)

// maxShown bounds the actions and removals that one answer of /retention lists.
const maxShown = 1000

// retentionReport is the answer of GET /retention. Its JSON names are a contract with scripts.
type retentionReport struct {
	At        time.Time        `json:"at"`
	Plan      []actionReport   `json:"plan"`      // what would be done now, in order; the first maxShown
	Planned   int              `json:"planned"`   // how many there are
	More      bool             `json:"more"`      // there are even more
	Shortages []shortageReport `json:"shortages"` // what cannot be freed, and why
	Locks     []lockReport     `json:"locks"`
	Holds     []holdReport     `json:"holds"`
	Removals  []actionReport   `json:"removals"` // done since the start, the newest first
}

type actionReport struct {
	At      *time.Time `json:"at,omitempty"` // when it was done
	Action  string     `json:"action"`       // remove or thin
	Segment string     `json:"segment"`
	Stream  string     `json:"stream"`
	Start   time.Time  `json:"start"`
	End     time.Time  `json:"end"`
	Bytes   int64      `json:"bytes"`
	Cause   string     `json:"cause,omitempty"`
	Why     string     `json:"why"`
}

type shortageReport struct {
	Rule    string `json:"rule"`
	Missing int64  `json:"missing_bytes"`
	Why     string `json:"why"`
}

type lockReport struct {
	ID      string     `json:"id"`
	Stream  string     `json:"stream"`
	Start   time.Time  `json:"start"`
	End     time.Time  `json:"end"`
	Until   *time.Time `json:"until,omitempty"` // left out: until it is taken off
	By      string     `json:"by,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Created time.Time  `json:"created"`
}

type holdReport struct {
	Holder string       `json:"holder"`
	Stream string       `json:"stream"`
	Known  time.Time    `json:"known"`
	Until  time.Time    `json:"until"`
	Spans  []spanReport `json:"spans"`
}

type spanReport struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

func reportAction(a retain.Action) actionReport {
	s := a.Segment
	return actionReport{Action: string(a.Kind), Segment: s.ID.String(), Stream: string(s.Stream), Start: s.Span.Start,
		End: s.Span.End, Bytes: s.Bytes, Cause: string(a.Cause), Why: a.Why}
}

// reportRetention asks a store for everything about its retention. It changes nothing.
func reportRetention(ctx context.Context, s *segstore.Store, now time.Time) (retentionReport, error) {
	r := retentionReport{At: now.UTC(), Plan: []actionReport{}, Shortages: []shortageReport{}, Locks: []lockReport{},
		Holds: []holdReport{}, Removals: []actionReport{}}
	plan, err := s.RetentionPlan(ctx)
	if err != nil {
		return r, err
	}
	locks, err := s.Locks(ctx)
	if err != nil {
		return r, err
	}
	holds, err := s.Holds(ctx)
	if err != nil {
		return r, err
	}
	r.Planned, r.More = len(plan.Actions), plan.More
	for _, a := range plan.Actions[:min(len(plan.Actions), maxShown)] {
		r.Plan = append(r.Plan, reportAction(a))
	}
	for _, short := range plan.Shortages {
		r.Shortages = append(r.Shortages, shortageReport{short.Rule, short.Bytes, short.Why})
	}
	for _, l := range locks {
		lock := lockReport{ID: l.ID, Stream: string(l.Stream), Start: l.Span.Start, End: l.Span.End, By: l.By,
			Reason: l.Reason, Created: l.Created}
		if !l.Until.IsZero() {
			lock.Until = &l.Until
		}
		r.Locks = append(r.Locks, lock)
	}
	for _, h := range holds {
		hold := holdReport{Holder: h.Holder, Stream: string(h.Stream), Known: h.Known, Until: h.Until, Spans: []spanReport{}}
		for _, span := range h.Spans {
			hold.Spans = append(hold.Spans, spanReport{span.Start, span.End})
		}
		r.Holds = append(r.Holds, hold)
	}
	removals := s.Removals()
	for _, done := range removals[:min(len(removals), maxShown)] {
		a := reportAction(done.Action)
		a.At = &done.At
		r.Removals = append(r.Removals, a)
	}
	return r, nil
}

// retentionHandler answers GET /retention.
func retentionHandler(s *segstore.Store, now func() time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		report, err := reportRetention(req.Context(), s, now())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.Encode(report) //nolint:errcheck // whoever asked has gone
	}
}

// retained reads what retention has done to a store when Prometheus asks for it.
type retained struct {
	tier string // "edge" or "hub"
	read func() segstore.RetentionStats
}

// Describe sends nothing: the causes are labels.
func (retained) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values.
func (c retained) Collect(out chan<- prometheus.Metric) {
	t := c.read()
	send := func(name, help string, kind prometheus.ValueType, value float64, cause ...string) {
		var labels []string
		if len(cause) > 0 {
			labels = []string{"cause"}
		}
		desc := prometheus.NewDesc("branchline_"+c.tier+"_retention_"+name, help, labels, nil)
		out <- prometheus.MustNewConstMetric(desc, kind, value, cause...)
	}
	for _, cause := range []branchline.Cause{branchline.CauseExpired, branchline.CauseRemovedEarly} {
		send("removed_segments_total", "Segments removed by retention.", prometheus.CounterValue,
			float64(t.Removed[cause]), string(cause))
		send("removed_bytes_total", "Bytes removed by retention.", prometheus.CounterValue,
			float64(t.Bytes[cause]), string(cause))
	}
	send("thinned_segments_total", "Segments of which only the key fragments were kept.", prometheus.CounterValue,
		float64(t.Thinned))
	send("thinned_bytes_total", "Bytes freed by thinning.", prometheus.CounterValue, float64(t.ThinnedBytes))
	short := 0.0
	for _, s := range t.Shortages {
		short += float64(s.Bytes)
	}
	send("short_bytes", "Bytes that should be freed and cannot.", prometheus.GaugeValue, short)
}
