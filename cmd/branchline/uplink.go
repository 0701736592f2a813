package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a schedule's zone must be known on a box without the system's files

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/federation/budget"
)

// uplinkFile says how much of its uplink an edge may use. Left out, all of it.
type uplinkFile struct {
	Zone     string     `yaml:"zone"`     // IANA name; the hours of the schedule and the quota's days are its own
	Capacity string     `yaml:"capacity"` // of the line, for shares in percent; left out: measured
	Schedule []rateFile `yaml:"schedule"` // the first that matches counts
	Quota    *quotaFile `yaml:"quota"`

	schedule budget.Schedule
	capacity budget.Rate
	quota    budget.Quota
}

// rateFile limits some hours of some days.
type rateFile struct {
	Days  string `yaml:"days"`  // "mon-fri", "sat sun"; left out: every day
	Hours string `yaml:"hours"` // "8-18", "22-6"; left out: all
	Rate  string `yaml:"rate"`  // "2mbit", "30%", "unlimited", "none"
}

// quotaFile bounds what is sent in a month.
type quotaFile struct {
	Bytes string `yaml:"bytes"` // a size, "50GB"
	Day   *int   `yaml:"day"`   // on which a month begins
	Then  string `yaml:"then"`  // what goes on when it is used up
}

// maxRules bounds the rules of a schedule: more than there are hours in a week can never be meant.
const maxRules = 168

// check fills in what the file means; a nil file is no limit.
func (f *uplinkFile) check(at string) error {
	zone := time.UTC
	needsZone := len(f.Schedule) > 0 || f.Quota != nil
	switch {
	case f.Zone == "" && needsZone:
		return wrong(at+".zone", "say in which zone the hours are, for example Europe/Berlin or UTC")
	case f.Zone == "Local":
		return wrong(at+".zone", "%q is no zone: write for example Europe/Berlin", f.Zone)
	case f.Zone != "":
		var err error
		if zone, err = time.LoadLocation(f.Zone); err != nil {
			return wrong(at+".zone", "%q is no zone: write an IANA name, for example Europe/Berlin", f.Zone)
		}
	}
	if f.Capacity != "" {
		limit, err := parseBitRate(at+".capacity", f.Capacity)
		if err == nil && (limit.Percent > 0 || limit.Rate <= 0) {
			err = wrong(at+".capacity", "%q is no rate: write for example 20mbit", f.Capacity)
		}
		if err != nil {
			return err
		}
		f.capacity = limit.Rate
	}
	if len(f.Schedule) > maxRules {
		return wrong(at+".schedule", "%d rules, at most %d are possible", len(f.Schedule), maxRules)
	}
	var rules []budget.Rule
	for i, r := range f.Schedule {
		rule, err := r.rule(fmt.Sprintf("%s.schedule[%d]", at, i))
		if err != nil {
			return err
		}
		rules = append(rules, rule)
	}
	f.schedule = budget.NewSchedule(zone, rules)
	return f.checkQuota(at + ".quota")
}

func (f *uplinkFile) checkQuota(at string) (err error) {
	if f.Quota == nil {
		return nil
	}
	if f.quota.Bytes, err = parseSize(at+".bytes", f.Quota.Bytes); err != nil {
		return err
	}
	if f.quota.Bytes == 0 {
		return wrong(at+".bytes", "say how much may be sent in a month, for example 50GB")
	}
	f.quota.Day = 1
	if f.Quota.Day != nil {
		f.quota.Day = *f.Quota.Day
	}
	if f.quota.Day < 1 || f.quota.Day > 31 {
		return wrong(at+".day", "%d is not between 1 and 31", f.quota.Day)
	}
	switch f.Quota.Then {
	case "", "watched":
	case "control":
		f.quota.Then.Rate = budget.Nothing
	default:
		limit, err := parseBitRate(at+".then", f.Quota.Then)
		if err != nil || limit.Percent > 0 || limit.Rate <= 0 {
			return wrong(at+".then", "%q is none of watched, control, or a rate such as 256kbit", f.Quota.Then)
		}
		f.quota.Then = limit
	}
	return nil
}

func (r rateFile) rule(at string) (rule budget.Rule, err error) {
	if rule.Days, err = parseWeekdays(at+".days", r.Days); err != nil {
		return rule, err
	}
	rule.To = 24
	if r.Hours != "" {
		from, to, found := strings.Cut(r.Hours, "-")
		low, errFrom := strconv.Atoi(strings.TrimSpace(from))
		high, errTo := strconv.Atoi(strings.TrimSpace(to))
		if !found || errFrom != nil || errTo != nil || low < 0 || low > 23 || high < 0 || high > 24 || low == high {
			return rule, wrong(at+".hours", "%q are no hours: write for example 8-18, or 22-6 for a night", r.Hours)
		}
		rule.From, rule.To = low, high
	}
	if r.Rate == "" {
		return rule, wrong(at+".rate", "say how much may be sent then: for example 2mbit, 30%%, none or unlimited")
	}
	rule.Limit, err = parseBitRate(at+".rate", r.Rate)
	return rule, err
}

// parseWeekdays reads "mon-fri", "sat sun", "fri-mon, wed"; nothing is every day.
func parseWeekdays(at, text string) (days [7]bool, err error) {
	names := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	fields := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r == ' ' || r == ',' })
	for _, field := range fields {
		from, to, span := strings.Cut(field, "-")
		if !span {
			to = from
		}
		low, high := slices.Index(names, from), slices.Index(names, to)
		if low < 0 || high < 0 {
			return days, wrong(at, "%q are no days: write for example mon-fri, or sat sun", text)
		}
		for d := low; ; d = (d + 1) % 7 {
			days[d] = true
			if d == high {
				break
			}
		}
	}
	if len(fields) == 0 {
		days = [7]bool{true, true, true, true, true, true, true}
	}
	return days, nil
}

// The bounds of a rate: below the least not one camera's key frames get through.
const (
	leastRate = 16_000
	mostRate  = 100_000 * budget.Megabit
)

// parseBitRate reads "2mbit", "1.5 Mbit/s", "500kbit", "30%", "none", "unlimited".
func parseBitRate(at, text string) (budget.Limit, error) {
	switch text {
	case "none":
		return budget.Limit{Rate: budget.Nothing}, nil
	case "unlimited":
		return budget.Limit{}, nil
	}
	bad := wrong(at, "%q is no rate: write for example 2mbit, 500kbit, 30%%, none or unlimited", text)
	parts := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(?:(%)|([kKmMgG])bit(?:/s)?)$`).FindStringSubmatch(text)
	if parts == nil {
		return budget.Limit{}, bad
	}
	amount, err := strconv.ParseFloat(parts[1], 64)
	if err != nil {
		return budget.Limit{}, bad
	}
	if parts[2] != "" {
		if amount < 1 || amount > 100 || amount != float64(int(amount)) {
			return budget.Limit{}, wrong(at, "%q is not a whole number from 1%% to 100%%", text)
		}
		return budget.Limit{Percent: int(amount)}, nil
	}
	for range strings.Index("kmg", strings.ToLower(parts[3])) + 1 {
		amount *= 1000
	}
	if amount < leastRate || amount > float64(mostRate) {
		return budget.Limit{}, wrong(at, "%q is not between 16kbit and 100gbit; write none to send nothing", text)
	}
	return budget.Limit{Rate: budget.Rate(amount)}, nil
}

// streamRates tells the budget what an edge's streams take.
type streamRates struct{ node *edge.Node }

// BitRate implements [budget.Streams].
func (s streamRates) BitRate(id branchline.StreamID) (all, keys budget.Rate) {
	a, k := s.node.BitRate(id)
	return budget.Rate(a), budget.Rate(k)
}

// Beside implements [budget.Streams].
func (s streamRates) Beside(id branchline.StreamID) []branchline.StreamID { return s.node.Beside(id) }
