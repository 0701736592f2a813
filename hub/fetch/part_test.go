package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore"
)

// silent is a site that gives a few bytes of whatever it is asked for, and no more.
type silent struct {
	branchline.Source
	asked atomic.Int32
}

func (s *silent) Fetch(context.Context, branchline.SegmentID, branchline.ByteRange) (io.ReadCloser, error) {
	s.asked.Add(1)
	return io.NopCloser(bytes.NewReader(make([]byte, 1000))), nil
}

// TestPartsCostWhatArrives: a part that the store would refuse is not fetched, and memory is taken for
// the bytes that come, not for those that were listed.
func TestPartsCostWhatArrives(t *testing.T) {
	for _, c := range []struct {
		name  string
		part  *part
		asked int32
		err   error
	}{
		{"a fragment larger than the store takes",
			&part{bytes: branchline.ByteRange{End: segstore.MaxFragment + 1}}, 0, branchline.ErrTooLarge},
		{"an init part larger than the store takes",
			&part{init: true, bytes: branchline.ByteRange{End: segstore.MaxInit + 1}}, 0, branchline.ErrTooLarge},
		{"a footer larger than any", &part{footer: true, bytes: branchline.ByteRange{End: maxFooter + 1}},
			0, branchline.ErrTooLarge},
		{"nothing", &part{bytes: branchline.ByteRange{Start: 5, End: 5}}, 0, branchline.ErrTooLarge},
		{"the largest fragment, of which little comes",
			&part{bytes: branchline.ByteRange{End: segstore.MaxFragment}}, 1, branchline.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &silent{}
			tk := &task{crew: newCrew(src, clock.Clock{}, new(tally))}
			st := &segmentTransfer{task: tk, parts: []*part{c.part}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := errors.Join(tk.crew.bring(t.Context(), tk, []*segmentTransfer{st}), st.damaged)
			tk.crew.work.Wait()
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.err) || src.asked.Load() < c.asked || c.asked == 0 && src.asked.Load() > 0 {
				t.Errorf("asked %d times, %v", src.asked.Load(), err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 4*firstRoom {
				t.Errorf("%d bytes allocated", grown)
			}
			if tk.crew.room != memory {
				t.Errorf("%d bytes of memory are not given back", memory-tk.crew.room)
			}
		})
	}
}

// TestRoomOfAll: sites that hold much leave each other one at least something, and all is given back.
func TestRoomOfAll(t *testing.T) {
	var all tally
	crews := make([]*crew, 2*memoryOfAll/memory)
	for i := range crews {
		crews[i] = newCrew(nil, clock.Clock{}, &all)
	}
	const size = memory / 4
	taken := 0
	for range 8 {
		for _, c := range crews {
			if c.reserve(size) {
				taken++
			}
		}
	}
	for i, c := range crews {
		if c.room == memory || c.room < 0 {
			t.Errorf("site %d has %d bytes of %d left", i, c.room, memory)
		}
	}
	if got := all.room.Load(); got != int64(taken*size) || got > memoryOfAll+int64(len(crews)*size) {
		t.Errorf("%d bytes are taken, and counted are %d of %d", taken*size, got, memoryOfAll)
	}
	for _, c := range crews {
		for c.room < memory {
			c.release(&part{begun: true, bytes: branchline.ByteRange{End: size}})
		}
	}
	if got := all.room.Load(); got != 0 {
		t.Errorf("%d bytes are not given back", got)
	}
}
