package main

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/internal/clock"
)

// edgeHandler answers /healthz, /metrics and /retention of an edge.
func edgeHandler(b *branch) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), branchCollector{b}, retained{"edge", b.node.Store().RetentionStats},
		scrubCollector{"branchline_edge_scrub_", b.node.Store().ScrubStats},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /retention", retentionHandler(b.node.Store(), clock.Clock{}.Now))
	mux.HandleFunc("GET /uplink", uplinkHandler(b))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		for _, s := range b.node.Metrics() {
			if !s.Recording {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintf(w, "%s is not recorded\n", s.Stream)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// branchCollector reads an edge's counters when Prometheus asks for them.
type branchCollector struct{ b *branch }

// streamMetric is a metric of one stream.
type streamMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(edge.StreamMetrics) float64
}

func streamMetrics() []streamMetric {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	return []streamMetric{
		{"recording", "1 while the stream is recorded.", gauge,
			func(m edge.StreamMetrics) float64 { return truth(m.Recording) }},
		{"sessions_total", "Sessions that the camera granted.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Sessions) }},
		{"failures_total", "Sessions that failed or could not be had.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Failures) }},
		{"lost_packets_total", "RTP packets lost or not usable.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Lost) }},
		{"frames_total", "Access units recorded.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Frames) }},
		{"dropped_frames_total", "Access units received and of no use.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Dropped) }},
		{"clamped_frames_total", "Access units recorded with a corrected time.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Clamped) }},
		{"fragments_total", "Fragments written.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Fragments) }},
		{"written_bytes_total", "Bytes of fragments written.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.Bytes) }},
		{"disk_gaps_total", "Gaps that the disk caused.", counter,
			func(m edge.StreamMetrics) float64 { return float64(m.DiskGaps) }},
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe sends nothing: which streams there are may change.
func (branchCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values.
func (c branchCollector) Collect(out chan<- prometheus.Metric) {
	streams := c.b.node.Metrics()
	for _, m := range streamMetrics() {
		desc := prometheus.NewDesc("branchline_edge_"+m.name, m.help, []string{"stream"}, nil)
		for _, s := range streams {
			out <- prometheus.MustNewConstMetric(desc, m.kind, m.value(s), string(s.Stream))
		}
	}
	collectUplink(c.b, out)
	for _, u := range c.b.uplinks {
		collectUp(out, "branchline_edge_link_", u.name, u.State(), u.Stats())
	}
	collectGossip(out, c.b.members)
}
