package edge_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/testcam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a test waits for something that takes a second or two.
const patience = 15 * time.Second

func signer() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

// camera opens a small synthetic camera, closed with the test.
func camera(t *testing.T, cfg testcam.Config) *testcam.Camera {
	t.Helper()
	if len(cfg.Streams) == 0 {
		cfg.Streams = []testcam.Stream{{Width: 320, Height: 180, Rate: 10, GOP: 5}}
	}
	c, err := testcam.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// branch is an edge node at work, which can be stopped and started again over the same disk.
type branch struct {
	t    *testing.T
	cfg  edge.Config
	node *edge.Node
	stop func()
}

func newBranch(t *testing.T, cameras ...edge.CameraConfig) *branch {
	b := &branch{t: t, cfg: edge.Config{
		Dir: t.TempDir(), Cameras: cameras, SegmentLength: time.Second, Signer: signer(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *branch) start() {
	b.t.Helper()
	node, err := edge.Open(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	b.node = node
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		if err := node.Close(); err != nil {
			b.t.Error(err)
		}
	})
}

// until reads the change feed from its start until enough says so, and returns all changes.
func (b *branch) until(what string, enough func(branchline.Change) bool) (all []branchline.Change) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for ch, err := range b.node.Changes(ctx, branchline.Position{}) {
		if err != nil {
			b.t.Fatalf("wait for %s: %v", what, err)
		}
		all = append(all, ch)
		if enough(ch) {
			return all
		}
	}
	return all
}

// sealed waits until n segments of the stream are sealed.
func (b *branch) sealed(stream branchline.StreamID, n int) []branchline.Segment {
	b.t.Helper()
	var all []branchline.Segment
	b.until("sealed segments", func(ch branchline.Change) bool {
		if ch.Sealed != nil && ch.Sealed.Stream == stream {
			all = append(all, *ch.Sealed)
		}
		return len(all) >= n
	})
	return all
}

// gapped waits for a gap with the cause that starts at or after the time.
func (b *branch) gapped(cause branchline.Cause, open bool) branchline.Gap {
	b.t.Helper()
	var gap branchline.Gap
	b.until("gap: "+string(cause), func(ch branchline.Change) bool {
		if ch.Gap != nil && ch.Gap.Cause == cause && ch.Gap.Open == open {
			gap = *ch.Gap
			return true
		}
		return false
	})
	return gap
}

// line returns what the store knows of a stream, as spans in order. It ends at the newest entry.
func (b *branch) line(stream branchline.StreamID) []branchline.Gap {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	spans := make(map[int64]branchline.Gap)
	marker := branchline.Camera{ID: "marker", Added: time.Now()}
	if err := b.node.Store().PutCamera(marker); err != nil {
		b.t.Fatal(err)
	}
	for ch, err := range b.node.Changes(ctx, branchline.Position{}) {
		if err != nil {
			b.t.Fatal(err)
		}
		if ch.Gap != nil && ch.Gap.Stream == stream {
			spans[ch.Gap.Span.Start.UnixNano()] = *ch.Gap
		}
		if ch.Sealed != nil && ch.Sealed.Stream == stream {
			spans[ch.Sealed.Span.Start.UnixNano()] = branchline.Gap{Stream: stream, Span: ch.Sealed.Span}
		}
		if ch.Camera != nil && ch.Camera.ID == marker.ID && ch.Camera.Added.Equal(marker.Added) {
			break
		}
	}
	var line []branchline.Gap
	for _, g := range spans {
		line = append(line, g)
	}
	slices.SortFunc(line, func(a, b branchline.Gap) int { return a.Span.Start.Compare(b.Span.Start) })
	return line
}

// covered checks that the line has no hole and no overlap, and returns its causes in order, "" for
// recorded spans, equal neighbours once.
func covered(t *testing.T, from time.Time, line []branchline.Gap) (causes []branchline.Cause) {
	t.Helper()
	for i, s := range line {
		if !s.Span.Start.Equal(from) {
			t.Errorf("span %d (%q) starts at %v, the one before ends at %v", i, s.Cause, s.Span.Start, from)
		}
		from = s.Span.End
		if len(causes) == 0 || causes[len(causes)-1] != s.Cause {
			causes = append(causes, s.Cause)
		}
	}
	return causes
}

func TestACameraIsRecordedAndAStopLosesNothing(t *testing.T) {
	cam := camera(t, testcam.Config{Tone: true})
	b := newBranch(t, edge.CameraConfig{ID: "gate", Name: "Gate", URL: cam.URL(), Audio: true})
	b.sealed("gate.main", 2)
	b.stop()
	b.cfg.Cameras = nil // reopen an hour later, to look without recording
	b.cfg.Clock = clock.New(func() time.Time { return time.Now().Add(time.Hour) })
	b.start()
	cameras, err := b.node.Cameras(t.Context())
	if err != nil || len(cameras) != 1 {
		t.Fatalf("cameras: %v, %v", cameras, err)
	}
	if s := cameras[0].Streams[0]; s.Width != 320 || s.Height != 180 || s.Codecs == "" || !cameras[0].Removed {
		t.Errorf("camera is %+v", cameras[0])
	}
	line := b.line("gate.main")
	causes := covered(t, cameras[0].Added, line)
	want := []branchline.Cause{branchline.CauseUnreachable, "", branchline.CauseStopped, branchline.CauseNotScheduled}
	if !slices.Equal(causes, want) {
		t.Errorf("time line is %q, want %q", causes, want)
	}
	var frames, number uint32
	for _, seg := range segments(t, b.node, "gate.main") {
		if !seg.Sealed {
			t.Errorf("segment %v is not sealed after a clean stop", seg.ID)
		}
		for _, mark := range marks(t, b.node, seg) {
			if frames > 0 && mark.Frame != number+1 {
				t.Errorf("frame %d follows frame %d", mark.Frame, number)
			}
			if d := mark.at.Sub(mark.Time).Abs(); d > time.Millisecond {
				t.Errorf("frame %d is recorded %v off its capture", mark.Frame, d)
			}
			number = mark.Frame
			frames++
		}
	}
	if frames < 20 {
		t.Errorf("%d frames recorded, want at least 20", frames)
	}
}

func segments(t *testing.T, n branchline.Source, stream branchline.StreamID) []branchline.Segment {
	t.Helper()
	ever := branchline.TimeRange{Start: time.Unix(0, 0), End: time.Now().Add(time.Hour)}
	all, err := n.Segments(t.Context(), stream, ever)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func content(t *testing.T, n branchline.Source, seg branchline.Segment) []byte {
	t.Helper()
	r, err := n.Fetch(t.Context(), seg.ID, branchline.ByteRange{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// shown is a frame of a file: what its picture says, and the time at which it is shown.
type shown struct {
	testcam.Mark
	at time.Time
}

// marks reads every picture of a segment's file with an independent reader.
func marks(t *testing.T, n branchline.Source, seg branchline.Segment) (all []shown) {
	t.Helper()
	file, err := mp4.DecodeFile(bytes.NewReader(content(t, n, seg)))
	if err != nil {
		t.Fatal(err)
	}
	var pictures testcam.Decoder
	avc := file.Init.Moov.Trak.Mdia.Minf.Stbl.Stsd.AvcX.AvcC
	if _, err := pictures.Decode(append(avc.SPSnalus, avc.PPSnalus...)); err != nil {
		t.Fatal(err)
	}
	for _, part := range file.Segments {
		for _, fragment := range part.Fragments {
			samples, err := fragment.GetFullSamples(file.Init.Moov.Mvex.Trex)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range samples {
				mark, err := pictures.Mark(nalus(s.Data))
				if err != nil {
					t.Fatal(err)
				}
				tick := s.PresentationTime()
				all = append(all, shown{mark, time.Unix(tick/90000, tick%90000*1e9/90000).UTC()})
			}
		}
	}
	return all
}

func nalus(sample []byte) (au [][]byte) {
	for len(sample) > 4 {
		n := binary.BigEndian.Uint32(sample)
		au = append(au, sample[4:4+n])
		sample = sample[4+n:]
	}
	return au
}

func TestACameraThatVanishesLeavesAGapWithItsCause(t *testing.T) {
	cam := camera(t, testcam.Config{})
	b := newBranch(t, edge.CameraConfig{ID: "gate", URL: cam.URL()})
	b.sealed("gate.main", 1)
	cam.SetFaults(testcam.Faults{Unreachable: true})
	cam.Drop()
	b.gapped(branchline.CauseUnreachable, true)
	before := b.node.Metrics()[0]
	if before.Recording {
		t.Error("stream counts as recording while its camera is gone")
	}
	cam.SetFaults(testcam.Faults{})
	b.until("recording after the gap", func(ch branchline.Change) bool { return ch.Opened != nil && ch.Opened.Run == 2 })
	b.stop()
	b.cfg.Clock = clock.New(func() time.Time { return time.Now().Add(time.Minute) })
	b.cfg.Cameras = nil
	b.start()
	cameras, _ := b.node.Cameras(t.Context())
	causes := covered(t, cameras[0].Added, b.line("gate.main"))
	want := []branchline.Cause{
		branchline.CauseUnreachable, "", branchline.CauseUnreachable, "",
		branchline.CauseStopped, branchline.CauseNotScheduled,
	}
	if !slices.Equal(causes, want) {
		t.Errorf("time line is %q, want %q", causes, want)
	}
}

func TestACameraThatRefusesDisturbsNoOther(t *testing.T) {
	locked := camera(t, testcam.Config{User: "u", Password: "right"})
	open := camera(t, testcam.Config{})
	with := func(userinfo string) string { return "rtsp://" + userinfo + "@" + locked.Addr().String() + "/main" }
	b := newBranch(t,
		edge.CameraConfig{ID: "wrong", URL: with("u:wrong")},
		edge.CameraConfig{ID: "right", URL: with("u:right")},
		edge.CameraConfig{ID: "open", URL: open.URL()},
	)
	b.sealed("right.main", 1)
	b.sealed("open.main", 1)
	if g := b.gapped(branchline.CauseRefused, true); g.Stream != "wrong.main" {
		t.Errorf("%s is refused", g.Stream)
	}
	for _, m := range b.node.Metrics() {
		if refused := m.Stream == "wrong.main"; m.Recording == refused || (m.Failures > 0) != refused {
			t.Errorf("metrics: %+v", m)
		}
	}
}

func TestOtherParametersStartAnotherRunAfterAReconnect(t *testing.T) {
	cam := camera(t, testcam.Config{})
	address := cam.Addr().String()
	b := newBranch(t, edge.CameraConfig{ID: "gate", URL: cam.URL()})
	b.sealed("gate.main", 1)
	cam.Close()
	camera(t, testcam.Config{Listen: address, Streams: []testcam.Stream{{Width: 480, Height: 270, Rate: 10, GOP: 5}}})
	var size [2]int
	b.until("the new size", func(ch branchline.Change) bool {
		if ch.Camera != nil && len(ch.Camera.Streams) > 0 {
			size = [2]int{ch.Camera.Streams[0].Width, ch.Camera.Streams[0].Height}
		}
		return size == [2]int{480, 270}
	})
}

func TestLiveStartsAtAKeyFrameAndEndsWithTheNode(t *testing.T) {
	cam := camera(t, testcam.Config{})
	b := newBranch(t, edge.CameraConfig{ID: "gate", URL: cam.URL()})
	var n int
	var last error
	for item, err := range b.node.Live(t.Context(), "gate.main") {
		n++
		switch {
		case err != nil:
			last = err
		case n == 1 && item.Start == nil, n == 2 && (item.Frame == nil || !item.Frame.FirstKey):
			t.Errorf("item %d is %+v", n, item)
		case n == 20:
			go b.stop()
		}
	}
	if !errors.Is(last, branchline.ErrUnavailable) || n < 20 {
		t.Errorf("live ended after %d items with %v", n, last)
	}
	for _, err := range b.node.Live(t.Context(), "gate.other") {
		if !errors.Is(err, branchline.ErrNotFound) {
			t.Errorf("an unknown stream gives %v", err)
		}
	}
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	good := edge.CameraConfig{ID: "gate", URL: "rtsp://u:secret@127.0.0.1/x"}
	for name, change := range map[string]func(c *edge.Config){
		"no key":            func(c *edge.Config) { c.Signer = nil },
		"twice":             func(c *edge.Config) { c.Cameras = []edge.CameraConfig{good, good} },
		"two labels":        func(c *edge.Config) { c.Cameras[0].ID = "a.b" },
		"capital":           func(c *edge.Config) { c.Cameras[0].ID = "Gate" },
		"no address":        func(c *edge.Config) { c.Cameras[0].URL = "" },
		"not rtsp":          func(c *edge.Config) { c.Cameras[0].SubURL = "http://u:secret@127.0.0.1/x" },
		"segments too long": func(c *edge.Config) { c.SegmentLength = time.Hour },
	} {
		cfg := edge.Config{Dir: t.TempDir(), Signer: signer(), Cameras: []edge.CameraConfig{good}}
		change(&cfg)
		node, err := edge.Open(cfg)
		if !errors.Is(err, branchline.ErrInvalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			node.Close()
		}
	}
}

// TestAClockThatWasAheadIsForgotten records while the clock is a day ahead, and goes on when it is right
// again: by the right time, without a restart and after one, also with the camera away in between.
func TestAClockThatWasAheadIsForgotten(t *testing.T) {
	cam := camera(t, testcam.Config{})
	var ahead atomic.Int64
	b := newBranch(t)
	b.stop()
	b.cfg.Clock = clock.New(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	b.cfg.Cameras = []edge.CameraConfig{{ID: "gate", URL: cam.URL()}}
	ahead.Store(int64(24 * time.Hour))
	b.start()
	b.sealed("gate.main", 1)
	cam.SetFaults(testcam.Faults{Unreachable: true})
	cam.Drop()
	b.gapped(branchline.CauseUnreachable, true)
	ahead.Store(0)
	right := func(what string, span branchline.TimeRange) bool {
		off := time.Since(span.Start)
		if off < -time.Hour {
			return false
		}
		if off > time.Hour {
			t.Errorf("%s at %v", what, span)
		}
		return true
	}
	b.until("the gap by the right time", func(ch branchline.Change) bool {
		return ch.Gap != nil && ch.Gap.Open && right("gap", ch.Gap.Span)
	})
	b.stop()
	b.start()
	if tail, err := b.node.Store().Tail("gate.main"); err != nil || tail.Gap == nil || !right("gap", tail.Gap.Span) {
		t.Errorf("open gap after a restart: %+v, %v", tail.Gap, err)
	}
	cam.SetFaults(testcam.Faults{})
	b.until("recording by the right time", func(ch branchline.Change) bool {
		return ch.Sealed != nil && right("segment", ch.Sealed.Span)
	})
	for _, g := range b.line("gate.main") {
		if g.Span.End.Before(g.Span.Start) || g.Open {
			t.Errorf("%+v while the camera is recorded", g)
		}
	}
}
