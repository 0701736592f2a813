package hub_test

import (
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/segstore"
)

// rot closes the hub, flips a bit in its file of the oldest whole segment and returns that; the hub opens anew with
// a scrub.
func (w *world) rot() branchline.Segment {
	w.Helper()
	segs, err := w.node.Store().Segments(w.Context(), stream, w.all())
	if err != nil {
		w.Fatal(err)
	}
	i := slices.IndexFunc(segs, func(s branchline.Segment) bool { return s.Sealed })
	if i < 0 {
		w.Fatal("nothing is sealed")
	}
	w.close()
	path := segstore.Path(filepath.Join(w.dir, "store"), stream, segs[i].ID, segs[i].Span.Start)
	data, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	data[segs[i].Fragments[3].Offset+200] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		w.Fatal(err)
	}
	w.scrub = segstore.Scrub{Every: 24 * time.Hour}
	w.open()
	return segs[i]
}

func (w *world) aside() []string {
	w.Helper()
	aside, err := filepath.Glob(filepath.Join(w.dir, "store", "quarantine", "*.mp4"))
	if err != nil {
		w.Fatal(err)
	}
	return aside
}

// TestRottenCopyIsReplaced flips a bit in a segment that the hub holds whole: the scrub finds it, the fetcher
// brings it again, and it is sealed with the same hash, whatever had brought it the first time and whenever
// the site is linked again.
func TestRottenCopyIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name            string
		always, restart bool
	}{
		{"recorded", true, false}, {"requested", false, false}, {"requested, restarted", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			policies := always()
			if !c.always {
				policies = nil
			}
			inWorld(t, policies, func(w *world) {
				pass(2*segmentLength + 5*time.Second)
				if !c.always {
					id := w.order(branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(segmentLength)}).ID
					w.wait(3*time.Second, "not done", func() bool { return w.job(id).State.Final() })
				}
				seg := w.rot()
				if c.restart { // found in the dark, and forgotten but on disk
					pass(time.Minute)
					if len(w.aside()) != 1 {
						t.Fatalf("put aside: %v", w.aside())
					}
					w.close()
					w.open()
				}
				w.heal()
				before := w.edge.fetched.Load()
				w.wait(time.Minute, "not found", func() bool { return len(w.aside()) == 1 })
				w.wait(5*time.Second, "not replaced", func() bool {
					now, err := w.node.Store().Segment(seg.ID)
					return err == nil && now.Sealed && now.Hash == seg.Hash
				})
				pass(10 * time.Second)
				if fetched := w.edge.fetched.Load() - before; !c.always && fetched > seg.Size+1000 {
					t.Errorf("fetched %d bytes for a segment of %d", fetched, seg.Size)
				}
				want := w.files(w.edge, local, seg.Span)
				if got := w.files(store{w.node.Store()}, stream, seg.Span); !maps.Equal(got, want) || len(want) == 0 {
					t.Errorf("files %v, want %v", got, want)
				}
			})
		})
	}
}

// TestLostAtBoth: what the site does not have any more is asked for once on a link.
func TestLostAtBoth(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(2*segmentLength + 5*time.Second)
		id := w.order(branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(segmentLength)}).ID
		w.wait(3*time.Second, "not done", func() bool { return w.job(id).State.Final() })
		seg := w.rot()
		if err := w.edge.Remove(seg.ID, branchline.CauseExpired); err != nil {
			t.Fatal(err)
		}
		w.heal()
		w.wait(time.Minute, "not found", func() bool { return len(w.aside()) == 1 })
		pass(5 * time.Second)
		lists, fetches := w.edge.lists.Load(), w.edge.fetches.Load()
		pass(time.Minute)
		if more := w.edge.lists.Load() - lists; more > 0 || w.edge.fetches.Load() != fetches {
			t.Errorf("asked %d times more", more)
		}
	})
}

// holdForgery makes the hub hold one fragment of the edge's oldest segment that is sound in itself and not the
// edge's, and returns the segment.
func (w *world) holdForgery() branchline.Segment {
	w.Helper()
	segs, err := w.edge.Store.Segments(w.Context(), local, w.all())
	if err != nil {
		w.Fatal(err)
	}
	seg := segs[0]
	body, err := w.edge.Store.Fetch(w.Context(), seg.ID, branchline.ByteRange{End: seg.Size})
	if err != nil {
		w.Fatal(err)
	}
	defer body.Close()
	file, err := io.ReadAll(body)
	if err != nil {
		w.Fatal(err)
	}
	err = w.node.Store().Begin(stream, branchline.SegmentStart{ID: seg.ID, Stream: stream, Run: seg.Run,
		Number: seg.Number, Start: seg.Span.Start, Codecs: seg.Codecs, Init: file[:seg.InitSize]})
	if err != nil {
		w.Fatal(err)
	}
	f := seg.Fragments[5]
	data := slices.Clone(file[f.Offset : f.End()-segstore.ChecksumSize])
	data[len(data)-1] ^= 1
	data = append(data, segstore.ChecksumBox(data)...)
	f.Hash = sha256.Sum256(data)
	if err := w.node.Store().Put(seg.ID, f, data); err != nil {
		w.Fatal(err)
	}
	return seg
}

// TestWrongPartIsReplaced: nothing is sealed with a fragment that is not the site's. It goes to quarantine, and all is
// fetched anew.
func TestWrongPartIsReplaced(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(2*segmentLength + 5*time.Second)
		seg := w.holdForgery()
		id := w.order(seg.Span).ID
		w.wait(10*time.Second, "not replaced", func() bool {
			now, err := w.node.Store().Segment(seg.ID)
			return err == nil && now.Sealed && now.Hash == seg.Hash
		})
		w.wait(5*time.Second, "not done", func() bool { return w.job(id).State == fetch.Done })
		if len(w.aside()) != 1 {
			t.Errorf("put aside: %v", w.aside())
		}
		if !w.sameFiles(seg.Span) {
			t.Error("files differ")
		}
	})
}
