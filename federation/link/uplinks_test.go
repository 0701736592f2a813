package link

import (
	"strings"
	"testing"
)

// TestPlanUplinks writes uplinks as their kinds, those that are down in brackets, and what is planned.
func TestPlanUplinks(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "",
		"both":                        "all",
		"(both)":                      "none",
		"both both":                   "all all",
		"both (both)":                 "all none",
		"prefer both":                 "all warm",
		"both prefer":                 "warm all",
		"(prefer) both":               "none all",
		"prefer prefer both":          "all all warm",
		"prefer standby":              "all warm",
		"(prefer) standby":            "none all",
		"both standby":                "all warm",
		"standby standby":             "all warm",
		"(standby) standby":           "none all",
		"prefer metered":              "all none",
		"(prefer) metered":            "none urgent",
		"(prefer) standby metered":    "none all none",
		"both both metered":           "all all none",
		"metered":                     "urgent",
		"metered metered":             "urgent none",
		"(metered) metered":           "none urgent",
		"(prefer) (both) (standby)":   "none none none",
		"prefer both standby metered": "all warm warm none",
	} {
		var uplinks []Uplink
		var up []bool
		for kind := range strings.FieldsSeq(text) {
			name := strings.Trim(kind, "()")
			uplinks, up = append(uplinks, Uplink{Kind: UplinkKind(name)}), append(up, name == kind)
		}
		var got []string
		for _, use := range PlanUplinks(uplinks, up) {
			got = append(got, use.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", text, got, want)
		}
	}
}

// TestOrderUplinks names the uplinks by letters.
func TestOrderUplinks(t *testing.T) {
	var order strings.Builder
	for _, l := range OrderUplinks([]Uplink{
		{Local{Name: "a"}, UplinkMetered}, {Local{Name: "b"}, ""}, {Local{Name: "c"}, UplinkPrefer},
		{Local{Name: "d"}, UplinkStandby}, {Local{Name: "e"}, UplinkBoth},
	}) {
		order.WriteString(l.Name)
	}
	if order.String() != "cbeda" {
		t.Errorf("the order is %s", &order)
	}
}

// TestBetterUplinks names the uplinks as their kinds.
func TestBetterUplinks(t *testing.T) {
	var all []Uplink
	for _, kind := range []UplinkKind{UplinkMetered, UplinkBoth, UplinkStandby, UplinkPrefer} {
		all = append(all, Uplink{Local{Name: string(kind)}, kind})
	}
	for name, want := range map[string]string{
		"prefer": "", "both": "prefer", "standby": "both prefer", "metered": "both standby prefer", "": "",
	} {
		var got []string
		for _, l := range BetterUplinks(all, name) {
			got = append(got, l.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("better than %q are %v, want %s", name, got, want)
		}
	}
}

// TestDialUplinks dials by uplinks of which the preferred one does not work.
func TestDialUplinks(t *testing.T) {
	l, opt := openHub(t)
	opt.Uplinks = []Uplink{
		{Local{Name: "lte", Addr: mustAddr(t, "127.0.0.8")}, UplinkMetered},
		{Local{Name: "fibre", Addr: mustAddr(t, "192.0.2.1")}, UplinkPrefer},
		{Local{Name: "dsl", Addr: mustAddr(t, "127.0.0.9")}, UplinkStandby},
	}
	for _, carrier := range []Carrier{CarrierQUIC, CarrierTCP} {
		opt.Carriers = []Carrier{carrier}
		c, err := Dial(t.Context(), l.Addr().String(), opt)
		if err != nil {
			t.Fatal(err)
		}
		if p := c.Peer(); p.Uplink != "dsl" || p.Carrier != carrier {
			t.Errorf("linked by %q over %s, want dsl over %s", p.Uplink, p.Carrier, carrier)
		}
		c.Close(0, "")
	}
	opt.Uplinks = opt.Uplinks[1:2]
	if _, err := Dial(t.Context(), l.Addr().String(), opt); err == nil || !strings.Contains(err.Error(), "fibre") {
		t.Errorf("by an uplink that does not work: %v, want that it is named", err)
	}
}
