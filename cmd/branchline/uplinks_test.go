package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/branchline-video/branchline/federation/link"
)

func TestUplinkConfig(t *testing.T) {
	many := strings.Repeat("\n  - {name: x, address: 192.0.2.1}", link.MaxUplinks+1)
	const (
		two  = "\n  - {name: lte, address: 10.0.0.2, kind: metered}\n  - {name: a, address: '::1', kind: prefer}"
		same = "\n  - {name: a, interface: b}\n  - {name: a, interface: c}"
	)
	for text, want := range map[string]string{
		"":                                     "[]",
		"\n  - {name: fibre, interface: eth0}": "[fibre eth0 both]",
		two:                                    "[lte 10.0.0.2 metered a ::1 prefer]",
		"\n  - {interface: eth0}":              "edge.yml:2: uplinks[0].name: give it a name",
		"\n  - {name: fibre}":                  "edge.yml:2: uplinks[0]: say either its interface",
		"\n  - {name: a, interface: b, address: 192.0.2.1}": "edge.yml:2: uplinks[0]: say either its interface",
		"\n  - {name: a, address: fibre}":                   `edge.yml:2: uplinks[0].address: "fibre" is no address`,
		"\n  - {name: a, address: 0.0.0.0}":                 `uplinks[0].address: "0.0.0.0" is no address`,
		"\n  - {name: a, interface: sixteen-letters-}":      "edge.yml:2: uplinks[0].interface",
		"\n  - {name: a, interface: b, kind: fast}":         `edge.yml:2: uplinks[0].kind: "fast" is no kind`,
		"\n  - {name: a, interface: b, cost: 3}":            "cost",
		same:                                                "edge.yml:3: uplinks[1].name: uplink \"a\" is already number 1",
		many:                                                "edge.yml:2: uplinks: 5 of them, at most 4",
	} {
		if text == "" {
			text = " []"
		}
		var f edgeFile
		err := parseConfig("edge.yml", []byte("uplinks:"+text+"\ndir: /tmp/x\n"), &f)
		var got []string
		for _, l := range f.uplinks {
			at := l.Device
			if l.Addr.IsValid() {
				at = l.Addr.String()
			}
			got = append(got, l.Name, at, string(l.Kind))
		}
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s, want %s", text, want)
		}
	}
}
