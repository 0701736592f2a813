package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/branchline-video/branchline/federation/budget"
)

// uplinkReport is how an edge's uplink stands, for people and programs. Rates are bits a second; 0 is no limit,
// -1 is nothing but control.
type uplinkReport struct {
	Links    []uplinkLink     `json:"links"` // one for each hub
	Rate     int64            `json:"rateBits"`
	Percent  int              `json:"percent,omitempty"`
	Until    time.Time        `json:"until,omitzero"`
	Zone     string           `json:"zone"`
	Capacity int64            `json:"capacityBits,omitempty"`
	Bulk     int64            `json:"bulkBits"`
	Viewers  []uplinkViewer   `json:"viewers"`
	Sent     map[string]int64 `json:"sentBytes"` // by class, since the start
	Total    uint64           `json:"totalBytes"`
	Quota    *uplinkQuota     `json:"quota,omitempty"`
}

type uplinkLink struct {
	Name  string      `json:"name,omitempty"` // of the hub, in the edge's configuration
	Up    bool        `json:"up"`
	Hub   string      `json:"hub,omitempty"` // its address
	RTTms float64     `json:"rttMs,omitempty"`
	Ways  []uplinkWay `json:"ways,omitempty"` // of a link that has several, in the order of the configuration

	linkFigures
}

// uplinkWay is how one of the edge's uplinks stands.
type uplinkWay struct {
	Name        string    `json:"name"`
	Kind        string    `json:"kind"`
	Use         string    `json:"use"` // all, urgent, warm or none
	Up          bool      `json:"up"`
	Since       time.Time `json:"since"`
	Connections int       `json:"connections"`
}

func (w uplinkWay) String() string {
	state := "down"
	if w.Up {
		state = "up"
	}
	return fmt.Sprintf("%s (%s), %s since %s, carries %s, %d connections", w.Name, w.Kind, state,
		w.Since.UTC().Format("2006-01-02 15:04:05 MST"), w.Use, w.Connections)
}

func (l uplinkLink) String() string {
	s := "down"
	if l.Up {
		s = fmt.Sprintf("up, to %s, round trip %.0f ms, %s", l.Hub, l.RTTms, l.linkFigures)
	} else if l.Error != "" {
		s += ", " + l.Error
	}
	if l.Name != "" {
		s = l.Name + ", " + s
	}
	return s
}

type uplinkViewer struct {
	Stream    string `json:"stream"`
	Hub       string `json:"hub"`
	KeyFrames bool   `json:"keyFramesOnly,omitempty"`
	Playback  bool   `json:"playback,omitempty"`
	Need      int64  `json:"bits"`
}

type uplinkQuota struct {
	Bytes int64     `json:"bytes"`
	Used  int64     `json:"usedBytes"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Spent bool      `json:"usedUp"`
}

// report returns how the branch's uplink stands.
func (b *branch) report() uplinkReport {
	s := b.budget.State()
	r := uplinkReport{
		Links: []uplinkLink{}, Rate: int64(s.Rate), Percent: s.Percent, Until: s.Until, Zone: s.Zone,
		Capacity: int64(s.Capacity), Bulk: int64(s.Bulk), Viewers: []uplinkViewer{}, Sent: map[string]int64{},
		Total: s.Sent,
	}
	for _, u := range b.uplinks {
		st := u.State()
		s := u.Stats()
		rtt := float64(s.RTT) / float64(time.Millisecond)
		l := uplinkLink{u.name, st.Up, st.Hub, rtt, nil, figuresOf(st, s)}
		for _, w := range u.Ways() {
			l.Ways = append(l.Ways, uplinkWay{w.Name, string(w.Kind), w.Use.String(), w.Up, w.Since, w.Connections})
		}
		r.Links = append(r.Links, l)
	}
	for _, v := range s.Viewers {
		r.Viewers = append(r.Viewers, uplinkViewer{string(v.Stream), v.Hub, v.KeyFrames, v.Playback, int64(v.Need)})
	}
	for c := budget.Live; c <= budget.Backfill; c++ {
		r.Sent[c.String()] = s.Passed[c]
	}
	if s.Quota.Bytes > 0 {
		r.Quota = &uplinkQuota{s.Quota.Bytes, s.Used, s.Month, s.Ends, s.Spent}
	}
	return r
}

// uplinkHandler answers GET /uplink of an edge.
func uplinkHandler(b *branch) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(b.report()) // the receiver's loss
	}
}

type uplinkCommand struct {
	Config string `help:"The edge's configuration file." type:"path" required:"" placeholder:"FILE"`
	JSON   bool   `help:"Print JSON."`
}

// Run asks the running edge how its uplink stands.
func (c *uplinkCommand) Run(t *terminal) error {
	var file edgeFile
	if err := readConfig(c.Config, &file); err != nil {
		return err
	}
	if file.Listen == "" {
		return usageError{fmt.Errorf("%s has no http: address at which the edge could be asked; "+
			"add for example http: 127.0.0.1:8481", c.Config)}
	}
	var r uplinkReport
	if err := askEdge(t.ctx, file.Listen, "/uplink", &r); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.stdout, r)
	}
	return r.print(t)
}

// askEdge reads JSON from a running edge of this machine.
func askEdge(ctx context.Context, listen, path string, into any) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	address := net.JoinHostPort(host, port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("reach the edge at %s: %w; is it running?", address, op.Err)
	}
	if err != nil {
		return fmt.Errorf("ask the edge: %w", err)
	}
	defer res.Body.Close()
	return readAnswer(res, into)
}

func (r uplinkReport) print(t *terminal) error {
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		zone = time.UTC
	}
	now := budget.Rate(r.Rate).String()
	if r.Percent > 0 {
		now += fmt.Sprintf(" (%d %% of the capacity)", r.Percent)
	}
	if !r.Until.IsZero() {
		now += " until " + r.Until.In(zone).Format("Mon 15:04") + " " + r.Zone
	}
	capacity := "not measured yet"
	if r.Capacity > 0 {
		capacity = budget.Rate(r.Capacity).String()
	}
	tab := tabwriter.NewWriter(t.stdout, 0, 4, 2, ' ', 0)
	for _, l := range r.Links {
		fmt.Fprintf(tab, "Link\t%v\n", l)
		for _, w := range l.Ways {
			fmt.Fprintf(tab, "  by\t%v\n", w)
		}
	}
	fmt.Fprintf(tab, "Budget now\t%s\nCapacity\t%s\n", now, capacity)
	fmt.Fprintf(tab, "Bulk goes at most at\t%v\n", budget.Rate(r.Bulk))
	if q := r.Quota; q != nil {
		left := ""
		if q.Spent {
			left = ", used up"
		}
		fmt.Fprintf(tab, "Month from %s\t%.2f of %.2f GB%s, until %s\n", q.From.In(zone).Format("2006-01-02"),
			float64(q.Used)/1e9, float64(q.Bytes)/1e9, left, q.To.In(zone).Format("2006-01-02 15:04 MST"))
	}
	for c := budget.Live; c <= budget.Backfill; c++ {
		fmt.Fprintf(tab, "Sent, %v\t%.1f MB\n", c, float64(r.Sent[c.String()])/1e6)
	}
	fmt.Fprintf(tab, "Sent, all with headers\t%.1f MB\n", float64(r.Total)/1e6)
	for _, v := range r.Viewers {
		what := "live"
		switch {
		case v.Playback:
			what = "playback"
		case v.KeyFrames:
			what = "live, key frames only"
		}
		fmt.Fprintf(tab, "Viewer\t%s, %s, %v, of %s\n", v.Stream, what, budget.Rate(v.Need), v.Hub)
	}
	return tab.Flush()
}

// collectUplink sends the budget's metrics.
func collectUplink(b *branch, out chan<- prometheus.Metric) {
	s := b.budget.State()
	var admitted budget.Rate
	for _, v := range s.Viewers {
		admitted += v.Need
	}
	gauge := func(name, help string, value float64) {
		desc := prometheus.NewDesc("branchline_edge_uplink_"+name, help, nil, nil)
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	gauge("budget_bits", "Bits a second that may be sent now; 0 for no limit, -1 for nothing but control.",
		float64(s.Rate))
	gauge("capacity_bits", "Bits a second that the uplink can do, 0 while not known.", float64(s.Capacity))
	gauge("bulk_bits", "Bits a second at which bulk keeps the line's queue short, 0 for no limit.", float64(s.Bulk))
	gauge("viewers", "Live streams and playbacks that were let in.", float64(len(s.Viewers)))
	gauge("admitted_bits", "Bits a second that these take.", float64(admitted))
	gauge("quota_bytes", "Bytes that may be sent in the month, 0 for no quota.", float64(s.Quota.Bytes))
	gauge("month_bytes", "Bytes sent in the month.", float64(s.Used))
	desc := prometheus.NewDesc("branchline_edge_uplink_passed_bytes_total", "Bytes sent, by class, without headers.",
		[]string{"class"}, nil)
	for c := budget.Live; c <= budget.Backfill; c++ {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(s.Passed[c]), c.String())
	}
}
