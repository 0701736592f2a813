package federation

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/backoff"
)

// startBlockable starts an edge whose UDP goes through a cable of its own while its TCP does not.
func startBlockable(t *testing.T, h *hub, src branchline.Source, probe time.Duration) (*Uplink, *link.Cuttable) {
	t.Helper()
	udp := new(link.Cuttable)
	u := NewUplink(UplinkConfig{
		Node: newNode(t), Source: src, Token: h.token("berlin"), ListenPacket: udp.ListenPacket,
		DialStream: func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
	})
	u.probe = backoff.New(probe, probe)
	return u, udp
}

func over(carrier link.Carrier) func(UplinkState) bool {
	return func(s UplinkState) bool { return s.Up && s.Carrier == carrier }
}

// TestUDPBlocked begins where UDP never gets through: the edge enrols and is linked by TCP.
func TestUDPBlocked(t *testing.T) {
	h := startHub(t)
	u, udp := startBlockable(t, h, newSource(), time.Hour)
	udp.Cut()
	began := time.Now()
	run(t, u.Run)
	src := h.wait("berlin")
	await(t, u, over(link.CarrierTCP))
	took := time.Since(began)
	t.Logf("enrolled and linked by TCP after %v", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("linked after %v, want at most 10 s", took)
	}
	if _, err := src.Cameras(t.Context()); err != nil {
		t.Error(err)
	}
	if l := h.peers.Links(); len(l) != 1 || l[0].Carrier != link.CarrierTCP {
		t.Errorf("the hub's links are %+v, want one by TCP", l)
	}
}

// TestUDPBlockedForAWhile blocks UDP under a link and lets it through again: the link goes on by TCP and then
// by QUIC again, a fetch loses no byte and live stands still for less than a second at the way back.
func TestUDPBlockedForAWhile(t *testing.T) {
	h := startHub(t)
	src := newSource()
	feed := src.Feed(testStream)
	id := feed.Begin(1 << 20)
	u, udp := startBlockable(t, h, src, 100*time.Millisecond)
	run(t, u.Run)
	whole := h.wait("berlin")
	await(t, u, over(link.CarrierQUIC))
	want := read(t, whole, id, 0, 1<<20)
	blocked := time.Now()
	udp.Cut()
	byTCP := h.wait("berlin")
	await(t, u, over(link.CarrierTCP))
	if took := time.Since(blocked); took > 10*time.Second {
		t.Errorf("linked %v after UDP was blocked, want at most 10 s", took)
	}
	body, err := byTCP.Fetch(t.Context(), id, branchline.ByteRange{End: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got := make([]byte, 1<<18)
	if _, err := io.ReadFull(body, got); err != nil {
		t.Fatal(err)
	}
	udp.Heal()
	for range byTCP.Live(t.Context(), testStream) { // until the link moves
		feed.Append(true, 1000)
	}
	stopped := time.Now()
	byQUIC := h.wait("berlin")
	for _, err := range byQUIC.Live(t.Context(), testStream) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	gap := time.Since(stopped)
	t.Logf("live stood still for %v", gap.Round(time.Millisecond))
	if gap > time.Second {
		t.Errorf("live stood still for %v, want less than a second", gap)
	}
	await(t, u, over(link.CarrierQUIC))
	got = append(got, read(t, byQUIC, id, int64(len(got)), 1<<20)...)
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came over both links, not as they are", len(got))
	}
	if l := h.peers.Links(); len(l) != 1 || l[0].Carrier != link.CarrierQUIC {
		t.Errorf("the hub's links are %+v, want one by QUIC", l)
	}
}

func read(t *testing.T, src *Remote, id branchline.SegmentID, from, to int64) []byte {
	t.Helper()
	body, err := src.Fetch(t.Context(), id, branchline.ByteRange{Start: from, End: to})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRemembersCarrier notes links in a row, each with how long it lived, and looks what is tried first.
func TestRemembersCarrier(t *testing.T) {
	type lived struct {
		carrier link.Carrier
		lived   time.Duration
	}
	for _, c := range []struct {
		links []lived
		first link.Carrier // empty for the usual order
	}{
		{nil, ""},
		{[]lived{{link.CarrierQUIC, time.Second}}, ""},
		{[]lived{{link.CarrierTCP, time.Second}}, ""},
		{[]lived{{link.CarrierTCP, steadyLink}}, link.CarrierTCP},
		{[]lived{{link.CarrierTCP, time.Hour}, {link.CarrierQUIC, time.Second}}, link.CarrierTCP},
		{[]lived{{link.CarrierTCP, time.Hour}, {link.CarrierQUIC, steadyLink}}, ""},
	} {
		u := NewUplink(UplinkConfig{})
		for _, l := range c.links {
			u.remember(l.carrier, l.lived)
		}
		got := u.options(nil).Carriers
		if c.first == "" && got != nil || c.first != "" && !slices.Equal(got, []link.Carrier{c.first, link.CarrierQUIC}) {
			t.Errorf("after %v it tries %v, want first %q", c.links, got, c.first)
		}
	}
}

// TestBackToPreferredUplink begins with a preferred uplink that does not work: the link goes by the other one,
// and the same link moves when the preferred one works.
func TestBackToPreferredUplink(t *testing.T) {
	h := startHub(t)
	var fibre link.Cuttable
	fibre.Cut()
	addr := netip.MustParseAddr
	u := NewUplink(UplinkConfig{
		Node: newNode(t), Source: newSource(), Token: h.token("berlin"), Uplinks: []link.Uplink{
			{Local: link.Local{Name: "lte", Addr: addr("127.0.0.8")}, Kind: link.UplinkMetered},
			{Local: link.Local{Name: "fibre", Addr: addr("127.0.0.9")}, Kind: link.UplinkPrefer},
		},
		ListenPacket: func(at string) (net.PacketConn, error) {
			if strings.HasPrefix(at, "127.0.0.9:") {
				return fibre.ListenPacket(at)
			}
			return net.ListenPacket("udp", at)
		},
	})
	run(t, u.Run)
	h.wait("berlin")
	await(t, u, func(s UplinkState) bool { return s.Up && s.Uplink == "lte" })
	first := h.peers.Links()
	fibre.Heal()
	await(t, u, func(s UplinkState) bool { return s.Up && s.Uplink == "fibre" })
	if l := h.peers.Links(); len(l) != 1 || len(first) != 1 || l[0].Since != first[0].Since {
		t.Errorf("the hub's links are %+v and were %+v, want that the first goes on", l, first)
	}
}
