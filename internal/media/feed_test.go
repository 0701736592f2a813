package media_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/media"
)

// film is the clip's video, played again and again for n seconds.
func film(t *testing.T, seconds int) ([]media.Track, []media.Unit) {
	tracks, units := clip(t)
	units = slices.DeleteFunc(units, func(u media.Unit) bool { return u.Track != 1 })
	zero := units[0].PTS
	all := make([]media.Unit, seconds*25)
	for i := range all {
		u := units[i%125]
		u.PTS += time.Duration(i/125)*5*time.Second - zero
		u.Arrived = epoch().Add(time.Duration(i) * 40 * time.Millisecond)
		all[i] = u
	}
	return tracks[:1], all
}

// story writes what became of a film: each run as [start-end cause], in seconds since the epoch.
func story(items []branchline.Item) string {
	var parts []string
	var start time.Time
	at := func(t time.Time) float64 { return t.Sub(epoch()).Seconds() }
	for _, item := range items {
		switch {
		case item.Start != nil && item.Start.Number == 0:
			start = item.Start.Start
		case item.RunEnd != nil:
			parts = append(parts, fmt.Sprintf("[%.2f-%.2f %s]", at(start), at(item.RunEnd.At), item.RunEnd.Cause))
		}
	}
	return strings.Join(parts, " ")
}

// TestEndSegment: a segment that is to end does so at the next random access point, in the same run.
func TestEndSegment(t *testing.T) {
	tracks, units := film(t, 10)
	feed := media.NewFeed(media.FeedConfig{Stream: "gate.main", SegmentLength: 5 * time.Second, Format: format()})
	feed.Session(tracks)
	var starts []string
	for i, u := range units {
		if i == 30 || i == 31 {
			feed.EndSegment()
		}
		items, err := feed.Write(u)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if s := item.Start; s != nil {
				starts = append(starts, fmt.Sprintf("%d/%d %.1f", s.Run, s.Number, s.Start.Sub(epoch()).Seconds()))
			}
		}
	}
	if got, want := strings.Join(starts, ", "), "1/0 0.0, 1/1 1.9, 1/2 6.9"; got != want {
		t.Errorf("segments start at %s, want %s", got, want)
	}
}

func TestRunsEndWhereTheTimeLineBreaks(t *testing.T) {
	from := func(n int, change func(u *media.Unit)) func([]media.Unit) {
		return func(units []media.Unit) {
			for i := n; i < len(units); i++ {
				change(&units[i])
			}
		}
	}
	later := func(d time.Duration) func(*media.Unit) {
		return func(u *media.Unit) { u.Arrived = u.Arrived.Add(d) }
	}
	for _, c := range []struct {
		name   string
		change func(units []media.Unit)
		want   string
	}{
		{"nothing happens", func([]media.Unit) {}, "[0.00-19.92 edge stopped]"},
		{"a unit is lost", func(u []media.Unit) { u[60].Lost = true },
			"[0.00-2.32 stream damaged] [3.00-19.92 edge stopped]"},
		{"other parameters", from(125, func(u *media.Unit) {
			if sps := u.Data[0]; sps[0]&0x1f == 7 {
				u.Data = slices.Clone(u.Data)
				u.Data[0] = append(append(bytes.Clone(sps[:3]), sps[3]+1), sps[4:]...)
			}
		}), "[0.00-5.00 ] [5.00-19.92 edge stopped]"},
		{"the clock steps forward", from(100, later(2*time.Second)), "[0.00-10.92 clock step] [13.00-21.92 edge stopped]"},
		{"the clock steps back a little", from(100, later(-time.Second)), "[0.00-3.92 clock step] [4.00-18.92 edge stopped]"},
		{"the clock steps back far", from(100, later(-time.Hour)), "[0.00-3.92 clock step] [-3596.00--3580.08 edge stopped]"},
		{"arrivals are late for a while", func(u []media.Unit) {
			for i := 50; i < 150; i++ {
				u[i].Arrived = u[150].Arrived
			}
		}, "[0.00-19.92 edge stopped]"},
		{"media time jumps forward", from(100, func(u *media.Unit) { u.PTS += time.Minute; later(time.Minute)(u) }),
			"[0.00-3.92 stream damaged] [64.00-79.92 edge stopped]"},
		{"media time jumps back", from(100, func(u *media.Unit) { u.PTS -= time.Minute }),
			"[0.00-3.92 stream damaged] [4.00-19.92 edge stopped]"},
		{"sender reports", func(u []media.Unit) {
			for i := range u {
				u[i].NTP = epoch().Add(u[i].PTS - 100*time.Millisecond)
			}
		}, "[-0.10-19.82 edge stopped]"},
		{"sender reports that are far off", func(u []media.Unit) {
			for i := range u {
				u[i].NTP = epoch().Add(u[i].PTS - time.Hour)
			}
		}, "[0.00-19.92 edge stopped]"},
		{"the camera's clock steps", from(100, func(u *media.Unit) { u.NTP = epoch().Add(u.PTS) }),
			"[0.00-19.92 edge stopped]"},
	} {
		tracks, units := film(t, 20)
		if !bytes.HasPrefix(units[0].Data[0], []byte{0x67}) {
			for i := range units {
				if units[i].Data[0][0]&0x1f != 1 { // every key frame carries its parameter sets
					units[i].Data = append([][]byte{tracks[0].SPS, tracks[0].PPS}, units[i].Data...)
				}
			}
		}
		c.change(units)
		f := feed(4 * time.Second)
		f.Session(tracks)
		items := play(t, f, units)
		files(t, items)
		if got := story(items); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// TestOrderHoldsWhateverTheCameraSends feeds damaged, late, repeated and shuffled units.
func TestOrderHoldsWhateverTheCameraSends(t *testing.T) {
	tracks, whole := clip(t)
	rapid.Check(t, func(t *rapid.T) {
		f := feed(time.Second)
		f.Session(tracks)
		var items []branchline.Item
		shift, step := time.Duration(0), time.Duration(0)
		for i := range 250 {
			u := whole[rapid.IntRange(max(0, i-2), min(i+2, len(whole)-1)).Draw(t, "unit")]
			switch rapid.IntRange(0, 40).Draw(t, "event") {
			case 0:
				shift += time.Duration(rapid.IntRange(-12_000, 12_000).Draw(t, "shift")) * time.Millisecond
			case 1:
				step += time.Duration(rapid.IntRange(-12_000, 12_000).Draw(t, "step")) * time.Millisecond
			case 2:
				u.Lost = true
			case 3:
				u.Data = [][]byte{rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "noise")}
			}
			u.PTS += shift
			u.Arrived = u.Arrived.Add(step)
			more, err := f.Write(u)
			items = append(items, more...)
			if err != nil {
				more, _ := f.End(branchline.CauseDamaged)
				items = append(items, more...)
				f.Session(tracks)
			}
		}
		more, err := f.End(branchline.CauseStopped)
		if err != nil {
			t.Fatal(err)
		}
		ordered(t, append(items, more...))
	})
}

func ordered(t *rapid.T, items []branchline.Item) {
	var end time.Time
	var run uint64
	var last [2]time.Time
	for _, item := range items {
		switch {
		case item.Start != nil && item.Start.Number == 0:
			if back := end.Sub(item.Start.Start); back > 0 && back <= media.MaxCatchUp || item.Start.Run != run+1 {
				t.Fatalf("run %d starts at %v, run %d ended at %v", item.Start.Run, item.Start.Start, run, end)
			}
			run, end, last = item.Start.Run, item.Start.Start, [2]time.Time{}
		case item.Frame != nil:
			if !item.Frame.DTS.After(last[item.Frame.Track-1]) {
				t.Fatalf("track %d decodes at %v after %v", item.Frame.Track, item.Frame.DTS, last[item.Frame.Track-1])
			}
			last[item.Frame.Track-1] = item.Frame.DTS
		case item.Fragment != nil:
			span := item.Fragment.Fragment.Span()
			if !span.Start.Equal(end) || span.Empty() {
				t.Fatalf("fragment %v does not follow %v", span, end)
			}
			end = span.End
		case item.RunEnd != nil && !item.RunEnd.At.Equal(end):
			t.Fatalf("run ends at %v, its last fragment at %v", item.RunEnd.At, end)
		}
	}
}

func TestASessionWithoutKeyFramesIsGivenUp(t *testing.T) {
	tracks, units := film(t, 40)
	f := feed(time.Second)
	f.Session(tracks)
	for i, u := range units[1:] {
		if i%25 == 24 {
			continue
		}
		if _, err := f.Write(u); err != nil {
			if at := u.PTS - units[1].PTS; at < media.MaxKeyWait || at > media.MaxKeyWait+time.Second {
				t.Errorf("given up after %v, want %v", at, media.MaxKeyWait)
			}
			return
		}
	}
	t.Error("40 s without a key frame were taken")
}
