package federation

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
	wire "github.com/branchline-video/branchline/proto"
)

func TestControlOverMemory(t *testing.T) {
	sourcetest.RunControl(t, func(t *testing.T) sourcetest.ControlFixture {
		src := newSource()
		edge, hub := link.Pipe("berlin", "")
		serveOn(t, edge, src)
		t.Cleanup(func() { hub.Close(0, "") })
		return sourcetest.ControlFixture{Control: NewRemote(hub), Stream: testStream, Holds: src.Holds}
	})
}

func TestControlOverQUIC(t *testing.T) {
	sourcetest.RunControl(t, func(t *testing.T) sourcetest.ControlFixture {
		src := newSource()
		h := startHub(t)
		h.startEdge("berlin", src)
		return sourcetest.ControlFixture{Control: h.wait("berlin"), Stream: testStream, Holds: src.Holds}
	})
}

// TestHolderIsTheCertificates shows that a hub holds as whom its certificate names, whatever it says.
func TestHolderIsTheCertificates(t *testing.T) {
	src := newSource()
	h := startHub(t)
	h.startEdge("berlin", src)
	err := h.wait("berlin").Hold(t.Context(), branchline.Hold{
		Holder: "somebody else", Stream: testStream, Until: latest(),
		Spans: branchline.Spans{{Start: earliest(), End: latest()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if holds := src.Holds(testStream); len(holds) != 1 || holds[0].Holder != "hub" {
		t.Errorf("held as %+v", holds)
	}
}

// uncontrolled is a source that takes no orders.
type uncontrolled struct{ branchline.Source }

// TestOnlyAHubControls shows who may not control what: a site nobody, and nobody a node that takes no
// orders, nor a hub.
func TestOnlyAHubControls(t *testing.T) {
	for name, c := range map[string]struct {
		peer branchline.SiteID
		src  branchline.Source
	}{
		"a site":              {"paris", newSource()},
		"a node without":      {"", uncontrolled{newSource()}},
		"a hub that is asked": {"paris", nil},
	} {
		t.Run(name, func(t *testing.T) {
			callee, caller := link.Pipe("berlin", c.peer)
			serveOn(t, callee, c.src)
			defer caller.Close(0, "")
			r := NewRemote(caller)
			_, listed := r.Locks(t.Context())
			for call, err := range map[string]error{
				"hold": r.Hold(t.Context(), branchline.Hold{Stream: testStream}),
				"lock": r.Lock(t.Context(), branchline.Lock{}), "unlock": r.Unlock(t.Context(), "1"), "locks": listed,
			} {
				if !errors.Is(err, branchline.ErrDenied) {
					t.Errorf("%s: %v, want denied", call, err)
				}
			}
		})
	}
}

func TestHolderOf(t *testing.T) {
	h := startHub(t)
	u := h.startEdge("berlin", newSource())
	h.wait("berlin")
	for name, c := range map[string]struct {
		peer link.Peer
		want string
	}{
		"a hub in memory":                     {link.Peer{}, "hub"},
		"a peer that shows no certificate":    {link.Peer{Protocol: "branchline/1"}, ""},
		"a site's certificate, without name":  {link.Peer{Leaf: u.cfg.Node.Certificate().Raw}, ""},
		"a site":                              {link.Peer{Site: "berlin"}, ""},
		"a certificate that cannot be parsed": {link.Peer{Leaf: []byte("x")}, ""},
	} {
		got, err := holderOf(c.peer)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, branchline.ErrDenied) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// refusing is a node whose administrator denies everything to its hub.
type refusing struct{ *sourcetest.Memory }

func (refusing) Lock(context.Context, branchline.Lock) error {
	return errors.Join(errors.New("not at this site"), branchline.ErrDenied)
}

// TestRefusalCrosses shows that a site's refusal arrives as such, with its words.
func TestRefusalCrosses(t *testing.T) {
	edge, hub := link.Pipe("berlin", "")
	serveOn(t, edge, refusing{newSource()})
	defer hub.Close(0, "")
	err := NewRemote(hub).Lock(t.Context(), branchline.Lock{
		ID: "1", Stream: testStream, Span: branchline.TimeRange{Start: earliest(), End: latest()},
	})
	if !errors.Is(err, branchline.ErrDenied) || !strings.Contains(err.Error(), "not at this site") {
		t.Errorf("refused with %v", err)
	}
}

// TestHostileControl answers commands as no node does.
func TestHostileControl(t *testing.T) {
	lock := framed(&wire.Answer{Body: &wire.Answer_Lock{Lock: &wire.Lock{Id: "1", Stream: "../../etc"}}})
	list := func(ctx context.Context, r *Remote) error { _, err := r.Locks(ctx); return err }
	place := func(ctx context.Context, r *Remote) error { return r.Lock(ctx, branchline.Lock{}) }
	for name, c := range map[string]struct {
		call  func(context.Context, *Remote) error
		bytes []byte
		want  error
	}{
		"a lock of nothing":      {list, lock, branchline.ErrInvalid},
		"another answer":         {place, lock, branchline.ErrInvalid},
		"no answer":              {place, nil, branchline.ErrUnavailable},
		"an answer of all sizes": {place, sized(maxControl + 1), branchline.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			edge, hub := link.Pipe("berlin", "")
			defer hub.Close(0, "")
			answered := answerOne(t, edge, c.bytes)
			if err := c.call(t.Context(), NewRemote(hub)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			<-answered
		})
	}
}
