package federation

import (
	"io"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// BenchmarkFetch is a fetch of 16 MB from memory, over loopback QUIC; link.BenchmarkStream is the
// limit to hold it against.
func BenchmarkFetch(b *testing.B) {
	src := newSource()
	feed := src.Feed(testStream)
	id := feed.Begin(16 << 20)
	feed.Seal()
	h := startHub(b)
	h.startEdge("berlin", src)
	fetchAll(b, h.wait("berlin"), id)
}

// BenchmarkFetchMemory is the same over a Pipe.
func BenchmarkFetchMemory(b *testing.B) {
	src := newSource()
	feed := src.Feed(testStream)
	id := feed.Begin(16 << 20)
	feed.Seal()
	edge, hub := link.Pipe("berlin", "")
	serveOn(b, edge, src)
	b.Cleanup(func() { hub.Close(0, "") })
	fetchAll(b, NewRemote(hub), id)
}

func fetchAll(b *testing.B, r *Remote, id branchline.SegmentID) {
	b.SetBytes(16 << 20)
	for b.Loop() {
		body, err := r.Fetch(b.Context(), id, branchline.ByteRange{})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); err != nil || n < 16<<20 {
			b.Fatalf("%d bytes, %v", n, err)
		}
		if err := body.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCamera is a call with one small answer: the cost of a stream and a round trip.
func BenchmarkCamera(b *testing.B) {
	h := startHub(b)
	h.startEdge("berlin", newSource())
	r := h.wait("berlin")
	for b.Loop() {
		if _, err := r.Cameras(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
