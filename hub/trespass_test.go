package hub_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/clock"
	wire "github.com/branchline-video/branchline/proto"
)

// denied collects what a hub tells of denied calls.
type denied struct {
	mu  sync.Mutex
	all []federation.Denial
}

func (d *denied) add(of federation.Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, of)
}

func (d *denied) take() []federation.Denial {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.all
	d.all = nil
	return all
}

// foreign are the identifiers of another site, for every kind of field.
type foreign struct {
	stream  branchline.StreamID
	segment branchline.SegmentID
	leaf    []byte
	csr     []byte
}

// fill puts the other site's identifiers in every field of the message. A field of a new type or name that it
// does not know is an error, so that a new call gets its line here.
func (f foreign) fill(m protoreflect.Message) error {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		var v protoreflect.Value
		switch field.Kind() {
		case protoreflect.StringKind:
			v = protoreflect.ValueOfString(string(f.stream))
		case protoreflect.BytesKind:
			known := map[protoreflect.Name][]byte{
				"segment": f.segment[:], "csr": f.csr, "certificate": f.leaf, "secret": make([]byte, 32),
				"signer": identity.KeyOf(f.leaf), "ticket": make([]byte, 16), "id": make([]byte, 16),
			}[field.Name()]
			if known == nil {
				return fmt.Errorf("no identifier of a site is known for the field %s", field.FullName())
			}
			v = protoreflect.ValueOfBytes(known)
		case protoreflect.EnumKind:
			v = protoreflect.ValueOfEnum(1)
		case protoreflect.Int64Kind:
			v = protoreflect.ValueOfInt64(0)
		case protoreflect.Uint64Kind:
			v = protoreflect.ValueOfUint64(1)
		case protoreflect.Uint32Kind:
			v = protoreflect.ValueOfUint32(1)
		case protoreflect.BoolKind:
			v = protoreflect.ValueOfBool(true)
		case protoreflect.MessageKind:
			inner := m.NewField(field)
			if field.IsList() {
				inner = inner.List().NewElement()
			}
			if err := f.fill(inner.Message()); err != nil {
				return err
			}
			v = inner
		default:
			return fmt.Errorf("nothing is known for the field %s", field.FullName())
		}
		if field.IsList() {
			m.Mutable(field).List().Append(v)
			continue
		}
		m.Set(field, v)
	}
	return nil
}

// calls returns every call of the protocol with the other site's identifiers, by name.
func (f foreign) calls(t *testing.T) map[string]*wire.Request {
	t.Helper()
	all := make(map[string]*wire.Request)
	fields := (&wire.Request{}).ProtoReflect().Descriptor().Oneofs().ByName("call").Fields()
	for i := range fields.Len() {
		req := &wire.Request{}
		if err := f.fill(req.ProtoReflect().Mutable(fields.Get(i)).Message()); err != nil {
			t.Fatal(err)
		}
		all[string(fields.Get(i).Name())] = req
	}
	if len(all) < 14 {
		t.Fatalf("the protocol has %d calls", len(all))
	}
	return all
}

// send makes the call and returns all that comes back: messages that are no error, and bytes.
func send(t *testing.T, conn link.Conn, kind link.Kind, req *wire.Request) (got []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	st, err := conn.OpenStream(ctx, kind)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Reset(9)
	text, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(append(binary.AppendUvarint(nil, uint64(len(text))), text...)); err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(st)
	if err != nil {
		return back, err
	}
	size, n := binary.Uvarint(back)
	var answer wire.Answer
	if n <= 0 || int(size) > len(back)-n {
		return back, errors.New("no whole answer")
	}
	if err := proto.Unmarshal(back[n:n+int(size)], &answer); err != nil {
		t.Fatal(err)
	}
	if e := answer.GetError(); e != nil && len(back) == n+int(size) {
		return nil, fmt.Errorf("%v: %s", e.GetCode(), e.GetText())
	}
	return back, nil
}

// openLinked runs a hub that sites can dial until the test ends.
func openLinked(t *testing.T, policies []policy.Policy, told func(federation.Denial)) *hub.Node {
	t.Helper()
	n, err := hub.Open(hub.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Policies: policies, Denied: told})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ran
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// dialAs enrols a node with the token and returns its link, greeted, on which a test says what it likes.
func dialAs(t *testing.T, n *hub.Node, token string) link.Conn {
	t.Helper()
	berlin, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	if err := federation.Enrol(t.Context(), berlin, token, nil); err != nil {
		t.Fatal(err)
	}
	conf, err := berlin.TLS()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := link.Dial(t.Context(), n.Addr().String(), link.Options{TLS: conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(0, "") })
	hello := &wire.Request{Call: &wire.Request_Hello{Hello: &wire.HelloRequest{
		MinVersion: 1, MaxVersion: 2, Software: "munich"}}}
	if _, err := send(t, conn, link.KindControl, hello); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestEveryCallOfAnotherSite sends each call of the protocol, on streams of each kind, with the certificate of
// berlin and the identifiers of munich: nothing comes back, nothing of munich changes, and each is told.
func TestEveryCallOfAnotherSite(t *testing.T) {
	var told denied
	start := time.Now().UTC().Add(-time.Minute).Truncate(time.Second)
	policies := []policy.Policy{{Streams: "*", Kind: policy.Always, Since: start}}
	n := openLinked(t, policies, told.add)
	token := func(site branchline.SiteID) string {
		text, err := n.Authority().AddSite(site, []string{n.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	munich := openBranch(t, t.TempDir())
	unlink := munich.link(t, token("munich"))
	defer unlink()
	munich.film(t, start, 20)
	stream := branchline.StreamID("munich." + string(local))
	held := func() []branchline.Segment {
		segs, err := n.Store().Segments(t.Context(), stream, branchline.TimeRange{Start: start, End: start.Add(time.Minute)})
		if err != nil && !errors.Is(err, branchline.ErrNotFound) {
			t.Fatal(err)
		}
		return segs
	}
	eventually(t, "nothing of munich is held", func() bool {
		return slices.ContainsFunc(held(), func(s branchline.Segment) bool { return s.Sealed })
	})
	conn := dialAs(t, n, token("berlin"))
	i := slices.IndexFunc(held(), func(s branchline.Segment) bool { return s.Sealed })
	csr, err := munich.node.Request()
	if err != nil {
		t.Fatal(err)
	}
	f := foreign{stream: stream, segment: held()[i].ID, leaf: munich.node.Certificate().Raw, csr: csr}
	before := facts(t, n, held)
	told.take()
	calls := f.calls(t)
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		for _, kind := range []link.Kind{link.KindControl, link.KindChanges, link.KindFetch, link.KindLive} {
			got, err := send(t, conn, kind, calls[name])
			if name == "above" && kind == link.KindControl { // which hubs there are, as every greeting is told too
				if bytes.Contains(got, []byte("munich")) {
					t.Errorf("%s tells berlin of munich: %q", name, got)
				}
				continue
			}
			if len(got) > 0 || err == nil {
				t.Errorf("%s on a %s stream gives %d bytes, %v", name, kind, len(got), err)
			}
			if err != nil && strings.Contains(err.Error(), "another site") {
				t.Errorf("%s tells berlin of munich: %v", name, err)
			}
			entries := told.take()
			if len(entries) != 1 || entries[0].Site != "berlin" || entries[0].Call != name || entries[0].Addr == "" ||
				entries[0].Err == nil {
				t.Errorf("%s on a %s stream is told as %+v", name, kind, entries)
			}
		}
	}
	if after := facts(t, n, held); after != before {
		t.Errorf("of munich there was\n%s\nand is\n%s", before, after)
	}
}

// facts is what the hub has and knows of munich, but for what its own link changes.
func facts(t *testing.T, n *hub.Node, held func() []branchline.Segment) string {
	t.Helper()
	sites, err := n.Authority().Sites()
	if err != nil {
		t.Fatal(err)
	}
	cameras, err := n.Catalog().Cameras()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v\n%+v\n%+v\n%d segments", sites, cameras, n.Locks().Locks(), len(held()))
}
