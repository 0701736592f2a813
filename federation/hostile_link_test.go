package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

// attacked is a hub over real links, with a good edge that must not notice what others do, and what the hub said.
type attacked struct {
	*testing.T
	authority *identity.Authority
	peers     *Peers
	good      *Remote
	linked    chan *Remote

	mu      sync.Mutex
	log     bytes.Buffer
	denials []Denial
}

func (a *attacked) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(b)
}

// said returns what the hub has logged and denied so far.
func (a *attacked) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := a.log.String()
	for _, d := range a.denials {
		text += fmt.Sprintf("denied %s to %s: %v\n", d.Call, d.Site, d.Err)
	}
	return text
}

func startAttacked(t *testing.T) *attacked {
	a := &attacked{T: t, linked: make(chan *Remote, 10)}
	var err error
	if a.authority, err = identity.OpenAuthority(t.TempDir(), clock.Clock{}); err != nil {
		t.Fatal(err)
	}
	centre := gossiping(t, members.Config{Hub: members.HubName([]byte("a")),
		Known: func(branchline.SiteID) bool { return true }})
	a.peers, err = OpenPeers(PeersConfig{
		Addr: "127.0.0.1:0", Authority: a.authority, Members: centre,
		Logger: slog.New(slog.NewTextHandler(a, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Linked: func(ctx context.Context, _ branchline.SiteID, r *Remote) {
			a.linked <- r
			<-ctx.Done()
		},
		Denied: func(d Denial) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.denials = append(a.denials, d)
		},
		Copies: func(context.Context, branchline.SiteID, branchline.SegmentID, branchline.ByteRange) (io.ReadCloser, error) {
			return nil, branchline.ErrNotFound
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, a.peers.Run, a.peers.Close)
	u := NewUplink(UplinkConfig{Node: a.node("good"), Source: newSource()})
	run(t, u.Run)
	a.good = <-a.linked
	return a
}

// node returns an enrolled node.
func (a *attacked) node(site branchline.SiteID) *identity.Node {
	a.Helper()
	token, err := a.authority.AddSite(site, []string{a.peers.Addr().String()})
	if err != nil {
		a.Fatal(err)
	}
	n := newNode(a.T)
	if err := Enrol(a.Context(), n, token, nil); err != nil {
		a.Fatal(err)
	}
	return n
}

// dial connects the node over the carrier, without a greeting.
func (a *attacked) dial(n *identity.Node, carrier link.Carrier, protocols ...string) (link.Conn, error) {
	conf, err := n.TLS()
	if err != nil {
		return nil, err
	}
	if len(protocols) > 0 {
		conf.NextProtos = protocols
	}
	c, err := link.Dial(a.Context(), a.peers.Addr().String(), link.Options{TLS: conf, Carriers: []link.Carrier{carrier}})
	if err == nil {
		a.Cleanup(func() { c.Close(0, "") })
	}
	return c, err
}

// edge links a hostile edge, and returns its connection and the hub's source of it.
func (a *attacked) edge(n *identity.Node, carrier link.Carrier) (link.Conn, *Remote) {
	a.Helper()
	c, err := a.dial(n, carrier)
	if err != nil {
		a.Fatal(err)
	}
	if _, err := greet(a.Context(), c, "hostile", nil); err != nil {
		a.Fatal(err)
	}
	return c, <-a.linked
}

// lives checks that nothing else at the hub suffers.
func (a *attacked) lives(what string) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), 5*time.Second)
	defer cancel()
	if _, err := a.good.Cameras(ctx); err != nil {
		a.Errorf("%s: the other site: %v", what, err)
	}
}

// held returns the bytes that this process holds on to.
func held() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// overCarriers runs a test over QUIC and over TCP.
func overCarriers(t *testing.T, f func(t *testing.T, carrier link.Carrier)) {
	for _, carrier := range []link.Carrier{link.CarrierQUIC, link.CarrierTCP} {
		t.Run(string(carrier), func(t *testing.T) { f(t, carrier) })
	}
}

// hostileStream is what a peer sends on a stream, and how that ends.
type hostileStream struct {
	kind  link.Kind
	bytes []byte
	code  wire.Code
}

func hostileStreams() map[string]hostileStream {
	request := func(r *wire.Request) []byte { return framed(r) }
	fetch := func(from, to int64) []byte {
		return request(&wire.Request{Call: &wire.Request_Fetch{
			Fetch: &wire.FetchRequest{Segment: make([]byte, 16), Start: from, End: to}}})
	}
	bad := []byte{0x3a, 0x02, 0x0a, 0x02} // live with a stream whose length lies
	deep := bytes.Repeat(protowire.AppendTag(nil, 99_999, protowire.StartGroupType), 7_000)
	text := framed(&wire.Request{Call: &wire.Request_Unlock{Unlock: &wire.UnlockRequest{Id: "xx"}}})
	text[len(text)-1] = 0xff
	return map[string]hostileStream{
		"over the limit":      {link.KindControl, sized(maxRequest + 1), wire.Code_CODE_TOO_LARGE},
		"over the limit, all": {link.KindControl, append(sized(1<<27), make([]byte, 1<<20)...), wire.Code_CODE_TOO_LARGE},
		"a kind of nobody":    {77, []byte("x"), wire.Code_CODE_INVALID},
		"join on a link":      {link.KindJoin, make([]byte, 36), wire.Code_CODE_INVALID},
		"test on a link":      {link.KindTest, []byte{0}, wire.Code_CODE_INVALID},
		"no protobuf":         {link.KindControl, sized(uint64(len(bad)), bad...), wire.Code_CODE_INVALID},
		"groups without end":  {link.KindControl, sized(uint64(len(deep)), deep...), wire.Code_CODE_INVALID},
		"text that is none":   {link.KindControl, text, wire.Code_CODE_INVALID},
		"length without end":  {link.KindFetch, bytes.Repeat([]byte{0x80}, 100), wire.Code_CODE_INVALID},
		"fetch before zero":   {link.KindFetch, fetch(-1, 5), wire.Code_CODE_INVALID},
		"fetch backwards":     {link.KindFetch, fetch(9, 5), wire.Code_CODE_INVALID},
		"fetch of nothing":    {link.KindFetch, fetch(1<<62, 1<<62+5), wire.Code_CODE_NOT_FOUND},
		"a call of the hub's": {link.KindControl, request(&wire.Request{Call: &wire.Request_Locks{}}), wire.Code_CODE_DENIED},
		"live of the hub": {link.KindLive, request(&wire.Request{Call: &wire.Request_Live{
			Live: &wire.LiveRequest{Ticket: make([]byte, 1000)}}}), wire.Code_CODE_DENIED},
		"gossip of nobody": {link.KindGossip, []byte{9, 9, 9}, wire.Code_CODE_CANCELLED},
	}
}

// TestHostileEdge links an edge that does on its streams what none does, over real links. Each stream ends with a code
// that says why, the hub's memory stays where it was, and the other site notices nothing.
func TestHostileEdge(t *testing.T) {
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		conn, _ := a.edge(a.node("berlin"), carrier)
		before := held()
		for name, c := range hostileStreams() {
			for range 5 {
				s, err := conn.OpenStream(t.Context(), c.kind)
				if err != nil {
					t.Fatal(name, err)
				}
				_, _ = s.Write(c.bytes)
				var got wire.Answer
				err = newReceiver(s).message(&got, maxControl)
				code := got.GetError().GetCode()
				var reset *link.Error
				if errors.As(err, &reset) && !reset.Conn {
					code = wire.Code(reset.Code)
				}
				if code != c.code {
					t.Errorf("%s: %v, %v, want %v", name, code, err, c.code)
				}
				s.Reset(0)
			}
			a.lives(name)
		}
		if now := held(); now > before+16<<20 {
			t.Errorf("the hub holds %d bytes more", now-before)
		}
		if said := a.said(); strings.Count(said, "denied locks to berlin") != 5 {
			t.Errorf("the hub says\n%s", said)
		}
	})
}
