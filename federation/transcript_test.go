package federation

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// The transcripts in testdata/transcripts are what nodes of released versions sent to each other, a call
// each, in the folder of the protocol's version. They are never written anew: a new version adds a folder.

// scripted is a source that always gives the same.
type scripted struct{}

func second(n int) time.Time { return time.Date(2026, 3, 1, 12, 0, n, 0, time.UTC) }

func scriptedSegment() branchline.Segment {
	id := branchline.SegmentID{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12, 13, 14, 15, 16}
	return branchline.Segment{
		ID: id, Stream: testStream, Run: 3, Number: 7, Codecs: "avc1.42c01f,mp4a.40.2", InitSize: 700,
		Span: branchline.TimeRange{Start: second(0), End: second(1)}, Size: 9000, Sealed: true, Hash: branchline.Hash{1, 2},
		Fragments: []branchline.Fragment{
			{Offset: 700, Length: 5000, Start: second(0), Duration: 500 * time.Millisecond, Key: true,
				Hash: branchline.Hash{3}},
			{Offset: 5700, Length: 3000, Start: second(0).Add(500 * time.Millisecond), Duration: 500 * time.Millisecond,
				Hash: branchline.Hash{4}},
		},
	}
}

func (scripted) Cameras(context.Context) ([]branchline.Camera, error) {
	return []branchline.Camera{
		{ID: "entrance", Name: "Entrance, left", Added: second(0), Streams: []branchline.Stream{
			{ID: testStream, Codecs: "avc1.42c01f", Width: 640, Height: 480}}},
		{ID: "yard", Name: "Yard", Added: second(1), Removed: true},
	}, nil
}

func (scripted) Changes(context.Context, branchline.Position) iter.Seq2[branchline.Change, error] {
	seg := scriptedSegment()
	seg.Fragments = nil
	open := seg
	open.Sealed, open.Hash, open.Size = false, branchline.Hash{}, 700
	open.Span.End = open.Span.Start
	all := []branchline.Change{
		{Opened: &open}, {Sealed: &seg},
		{Removed: &branchline.Removal{ID: seg.ID, Stream: testStream, Span: seg.Span, Cause: branchline.CauseExpired}},
		{Gap: &branchline.Gap{Stream: testStream, Span: seg.Span, Cause: branchline.CauseUnreachable, Open: true}},
		{Camera: &branchline.Camera{ID: "yard", Name: "Yard", Added: second(1)}},
	}
	return func(yield func(branchline.Change, error) bool) {
		for i, c := range all {
			c.At = branchline.Position{Epoch: 99, Seq: uint64(i + 5)}
			if !yield(c, nil) {
				return
			}
		}
		yield(branchline.Change{}, fmt.Errorf("the end: %w", branchline.ErrGone))
	}
}

func (scripted) Segments(context.Context, branchline.StreamID, branchline.TimeRange) ([]branchline.Segment, error) {
	return []branchline.Segment{scriptedSegment()}, nil
}

func (scripted) Fetch(context.Context, branchline.SegmentID, branchline.ByteRange) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("some bytes")), nil
}

func (scripted) Live(context.Context, branchline.StreamID) iter.Seq2[branchline.Item, error] {
	seg := scriptedSegment()
	all := []branchline.Item{
		{Segment: seg.ID, Start: &branchline.SegmentStart{ID: seg.ID, Stream: testStream, Run: 3, Number: 7,
			Start: second(0), Codecs: seg.Codecs, Init: []byte("init")}},
		{Segment: seg.ID, Missed: 2, Frame: &branchline.Frame{Track: 1, DTS: second(0), PTS: second(1), Key: true,
			FirstKey: true, Data: []byte("frame")}},
		{Segment: seg.ID, Fragment: &branchline.FragmentEnd{Fragment: seg.Fragments[0], Head: []byte("head"),
			Tail: []byte("tail")}},
		{Segment: seg.ID, Seal: &branchline.SegmentSeal{ID: seg.ID, Hash: seg.Hash, Footer: []byte("footer"),
			Size: seg.Size}},
		{RunEnd: &branchline.RunEnd{Run: 3, At: second(2), Cause: branchline.CauseRefused}},
	}
	return func(yield func(branchline.Item, error) bool) {
		for _, i := range all {
			if !yield(i, nil) {
				return
			}
		}
		yield(branchline.Item{}, fmt.Errorf("the end: %w", branchline.ErrUnavailable))
	}
}

func (scripted) Hold(context.Context, branchline.Hold) error { return nil }
func (scripted) Lock(context.Context, branchline.Lock) error { return nil }
func (scripted) Unlock(context.Context, string) error        { return branchline.ErrNotFound }
func (scripted) Locks(context.Context) ([]branchline.Lock, error) {
	return []branchline.Lock{{ID: lockScope("hub") + "one", Stream: testStream, Span: scriptedSegment().Span,
		Until: second(9), By: "ann", Reason: "theft", Created: second(3)}}, nil
}

// told is what a call gave, for comparing.
func told(v any, err error) string {
	said := "nil"
	if err != nil {
		said = codeOf(err).String()
	}
	return fmt.Sprintf("%+v, %s", v, said)
}

func all[T any](seq iter.Seq2[T, error]) (list []T, err error) {
	for v, e := range seq {
		if e != nil {
			return list, e
		}
		list = append(list, v)
	}
	return list, nil
}

// calls are those that a hub makes of an edge that speaks the version. Each returns what the hub was told.
func calls(ctx context.Context, r *Remote, v version) map[string]func() string {
	all := firstCalls(ctx, r)
	if v.speaks(version2) {
		maps.Copy(all, secondCalls(ctx, r))
	}
	return all
}

// secondCalls are those that came with version 2.
func secondCalls(ctx context.Context, r *Remote) map[string]func() string {
	return map[string]func() string{
		"key-frames": func() string {
			var text []string
			list, err := all(r.Live(WithKeyFrames(ctx), testStream))
			for _, i := range list {
				text = append(text, fmt.Sprintf("%v %d %+v %+v %+v", i.Segment, i.Missed, i.Start, i.Frame, i.RunEnd))
			}
			return told(text, err)
		},
		"refused": func() string { _, err := all(r.Live(ctx, "yard.main")); return fmt.Sprint(told(nil, err), err) },
		"watch":   func() string { return told(nil, r.Watch(ctx, testStream, true)) },
		"uplink":  func() string { return told(r.Uplink(ctx)) },
		"above":   func() string { return told(above(ctx, r.conn)) },
		"refresh": func() string {
			return told(nil, r.command(ctx, &wire.Request{Call: &wire.Request_Refresh{Refresh: &wire.RefreshRequest{}}}))
		},
		"playback": func() string {
			_, err := r.Fetch(WithPlayback(ctx, "yard.main"), scriptedSegment().ID, branchline.ByteRange{})
			return fmt.Sprint(told(nil, err), err)
		},
	}
}

// scriptedRates has one stream that does not fit the budget.
type scriptedRates struct{}

func (scriptedRates) BitRate(s branchline.StreamID) (all, keys budget.Rate) {
	if s == "yard.main" {
		return 9 * budget.Megabit, budget.Megabit / 2
	}
	return 0, 0
}

func (scriptedRates) Beside(branchline.StreamID) []branchline.StreamID { return nil }

// serveScript serves the script on a link of the version.
func serveScript(t *testing.T, conn link.Conn, v version) {
	b := openBudget(t, budget.Config{Schedule: limited(2 * budget.Megabit), Streams: scriptedRates{}})
	s := &server{conn: conn, version: v, src: scripted{}, budget: b, refresh: func() {},
		tier: NewTier(HubID{ID: [16]byte{1, 15: 2}, Name: "region"})}
	serveWith(t, s)
}

func firstCalls(ctx context.Context, r *Remote) map[string]func() string {
	seg := scriptedSegment()
	return map[string]func() string{
		"cameras":  func() string { return told(r.Cameras(ctx)) },
		"segments": func() string { v, err := r.Segments(ctx, testStream, seg.Span); return told(v, err) },
		"changes": func() string {
			var text []string
			list, err := all(r.Changes(ctx, branchline.Position{Epoch: 99, Seq: 4}))
			for _, c := range list {
				text = append(text, fmt.Sprintf("%v %+v %+v %+v %+v %+v",
					c.At, c.Opened, c.Sealed, c.Removed, c.Gap, c.Camera))
			}
			return told(text, err)
		},
		"live": func() string {
			var text []string
			list, err := all(r.Live(ctx, testStream))
			for _, i := range list {
				text = append(text, fmt.Sprintf("%v %d %+v %+v %+v %+v %+v",
					i.Segment, i.Missed, i.Start, i.Frame, i.Fragment, i.Seal, i.RunEnd))
			}
			return told(text, err)
		},
		"fetch": func() string {
			body, err := r.Fetch(WithPriority(ctx, PrioritySchedule), seg.ID, branchline.ByteRange{Start: 10, End: 20})
			if err != nil {
				return told(nil, err)
			}
			defer body.Close()
			b, err := io.ReadAll(body)
			return told(string(b), err)
		},
		"hold": func() string {
			return told(nil, r.Hold(ctx, branchline.Hold{Stream: testStream, Spans: branchline.NewSpans(seg.Span),
				Known: second(4), Until: second(5)}))
		},
		"lock": func() string {
			return told(nil, r.Lock(ctx, branchline.Lock{ID: "one", Stream: testStream, Span: seg.Span, By: "ann",
				Reason: "theft", Created: second(3)}))
		},
		"unlock": func() string { return told(nil, r.Unlock(ctx, "two")) },
		"locks":  func() string { return told(r.Locks(ctx)) },
	}
}

// heard is a connection that keeps the bytes of the one stream opened on it.
type heard struct {
	link.Conn
	mu        sync.Mutex
	sent, got []byte
}

func (h *heard) OpenStream(ctx context.Context, kind link.Kind) (link.Stream, error) {
	s, err := h.Conn.OpenStream(ctx, kind)
	h.sent = []byte{byte(kind)}
	return heardStream{s, h}, err
}

type heardStream struct {
	link.Stream
	h *heard
}

func (s heardStream) Write(b []byte) (int, error) {
	s.h.mu.Lock()
	s.h.sent = append(s.h.sent, b...)
	s.h.mu.Unlock()
	return s.Stream.Write(b)
}

func (s heardStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.h.mu.Lock()
	s.h.got = append(s.h.got, b[:n]...)
	s.h.mu.Unlock()
	return n, err
}

// replayed answers every stream with what was recorded.
func replayed(t *testing.T, edge link.Conn, answers []byte) {
	st, err := edge.AcceptStream(t.Context())
	if err == nil {
		_, err = st.Write(answers)
	}
	if err == nil {
		err = st.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTranscripts holds today's nodes against those of each version: a hub of that version asks an edge of today, and
// an edge of it answers a hub of today. Fields that nobody knows change nothing.
func TestTranscripts(t *testing.T) {
	if *update {
		recordTranscripts(t, fmt.Sprintf("testdata/transcripts/v%d", maxVersion))
	}
	for v := minVersion; v <= maxVersion; v++ {
		for name := range calls(t.Context(), nil, v) {
			t.Run(fmt.Sprintf("v%d/%s", v, name), func(t *testing.T) {
				asked, answered := readTranscript(t, fmt.Sprintf("testdata/transcripts/v%d/%s.txt", v, name))
				for what, change := range map[string]func([]byte) []byte{
					"as recorded": bytes.Clone, "with more fields": unknown,
				} {
					synctest.Test(t, func(t *testing.T) { // the time is in what is told of the budget
						s := spoken{t, what, name, v}
						s.checkEdge(append([]byte{asked[0]}, change(asked[1:])...), answered)
						s.checkHub(changeAnswers(name, answered, change))
					})
				}
			})
		}
	}
}

// spoken is a call of a version.
type spoken struct {
	*testing.T
	what, name string
	version    version
}

// checkEdge has today's edge answer a recorded question.
func (s spoken) checkEdge(asked, answered []byte) {
	edge, hub := link.Pipe("berlin", "")
	defer hub.Close(0, "")
	serveScript(s.T, edge, s.version)
	st, err := hub.OpenStream(s.Context(), link.Kind(asked[0]))
	if err == nil {
		_, err = st.Write(asked[1:])
	}
	if err != nil {
		s.Fatal(err)
	}
	got, err := io.ReadAll(st)
	if err != nil {
		s.Errorf("%s: the edge's answer ends with %v", s.what, err)
	}
	before, now := answers(s.T, s.name, answered), answers(s.T, s.name, got)
	if len(before) != len(now) {
		s.Fatalf("%s: the edge gives %d answers and gave %d", s.what, len(now), len(before))
	}
	for i := range before {
		if !includes(now[i].ProtoReflect(), before[i].ProtoReflect()) {
			s.Errorf("%s: the edge answers\n%v\nand was to answer\n%v", s.what, now[i], before[i])
		}
	}
}

// checkHub has today's hub read recorded answers.
func (s spoken) checkHub(answered []byte) {
	tell := func(serve func(edge link.Conn)) string {
		edge, hub := link.Pipe("berlin", "")
		defer hub.Close(0, "")
		serve(edge)
		return calls(s.Context(), &Remote{conn: hub, version: s.version}, s.version)[s.name]()
	}
	got := tell(func(edge link.Conn) { go replayed(s.T, edge, answered) })
	want := tell(func(edge link.Conn) { serveScript(s.T, edge, s.version) })
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("%s: the hub understands something else: %s", s.what, diff)
	}
}

// answers reads the messages, and what follows those of a fetch as one more.
func answers(t *testing.T, name string, b []byte) (list []*wire.Answer) {
	in := newReceiver(bytes.NewReader(b))
	for {
		var a wire.Answer
		err := in.message(&a, maxLive)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if l := a.GetLive(); l != nil {
			l.Ticket = make([]byte, len(l.Ticket)) // it is random
		}
		list = append(list, &a)
		if name == "fetch" {
			raw, err := io.ReadAll(in.r)
			if err != nil {
				t.Fatal(err)
			}
			return append(list, &wire.Answer{Body: &wire.Answer_Error{Error: &wire.Error{Text: string(raw)}}})
		}
	}
}

// includes reports whether the message has all that the other has.
func includes(m, other protoreflect.Message) (all bool) {
	all = true
	other.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case !m.Has(f):
			all = false
		case f.IsList():
			l, o := m.Get(f).List(), v.List()
			all = l.Len() == o.Len()
			for i := 0; all && i < o.Len(); i++ {
				if f.Message() != nil {
					all = includes(l.Get(i).Message(), o.Get(i).Message())
				} else {
					all = l.Get(i).Equal(o.Get(i))
				}
			}
		case f.Message() != nil:
			all = includes(m.Get(f).Message(), v.Message())
		default:
			all = m.Get(f).Equal(v)
		}
		return all
	})
	return all
}

// unknown adds a field of the future to each message.
func unknown(b []byte) (out []byte) {
	for len(b) > 0 {
		size, n := protowire.ConsumeVarint(b)
		m := append([]byte(nil), b[n:n+int(size)]...)
		b = b[n+int(size):]
		m = protowire.AppendTag(m, 99_999, protowire.BytesType)
		m = protowire.AppendString(m, "from the future")
		out = append(protowire.AppendVarint(out, uint64(len(m))), m...)
	}
	return out
}

func changeAnswers(name string, b []byte, change func([]byte) []byte) []byte {
	if name != "fetch" {
		return change(b)
	}
	size, n := protowire.ConsumeVarint(b)
	end := n + int(size)
	return append(change(b[:end:end]), b[end:]...)
}

// TestUnknownFieldsAreKept: what passes through a node keeps what only others know.
func TestUnknownFieldsAreKept(t *testing.T) {
	var out bytes.Buffer
	if err := (&sender{w: &out}).message(&wire.Camera{Id: "yard"}, maxControl); err != nil {
		t.Fatal(err)
	}
	before := unknown(out.Bytes())
	var m wire.Camera
	if err := newReceiver(bytes.NewReader(before)).message(&m, maxControl); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := (&sender{w: &out}).message(proto.Clone(&m), maxControl); err != nil || !bytes.Equal(out.Bytes(), before) {
		t.Errorf("%x became %x, %v", before, out.Bytes(), err)
	}
}

func recordTranscripts(t *testing.T, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range calls(t.Context(), nil, maxVersion) {
		path := filepath.Join(dir, name+".txt")
		if _, err := os.Stat(path); err == nil {
			continue // of a release: see above
		}
		synctest.Test(t, func(t *testing.T) {
			edge, hub := link.Pipe("berlin", "")
			serveScript(t, edge, maxVersion)
			h := &heard{Conn: hub}
			said := calls(t.Context(), NewRemote(h), maxVersion)[name]()
			hub.Close(0, "")
			text := fmt.Sprintf("# %s\nhub > %x\nedge> %x\n", strings.ReplaceAll(said, "\n", " "), h.sent, h.got)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func readTranscript(t *testing.T, path string) (asked, answered []byte) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		who, b, _ := strings.Cut(strings.TrimSpace(line), "> ")
		raw, err := hex.DecodeString(b)
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case err != nil:
			t.Fatal(err)
		case who == "edge":
			answered = raw
		default:
			asked = raw
		}
	}
	return asked, answered
}
