package hub_test

import (
	"crypto/ed25519"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

// TestSealedPromptly: what live recording holds as a whole is sealed soon after the edge has sealed it,
// by one small fetch.
func TestSealedPromptly(t *testing.T) {
	inWorld(t, always(), func(w *world) {
		pass(segmentLength + 5*time.Second)
		for range 3 {
			fetches, fetched := w.edge.fetches.Load(), w.edge.fetched.Load()
			sealed := w.edge.Stats().Segments
			w.wait(2*segmentLength, "the edge does not seal", func() bool { return w.edge.Stats().Segments > sealed })
			took := w.wait(time.Second, "not sealed at the hub", func() bool {
				return w.node.Store().Stats().Segments == w.edge.Stats().Segments
			})
			pass(5 * time.Second)
			fetches, fetched = w.edge.fetches.Load()-fetches, w.edge.fetched.Load()-fetched
			if t.Log("sealed after", took, "with", fetched, "bytes"); fetches != 1 || fetched > 8<<10 {
				t.Errorf("%d fetches of %d bytes", fetches, fetched)
			}
		}
		if !w.sameFiles(w.all()) {
			t.Error("files differ")
		}
	})
}

// sealShort seals what the hub holds of the newest segment, as if that were all.
func (w *world) sealShort() branchline.Segment {
	w.Helper()
	s := w.node.Store()
	segs, err := s.Segments(w.Context(), stream, w.all())
	if err != nil || len(segs) == 0 {
		w.Fatal(segs, err)
	}
	seg := segs[len(segs)-1]
	body, err := s.Fetch(w.Context(), seg.ID, branchline.ByteRange{End: seg.InitSize})
	if err != nil {
		w.Fatal(err)
	}
	defer body.Close()
	initPart, err := io.ReadAll(body)
	if err != nil {
		w.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	box, hash, err := segstore.SealFooter(segstore.Footer{ID: seg.ID, Stream: local, Run: seg.Run,
		Number: seg.Number, Codecs: seg.Codecs, Fragments: seg.Fragments, Cut: true}, initPart, key)
	if err != nil {
		w.Fatal(err)
	}
	err = s.Seal(seg.ID, branchline.SegmentSeal{ID: seg.ID, Hash: hash, Footer: box, Size: seg.Size + int64(len(box))})
	if err != nil {
		w.Fatal(err)
	}
	return seg
}

// TestDifferingCopyIsReplaced: a copy that the hub has sealed with another hash than the edge is put
// aside, and all of the segment is fetched again, whatever the policy.
func TestDifferingCopyIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name   string
		always bool
	}{{"recorded", true}, {"requested", false}} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				if c.always {
					w.stopAndOpen(always())
				}
				pass(segmentLength + 5*time.Second)
				if !c.always {
					began := w.edge.began.Add(segmentLength)
					id := w.order(branchline.TimeRange{Start: began, End: began.Add(3 * time.Second)}).ID
					w.wait(2*time.Second, "not done", func() bool { return w.job(id).State.Final() })
				}
				w.cut()
				seg := w.sealShort()
				pass(segmentLength)
				w.heal()
				span := branchline.TimeRange{Start: seg.Span.Start, End: seg.Span.Start.Add(segmentLength)}
				w.wait(5*time.Second, "not replaced", func() bool { return w.sameFiles(span) })
				aside, err := filepath.Glob(filepath.Join(w.dir, "store", "quarantine", "*.mp4"))
				if err != nil || len(aside) != 1 {
					t.Errorf("put aside: %v, %v", aside, err)
				}
			})
		})
	}
}
