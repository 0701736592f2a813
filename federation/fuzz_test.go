package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/google/go-cmp/cmp"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// samples are messages with everything in them.
func samples() ([]branchline.Change, []branchline.Item, branchline.Segment) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	id, hash := branchline.SegmentID{1, 15: 9}, branchline.Hash{2, 31: 8}
	span := branchline.TimeRange{Start: at, End: at.Add(time.Minute)}
	f := branchline.Fragment{Offset: 800, Length: 900, Start: at, Duration: time.Second / 2, Key: true, Hash: hash}
	seg := branchline.Segment{
		ID: id, Stream: testStream, Run: 3, Number: 4, Span: span, Codecs: "avc1.42c01f", InitSize: 800, Size: 1 << 40,
		Sealed: true, Hash: hash, Fragments: []branchline.Fragment{f, f},
	}
	camera := branchline.Camera{
		ID: "entrance", Name: "Eingang für alle", Added: at, Removed: true,
		Streams: []branchline.Stream{{ID: testStream, Codecs: "hvc1", Width: 3840, Height: 2160}},
	}
	p := branchline.Position{Epoch: 1<<64 - 1, Seq: 7}
	changes := []branchline.Change{
		{At: p, Opened: &branchline.Segment{ID: id, Stream: testStream}},
		{At: p, Sealed: &seg},
		{At: p, Removed: &branchline.Removal{ID: id, Stream: testStream, Span: span, Cause: branchline.CauseExpired}},
		{At: p, Gap: &branchline.Gap{Stream: testStream, Span: span, Cause: branchline.CauseDiskFull, Open: true}},
		{At: p, Camera: &camera},
		{At: p, Recorded: &branchline.Recorded{Stream: testStream, Span: span}},
		{At: p, Site: &branchline.SiteLink{Site: "west.berlin", Linked: true, Since: at,
			Keys: []ed25519.PublicKey{make([]byte, ed25519.PublicKeySize)}}},
	}
	items := []branchline.Item{
		{Segment: id, Missed: 12, Start: &branchline.SegmentStart{
			ID: id, Stream: testStream, Run: 1, Number: 2, Start: at, Codecs: "avc1", Init: []byte("ftyp"),
		}},
		{Segment: id, Frame: &branchline.Frame{Track: 2, DTS: at, PTS: at, Key: true, FirstKey: true, Data: []byte{1}}},
		{Segment: id, Fragment: &branchline.FragmentEnd{Fragment: f, Head: []byte("moof"), Tail: []byte("crc")}},
		{Segment: id, Seal: &branchline.SegmentSeal{ID: id, Hash: hash, Footer: []byte("uuid"), Size: 1 << 33}},
		{RunEnd: &branchline.RunEnd{Run: 5, At: at, Cause: branchline.CauseRefused}},
	}
	return changes, items, seg
}

func sampleLock() branchline.Lock {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	return branchline.Lock{
		ID: "1234", Stream: testStream, Span: branchline.TimeRange{Start: at, End: at.Add(time.Minute)},
		Until: at.Add(time.Hour), By: "Erika", Reason: "Vorgang 12/34", Created: at.Add(time.Second),
	}
}

func sampleHold() branchline.Hold {
	span := sampleLock().Span
	later := branchline.TimeRange{Start: span.End.Add(1), End: span.End.Add(2)}
	return branchline.Hold{
		Holder: "hub", Stream: testStream, Spans: branchline.Spans{span, later}, Known: span.End, Until: later.End,
	}
}

// TestRoundTrip encodes and decodes everything.
func TestRoundTrip(t *testing.T) {
	changes, items, seg := samples()
	check := func(want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	for _, c := range changes {
		got, err := decodeChange(encodeChange(c))
		check(c, got, err)
	}
	for _, i := range items {
		got, err := decodeItem(encodeItem(i))
		check(i, got, err)
	}
	got, err := decodeSegment(encodeSegment(seg))
	check(seg, got, err)
	l, err := decodeLock(encodeLock(sampleLock()))
	check(sampleLock(), l, err)
	h, err := decodeHold(encodeHold(sampleHold()), sampleHold().Holder)
	check(sampleHold(), h, err)
	far := branchline.TimeRange{
		Start: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), End: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if r := decodeRange(encodeRange(far)); r.Start != earliest() || r.End != latest() {
		t.Errorf("times out of reach become %v", r)
	}
	if r := decodeRange(encodeRange(branchline.TimeRange{})); !r.Start.IsZero() || !r.End.IsZero() {
		t.Errorf("no times become %v", r)
	}
}

// FuzzAnswer decodes any bytes as each kind of answer: no panic, and what is understood is understood
// the same way again after encoding.
func FuzzAnswer(f *testing.F) {
	changes, items, seg := samples()
	for _, c := range changes {
		f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Change{Change: encodeChange(c)}}))
	}
	for _, i := range items {
		f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Item{Item: encodeItem(i)}}))
	}
	f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Segment{Segment: encodeSegment(seg)}}))
	f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Lock{Lock: encodeLock(sampleLock())}}))
	f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Above{Above: &wire.AboveAnswer{Ways: encodeWays(waysOf("a b"))}}}))
	f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Error{Error: encodeError(branchline.ErrGone)}}))
	f.Add(marshal(f, &wire.Answer{Body: &wire.Answer_Error{Error: encodeError(sampleRefusal())}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a wire.Answer
		if proto.Unmarshal(b, &a) != nil {
			return
		}
		if e := a.GetError(); e != nil && len(decodeError(e).Error()) > maxText {
			t.Error("an error without limit")
		}
		again(t, decodeCamera, encodeCamera, a.GetCamera())
		again(t, decodeSegment, encodeSegment, a.GetSegment())
		again(t, decodeChange, encodeChange, a.GetChange())
		again(t, decodeItem, encodeItem, a.GetItem())
		again(t, decodeLock, encodeLock, a.GetLock())
		again(t, decodeWays, encodeWays, a.GetAbove().GetWays())
		if r := decodeRefusal(a.GetError().GetRefusal()); r != nil {
			if second := decodeRefusal(encodeRefusal(r)); !cmp.Equal(r, second) {
				t.Errorf("decoded %+v, and again %+v", r, second)
			}
		}
	})
}

func again[W, T any](t *testing.T, decode func(W) (T, error), encode func(T) W, w W) {
	t.Helper()
	first, err := decode(w)
	if err != nil {
		if !errors.Is(err, branchline.ErrInvalid) {
			t.Errorf("error %v does not say that the message is invalid", err)
		}
		return
	}
	second, err := decode(encode(first))
	if err != nil || !cmp.Equal(first, second) {
		t.Errorf("decoded %+v, and again %+v, %v", first, second, err)
	}
}

func marshal(f *testing.F, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzRequest sends any bytes as a stream to a server: it answers or resets, and ends.
func FuzzRequest(f *testing.F) {
	for _, r := range []*wire.Request{
		{Call: &wire.Request_Hello{Hello: &wire.HelloRequest{MinVersion: 1, MaxVersion: 1}}},
		{Call: &wire.Request_Cameras{Cameras: &wire.CamerasRequest{}}},
		{Call: &wire.Request_Segments{Segments: &wire.SegmentsRequest{Stream: string(testStream)}}},
		{Call: &wire.Request_Hello{Hello: &wire.HelloRequest{
			MinVersion: 1, MaxVersion: 1, Hub: encodeHub(HubID{ID: [16]byte{1}, Name: "hq"})}}},
		{Call: &wire.Request_Above{Above: &wire.AboveRequest{}}},
		{Call: &wire.Request_Locks{Locks: &wire.LocksRequest{}}},
		{Call: &wire.Request_Watch{Watch: &wire.WatchRequest{Stream: string(testStream), Watched: true}}},
		{Call: &wire.Request_Uplink{Uplink: &wire.UplinkRequest{}}},
		{Call: &wire.Request_Unlock{Unlock: &wire.UnlockRequest{Id: "1"}}},
		{Call: &wire.Request_Lock{Lock: &wire.LockRequest{Lock: encodeLock(sampleLock())}}},
		{Call: &wire.Request_Hold{Hold: encodeHold(sampleHold())}},
		{Call: &wire.Request_Renew{Renew: &wire.RenewRequest{Csr: []byte("csr")}}},
		{Call: &wire.Request_Enrol{Enrol: &wire.EnrolRequest{Secret: []byte("secret")}}},
	} {
		f.Add(append([]byte{byte(link.KindControl)}, framed(r)...))
	}
	f.Add(append([]byte{byte(link.KindFetch)}, framed(&wire.Request{Call: &wire.Request_Fetch{
		Fetch: &wire.FetchRequest{Segment: make([]byte, 16), Start: 1, End: 2},
	}})...))
	src := newSource()
	f.Fuzz(func(t *testing.T, b []byte) {
		edge, hub := link.Pipe("berlin", "")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Serve(ctx, edge, src)
		}()
		kind := link.Kind(0)
		if len(b) > 0 {
			kind, b = link.Kind(b[0]), b[1:]
		}
		s, err := hub.OpenStream(ctx, kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(b); err == nil {
			s.Close() // which also ends what would go on for ever
		}
		io.Copy(io.Discard, s)
		cancel()
		<-ended
		hub.Close(0, "")
	})
}

// FuzzReceiver reads any bytes as messages, and never makes more room than there are bytes.
func FuzzReceiver(f *testing.F) {
	f.Add(framed(&wire.Answer{Body: &wire.Answer_Error{Error: encodeError(branchline.ErrGone)}}))
	f.Add(sized(maxLive, 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newReceiver(bytes.NewReader(b))
		for {
			var a wire.Answer
			err := in.message(&a, maxLive)
			if len(in.buf) > len(b) || cap(in.buf) > 2*(len(b)+growBy) {
				t.Fatalf("room for %d bytes was made for %d", cap(in.buf), len(b))
			}
			if err != nil {
				return
			}
		}
	})
}
