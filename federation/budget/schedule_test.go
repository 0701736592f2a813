package budget_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/budget"
)

const stamp = "2006-01-02T15:04-07:00"

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func days(text string) (d [7]bool) {
	for i, name := range []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} {
		d[i] = text == "all" || strings.Contains(text, name)
	}
	return d
}

// rules reads "mon tue 8-18 2000" and "sat 22-6 30%", kbit/s or percent, separated by semicolons.
func rules(t *testing.T, text string) (all []budget.Rule) {
	t.Helper()
	for line := range strings.SplitSeq(text, ";") {
		fields := strings.Fields(line)
		n := len(fields)
		r := budget.Rule{Days: days(strings.Join(fields[:n-2], " "))}
		if _, err := fmt.Sscanf(fields[n-2], "%d-%d", &r.From, &r.To); err != nil {
			t.Fatal(err)
		}
		percent := strings.HasSuffix(fields[n-1], "%")
		var v int
		if _, err := fmt.Sscanf(fields[n-1], "%d", &v); err != nil {
			t.Fatal(err)
		}
		if r.Limit.Rate = budget.Rate(v) * 1000; percent {
			r.Limit = budget.Limit{Percent: v}
		}
		all = append(all, r)
	}
	return all
}

func TestScheduleAt(t *testing.T) {
	for _, c := range []struct{ zone, rules, at, limit, until string }{
		{"Europe/Berlin", "mon tue wed thu fri 8-18 2000", "2026-11-30T09:30+01:00", "2000", "2026-11-30T18:00+01:00"},
		{"Europe/Berlin", "mon tue wed thu fri 8-18 2000", "2026-12-04T18:00+01:00", "0", "2026-12-07T08:00+01:00"},
		{"Europe/Berlin", "mon tue wed thu fri 8-18 2000", "2026-11-30T07:59+01:00", "0", "2026-11-30T08:00+01:00"},
		{"Europe/Berlin", "all 0-24 500", "2026-11-30T07:59+01:00", "500", "never"},
		{"Europe/Berlin", "all 8-18 30%", "2026-11-30T12:00+01:00", "30%", "2026-11-30T18:00+01:00"},
		// The first rule counts.
		{"Europe/Berlin", "mon 12-13 100;all 8-18 2000", "2026-11-30T12:10+01:00", "100", "2026-11-30T13:00+01:00"},
		{"Europe/Berlin", "mon 12-13 100;all 8-18 2000", "2026-12-01T12:10+01:00", "2000", "2026-12-01T18:00+01:00"},
		// Over midnight, and from Saturday into Sunday.
		{"Europe/Berlin", "sat 22-6 100", "2026-11-28T23:00+01:00", "100", "2026-11-29T06:00+01:00"},
		{"Europe/Berlin", "sat 22-6 100", "2026-11-29T05:59+01:00", "100", "2026-11-29T06:00+01:00"},
		{"Europe/Berlin", "sat 22-6 100", "2026-11-30T05:59+01:00", "0", "2026-12-05T22:00+01:00"},
		// The night in which 02:00 to 03:00 comes twice, and the one in which it does not come.
		{"Europe/Berlin", "sun 2-3 100", "2026-10-25T01:30+02:00", "0", "2026-10-25T02:00+02:00"},
		{"Europe/Berlin", "sun 2-3 100", "2026-10-25T02:30+02:00", "100", "2026-10-25T03:00+01:00"},
		{"Europe/Berlin", "sun 2-3 100", "2026-03-29T01:30+01:00", "0", "2026-04-05T02:00+02:00"},
		{"Europe/Berlin", "sun 3-4 100", "2026-03-29T01:30+01:00", "0", "2026-03-29T03:00+02:00"},
		// A zone with a half hour, and one whose clock is changed by half an hour.
		{"Asia/Kolkata", "all 8-18 100", "2026-11-30T03:00+00:00", "100", "2026-11-30T12:30+00:00"},
		{"Australia/Lord_Howe", "sun 1-2 100", "2026-04-04T14:30+00:00", "100", "2026-04-04T15:30+00:00"},
	} {
		s := budget.NewSchedule(zone(t, c.zone), rules(t, c.rules))
		at, err := time.Parse(stamp, c.at)
		if err != nil {
			t.Fatal(err)
		}
		limit, until := s.At(at)
		got := fmt.Sprint(int(limit.Rate) / 1000)
		if limit.Percent > 0 {
			got = fmt.Sprintf("%d%%", limit.Percent)
		}
		end := "never"
		if !until.IsZero() {
			want, _ := time.Parse(stamp, c.until)
			end = until.In(want.Location()).Format(stamp)
		}
		if got != c.limit || end != c.until {
			t.Errorf("%s: %s at %s: limit %s until %s, want %s until %s", c.zone, c.rules, c.at, got, end, c.limit, c.until)
		}
	}
}

func TestQuotaMonth(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		day              int
		at, start, until string
	}{
		{1, "2026-11-29T12:00+01:00", "2026-11-01T00:00+01:00", "2026-12-01T00:00+01:00"},
		{15, "2026-01-14T23:59+01:00", "2025-12-15T00:00+01:00", "2026-01-15T00:00+01:00"},
		{15, "2026-01-15T00:00+01:00", "2026-01-15T00:00+01:00", "2026-02-15T00:00+01:00"},
		{31, "2026-02-28T00:00+01:00", "2026-02-28T00:00+01:00", "2026-03-31T00:00+02:00"},
		{31, "2026-03-30T12:00+02:00", "2026-02-28T00:00+01:00", "2026-03-31T00:00+02:00"},
		{0, "2026-12-31T23:59+01:00", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"},
	} {
		at, err := time.Parse(stamp, c.at)
		if err != nil {
			t.Fatal(err)
		}
		start, end := budget.Quota{Day: c.day}.Month(at, berlin)
		if start.Format(stamp) != c.start || end.Format(stamp) != c.until {
			t.Errorf("day %d at %s: %s to %s, want %s to %s", c.day, c.at, start.Format(stamp), end.Format(stamp),
				c.start, c.until)
		}
	}
}

func TestRefusalSaysWhy(t *testing.T) {
	until := time.Date(2026, 11, 30, 17, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		r    budget.Refusal
		want string
	}{
		{budget.Refusal{Budget: 2_000_000, Until: until, Zone: "Europe/Berlin", Used: 1_800_000, Viewers: 2, Need: 4_100_000},
			"the uplink's budget now is 2.0 Mbit/s until 18:00 Europe/Berlin, 1.8 Mbit/s in use by 2 viewers; " +
				"this stream needs 4.1 Mbit/s"},
		{budget.Refusal{Budget: 256_000, Need: 4_100_000},
			"the uplink's budget now is 256 kbit/s; this stream needs 4.1 Mbit/s"},
		{budget.Refusal{Budget: budget.Nothing, Until: until, Zone: "Europe/Berlin"},
			"the uplink's budget now is for nothing but control until 18:00 Europe/Berlin"},
		{budget.Refusal{Spent: true, Until: until, Zone: "UTC"},
			"the uplink's quota of this month is used up until 30 November 17:00 UTC"},
	} {
		if got := c.r.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
