package federation

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
	wire "github.com/branchline-video/branchline/proto"
)

// wide is a connection in memory that seems to be a bundle of four.
type wide struct{ link.Conn }

func (wide) Stats() link.Stats { return link.Stats{Connections: 4} }

// TestLiveOnSeveralStreams runs the conformance suite where fragments come on several streams.
func TestLiveOnSeveralStreams(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		src := newSource()
		edge, hub := link.Pipe("berlin", "")
		serveOn(t, edge, src)
		t.Cleanup(func() { hub.Close(0, "") })
		return sourcetest.Fixture{Source: NewRemote(wide{hub}), Stream: testStream, Feed: src.Feed(testStream)}
	})
}

// older is a connection to a peer that knows nothing of fragments on several streams: it does not see
// that they are asked for.
type older struct{ link.Conn }

func (o older) OpenStream(ctx context.Context, kind link.Kind) (link.Stream, error) {
	s, err := o.Conn.OpenStream(ctx, kind)
	return &olderStream{Stream: s, live: kind == link.KindLive}, err
}

type olderStream struct {
	link.Stream
	live bool
}

func (s *olderStream) Write(b []byte) (int, error) {
	if !s.live {
		return s.Stream.Write(b)
	}
	var req wire.Request
	if err := newReceiver(bytes.NewReader(b)).message(&req, maxRequest); err != nil {
		return 0, err
	}
	req.GetLive().Spread = false
	return len(b), (&sender{w: s.Stream}).message(proto.Message(&req), maxRequest)
}

// TestLiveOnOneStream runs the suite with a peer of before.
func TestLiveOnOneStream(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		src := newSource()
		edge, hub := link.Pipe("berlin", "")
		serveOn(t, edge, src)
		t.Cleanup(func() { hub.Close(0, "") })
		return sourcetest.Fixture{Source: NewRemote(older{hub}), Stream: testStream, Feed: src.Feed(testStream)}
	})
}

// TestMerge: parts come in the wrong order, late or never, and what is yielded is in order, with what was
// missed. A part is written as its items: s a segment's start, k a key frame that a reader may join at, f
// another frame, a dot the end of the fragment.
func TestMerge(t *testing.T) {
	parts := strings.Fields("sk. f. k. f. f. k. sk.")
	for _, c := range []struct{ arrive, want string }{
		{"1 2 3 4", "sk. f. k. f."},
		{"1 3 2 4", "sk. f. k. f."},
		{"1 4 3 2 5", "sk. f. k. f. f."},
		{"1 3 4 late 2 5", "sk. (2)sk. f. f."}, // the second is given up, and does not come back
		{"1 4 late 5 2 3", "sk."},              // nothing to join at yet
		{"1 4 late 5 6", "sk. (8)sk."},         // 2 and 3, 4 and 5
	} {
		t.Run(c.arrive, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { merges(t, parts, c.arrive, c.want) })
		})
	}
}

func merges(t *testing.T, parts []string, arrive, want string) {
	var got strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	m := &merge{ctx: ctx, in: make(chan arrival), part: 1, next: 1, waiting: make(map[uint64][]arrival),
		late: time.NewTimer(time.Hour), yield: func(i branchline.Item) bool {
			if i.Missed > 0 {
				fmt.Fprintf(&got, "(%d)", i.Missed)
			}
			switch {
			case i.Start != nil:
				got.WriteByte('s')
			case i.Frame != nil && i.Frame.FirstKey:
				got.WriteByte('k')
			case i.Frame != nil:
				got.WriteByte('f')
			default:
				got.WriteString(". ")
			}
			return true
		}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = m.run()
	}()
	for _, word := range strings.Fields(arrive) {
		if word == "late" {
			<-time.After(lateLimit + time.Millisecond)
			continue
		}
		var part, number uint64
		fmt.Sscan(word, &part)
		for _, p := range parts[:part-1] {
			number += uint64(len(p))
		}
		for _, kind := range parts[part-1] {
			number++
			v := arrival{part: part, number: number}
			switch kind {
			case 's':
				v.item.Start = &branchline.SegmentStart{}
			case '.':
				v.item.Fragment = &branchline.FragmentEnd{}
			default:
				v.item.Frame = &branchline.Frame{Track: 1, FirstKey: kind == 'k'}
			}
			m.in <- v
		}
	}
	synctest.Wait()
	cancel()
	<-ended
	if got := strings.TrimSpace(got.String()); got != want {
		t.Errorf("%q was yielded, want %q", got, want)
	}
}
