package hub_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/fetch"
	"github.com/branchline-video/branchline/hub/policy"
)

func always() []policy.Policy   { return []policy.Policy{{Streams: "*", Kind: policy.Always}} }
func backfill() []policy.Policy { return []policy.Policy{{Streams: "*", Kind: policy.Backfill}} }

func TestAlwaysHoldsEverythingAcrossAnOutage(t *testing.T) {
	inWorld(t, always(), func(w *world) {
		pass(15 * time.Second)
		if n := w.edge.fetches.Load(); n > 3 {
			t.Errorf("%d fetches while live recording ran undisturbed", n)
		}
		w.cut()
		cut := time.Now()
		pass(30 * time.Second)
		outage := branchline.TimeRange{Start: cut, End: time.Now()}
		t.Log("dark:", w.timeline(w.all().Start, w.all().End))
		w.heal()
		took := w.wait(20*time.Second, "the outage is not held", func() bool { return w.holds(outage) })
		t.Log("outage held after", took)
		pass(segmentLength + 5*time.Second)
		whole := w.all()
		whole.End = whole.End.Add(-2 * time.Second)
		if !w.holds(whole) {
			t.Errorf("not everything is held: %s", w.timeline(whole.Start, whole.End))
		}
		sealed := branchline.TimeRange{Start: w.edge.began, End: outage.End.Add(segmentLength)}
		if !w.sameFiles(sealed) {
			t.Errorf("files differ:\n edge %v\n hub  %v", w.files(w.edge, local, sealed),
				w.files(store{w.node.Store()}, stream, sealed))
		}
		t.Log("end:", w.timeline(w.all().Start, w.all().End))
	})
}

func TestBackfillBringsOutagesOnly(t *testing.T) {
	inWorld(t, backfill(), func(w *world) {
		pass(25 * time.Second)
		if n := w.edge.fetches.Load() + w.edge.lives.Load(); n > 0 {
			t.Fatalf("the hub asked %d times for footage before any outage", n)
		}
		w.cut()
		cut := time.Now()
		pass(26 * time.Second) // and it ends early in a segment that is sealed later
		outage := branchline.TimeRange{Start: cut, End: time.Now()}
		w.heal()
		w.wait(time.Second, "backfill has not begun", func() bool { return w.edge.fetched.Load() > 0 })
		w.wait(20*time.Second, "the outage is not held", func() bool { return w.holds(outage) })
		pass(2*segmentLength + 5*time.Second)
		if !w.sameFiles(outage) {
			t.Error("a segment of the outage is not sealed at the hub")
		}
		before := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(segmentLength)}
		if held := w.fragments(w.node.Store(), stream, before); len(held) > 0 {
			t.Errorf("%d fragments from before the outage are held", len(held))
		}
		if !strings.Contains(w.timeline(before.Start, before.End), "edge") {
			t.Errorf("before the outage: %s", w.timeline(before.Start, before.End))
		}
	})
}

func TestRequestForTheLastMinute(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(75 * time.Second)
		now := time.Now()
		minute := branchline.TimeRange{Start: now.Add(-time.Minute), End: now}
		order := fetch.Order{Streams: []branchline.StreamID{stream}, Span: minute, By: "test"}
		job, err := w.node.Jobs().Create(order)
		if err != nil || job.State != fetch.Waiting {
			t.Fatal(job.State, err)
		}
		took := w.wait(2*time.Second, "the request is not complete", func() bool {
			return w.job(job.ID).State == fetch.Done
		})
		if job = w.job(job.ID); job.Share() != 1 || job.Brought == 0 || job.Ended.IsZero() {
			t.Errorf("done after %v: %+v", took, job)
		}
		if !w.holds(minute) {
			t.Errorf("done, and not held: %s", w.timeline(minute.Start, minute.End))
		}
		asked := w.edge.fetches.Load()
		again, err := w.node.Jobs().Create(order)
		if err != nil || again.State != fetch.Done || w.edge.fetches.Load() != asked {
			t.Errorf("the same order again is %s, %v, after %d more fetches",
				again.State, err, w.edge.fetches.Load()-asked)
		}
		pass(segmentLength + 5*time.Second)
		whole := branchline.TimeRange{Start: minute.Start.Add(segmentLength), End: minute.End.Add(-segmentLength)}
		if !w.sameFiles(whole) {
			t.Error("segments of which every fragment was requested are not sealed")
		}
	})
}

// TestRequestInsideAGroup: what is held of a span that begins between two key frames can be played.
func TestRequestInsideAGroup(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(15 * time.Second)
		from := w.edge.began.Add(4*time.Second + 700*time.Millisecond)
		id := w.order(branchline.TimeRange{Start: from, End: from.Add(2 * time.Second)}).ID
		w.wait(5*time.Second, "the job does not end", func() bool { return w.job(id).State.Final() })
		segs, err := w.node.Store().Segments(w.Context(), stream, w.all())
		if err != nil || len(segs) != 1 || !segs[0].Fragments[0].Key || segs[0].Fragments[0].Start.After(from) {
			t.Errorf("held are %+v, %v", segs, err)
		}
	})
}

func TestRequestThatReachesIntoTheFuture(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(5 * time.Second)
		now := time.Now()
		span := branchline.TimeRange{Start: now.Add(-3 * time.Second), End: now.Add(20 * time.Second)}
		job := w.order(span)
		pass(10 * time.Second)
		half := branchline.TimeRange{Start: span.Start, End: now.Add(7 * time.Second)}
		if !w.holds(half) || w.job(job.ID).State.Final() {
			t.Errorf("halfway: %s, %s", w.job(job.ID).State, w.timeline(span.Start, span.End))
		}
		pass(12 * time.Second)
		if job = w.job(job.ID); job.State != fetch.Done || !w.holds(span) {
			t.Errorf("%s, %s", job.State, w.timeline(span.Start, span.End))
		}
	})
}

// TestResumeWithoutRefetching cuts a slow request several times and restarts the hub once: what was
// put is not fetched again.
func TestResumeWithoutRefetching(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(65 * time.Second)
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(time.Minute)}
		w.edge.slow.Store(int64(40 * time.Millisecond)) // 1000 bytes each
		job := w.order(span)
		for n := range 5 {
			pass(700 * time.Millisecond)
			w.cut()
			if j := w.job(job.ID); j.State != fetch.Waiting || j.Cause != fetch.CauseDark {
				t.Fatalf("dark, and the job is %s: %s", j.State, j.Cause)
			}
			held := len(w.fragments(w.node.Store(), stream, span))
			if n == 2 {
				w.stopNode()
				w.open()
				if again := len(w.fragments(w.node.Store(), stream, span)); again != held || again == 0 {
					t.Fatalf("%d fragments held before the restart, %d after", held, again)
				}
			}
			w.heal()
		}
		w.wait(30*time.Second, "the request is not complete", func() bool { return w.job(job.ID).State == fetch.Done })
		if !w.holds(span) {
			t.Error("done, and not held")
		}
		var size, largest int64
		segs, err := w.edge.Segments(w.Context(), local, span)
		if err != nil {
			t.Fatal(err)
		}
		for _, seg := range segs {
			size += seg.Size
			for _, f := range seg.Fragments {
				largest = max(largest, f.Length)
			}
		}
		// Each cut costs what was under way: no more than four fragments and init parts, of eight streams.
		if extra, most := w.edge.fetched.Load()-size, 5*4*(largest+2000); extra > most {
			t.Errorf("fetched %d bytes more than there are, at most %d may be lost in five cuts", extra, most)
		}
	})
}

func TestRequestOvertakesBackfill(t *testing.T) {
	inWorld(t, backfill(), func(w *world) {
		pass(20 * time.Second)
		w.cut()
		cut := time.Now()
		pass(5 * time.Minute)
		w.edge.slow.Store(int64(50 * time.Millisecond)) // 1000 bytes each: the outage takes minutes
		outage := branchline.TimeRange{Start: cut, End: time.Now()}
		w.heal()
		w.wait(2*time.Second, "backfill has not begun", func() bool { return w.edge.fetched.Load() > 0 })
		pass(3 * time.Second)
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(3 * time.Second)}
		job := w.order(span)
		took := w.wait(4*time.Second, "the request waits for the backfill", func() bool {
			return w.job(job.ID).State == fetch.Done
		})
		if w.node.Jobs().Counters().Preempted == 0 || w.holds(outage) {
			t.Errorf("nothing was preempted; done after %v", took)
		}
		w.wait(10*time.Minute, "the backfill did not go on", func() bool { return w.holds(outage) })
		var size int64
		segs, _ := w.edge.Segments(w.Context(), local, w.all())
		for _, seg := range segs {
			size += seg.Size
		}
		if fetched := w.edge.fetched.Load(); fetched > size {
			t.Errorf("fetched %d bytes of %d that there are", fetched, size)
		}
	})
}

func TestCancelledJob(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(30 * time.Second)
		w.edge.slow.Store(int64(time.Second))
		job := w.order(branchline.TimeRange{Start: w.edge.began, End: time.Now()})
		pass(3 * time.Second)
		if err := w.node.Jobs().Cancel(job.ID); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		fetched := w.edge.fetched.Load()
		pass(5 * time.Second)
		if w.edge.fetched.Load() != fetched || w.job(job.ID).State != fetch.Cancelled {
			t.Errorf("cancelled, and it goes on: %+v", w.job(job.ID))
		}
		if err := w.node.Jobs().Cancel("nonsense"); !errors.Is(err, branchline.ErrNotFound) {
			t.Errorf("cancelled nonsense: %v", err)
		}
	})
}

func TestWrongOrders(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.wait(time.Second, "the camera is not known", func() bool {
			_, err := w.node.Catalog().Camera("berlin.door")
			return err == nil
		})
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(time.Second)}
		ahead := func(d time.Duration) branchline.TimeRange {
			return branchline.TimeRange{Start: span.Start.Add(d), End: span.End.Add(d)}
		}
		for _, c := range []struct {
			name    string
			streams []branchline.StreamID
			span    branchline.TimeRange
			err     error
		}{
			{"right", []branchline.StreamID{stream}, span, nil},
			{"no stream", nil, span, branchline.ErrInvalid},
			{"a stream twice", []branchline.StreamID{stream, stream}, span, branchline.ErrInvalid},
			{"two sites", []branchline.StreamID{stream, "paris.door.main"}, span, branchline.ErrInvalid},
			{"no name", []branchline.StreamID{"Berlin"}, span, branchline.ErrInvalid},
			{"unknown stream", []branchline.StreamID{"berlin.door.other"}, span, branchline.ErrNotFound},
			{"unknown camera", []branchline.StreamID{"berlin.gate.main"}, span, branchline.ErrNotFound},
			{"backwards", []branchline.StreamID{stream}, branchline.TimeRange{Start: span.End, End: span.Start},
				branchline.ErrInvalid},
			{"a year", []branchline.StreamID{stream}, branchline.TimeRange{Start: span.Start,
				End: span.Start.AddDate(1, 0, 0)}, branchline.ErrInvalid},
			{"next week", []branchline.StreamID{stream}, ahead(7 * 24 * time.Hour), nil},
			{"in six weeks", []branchline.StreamID{stream}, ahead(42 * 24 * time.Hour), branchline.ErrInvalid},
		} {
			if _, err := w.node.Jobs().Create(fetch.Order{Streams: c.streams, Span: c.span}); !errors.Is(err, c.err) {
				t.Errorf("%s: %v, expected %v", c.name, err, c.err)
			}
		}
	})
}

// TestRestartWhileDark: a hub that was restarted while a branch is dark shows what it showed before.
func TestRestartWhileDark(t *testing.T) {
	inWorld(t, always(), func(w *world) {
		pass(25 * time.Second)
		w.cut()
		pass(10 * time.Second)
		from, to := w.all().Start, time.Now()
		before := w.timeline(from, to)
		w.stopNode()
		pass(20 * time.Second)
		w.open()
		if after := w.timeline(from, to); after != before {
			t.Errorf("time line before the restart: %s\nafter: %s", before, after)
		}
		sites, err := w.node.Catalog().Sites()
		if err != nil || len(sites) != 1 || sites[0].Linked || sites[0].Cameras != 1 ||
			sites[0].LastContact.Sub(w.edge.began) > 26*time.Second {
			t.Errorf("sites %+v, %v", sites, err)
		}
		w.heal()
		w.wait(20*time.Second, "not everything is held", func() bool {
			return w.holds(branchline.TimeRange{Start: from, End: to})
		})
	})
}

// TestRequestForWhatIsGone: what the edge has deleted makes a job partial, and never fails it.
func TestRequestForWhatIsGone(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(35 * time.Second)
		kept := branchline.TimeRange{Start: w.edge.began.Add(22 * time.Second), End: w.edge.began.Add(28 * time.Second)}
		keep := w.order(kept).ID
		w.wait(2*time.Second, "the job does not end", func() bool { return w.job(keep).State.Final() })
		segs, err := w.edge.Segments(w.Context(), local, w.all())
		if err == nil {
			err = w.edge.Remove(segs[2].ID, branchline.CauseExpired)
		}
		if err == nil {
			err = w.edge.Remove(segs[0].ID, branchline.CauseDiskFailed)
		}
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if job := w.order(kept); job.State != fetch.Done {
			t.Errorf("what is held and no longer at the edge: %s %q", job.State, job.Cause)
		}
		for _, c := range []struct {
			name  string
			span  branchline.TimeRange
			cause string
		}{
			{"half of it", branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(15 * time.Second)},
				"some of it is no longer at the site"},
			{"all of it", branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(5 * time.Second)},
				"some of it is no longer at the site"},
			{"what never was", branchline.TimeRange{Start: w.edge.began.Add(-time.Hour), End: w.edge.began},
				"nothing is recorded there"},
		} {
			id := w.order(c.span).ID
			w.wait(2*time.Second, "the job does not end", func() bool { return w.job(id).State.Final() })
			if job := w.job(id); job.State != fetch.Partial || job.Cause != c.cause {
				t.Errorf("%s: %s, %q", c.name, job.State, job.Cause)
			}
		}
	})
}

// TestWrongBytes: bytes that do not have their hash are tried again, and never accepted.
func TestWrongBytes(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		pass(15 * time.Second)
		w.edge.wrong.Store(4) // each is asked for once more, so that the site looks itself
		span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(5 * time.Second)}
		id := w.order(span).ID
		w.wait(5*time.Second, "the job did not recover", func() bool { return w.job(id).State == fetch.Done })
		if n := w.node.Jobs().Counters().Failures; n != 2 || !w.holds(span) {
			t.Errorf("%d failures; %s", n, w.timeline(span.Start, span.End))
		}
		w.edge.wrong.Store(1000)
		id = w.order(branchline.TimeRange{Start: span.End, End: span.End.Add(4 * time.Second)}).ID
		w.wait(time.Minute, "the job does not end", func() bool { return w.job(id).State.Final() })
		if job := w.job(id); job.State != fetch.Partial || !strings.Contains(job.Cause, "hash mismatch") {
			t.Errorf("%s: %s", job.State, job.Cause)
		}
	})
}

// TestDamagedSegment: a byte that flipped on the edge's disk costs its fragment alone: a request ends
// without it and says so, policies go on, and what comes later is not held up.
func TestDamagedSegment(t *testing.T) {
	for name, policies := range map[string][]policy.Policy{"requested": nil, "wanted": always()} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, policies, func(w *world) {
				pass(time.Second)
				w.cut()
				pass(3*segmentLength + 5*time.Second)
				span := branchline.TimeRange{Start: w.edge.began, End: w.edge.began.Add(35 * time.Second)}
				segs, err := w.edge.Store.Segments(w.Context(), local, span)
				if err != nil {
					t.Fatal(err)
				}
				bad := segs[1].Fragments[6]
				w.edge.flip(segs[1].ID, bad.Offset+bad.Length/2)
				w.heal()
				if policies == nil {
					id := w.order(span).ID
					w.wait(15*time.Second, "the job does not end", func() bool { return w.job(id).State.Final() })
					if job := w.job(id); job.State != fetch.Partial || !strings.Contains(job.Cause, "damaged at the site") {
						t.Errorf("%s: %s", job.State, job.Cause)
					}
				} else {
					pass(15 * time.Second)
					w.cut()
					pass(10 * time.Second)
					w.heal()
					pass(15 * time.Second)
					span.End = time.Now().Add(-5 * time.Second)
				}
				want := w.fragments(w.edge.Store, local, span)
				want = slices.DeleteFunc(want, func(h branchline.Hash) bool { return h == bad.Hash })
				if got := w.fragments(w.node.Store(), stream, span); !slices.Equal(got, want) {
					t.Errorf("%d fragments held, %d expected: %s", len(got), len(want), w.timeline(span.Start, span.End))
				}
				if line := w.timeline(span.Start, span.End); strings.Contains(line, "wanted") {
					t.Errorf("time line %s", line)
				}
				pass(15 * time.Second) // in which seals are asked for
				asked := w.edge.fetches.Load()
				pass(30 * time.Second)
				if more := w.edge.fetches.Load() - asked; more > 10 {
					t.Errorf("asked %d more times", more)
				}
			})
		})
	}
}
