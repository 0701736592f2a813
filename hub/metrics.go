package hub

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/segstore"
)

// register makes the hub's figures known to a registry. They are read when it is asked.
func (n *Node) register(reg prometheus.Registerer) error {
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	counters := n.fetcher.Counters
	for _, c := range []prometheus.Collector{
		counter("branchline_hub_fetched_bytes_total", "Bytes fetched from sites, live streams not counted.",
			func() float64 { return float64(counters().Bytes) }),
		counter("branchline_hub_fetch_received_bytes_total",
			"Bytes that sites sent for fetches, those included that came twice or in vain.",
			func() float64 { return float64(counters().Came) }),
		counter("branchline_hub_fetched_fragments_total", "Fragments fetched from sites and stored.",
			func() float64 { return float64(counters().Fragments) }),
		counter("branchline_hub_fetch_preemptions_total", "Bulk transfers that made room for a request.",
			func() float64 { return float64(counters().Preempted) }),
		counter("branchline_hub_fetch_failures_total", "Transfers that failed and are tried again.",
			func() float64 { return float64(counters().Failures) }),
		gauge("branchline_hub_linked_sites", "Sites that are linked now.", n.linkedSites),
		gauge("branchline_hub_tcp_linked_sites", "Sites that are linked by TCP, as UDP is blocked on the way.",
			n.tcpLinkedSites),
		counter("branchline_hub_gossip_bytes_total", "Bytes of gossip sent to and received from sites.",
			func() float64 { s := n.gossiped(); return float64(s.SentBytes + s.ReceivedBytes) }),
		counter("branchline_hub_gossip_refused_total", "Packets and streams of gossip that broke a rule.",
			func() float64 { return float64(n.gossiped().Refused) }),
		counter("branchline_hub_gossip_dropped_total", "Packets and streams of gossip over a limit or to nobody linked.",
			func() float64 { return float64(n.gossiped().Dropped) }),
		standingCollector{n},
		gauge("branchline_hub_live_streams", "Live streams that come from sites now.", n.liveStreams),
		gauge("branchline_hub_active_jobs", "Retrievals that have not ended.", n.activeJobs),
		gauge("branchline_hub_held_bytes", "Bytes of sealed segments that the hub holds.",
			func() float64 { return float64(n.store.Stats().Bytes) }),
		gauge("branchline_hub_partial_segments", "Segments that the hub holds in part.",
			func() float64 { return float64(n.store.Stats().Partial) }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (n *Node) gossiped() members.Stats {
	if n.members == nil {
		return members.Stats{}
	}
	return n.members.Stats()
}

// standingCollector tells how many sites stand how.
type standingCollector struct{ n *Node }

func (standingCollector) desc() *prometheus.Desc {
	return prometheus.NewDesc("branchline_hub_sites", "Sites by how they stand.", []string{"state"}, nil)
}

// Describe implements [prometheus.Collector].
func (c standingCollector) Describe(to chan<- *prometheus.Desc) { to <- c.desc() }

// Collect implements [prometheus.Collector].
func (c standingCollector) Collect(to chan<- prometheus.Metric) {
	count := c.n.stand()
	for _, s := range members.States() {
		to <- prometheus.MustNewConstMetric(c.desc(), prometheus.GaugeValue, float64(count[s]), string(s))
	}
}

func (n *Node) linkedSites() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return float64(len(n.links))
}

func (n *Node) liveStreams() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return float64(len(n.feeds))
}

func (n *Node) activeJobs() float64 {
	active := 0
	for _, j := range n.fetcher.Jobs() {
		if j.State == fetch.Waiting || j.State == fetch.Retrieving {
			active++
		}
	}
	return float64(active)
}

// Retention returns what retention has done to the hub's store, and what it could not do.
func (n *Node) Retention() segstore.RetentionStats { return n.store.RetentionStats() }
