package record_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const stream = branchline.StreamID("gate.main")

func epoch() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

// run makes the items of a run of n segments with three fragments of a second each.
func run(t *testing.T, n int) (items []branchline.Item) {
	t.Helper()
	at := epoch()
	init := []byte("\x00\x00\x00\x10freeinitinit")
	for number := range n {
		id := branchline.SegmentID{15: byte(number + 1)}
		items = append(items, branchline.Item{Segment: id, Start: &branchline.SegmentStart{
			ID: id, Stream: stream, Run: 1, Number: uint32(number), Start: at, Codecs: "avc1.42c01f", Init: init,
		}})
		footer := segstore.Footer{ID: id, Stream: stream, Run: 1, Number: uint32(number), Codecs: "avc1.42c01f"}
		offset := int64(len(init))
		for range 3 {
			head, data := []byte("\x00\x00\x00\x10mdat"), []byte(at.Format("15:04:05"))
			tail := segstore.ChecksumBox(head, data)
			whole := slices.Concat(head, data, tail)
			f := branchline.Fragment{Offset: offset, Length: int64(len(whole)), Start: at, Duration: time.Second,
				Key: true, Hash: sha256.Sum256(whole)}
			items = append(items,
				branchline.Item{Segment: id, Frame: &branchline.Frame{Track: 1, DTS: at, FirstKey: true, Data: data}},
				branchline.Item{Segment: id, Fragment: &branchline.FragmentEnd{Fragment: f, Head: head, Tail: tail}})
			footer.Fragments = append(footer.Fragments, f)
			offset, at = f.End(), at.Add(time.Second)
		}
		box, hash, err := segstore.SealFooter(footer, init, key())
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, branchline.Item{Segment: id, Seal: &branchline.SegmentSeal{
			ID: id, Hash: hash, Footer: box, Size: offset + int64(len(box)),
		}})
	}
	return append(items, branchline.Item{RunEnd: &branchline.RunEnd{Run: 1, At: at}})
}

func sequence(items []branchline.Item) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// flaky is a store of which the calls with these numbers fail.
type flaky struct {
	*segstore.Store
	calls int
	fail  map[int]error
}

func (f *flaky) Begin(s branchline.StreamID, start branchline.SegmentStart) error {
	if f.calls++; f.fail[f.calls] != nil {
		return f.fail[f.calls]
	}
	return f.Store.Begin(s, start)
}

func (f *flaky) Put(id branchline.SegmentID, row branchline.Fragment, data []byte) error {
	if f.calls++; f.fail[f.calls] != nil {
		return fmt.Errorf("put: %w", f.fail[f.calls])
	}
	return f.Store.Put(id, row, data)
}

func (f *flaky) Seal(id branchline.SegmentID, seal branchline.SegmentSeal) error {
	f.calls++
	return f.Store.Seal(id, seal)
}

// TestWhatBecomesOfARun records three segments of three seconds. Held is what can be read afterwards,
// gaps what was told, in seconds. A hub seals nothing.
func TestWhatBecomesOfARun(t *testing.T) {
	type lost map[int]int // index of an item -> how many are lost from there on
	for _, c := range []struct {
		name string
		edge bool
		fail map[int]error // number of the store's call -> its error
		lost lost
		held string
		gaps string
	}{
		{name: "all is well", edge: true, held: "0-9"},
		{name: "all is well at a hub", held: "0-9"},
		{name: "a full disk", edge: true, fail: map[int]error{7: syscall.ENOSPC}, held: "0-3 6-9",
			gaps: "3- disk full, 3-6 disk full"},
		{name: "no segment can begin", edge: true, fail: map[int]error{1: syscall.EIO}, held: "3-9",
			gaps: "0- disk failed, 0-3 disk failed"},
		{name: "it fails twice", edge: true, fail: map[int]error{6: syscall.EIO, 7: syscall.EIO}, held: "0-3",
			gaps: "3- disk failed, 3-9 disk failed"},
		{name: "items missed at the edge", edge: true, lost: lost{3: 2}, held: "0-1 3-9",
			gaps: "1- disk slow, 1-3 disk slow"},
		{name: "items missed at a hub", lost: lost{3: 2}, held: "0-1 2-9"},
		{name: "a segment's end missed at a hub", lost: lost{5: 4}, held: "0-2 3-9"},
		{name: "an error at a hub", fail: map[int]error{3: syscall.EIO}, held: "0-1 3-9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := segstore.Options{}
			if c.edge {
				opt.Signer = key()
			}
			store, err := segstore.Open(t.TempDir(), opt)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			items := lose(run(t, 3), c.lost)
			var gaps []string
			flaky := &flaky{Store: store, fail: c.fail}
			cfg := record.Config{Store: flaky, Stream: stream, Logger: slog.New(slog.DiscardHandler)}
			if c.edge {
				cfg.Gap = func(g branchline.Gap) { gaps = append(gaps, gapText(g)) }
			}
			if err := record.Run(t.Context(), cfg, sequence(items)); err != nil {
				t.Fatal(err)
			}
			if sealed := store.Stats().Segments; (sealed > 0) != c.edge {
				t.Errorf("%d segments are sealed", sealed)
			}
			held, err := store.Held(stream, branchline.TimeRange{Start: epoch(), End: epoch().Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			var spans []string
			for _, h := range held {
				spans = append(spans, fmt.Sprintf("%v-%v", h.Start.Sub(epoch()).Seconds(), h.End.Sub(epoch()).Seconds()))
			}
			if got := strings.Join(spans, " "); got != c.held {
				t.Errorf("held is %q, want %q", got, c.held)
			}
			if got := strings.Join(gaps, ", "); got != c.gaps {
				t.Errorf("gaps are %q, want %q", got, c.gaps)
			}
		})
	}
}

// TestAsksForANewSegment: while nothing can be written a new segment is asked for, but not all the time.
func TestAsksForANewSegment(t *testing.T) {
	for _, c := range []struct {
		name string
		fail map[int]error
		asks string // at which seconds of the stream
	}{
		{"all is well", nil, ""},
		{"a full disk", map[int]error{3: syscall.ENOSPC}, "3"},
		{"no segment can begin", map[int]error{1: syscall.ENOSPC, 2: syscall.ENOSPC}, "2 5"},
	} {
		store, err := segstore.Open(t.TempDir(), segstore.Options{Signer: key()})
		if err != nil {
			t.Fatal(err)
		}
		var asks []string
		var at time.Time
		items := func(yield func(branchline.Item, error) bool) {
			for item := range sequence(run(t, 3)) {
				if item.Fragment != nil {
					at = item.Fragment.Fragment.Span().End
				}
				if !yield(item, nil) {
					return
				}
			}
		}
		cfg := record.Config{Store: &flaky{Store: store, fail: c.fail}, Stream: stream,
			Logger: slog.New(slog.DiscardHandler), Gap: func(branchline.Gap) {},
			EndSegment: func() { asks = append(asks, fmt.Sprint(at.Sub(epoch()).Seconds())) }}
		if err := record.Run(t.Context(), cfg, items); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(asks, " "); got != c.asks {
			t.Errorf("%s: asked at %q, want %q", c.name, got, c.asks)
		}
		store.Close()
	}
}

// lose leaves out items, as a ring does: the reader is given the start of the segment again.
func lose(items []branchline.Item, lost map[int]int) (out []branchline.Item) {
	var start *branchline.SegmentStart
	for i := 0; i < len(items); i++ {
		n := lost[i]
		for range n {
			if items[i].Start != nil {
				start = items[i].Start
			}
			i++
		}
		if items[i].Start != nil {
			start = items[i].Start
		} else if n > 0 {
			out = append(out, branchline.Item{Segment: start.ID, Start: start, Missed: n})
			n = 0
		}
		item := items[i]
		item.Missed = n
		out = append(out, item)
	}
	return out
}

func gapText(g branchline.Gap) string {
	text := fmt.Sprintf("%v-", g.Span.Start.Sub(epoch()).Seconds())
	if !g.Open {
		text += fmt.Sprint(g.Span.End.Sub(epoch()).Seconds())
	}
	return text + " " + string(g.Cause)
}

func TestRunEndsAsItsItemsDo(t *testing.T) {
	end := errors.New("end")
	items := func(yield func(branchline.Item, error) bool) { yield(branchline.Item{}, end) }
	var log bytes.Buffer
	cfg := record.Config{Stream: stream, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if err := record.Run(context.Background(), cfg, items); !errors.Is(err, end) || log.Len() > 0 {
		t.Errorf("got %v and logged %q", err, log.String())
	}
}
