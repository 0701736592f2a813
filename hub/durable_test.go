package hub_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore"
)

// TestDoneIsDurable takes what a crash would leave at the moment when a job is told to be done: all of
// it is held there, whether the job brought it or the live recording did just before.
func TestDoneIsDurable(t *testing.T) {
	for name, policies := range map[string][]policy.Policy{"brought": nil, "recorded live": always()} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, policies, func(w *world) {
				crashed := t.TempDir()
				w.told = func(j fetch.Job) {
					if j.State == fetch.Done {
						if err := os.CopyFS(crashed, os.DirFS(filepath.Join(w.dir, "store"))); err != nil {
							t.Error(err)
						}
					}
				}
				pass(25*time.Second + 600*time.Millisecond) // the last sync was 400 ms ago
				now := time.Now()
				span := branchline.TimeRange{Start: now.Add(-10 * time.Second), End: now.Add(-200 * time.Millisecond)}
				job := w.order(span)
				w.wait(2*time.Second, "not done", func() bool { return w.job(job.ID).State == fetch.Done })
				left, err := segstore.Open(crashed, segstore.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer left.Close()
				held, err := left.Held(stream, span)
				if err != nil || !branchline.NewSpans(held...).Covers(span) {
					t.Errorf("done was %v, held after the crash: %v, %v", span, held, err)
				}
			})
		})
	}
}
