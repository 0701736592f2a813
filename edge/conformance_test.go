package edge

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/sourcetest"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/segstore"
)

func TestConformance(t *testing.T) { sourcetest.Run(t, openFixture) }

// openFixture opens a node whose one camera is played by the test: what the muxer would make goes into
// the stream by hand, and from there on everything is the node's own.
func openFixture(t *testing.T) sourcetest.Fixture {
	n, err := Open(Config{
		Dir: t.TempDir(), Signer: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
		Cameras: []CameraConfig{{ID: "gate", URL: "rtsp://127.0.0.1:1/main"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := n.streams[0]
	items := s.ring.Subscribe(context.Background())
	var recorder, keeper sync.WaitGroup
	recorder.Go(func() { s.record(context.Background(), items) })
	keeper.Go(n.ledger.run)
	t.Cleanup(func() {
		s.ring.Close(nil)
		recorder.Wait()
		n.ledger.end()
		keeper.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return sourcetest.Fixture{Source: n, Stream: s.id, Feed: &handFeed{t: t, n: n, s: s, at: time.Now().UTC()}}
}

// handFeed makes items as the muxer does, and waits until the recorder has written them.
type handFeed struct {
	t       *testing.T
	n       *Node
	s       *stream
	at      time.Time
	run     uint64
	number  uint32
	running bool
	start   branchline.SegmentStart
	table   []branchline.Fragment
	size    int64
	prev    branchline.Hash
}

func (f *handFeed) Begin(size int) branchline.SegmentID {
	if !f.running {
		f.run, f.number, f.running = f.run+1, 0, true
	}
	f.start = branchline.SegmentStart{
		ID: branchline.NewSegmentID(f.at), Stream: f.s.id, Run: f.run, Number: f.number, Start: f.at,
		Codecs: "avc1.42c01f", Init: box("free", 64),
	}
	f.number++
	f.table, f.size = nil, int64(len(f.start.Init))
	start := f.start
	f.s.publish([]branchline.Item{{Segment: start.ID, Start: &start}}, "")
	f.Append(true, size)
	return start.ID
}

func (f *handFeed) Append(key bool, size int) {
	const frames = 2
	head := box("mdat", 8)
	binary.BigEndian.PutUint32(head, uint32(8+max(size/frames, 1)*frames))
	var items []branchline.Item
	var data [][]byte
	for i := range frames {
		at := f.at.Add(time.Duration(i) * 250 * time.Millisecond)
		frame := &branchline.Frame{
			Track: 1, DTS: at, PTS: at, Key: key && i == 0, FirstKey: key && i == 0, Data: noise(max(size/frames, 1)),
		}
		data = append(data, frame.Data)
		items = append(items, branchline.Item{Segment: f.start.ID, Frame: frame})
	}
	tail := segstore.ChecksumBox(head, data...)
	sum := sha256.New()
	for _, part := range [][]byte{head, data[0], data[1], tail} {
		sum.Write(part)
	}
	row := branchline.Fragment{
		Offset: f.size, Length: int64(len(head) + len(data[0]) + len(data[1]) + len(tail)),
		Start: f.at, Duration: 500 * time.Millisecond, Key: key,
	}
	sum.Sum(row.Hash[:0])
	f.at, f.size, f.table = f.at.Add(row.Duration), row.End(), append(f.table, row)
	f.s.publish(append(items, branchline.Item{Segment: f.start.ID, Fragment: &branchline.FragmentEnd{
		Fragment: row, Head: head, Tail: tail,
	}}), "")
	f.wait(func(c branchline.Change) bool { return c.Opened != nil && c.Opened.ID == f.start.ID })
	body, err := f.n.Fetch(f.t.Context(), f.start.ID, branchline.ByteRange{Start: row.Offset})
	for errors.Is(err, branchline.ErrUnavailable) { // announced, and not quite begun
		runtime.Gosched()
		body, err = f.n.Fetch(f.t.Context(), f.start.ID, branchline.ByteRange{Start: row.Offset})
	}
	if err != nil {
		f.t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.CopyN(io.Discard, body, row.Length); err != nil {
		f.t.Fatal(err)
	}
}

func (f *handFeed) Seal() {
	footer, hash, err := f.s.seal(media.SealRequest{
		ID: f.start.ID, Stream: f.s.id, Run: f.run, Number: f.start.Number, Codecs: f.start.Codecs,
		Init: f.start.Init, Fragments: f.table, Prev: f.prev,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	id := f.start.ID
	f.prev, f.start.ID = hash, branchline.SegmentID{}
	f.s.publish([]branchline.Item{{Segment: id, Seal: &branchline.SegmentSeal{
		ID: id, Hash: hash, Footer: footer, Size: f.size + int64(len(footer)),
	}}}, "")
	f.wait(func(c branchline.Change) bool { return c.Sealed != nil && c.Sealed.ID == id })
}

func (f *handFeed) Stop(cause branchline.Cause) {
	if f.start.ID != (branchline.SegmentID{}) {
		f.Seal()
	}
	end := &branchline.RunEnd{Run: f.run, At: f.at, Cause: cause}
	f.s.publish([]branchline.Item{{RunEnd: end}}, cause)
	f.wait(func(c branchline.Change) bool { return c.Gap != nil && c.Gap.Span.Start.Equal(end.At) })
	f.running = false
	f.at = f.at.Add(time.Second)
}

func (f *handFeed) Remove(id branchline.SegmentID, cause branchline.Cause) {
	if err := f.n.Store().Remove(id, cause); err != nil {
		f.t.Fatal(err)
	}
}

// wait follows the change feed until it has what fits.
func (f *handFeed) wait(fits func(branchline.Change) bool) {
	f.t.Helper()
	for c, err := range f.n.Changes(f.t.Context(), branchline.Position{}) {
		if err != nil {
			f.t.Fatal(err)
		}
		if fits(c) {
			return
		}
	}
	f.t.Fatal("the change feed ended early")
}

func box(kind string, size int) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(size)), kind...)
	return append(b, make([]byte, size-len(b))...)
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}
