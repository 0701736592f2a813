package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub"
)

// linkFacts are the figures of one link, for the metrics.
type linkFacts struct {
	prefix string
	labels prometheus.Labels // the same names for all of a prefix
	up     bool
	since  time.Time // of up or down
	by     link.Carrier
	stats  link.Stats
}

// collectLink sends the values of one link.
func collectLink(out chan<- prometheus.Metric, f linkFacts) {
	gauge := func(name, help string, value float64) {
		desc := prometheus.NewDesc(f.prefix+name, help, nil, f.labels)
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	s := f.stats
	gauge("up", "1 while the link is up.", truth(f.up))
	if !f.since.IsZero() {
		gauge("since_timestamp_seconds", "Since when it is up or down.", float64(f.since.UnixMilli())/1000)
	}
	gauge("connections", "Connections of the link's bundle.", float64(s.Connections))
	gauge("bulk_tcp", "1 while one of them is over TCP and takes the fetches.", truth(s.Bulk))
	gauge("handshakes", "Connections made for the present link so far.", float64(s.Handshakes))
	gauge("rtt_seconds", "Round trip time of the link.", s.RTT.Seconds())
	gauge("least_rtt_seconds", "Least round trip time of the present link.", s.MinRTT.Seconds())
	gauge("sent_bytes", "Bytes sent on the present link.", float64(s.Sent))
	gauge("received_bytes", "Bytes received on the present link.", float64(s.Received))
	gauge("lost_bytes", "Bytes lost on the present link and sent again, an estimate.", float64(s.Lost))
	gauge("window_bytes", "Bytes that may be under way at once.", float64(s.CongestionWindow))
	gauge("mtu_bytes", "Largest UDP datagram that is known to pass, 0 while not known.", float64(s.MTU))
	for _, carrier := range []link.Carrier{link.CarrierQUIC, link.CarrierTCP} {
		labels := prometheus.Labels{"carrier": string(carrier)}
		for k, v := range f.labels {
			labels[k] = v
		}
		desc := prometheus.NewDesc(f.prefix+"carrier", "1 for what carries the link.", nil, labels)
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, truth(f.up && f.by == carrier))
	}
}

// collectUp sends the values of the link to a hub.
func collectUp(out chan<- prometheus.Metric, prefix, hub string, s federation.UplinkState, stats link.Stats) {
	collectLink(out, linkFacts{
		prefix: prefix, labels: prometheus.Labels{"hub": hub}, up: s.Up, since: s.Since, by: s.Carrier, stats: stats,
	})
	if s.Uplink == "" {
		return
	}
	desc := prometheus.NewDesc(prefix+"way", "1 for the way by which the link leaves this machine.",
		[]string{"hub", "way"}, nil)
	out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, hub, s.Uplink)
}

// collectGossip sends an edge's part in the gossip.
func collectGossip(out chan<- prometheus.Metric, m *members.Members) {
	s := m.Stats()
	for _, f := range []struct {
		name, help string
		kind       prometheus.ValueType
		value      float64
	}{
		{"members", "Nodes that gossip says are alive, this one included.", prometheus.GaugeValue, float64(m.Known())},
		{"sent_bytes_total", "Bytes of gossip sent.", prometheus.CounterValue, float64(s.SentBytes)},
		{"received_bytes_total", "Bytes of gossip received.", prometheus.CounterValue, float64(s.ReceivedBytes)},
		{"refused_total", "Packets and streams of gossip that broke a rule.", prometheus.CounterValue, float64(s.Refused)},
		{"dropped_total", "Packets and streams of gossip over a limit or to nobody linked.", prometheus.CounterValue,
			float64(s.Dropped)},
	} {
		desc := prometheus.NewDesc("branchline_edge_gossip_"+f.name, f.help, nil, nil)
		out <- prometheus.MustNewConstMetric(desc, f.kind, f.value)
	}
}

// hubLinks reads the figures of a hub's links: to its sites, and to the hubs above it.
type hubLinks struct{ node *hub.Node }

// Describe sends nothing, as the edge's collector.
func (hubLinks) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values.
func (c hubLinks) Collect(out chan<- prometheus.Metric) {
	for _, a := range c.node.Above() {
		collectUp(out, "branchline_hub_above_", a.Name, a.UplinkState, a.Stats)
	}
	for _, l := range c.node.Links() {
		collectLink(out, linkFacts{
			prefix: "branchline_hub_link_", labels: prometheus.Labels{"site": string(l.Site)}, up: true, since: l.Since,
			by: l.Carrier, stats: l.Stats,
		})
	}
}
