package federation

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// framed returns the message as it stands on the wire.
func framed(m proto.Message) []byte {
	var b bytes.Buffer
	if err := (&sender{w: &b}).message(m, maxLive); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func sized(n uint64, rest ...byte) []byte { return append(binary.AppendUvarint(nil, n), rest...) }

// TestHostilePeer sends what no caller sends. Each costs its own stream, with a code that says what
// was wrong, and the link lives on.
func TestHostilePeer(t *testing.T) {
	cameras := framed(&wire.Request{Call: &wire.Request_Cameras{Cameras: &wire.CamerasRequest{}}})
	fetch := func(id []byte, from, to int64) []byte {
		return framed(&wire.Request{Call: &wire.Request_Fetch{
			Fetch: &wire.FetchRequest{Segment: id, Start: from, End: to},
		}})
	}
	live := framed(&wire.Request{Call: &wire.Request_Live{Live: &wire.LiveRequest{Stream: "../../etc"}}})
	wrong := framed(&wire.Request{Call: &wire.Request_Lock{Lock: &wire.LockRequest{}}})
	hold := framed(&wire.Request{Call: &wire.Request_Hold{
		Hold: &wire.HoldRequest{Stream: "a.b", Spans: []*wire.TimeRange{{}}},
	}})
	hello := framed(&wire.Request{Call: &wire.Request_Hello{Hello: &wire.HelloRequest{MinVersion: 1, MaxVersion: 1}}})
	for name, c := range map[string]struct {
		kind  link.Kind
		bytes []byte
		code  wire.Code
	}{
		"a kind that does not exist":   {99, cameras, wire.Code_CODE_INVALID},
		"gossip, which has no user":    {link.KindGossip, cameras, wire.Code_CODE_INVALID},
		"a message over its limit":     {link.KindControl, sized(maxRequest + 1), wire.Code_CODE_TOO_LARGE},
		"a message of 256 MB":          {link.KindLive, sized(1<<28 - 1), wire.Code_CODE_TOO_LARGE},
		"a length without end":         {link.KindControl, bytes.Repeat([]byte{0xff}, 20), wire.Code_CODE_INVALID},
		"no protobuf":                  {link.KindControl, sized(4, 0xff, 0xff, 0xff, 0xff), wire.Code_CODE_INVALID},
		"a request without a call":     {link.KindControl, sized(0), wire.Code_CODE_INVALID},
		"a call on the wrong kind":     {link.KindFetch, cameras, wire.Code_CODE_INVALID},
		"a second hello":               {link.KindControl, hello, wire.Code_CODE_INVALID},
		"a segment id that is too big": {link.KindFetch, fetch(make([]byte, 17), 0, 0), wire.Code_CODE_INVALID},
		"a range that runs backwards":  {link.KindFetch, fetch(make([]byte, 16), 9, 8), wire.Code_CODE_INVALID},
		"a lock of nothing":            {link.KindControl, wrong, wire.Code_CODE_INVALID},
		"a hold of nothing":            {link.KindControl, hold, wire.Code_CODE_INVALID},
		"control on the wrong kind":    {link.KindFetch, wrong, wire.Code_CODE_INVALID},
		"a stream that is a path":      {link.KindLive, live, wire.Code_CODE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			edge, hub := link.Pipe("berlin", "")
			serveOn(t, edge, newSource())
			defer hub.Close(0, "")
			s, err := hub.OpenStream(t.Context(), c.kind)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(c.bytes); err != nil {
				t.Fatal(err)
			}
			var a wire.Answer
			err = newReceiver(s).message(&a, maxControl)
			var reset *link.Error
			switch {
			case errors.As(err, &reset):
				if wire.Code(reset.Code) != c.code {
					t.Errorf("reset with %v, want %v", wire.Code(reset.Code), c.code)
				}
			case err != nil || a.GetError().GetCode() != c.code:
				t.Errorf("answer %v, %v, want %v", &a, err, c.code)
			}
			if _, err := NewRemote(hub).Cameras(t.Context()); err != nil {
				t.Errorf("the link did not live on: %v", err)
			}
		})
	}
}

// TestSilentStream shows that a stream which never brings its request is given up.
func TestSilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edge, hub := link.Pipe("berlin", "")
		serveOn(t, edge, newSource())
		defer hub.Close(0, "")
		s, err := hub.OpenStream(t.Context(), link.KindControl)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = s.Read(make([]byte, 1))
		var reset *link.Error
		if !errors.As(err, &reset) || time.Since(began) != requestTime {
			t.Errorf("after %v: %v, want a reset after %v", time.Since(began), err, requestTime)
		}
	})
}

// largeSegment is an answer almost as large as one may be.
func largeSegment() []byte {
	many := wire.Segment{Id: make([]byte, 16), Stream: string(testStream)}
	for size := 0; size < maxControl*9/10; size = proto.Size(&many) {
		for range 1000 {
			many.Fragments = append(many.Fragments, &wire.Fragment{Hash: make([]byte, 32)})
		}
	}
	return framed(&wire.Answer{Body: &wire.Answer_Segment{Segment: &many}})
}

// answerOne answers one call with the bytes; the channel is closed when that is done.
func answerOne(t *testing.T, edge link.Conn, with []byte) <-chan struct{} {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s, err := edge.AcceptStream(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		s.Write(with)
		s.Close()
	}()
	return answered
}

// TestHostileSource answers what no source answers. Each gives an error and no harm.
func TestHostileSource(t *testing.T) {
	segment := func(stream string) []byte {
		return framed(&wire.Answer{Body: &wire.Answer_Segment{
			Segment: &wire.Segment{Id: make([]byte, 16), Stream: stream},
		}})
	}
	item := func(i *wire.Item) []byte { return framed(&wire.Answer{Body: &wire.Answer_Item{Item: i}}) }
	fetched := framed(&wire.Answer{Body: &wire.Answer_Fetch{Fetch: &wire.FetchAnswer{}}})
	bytesOf := func(n int) []byte { return append(slices.Clone(fetched), make([]byte, n)...) }
	large := largeSegment()
	list := func(ctx context.Context, r *Remote) error {
		_, err := r.Segments(ctx, testStream, branchline.TimeRange{})
		return err
	}
	follow := func(ctx context.Context, r *Remote) error {
		for _, err := range r.Live(ctx, testStream) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	fetch := func(ctx context.Context, r *Remote) error {
		body, err := r.Fetch(ctx, branchline.SegmentID{1}, branchline.ByteRange{Start: 5, End: 10})
		if err != nil {
			return err
		}
		_, err = io.ReadAll(body)
		return errors.Join(err, body.Close())
	}
	frame := &wire.Item_Frame{Frame: &wire.Frame{Track: 1 << 31}}
	fragment := &wire.Item_Fragment{Fragment: &wire.FragmentEnd{Fragment: &wire.Fragment{Offset: -1}}}
	for name, c := range map[string]struct {
		call  func(context.Context, *Remote) error
		bytes []byte
		want  error
	}{
		"another stream's segment":   {list, segment("other.main"), branchline.ErrInvalid},
		"a segment of nothing":       {list, segment(""), branchline.ErrInvalid},
		"too many segments":          {list, bytes.Repeat(segment(string(testStream)), 1441), branchline.ErrTooLarge},
		"segments of too many bytes": {list, bytes.Repeat(large, maxList/len(large)+1), branchline.ErrTooLarge},
		"an answer over its limit":   {list, sized(maxControl + 1), branchline.ErrTooLarge},
		"an item over its limit":     {follow, sized(maxLive + 1), branchline.ErrTooLarge},
		"half a message":             {list, sized(100, 1, 2, 3), branchline.ErrUnavailable},
		"live that just stops":       {follow, nil, branchline.ErrUnavailable},
		"a track out of reach":       {follow, item(&wire.Item{What: frame}), branchline.ErrInvalid},
		"a fragment before zero":     {follow, item(&wire.Item{What: fragment}), branchline.ErrInvalid},
		"too few bytes":              {fetch, bytesOf(2), branchline.ErrUnavailable},
		"too many bytes":             {fetch, bytesOf(6), branchline.ErrInvalid},
		"no answer":                  {fetch, nil, branchline.ErrUnavailable},
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

// TestUnknownContent shows that what a newer peer may send is passed over.
func TestUnknownContent(t *testing.T) {
	known := &wire.Change{At: &wire.Position{Epoch: 1, Seq: 2}, What: &wire.Change_Gap{Gap: &wire.Gap{
		Stream: string(testStream), Cause: "a cause of next year",
	}}}
	known.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 1}) // field 2047
	edge, hub := link.Pipe("berlin", "")
	defer hub.Close(0, "")
	go func() {
		s, err := edge.AcceptStream(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		unknown := &wire.Change{At: &wire.Position{Epoch: 1, Seq: 1}}
		for _, c := range []*wire.Change{unknown, known} {
			if _, err := s.Write(framed(&wire.Answer{Body: &wire.Answer_Change{Change: c}})); err != nil {
				t.Error(err)
			}
		}
	}()
	for c, err := range NewRemote(hub).Changes(t.Context(), branchline.Position{}) {
		if err != nil || c.Gap == nil || c.Gap.Cause != "a cause of next year" {
			t.Errorf("change %+v, %v", c, err)
		}
		break
	}
}

// TestBusy fills the peer's limit on fetches: one more is refused, other calls are not, and a fetch
// that ends makes room.
func TestBusy(t *testing.T) {
	edge, hub := link.Pipe("berlin", "")
	src := newSource()
	id := src.Feed(testStream).Begin(100)
	serveOn(t, edge, src)
	defer hub.Close(0, "")
	r := NewRemote(hub)
	var bodies []io.ReadCloser
	for range maxFetchCalls {
		body, err := r.Fetch(t.Context(), id, branchline.ByteRange{})
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	if _, err := r.Fetch(t.Context(), id, branchline.ByteRange{}); !errors.Is(err, branchline.ErrBusy) {
		t.Errorf("one fetch too many: %v, want busy", err)
	}
	if _, err := r.Cameras(t.Context()); err != nil {
		t.Errorf("cameras meanwhile: %v", err)
	}
	for _, b := range bodies {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	for {
		body, err := r.Fetch(t.Context(), id, branchline.ByteRange{})
		if err == nil {
			body.Close()
			return
		}
		if !errors.Is(err, branchline.ErrBusy) { // the peer hears of the closing a little later
			t.Fatal(err)
		}
	}
}

// TestErrorsCross sends every error of the table across and expects its meaning and text.
func TestErrorsCross(t *testing.T) {
	for _, e := range wireErrors() {
		if e.code == wire.Code_CODE_CANCELLED {
			continue
		}
		err := decodeError(encodeError(errors.Join(errors.New("why"), e.err)))
		if !errors.Is(err, e.err) || !strings.Contains(err.Error(), "why") {
			t.Errorf("%v arrives as %v", e.err, err)
		}
	}
	if err := decodeError(encodeError(context.Canceled)); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("the peer's cancellation arrives as %v", err)
	}
	if err := decodeError(encodeError(errors.New("disk on fire"))); err.Error() != "disk on fire" {
		t.Errorf("an error outside the table arrives as %v", err)
	}
	if err := decodeError(&wire.Error{Code: 4711, Text: "new"}); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("a code of next year arrives as %v", err)
	}
}

func TestLinkGone(t *testing.T) {
	edge, hub := link.Pipe("berlin", "")
	src := newSource()
	id := src.Feed(testStream).Begin(100)
	serveOn(t, edge, src)
	r := NewRemote(hub)
	body, err := r.Fetch(t.Context(), id, branchline.ByteRange{})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := io.ReadAll(body)
		read <- err
	}()
	ended := make(chan error)
	go func() {
		for _, err := range r.Live(t.Context(), testStream) {
			if err != nil {
				ended <- err
			}
		}
		close(ended)
	}()
	if err := edge.Close(link.Code(wire.Code_CODE_UNAVAILABLE), "stopping"); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"fetch": <-read, "live": <-ended} {
		if !errors.Is(err, branchline.ErrUnavailable) {
			t.Errorf("%s: %v, want unavailable", name, err)
		}
	}
	if _, err := r.Cameras(t.Context()); !errors.Is(err, branchline.ErrUnavailable) {
		t.Errorf("cameras: %v, want unavailable", err)
	}
}
