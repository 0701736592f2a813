package main

import (
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/budget"
)

func TestUplinkConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"budget", "dir: /data\nbudget: {zone: Europe/Berlin, schedule: [{days: mon-fri, hours: 8-18, rate: 2mbit}, " +
			"{days: \"sat, sun\", hours: 22-6, rate: 30%}, {rate: none}], quota: {bytes: 50GB, day: 15, then: 256kbit}}\n", ""},
		{"budget without a zone", "dir: /data\nbudget:\n  schedule:\n    - {rate: 2mbit}\n",
			"e.yaml:3: budget.zone: say in which zone"},
		{"budget in no zone", "dir: /data\nbudget:\n  zone: Berlin\n", "e.yaml:3: budget.zone: \"Berlin\" is no zone"},
		{"budget on no day", "dir: /data\nbudget:\n  zone: UTC\n  schedule:\n    - rate: 2mbit\n      days: mo-fr\n",
			"e.yaml:6: budget.schedule[0].days: \"mo-fr\" are no days"},
		{"budget at no hour", "dir: /data\nbudget: {zone: UTC, schedule: [{hours: 8-25, rate: 2mbit}]}\n",
			"e.yaml:2: budget.schedule[0].hours: \"8-25\" are no hours"},
		{"budget in bytes", "dir: /data\nbudget: {zone: UTC, schedule: [{rate: 2MB/s}]}\n",
			"e.yaml:2: budget.schedule[0].rate: \"2MB/s\" is no rate"},
		{"budget without a rate", "dir: /data\nbudget: {zone: UTC, schedule: [{days: mon}]}\n",
			"e.yaml:2: budget.schedule[0].rate: say how much"},
		{"budget over all", "dir: /data\nbudget: {zone: UTC, schedule: [{rate: 130%}]}\n",
			"e.yaml:2: budget.schedule[0].rate: \"130%\" is not a whole number from 1% to 100%"},
		{"budget key", "dir: /data\nbudget:\n  zone: UTC\n  rate: 1mbit\n", "e.yaml:4:3: unknown field \"rate\""},
		{"capacity in percent", "dir: /data\nbudget: {capacity: 10%}\n", "e.yaml:2: budget.capacity: \"10%\" is no rate"},
		{"quota without bytes", "dir: /data\nbudget: {zone: UTC, quota: {day: 1}}\n",
			"e.yaml:2: budget.quota.bytes: say how much"},
		{"quota on no day", "dir: /data\nbudget: {zone: UTC, quota: {bytes: 1GB, day: 0}}\n",
			"e.yaml:2: budget.quota.day: 0 is not between"},
		{"quota then what", "dir: /data\nbudget: {zone: UTC, quota: {bytes: 1GB, then: stop}}\n",
			"e.yaml:2: budget.quota.then: \"stop\" is none of"},
	} {
		var file edgeFile
		err := parseConfig("e.yaml", []byte(c.text), &file)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s…", c.name, err, c.want)
		}
	}
}

func TestUplinkConfigMeans(t *testing.T) {
	var file edgeFile
	text := "dir: /data\nbudget:\n  zone: Europe/Berlin\n  capacity: 20 Mbit/s\n  schedule:\n" +
		"    - {days: mon-fri, hours: 8-18, rate: 1.5mbit}\n    - {days: \"fri, sun\", hours: 22-6, rate: none}\n" +
		"    - {rate: 50%}\n  quota: {bytes: 50GB, then: control}\n"
	if err := parseConfig("e.yaml", []byte(text), &file); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]budget.Limit{
		"2026-11-30T09:00:00+01:00": {Rate: 1_500_000},
		"2026-11-30T18:00:00+01:00": {Percent: 50},
		"2026-11-27T23:00:00+01:00": {Rate: budget.Nothing},
		"2026-11-28T05:59:00+01:00": {Rate: budget.Nothing},
		"2026-11-28T06:00:00+01:00": {Percent: 50},
		"2026-11-30T05:00:00+01:00": {Rate: budget.Nothing},
	} {
		moment, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := file.Budget.schedule.At(moment); got != want {
			t.Errorf("at %s: %+v, want %+v", at, got, want)
		}
	}
	want := budget.Quota{Bytes: 50_000_000_000, Day: 1, Then: budget.Limit{Rate: budget.Nothing}}
	if file.Budget.quota != want || file.Budget.capacity != 20*budget.Megabit {
		t.Errorf("quota %+v, capacity %v", file.Budget.quota, file.Budget.capacity)
	}
}
