package hub_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/live"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a hub and an edge of one camera, both with real stores, joined by links in memory. It runs
// in the virtual time of a synctest bubble, so that outages of minutes take a moment.
type world struct {
	*testing.T
	dir      string
	policies []policy.Policy
	above    []hub.Above
	allow    hub.Allow
	scrub    segstore.Scrub
	told     func(fetch.Job) // of the hub's jobs, if set
	node     *hub.Node
	stopNode func()
	edge     *edge
	unlink   func() // nil while the link is cut
}

const (
	site   = branchline.SiteID("berlin")
	local  = branchline.StreamID("door.main")
	stream = branchline.StreamID("berlin.door.main")
)

// inWorld runs a test in a world in which the edge records and is linked.
func inWorld(t *testing.T, policies []policy.Policy, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, dir: t.TempDir(), policies: policies}
		w.edge = newEdge(t, t.TempDir())
		w.open()
		w.heal()
		defer w.edge.close()
		defer w.close()
		test(w)
	})
}

func (w *world) open() {
	w.Helper()
	var log *slog.Logger
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	node, err := hub.Open(hub.Config{Dir: w.dir, Policies: w.policies, Above: w.above, Allow: w.allow, Logger: log,
		Storage: segstore.Options{Scrub: w.scrub},
		JobChanged: func(j fetch.Job) {
			if w.told != nil {
				w.told(j)
			}
		}})
	if err != nil {
		w.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	w.node = node
	w.stopNode = func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.Errorf("hub ended with %v", err)
		}
		if err := node.Close(); err != nil {
			w.Error(err)
		}
	}
}

// stopAndOpen opens the hub anew, with other policies, and links it.
func (w *world) stopAndOpen(policies []policy.Policy) {
	w.Helper()
	w.close()
	w.policies = policies
	w.open()
	w.heal()
}

func (w *world) close() {
	w.cut()
	w.stopNode()
}

// heal links the edge with the hub.
func (w *world) heal() {
	atEdge, atHub := link.Pipe(site, "")
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = federation.Serve(ctx, atEdge, w.edge) })
	work.Go(func() { w.node.Attach(ctx, site, federation.NewRemote(atHub)) })
	w.unlink = func() {
		_ = atHub.Close(0, "cut")
		stop()
		work.Wait()
	}
}

// cut ends the link, if there is one.
func (w *world) cut() {
	if w.unlink != nil {
		w.unlink()
		w.unlink = nil
	}
}

// wait lets time pass until the condition holds, at most for the duration, and returns how long it took.
func (w *world) wait(most time.Duration, what string, holds func() bool) time.Duration {
	w.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(began) > most {
			w.Fatalf("after %v: %s; time line: %s", most, what, w.timeline(began.Add(-2*time.Minute), time.Now()))
		}
		<-tick.C
	}
	return time.Since(began)
}

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

// timeline returns the stream's states, with seconds since the edge began.
func (w *world) timeline(from, to time.Time) string {
	w.Helper()
	spans, err := w.node.Timeline(stream, branchline.TimeRange{Start: from, End: to})
	if err != nil {
		w.Fatal(err)
	}
	var words []string
	for _, s := range spans {
		words = append(words, fmt.Sprintf("%.1f-%.1f %s%s%s", s.Start.Sub(w.edge.began).Seconds(),
			s.End.Sub(w.edge.began).Seconds(), s.State, s.Reason, s.Cause))
	}
	return strings.Join(words, ", ")
}

// all is the time from before the edge began to now.
func (w *world) all() branchline.TimeRange {
	return branchline.TimeRange{Start: w.edge.began.Add(-time.Minute), End: time.Now()}
}

// fragments returns the hashes of all fragments that a store has of a stream.
func (w *world) fragments(s *segstore.Store, id branchline.StreamID, span branchline.TimeRange) []branchline.Hash {
	w.Helper()
	segs, err := s.Segments(w.Context(), id, span)
	if err != nil && !errors.Is(err, branchline.ErrNotFound) {
		w.Fatal(err)
	}
	var hashes []branchline.Hash
	for _, seg := range segs {
		for _, f := range seg.Fragments {
			if f.Span().Overlaps(span) {
				hashes = append(hashes, f.Hash)
			}
		}
	}
	return hashes
}

// holds reports whether the hub holds every fragment that the edge has in the span.
func (w *world) holds(span branchline.TimeRange) bool {
	edge := w.fragments(w.edge.Store, local, span)
	return len(edge) > 0 && slices.Equal(edge, w.fragments(w.node.Store(), stream, span))
}

// files returns the SHA-256 of every sealed segment that touches the span.
func (w *world) files(src branchline.Source, id branchline.StreamID, span branchline.TimeRange) map[string]string {
	w.Helper()
	segs, err := src.Segments(w.Context(), id, span)
	if err != nil {
		w.Fatal(err)
	}
	sums := make(map[string]string)
	for _, seg := range segs {
		if !seg.Sealed {
			continue
		}
		body, err := src.Fetch(w.Context(), seg.ID, branchline.ByteRange{End: seg.Size})
		if err != nil {
			w.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, body); err != nil {
			w.Fatal(err)
		}
		body.Close()
		sums[seg.ID.String()] = fmt.Sprintf("%x", sum.Sum(nil))
	}
	return sums
}

// sameFiles reports whether every segment that the edge has sealed in the span is sealed at the hub
// with the same bytes.
func (w *world) sameFiles(span branchline.TimeRange) bool {
	return maps.Equal(w.files(w.edge, local, span), w.files(store{w.node.Store()}, stream, span))
}

// store makes a segment store a source, without live streams.
type store struct{ *segstore.Store }

func (store) Live(context.Context, branchline.StreamID) iter.Seq2[branchline.Item, error] { return nil }

// edge is what package edge is, with a camera that makes itself: a real store, ring and recorder.
type edge struct {
	*segstore.Store
	began     time.Time
	ring      *live.Ring
	fetched   atomic.Int64 // bytes that Fetch gave away
	lives     atomic.Int32 // calls of Live under way
	fetches   atomic.Int32 // calls of Fetch in all
	slow      atomic.Int64 // duration that each read of Fetch takes
	wrong     atomic.Int64 // how many more calls of Fetch give wrong bytes
	flipped   sync.Map     // segment: offset of a byte that its file has wrong
	lists     atomic.Int32 // calls of Segments in all
	controls  controls
	pondering atomic.Int64 // duration that each call of Segments takes

	stop chan struct{}
	work sync.WaitGroup
}

// segmentLength is short, for tests that look at several segments.
const segmentLength = 10 * time.Second

func newEdge(t *testing.T, dir string) *edge {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	s, err := segstore.Open(dir, segstore.Options{Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{Store: s, began: time.Now().UTC(), ring: live.New(live.Limits{}), stop: make(chan struct{})}
	err = s.PutCamera(branchline.Camera{ID: "door", Name: "Door", Added: e.began,
		Streams: []branchline.Stream{{ID: local, Codecs: "avc1.42c01f"}}})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := media.NewMuxer(muxerConfig(e.began, segmentLength, key))
	if err != nil {
		t.Fatal(err)
	}
	items := e.ring.Subscribe(context.Background())
	e.work.Go(func() {
		_ = record.Run(context.Background(), record.Config{
			Store: s, Stream: local, Logger: slog.New(slog.DiscardHandler),
			Gap: func(branchline.Gap) { t.Error("the edge has a gap") },
		}, items)
	})
	e.work.Go(func() { e.shoot(t, mux) })
	return e
}

// muxerConfig is for the first run of the stream.
func muxerConfig(start time.Time, length time.Duration, key ed25519.PrivateKey) media.MuxerConfig {
	return media.MuxerConfig{
		Stream: local, Run: 1, Start: start, SegmentLength: length,
		Tracks: []media.Track{{Codec: media.H264, ClockRate: media.VideoClockRate,
			SPS: []byte{0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0xf0, 0x11, 0x7e, 0xf0, 0x11, 0x00, 0x00, 0x03, 0x00,
				0x01, 0x00, 0x00, 0x03, 0x00, 0x30, 0x8f, 0x18, 0x32, 0x48},
			PPS: []byte{0x68, 0xcb, 0x8c, 0xb2}}},
		Format: media.Format{Checksum: segstore.ChecksumBox,
			Seal: func(r media.SealRequest) ([]byte, branchline.Hash, error) {
				return segstore.SealFooter(segstore.Footer{ID: r.ID, Stream: r.Stream, Run: r.Run, Number: r.Number,
					Codecs: r.Codecs, Fragments: r.Fragments, Prev: r.Prev}, r.Init, key)
			}},
	}
}

// shoot makes ten frames a second, of which each tenth is a key frame.
func (e *edge) shoot(t *testing.T, mux *media.Muxer) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		nalu := append([]byte{0x41}, fmt.Sprintf("frame %d %s", n, strings.Repeat("x", 1000))...)
		if n%10 == 0 {
			nalu[0] = 0x65
		}
		at := time.Duration(n) * 100 * time.Millisecond
		items, err := mux.Write(media.AccessUnit{Track: 1, PTS: at, DTS: at, Key: n%10 == 0, Data: [][]byte{nalu}})
		if err != nil {
			t.Error(err)
			return
		}
		for _, item := range items {
			e.ring.Publish(item)
		}
		select {
		case <-tick.C:
		case <-e.stop:
			return
		}
	}
}

func (e *edge) close() {
	close(e.stop)
	e.ring.Close(branchline.ErrUnavailable)
	e.work.Wait()
	e.Close()
}

func (e *edge) Live(ctx context.Context, id branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		if id != local {
			yield(branchline.Item{}, branchline.ErrNotFound)
			return
		}
		e.lives.Add(1)
		defer e.lives.Add(-1)
		for item, err := range e.ring.Subscribe(ctx) {
			if !yield(item, err) {
				return
			}
		}
	}
}

func (e *edge) Segments(
	ctx context.Context, id branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	e.lists.Add(1)
	<-time.After(time.Duration(e.pondering.Load()))
	return e.Store.Segments(ctx, id, span)
}

func (e *edge) Fetch(
	ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange,
) (io.ReadCloser, error) {
	e.fetches.Add(1)
	body, err := e.Store.Fetch(ctx, id, bytes)
	if err != nil {
		return nil, err
	}
	m := &metered{ReadCloser: body, e: e, wrong: e.wrong.Add(-1) >= 0, flip: -1}
	if at, ok := e.flipped.Load(id); ok {
		m.flip = at.(int64) - bytes.Start
	}
	return m, nil
}

// flip damages a byte of a segment.
func (e *edge) flip(id branchline.SegmentID, at int64) { e.flipped.Store(id, at) }

// metered counts what is read, and makes it slow where a test wants that.
type metered struct {
	io.ReadCloser
	e     *edge
	wrong bool
	flip  int64 // how far away the byte to flip is
}

func (m *metered) Read(b []byte) (int, error) {
	if slow := time.Duration(m.e.slow.Load()); slow > 0 {
		<-time.After(slow)
		b = b[:min(len(b), 1000)]
	}
	n, err := m.ReadCloser.Read(b)
	m.e.fetched.Add(int64(n))
	if m.wrong && n > 0 {
		b[n-1]++
	}
	if m.flip >= 0 && m.flip < int64(n) {
		b[m.flip]++
	}
	m.flip -= int64(n)
	return n, err
}

// order requests a span of the stream.
func (w *world) order(span branchline.TimeRange) fetch.Job {
	w.Helper()
	job, err := w.node.Jobs().Create(fetch.Order{Streams: []branchline.StreamID{stream}, Span: span, By: "test"})
	if err != nil {
		w.Fatal(err)
	}
	return job
}

func (w *world) job(id string) fetch.Job {
	w.Helper()
	job, err := w.node.Jobs().Job(id)
	if err != nil {
		w.Fatal(err)
	}
	return job
}
