package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

// pair is a hub and an edge, each of a version.
type pair struct {
	*testing.T
	*Remote
	peers  *Peers
	uplink *Uplink
	centre *members.Members
	src    *sourcetest.Memory
}

func startPair(t *testing.T, hub, edge version) *pair {
	authority, err := identity.OpenAuthority(t.TempDir(), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{T: t, src: newSource(), centre: gossiping(t, members.Config{
		Hub: members.HubName([]byte("a")), Known: func(s branchline.SiteID) bool { return s == "berlin" },
	})}
	linked := make(chan *Remote, 10)
	p.peers, err = OpenPeers(PeersConfig{
		Addr: "127.0.0.1:0", Authority: authority, Members: p.centre, most: hub,
		Linked: func(ctx context.Context, _ branchline.SiteID, r *Remote) {
			linked <- r
			<-ctx.Done()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, p.peers.Run, p.peers.Close)
	token, err := authority.AddSite("berlin", []string{p.peers.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	p.uplink = NewUplink(UplinkConfig{
		Node: newNode(t), Source: p.src, Token: token, Members: gossiping(t, members.Config{}), most: edge,
		Budget: openBudget(t, budget.Config{Schedule: limited(2 * budget.Megabit), Streams: scriptedRates{}}),
	})
	run(t, p.uplink.Run)
	p.Remote = <-linked
	return p
}

func gossiping(t *testing.T, cfg members.Config) *members.Members {
	m, err := members.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// follow reads the feed until the segment is sealed.
func (p *pair) follow(id branchline.SegmentID) {
	p.Helper()
	for c, err := range p.Changes(p.Context(), branchline.Position{}) {
		if err != nil {
			p.Fatal(err)
		}
		if c.Sealed != nil && c.Sealed.ID == id {
			return
		}
	}
}

// watch reads live until a fragment has come, with the frames before it unless only key frames are asked for.
func (p *pair) watch(ctx context.Context) (fragments, frames int) {
	p.Helper()
	feed := p.src.Feed(testStream)
	for i, err := range p.Live(ctx, testStream) {
		switch {
		case err != nil:
			p.Fatal(err)
		case i.Fragment != nil:
			return 1, frames
		case i.Frame != nil:
			if frames++; frames == 5 {
				return 0, frames
			}
		}
		feed.Append(true, 1000)
	}
	return 0, 0
}

// TestVersions links hubs and edges of both versions by QUIC. Everything of the first version works with each; what
// came with the second is there if both speak it, and falls back otherwise.
func TestVersions(t *testing.T) {
	for hub := minVersion; hub <= maxVersion; hub++ {
		for edge := minVersion; edge <= maxVersion; edge++ {
			t.Run(fmt.Sprintf("hub %d, edge %d", hub, edge), func(t *testing.T) {
				p, speaks := startPair(t, hub, edge), min(hub, edge)
				if got := p.peers.Links(); len(got) != 1 || got[0].Version != uint32(speaks) {
					t.Errorf("the hub has links %+v, want one of version %d", got, speaks)
				}
				if s := await(t, p.uplink, isUp); s.Version != uint32(speaks) {
					t.Errorf("the edge speaks version %d, want %d", s.Version, speaks)
				}
				feed := p.src.Feed(testStream)
				id := feed.Begin(1000)
				feed.Append(true, 1000)
				feed.Seal()
				p.follow(id)
				body, err := p.Fetch(t.Context(), id, branchline.ByteRange{Start: 10, End: 500})
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(body); err != nil || len(b) != 490 {
					t.Errorf("fetched %d bytes: %v", len(b), err)
				}
				body.Close()
				feed.Begin(1000)
				if fragments, _ := p.watch(t.Context()); fragments != 1 {
					t.Error("live has no fragments")
				}
				if fragments, _ := p.watch(WithKeyFrames(t.Context())); fragments != 0 {
					t.Error("key frames only has fragments")
				}
				p.checkSecond(speaks)
			})
		}
	}
}

// checkSecond looks at what came with version 2.
func (p *pair) checkSecond(speaks version) {
	ctx, second := p.Context(), speaks == version2
	b, err := p.Uplink(ctx)
	if second && (err != nil || b.Rate != 2*budget.Megabit) || !second && !errors.Is(err, branchline.ErrNotFound) {
		p.Errorf("the uplink's budget is %+v: %v", b, err)
	}
	// The edge lets nobody in beyond its budget, whoever asks.
	for _, err := range p.Live(ctx, "yard.main") {
		if !errors.Is(err, branchline.ErrBusy) {
			p.Errorf("beyond the budget: %v", err)
		}
	}
	if err := p.Watch(ctx, testStream, true); err != nil {
		p.Error(err)
	}
	// On a link of version 1 such a call is none.
	_, err = above(ctx, p.conn)
	if !errors.Is(err, branchline.ErrInvalid) && (!second || !errors.Is(err, branchline.ErrDenied)) {
		p.Errorf("asked for the hubs above: %v", err)
	}
	if second {
		until(p.T, "both are alive", func() bool { return p.centre.Alive() == 2 })
		return
	}
	if _, known := p.centre.Link("berlin"); known || p.centre.Alive() != 1 {
		p.Error("gossip over a link of version 1")
	}
}

// TestFutureEdge: an edge that no longer speaks what the hub does hears which of them is the older one, and says so.
func TestFutureEdge(t *testing.T) {
	h := startHub(t)
	node := newNode(t)
	if err := Enrol(t.Context(), node, h.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, h, node)
	c, err := ask(t.Context(), conn, link.KindControl, &wire.Request{Call: &wire.Request_Hello{
		Hello: &wire.HelloRequest{MinVersion: 3, MaxVersion: 4, Software: "branchline 9"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.one(); !errors.Is(err, ErrVersion) && !errors.Is(err, branchline.ErrUnavailable) {
		t.Error(err)
	}
	_, err = conn.AcceptStream(t.Context())
	const want = "no common protocol version: the edge speaks 3 to 4, the hub 1 to 2: update the hub"
	if err := fromLink(err); !errors.Is(err, ErrVersion) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("the link ended with %v, want %s", err, want)
	}
}

// future adds a field that nobody knows to the message and to each in it.
func future(m protoreflect.Message) {
	b := protowire.AppendTag(nil, 88_888, protowire.BytesType)
	m.SetUnknown(protowire.AppendString(b, string(m.Descriptor().Name())))
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				future(v.List().Get(i).Message())
			}
		default:
			future(v.Message())
		}
		return true
	})
}

// TestMore: what a node reads and tells another keeps what it does not know, at every depth.
func TestMore(t *testing.T) {
	changes, items, seg := samples()
	through := func(m proto.Message, again func() (proto.Message, error)) {
		t.Helper()
		future(m.ProtoReflect())
		got, err := again()
		if err != nil || !proto.Equal(m, got) {
			t.Errorf("%v becomes %v: %v", m, got, err)
		}
	}
	for _, c := range changes {
		w := encodeChange(c)
		through(w, func() (proto.Message, error) {
			c, err := decodeChange(w)
			return encodeChange(c), err
		})
	}
	for _, i := range items {
		w := encodeItem(i)
		through(w, func() (proto.Message, error) {
			i, err := decodeItem(w)
			return encodeItem(i), err
		})
	}
	w := encodeSegment(seg)
	through(w, func() (proto.Message, error) {
		s, err := decodeSegment(w)
		return encodeSegment(s), err
	})
	camera := encodeCamera(*changes[4].Camera)
	through(camera, func() (proto.Message, error) {
		c, err := decodeCamera(camera)
		return encodeCamera(c), err
	})
	camera.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 88_888, protowire.BytesType),
		make([]byte, maxMore)))
	if c, err := decodeCamera(camera); err != nil || c.More != nil {
		t.Errorf("%d bytes of the unknown are kept: %v", len(c.More), err)
	}
}

// telling is a hub in the middle: a source that asks another link.
type telling struct{ branchline.Source }

// TestMoreCrossesHubs: what an edge of the future tells arrives two hubs up as it was, through one that does not
// know it.
func TestMoreCrossesHubs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edge, below := link.Pipe("berlin", "")
		middle, above := link.Pipe("region", "")
		defer below.Close(0, "")
		defer above.Close(0, "")
		serveOn(t, middle, telling{NewRemote(below)})
		_, items, seg := samples()
		segment := &wire.Answer{Body: &wire.Answer_Segment{Segment: encodeSegment(seg)}}
		item := &wire.Answer{Body: &wire.Answer_Item{Item: encodeItem(items[1])}}
		future(segment.GetSegment().ProtoReflect())
		future(item.GetItem().ProtoReflect())
		r := NewRemote(above)

		answered := answerOne(t, edge, framed(segment))
		got, err := r.Segments(t.Context(), testStream, seg.Span)
		if err != nil || len(got) != 1 || !proto.Equal(encodeSegment(got[0]), segment.GetSegment()) {
			t.Errorf("the segment becomes %+v: %v", got, err)
		}
		<-answered
		answered = answerOne(t, edge, framed(item))
		for i, err := range r.Live(t.Context(), testStream) {
			w := encodeItem(i)
			if err != nil || !proto.Equal(w, item.GetItem()) {
				t.Errorf("the item becomes %v: %v", w, err)
			}
			break
		}
		<-answered
	})
}
