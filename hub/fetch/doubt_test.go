package fetch

import (
	"os"
	"testing"

	"github.com/branchline-video/branchline/segstore"
)

// TestForgedAtTheSite: somebody changes a fragment at the site, and its checksum with it, by which alone the site looks
// at what it sends. The hub holds everything else, and has made the site find it.
func TestForgedAtTheSite(t *testing.T) {
	f, dir := newFixture(t, nil), t.TempDir()
	site := recordedIn(t, dir)
	segs, err := site.Segments(t.Context(), "door.main", span(0, 50))
	if err != nil || len(segs) != 1 {
		t.Fatalf("%d segments, %v", len(segs), err)
	}
	seg := segs[0]
	path, row := segstore.File(dir, seg), seg.Fragments[20]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body := data[row.Offset : row.End()-segstore.ChecksumSize]
	body[len(body)/2] ^= 1
	copy(data[row.End()-segstore.ChecksumSize:], segstore.ChecksumBox(body))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tk := aTask(&branch{Store: site, lanes: 1, wanted: 1, full: make(chan struct{})})
	if _, err := f.fetcher.bring(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
	tk.crew.work.Wait()
	held, err := f.store.Segments(t.Context(), door, span(0, 50))
	if err != nil || len(held) != 1 || held[0].Sealed || len(held[0].Fragments) >= len(seg.Fragments) {
		t.Errorf("the hub holds %d segments, %v", len(held), err)
	}
	if len(tk.damage) != 1 {
		t.Errorf("told of damage: %v", tk.damage)
	}
	if left, err := site.Segments(t.Context(), "door.main", span(0, 50)); err != nil || len(left) != 0 {
		t.Errorf("the site still lists %d segments, %v", len(left), err)
	}
}
