package federation

import (
	"context"
	"errors"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// TestHostileParts answers a live call over real links with numbers in no order: the hub neither spins nor keeps what
// comes, and goes on with what follows.
func TestHostileParts(t *testing.T) {
	key := func(number, part uint64) []byte {
		return framed(&wire.Answer{Body: &wire.Answer_Item{Item: &wire.Item{Number: number, Part: part,
			Segment: make([]byte, 16), What: &wire.Item_Start{Start: &wire.SegmentStart{
				Id: make([]byte, 16), Stream: string(testStream)}}}}})
	}
	ticket := framed(&wire.Answer{Body: &wire.Answer_Live{Live: &wire.LiveAnswer{Ticket: make([]byte, ticketSize)}}})
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		conn, r := a.edge(a.node("berlin"), carrier)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s, err := conn.AcceptStream(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			for range 1000 {
				_, _ = s.Write(ticket)
			}
			for _, part := range []uint64{1 << 63, 7, math.MaxUint64, 3, 1 << 40} {
				_, _ = s.Write(key(math.MaxUint64-part, part))
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		running, came := runtime.NumGoroutine(), 0
		for _, err := range r.Live(ctx, testStream) {
			if err != nil {
				t.Fatal(err)
			}
			came++
			if n := runtime.NumGoroutine(); n > running+50 {
				t.Errorf("%d goroutines more", n-running)
			}
			if came == 2 {
				break
			}
		}
		if came != 2 {
			t.Errorf("%d items came in 10 s", came)
		}
		<-done
		a.lives("live in no order")
	})
}

// TestWaitingIsBounded: what waits for an earlier part is counted whatever it is.
func TestWaitingIsBounded(t *testing.T) {
	for name, i := range map[string]branchline.Item{
		"start":    {Start: &branchline.SegmentStart{Init: make([]byte, 1<<20)}},
		"frame":    {Frame: &branchline.Frame{Data: make([]byte, 1<<20)}},
		"fragment": {Fragment: &branchline.FragmentEnd{Head: make([]byte, 1<<19), Tail: make([]byte, 1<<19)}},
		"seal":     {Seal: &branchline.SegmentSeal{Footer: make([]byte, 1<<20)}},
		"nothing":  {Frame: &branchline.Frame{}},
	} {
		m := &merge{yield: func(branchline.Item) bool { return true }, part: 1, next: 1,
			waiting: make(map[uint64][]arrival), late: time.NewTimer(time.Hour)}
		for n := range 100_000 {
			if _, err := m.take(arrival{item: i, number: uint64(n + 2), part: 2}); err != nil {
				t.Fatal(err)
			}
			if m.bytes > maxWaitingBytes || len(m.waiting[2]) > maxWaitingBytes/itemBytes {
				t.Fatalf("%s: %d items of %d bytes wait", name, len(m.waiting[2]), m.bytes)
			}
		}
		if m.part == 1 {
			t.Errorf("%s: 100,000 items still wait", name)
		}
	}
}

// TestSmallParts sends a message of millions of empty messages: it is refused before they take
// a hundred times the room.
func TestSmallParts(t *testing.T) {
	inner := make([]byte, 0, 6<<20)
	for len(inner) < 6<<20 {
		inner = append(inner, 0x5a, 0) // Segment.fragments
	}
	answer := sized(uint64(len(inner)), inner...)
	answer = append([]byte{0x22}, answer...) // Answer.segment
	answer = sized(uint64(len(answer)), answer...)
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		conn, r := a.edge(a.node("berlin"), carrier)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		answered := answerOne(t, conn, answer)
		for _, err := range r.Live(t.Context(), testStream) {
			if !errors.Is(err, branchline.ErrTooLarge) {
				t.Errorf("%v, want too large", err)
			}
		}
		<-answered
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 150<<20 {
			t.Errorf("a message of %d bytes took %d", len(answer), took)
		}
		a.lives("millions of parts")
	})
}
