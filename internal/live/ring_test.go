package live_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/live"
)

// script makes items from a small notation, one letter each: S starts a segment, K is a key fragment's
// first frame, f another frame, e a fragment's end, s a seal, R a run's end, C the same when the clock is
// stepped forward an hour. Frames are a second apart.
type script struct {
	n       byte // of the newest segment
	seconds int
}

func (s *script) item(c rune) branchline.Item {
	id := branchline.SegmentID{s.n}
	switch c {
	case 'S':
		s.n++
		id = branchline.SegmentID{s.n}
		return branchline.Item{Segment: id, Start: &branchline.SegmentStart{
			ID: id, Start: time.Unix(int64(s.seconds+1), 0),
		}}
	case 'K', 'f':
		s.seconds++
		at := time.Unix(int64(s.seconds), 0)
		return branchline.Item{Segment: id, Frame: &branchline.Frame{Track: 1, DTS: at, PTS: at, FirstKey: c == 'K'}}
	case 'e':
		return branchline.Item{Segment: id, Fragment: &branchline.FragmentEnd{}}
	case 's':
		return branchline.Item{Segment: id, Seal: &branchline.SegmentSeal{ID: id}}
	case 'C':
		s.seconds += 3600
	}
	return branchline.Item{RunEnd: &branchline.RunEnd{}}
}

func letter(i branchline.Item) string {
	switch {
	case i.Start != nil:
		return "S"
	case i.Frame != nil && i.Frame.FirstKey:
		return "K"
	case i.Frame != nil:
		return "f"
	case i.Fragment != nil:
		return "e"
	case i.Seal != nil:
		return "s"
	}
	return "R"
}

// text writes an item with how many were missed before it.
func text(i branchline.Item) string {
	if i.Missed > 0 {
		return fmt.Sprintf("<%d>%s", i.Missed, letter(i))
	}
	return letter(i)
}

var errEnd = errors.New("end of the test")

func TestWhatReadersGet(t *testing.T) {
	for _, c := range []struct {
		name, before, after string // published before and after the reader joins
		limits              live.Limits
		want                string
	}{
		{"nothing yet", "", "SKfeKfesSKfe", live.Limits{}, "SKfeKfesSKfe"},
		{"from the newest key, with its start again", "SKfeKfe", "fe", live.Limits{}, "SKfefe"},
		{"the start itself is there", "SKfesSK", "fe", live.Limits{}, "SKfe"},
		{"not before a key", "Sff", "feKfe", live.Limits{}, "SKfe"},
		{"between a start and its key", "S", "KfeKfe", live.Limits{}, "SKfeKfe"},
		{"not in a run that has ended", "SKfesR", "SKfe", live.Limits{}, "SKfe"},
		{"run ends while reading", "SK", "fesRSK", live.Limits{}, "SKfesRSK"},
		{"slow: overtaken by items", "SK", "feKfeKfe", live.Limits{Items: 4}, "<7>SKfe"},
		{"slow: resumes at the start of a segment", "SK", "fesSKf", live.Limits{Items: 4}, "<5>SKf"},
		{"slow: by age", "SK", "fffKff", live.Limits{Age: 2 * time.Second}, "<5>SKff"},
		{"slow: a clock step takes nothing away", "SK", "fesCSKfe", live.Limits{}, "SKfesRSKfe"},
		{"slow: by age over a clock step", "SK", "fesCSKffKf", live.Limits{Age: 2 * time.Second}, "<10>SKf"},
		{"slow: by bytes", "SK", "feKfe", live.Limits{Bytes: 800}, "<4>SKfe"},
		{"slow: no key left", "SK", "ffffff", live.Limits{Items: 3}, ""},
	} {
		r := live.New(c.limits)
		var s script
		for _, l := range c.before {
			r.Publish(s.item(l))
		}
		items := r.Subscribe(t.Context())
		for _, l := range c.after {
			r.Publish(s.item(l))
		}
		r.Close(errEnd)
		got, err := read(items)
		if got != c.want || !errors.Is(err, errEnd) {
			t.Errorf("%s: got %q and %v, want %q", c.name, got, err, c.want)
		}
	}
}

func read(items iter.Seq2[branchline.Item, error]) (string, error) {
	var got strings.Builder
	for item, err := range items {
		if err != nil {
			return got.String(), err
		}
		got.WriteString(text(item))
	}
	return got.String(), nil
}

// TestReadersLoseOnlyWhatTheyAreTold publishes and reads in any order. What a reader gets is the
// published sequence with holes; each hole is told with its exact size, and ends at a place to join.
func TestReadersLoseOnlyWhatTheyAreTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(2, 12).Draw(t, "limit")
		r := live.New(live.Limits{Items: limit})
		var s script
		var published []branchline.Item
		place := -1 // where a reader that comes now joins
		publish := func(letters string) {
			for _, l := range letters {
				if l == 'K' {
					place = len(published)
					if published[place-1].Start != nil {
						place--
					}
				}
				published = append(published, s.item(l))
				r.Publish(published[len(published)-1])
			}
		}
		burst := func() string {
			parts := []string{"f", "fe", "Kf", "Kfe", "esSK", "SK", "fff"}
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 8).Draw(t, "burst"), "")
		}
		publish("SK" + burst() + "K")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		next, stop := iter.Pull2(r.Subscribe(ctx))
		defer stop()
		if published[place].Start != nil && place < len(published)-limit {
			place++ // the start is no longer in the ring, and given again
		}
		want := place // index of the published item that comes next, if nothing is missed
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			publish(burst() + "K") // the key, so that there is something to read
			item, err, ok := next()
			if err != nil || !ok {
				t.Fatalf("reader ended: %v", err)
			}
			want += item.Missed
			is := published[want]
			switch {
			case is.Start == item.Start && is.Frame == item.Frame && is.Fragment == item.Fragment && is.Seal == item.Seal:
				want++
			case item.Start == nil || item.Segment != is.Segment || is.Frame == nil || !is.Frame.FirstKey:
				t.Fatalf("got %s where %s comes next", text(item), text(is))
			}
			if item.Missed > 0 && item.Start == nil {
				t.Fatalf("after a loss comes %s", text(item))
			}
		}
	})
}

func TestPublishingNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := live.New(live.Limits{Items: 8})
		release := make(chan struct{})
		stuck := r.Subscribe(t.Context())
		ended := make(chan error, 1)
		go func() {
			for _, err := range stuck {
				if err != nil {
					ended <- err
					return
				}
				<-release
			}
		}()
		var s script
		for range 100 {
			for _, l := range "SKffes" {
				r.Publish(s.item(l))
			}
			synctest.Wait()
		}
		r.Close(nil)
		close(release)
		if err := <-ended; !errors.Is(err, branchline.ErrUnavailable) {
			t.Fatalf("reader ended with %v", err)
		}
	})
}

func TestAReaderEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := live.New(live.Limits{})
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(stop) })
		if got, err := read(r.Subscribe(ctx)); got != "" || !errors.Is(err, stop) {
			t.Fatalf("got %q and %v", got, err)
		}
	})
}
