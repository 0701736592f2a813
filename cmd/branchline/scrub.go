package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/branchline-video/branchline/segstore"
)

// scrubFile says how recordings are read again in the background: "off", or how often and how fast.
type scrubFile struct {
	Every string `yaml:"every"` // a number of days, "30d", or a Go duration
	Rate  string `yaml:"rate"`  // "20MB/s"

	word string // instead of both
}

// UnmarshalYAML takes a word or the two fields.
func (c *scrubFile) UnmarshalYAML(unmarshal func(any) error) error {
	if err := unmarshal(&c.word); err == nil {
		return nil
	}
	type fields scrubFile
	return unmarshal((*fields)(c))
}

// plan checks the values and returns them with their defaults: without a scrubFile recordings are read.
func (c *scrubFile) plan(at string) (segstore.Scrub, error) {
	plan := segstore.Scrub{Every: segstore.DefaultScrubEvery, Rate: segstore.DefaultScrubRate}
	if c == nil {
		return plan, nil
	}
	switch c.word {
	case "":
	case "off":
		return segstore.Scrub{}, nil
	default:
		return plan, wrong(at, "%q is neither off nor for example {every: 30d, rate: 20MB/s}", c.word)
	}
	var err error
	if c.Every != "" {
		if plan.Every, err = parseDays(c.Every); err != nil {
			return plan, wrong(at+".every", "%q is no time: write for example 30d or 12h", c.Every)
		}
		if plan.Every < segstore.MinScrubEvery || plan.Every > maxScrubEvery {
			return plan, wrong(at+".every", "%s is not between %v and %d days", c.Every, segstore.MinScrubEvery,
				maxScrubEvery/(24*time.Hour))
		}
	}
	if c.Rate != "" {
		if plan.Rate, err = parseRate(c.Rate); err != nil {
			return plan, wrong(at+".rate", "%q is no rate: write for example 20MB/s", c.Rate)
		}
		if plan.Rate < segstore.MinScrubRate {
			return plan, wrong(at+".rate", "%s is less than the %d bytes a second that are read at least", c.Rate,
				int64(segstore.MinScrubRate))
		}
	}
	return plan, nil
}

// maxScrubEvery is a year: what is read more rarely is not read in time.
const maxScrubEvery = 366 * 24 * time.Hour

// parseDays reads a Go duration or a number of days.
func parseDays(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// parseRate reads bytes a second, with the units of storage.
func parseRate(text string) (int64, error) {
	number, ok := strings.CutSuffix(text, "/s")
	if !ok {
		return 0, fmt.Errorf("parse rate %q", text)
	}
	factor := int64(1)
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}} {
		if n, ok := strings.CutSuffix(number, unit.name); ok {
			number, factor = n, unit.bytes
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if err != nil || int64(n) > math.MaxInt64/factor {
		return 0, fmt.Errorf("parse rate %q", text)
	}
	return int64(n) * factor, nil
}

// scrubCollector reads how a store's scrub stands when Prometheus asks for it.
type scrubCollector struct {
	prefix string // of the metrics' names
	stats  func() segstore.ScrubStats
}

// Describe sends nothing, as branchCollector's.
func (scrubCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values.
func (c scrubCollector) Collect(out chan<- prometheus.Metric) {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	s := c.stats()
	ended := 0.0
	if !s.Ended.IsZero() {
		ended = float64(s.Ended.UnixMilli()) / 1000
	}
	for _, m := range []struct {
		name, help string
		kind       prometheus.ValueType
		value      float64
	}{
		{"last_round_timestamp_seconds", "When the last whole round ended; 0 before the first.", gauge, ended},
		{"progress_ratio", "Of the present round, from 0 to 1; 1 between rounds.", gauge, s.Progress},
		{"read_bytes_total", "Bytes of recordings read again.", counter, float64(s.Bytes)},
		{"segments_total", "Segments read to their end.", counter, float64(s.Segments)},
		{"rotten_segments_total", "Segments found to be damaged.", counter, float64(s.Rotten)},
		{"unread_segments_total", "Segments that could not be read.", counter, float64(s.Unread)},
		{"untrusted_segments_total", "Whole segments signed by a key that is not trusted.", counter, float64(s.Untrusted)},
	} {
		desc := prometheus.NewDesc(c.prefix+m.name, m.help, nil, nil)
		out <- prometheus.MustNewConstMetric(desc, m.kind, m.value)
	}
}
