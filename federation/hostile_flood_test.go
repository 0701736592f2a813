package federation

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/sourcetest"
	wire "github.com/branchline-video/branchline/proto"
)

// askedAgain fetches what the hub has not, which a link that lives answers.
func askedAgain(ctx context.Context, conn link.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := NewRemote(conn).Fetch(ctx, branchline.SegmentID{1}, branchline.ByteRange{})
	if !errors.Is(err, branchline.ErrNotFound) {
		return err
	}
	return nil
}

// TestHostileEnds ends a stream at each of its points, in each way, and floods the hub with silent streams. The link
// lives on, and nothing of all that stays.
func TestHostileEnds(t *testing.T) {
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		conn, _ := a.edge(a.node("berlin"), carrier)
		call := framed(&wire.Request{Call: &wire.Request_Fetch{Fetch: &wire.FetchRequest{Segment: make([]byte, 16)}}})
		if err := askedAgain(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		before, running := held(), runtime.NumGoroutine()
		for at := range len(call) + 1 {
			for way := range 4 {
				s, err := conn.OpenStream(t.Context(), link.KindFetch)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = s.Write(call[:at])
				switch way {
				case 0:
					s.Reset(link.Code(1 << 61))
				case 1:
					_ = s.Close()
					_, _ = io.Copy(io.Discard, s)
				case 2:
					_ = s.Close()
					s.Reset(0) // half closed, and nothing read
				case 3:
					_, _ = s.Write(call[at:])
					_, _ = s.Write(bytes.Repeat([]byte{1}, 1<<10)) // what nobody asked for
					s.Reset(0)
				}
			}
		}
		if err := askedAgain(t.Context(), conn); err != nil {
			t.Errorf("the link does not live on: %v", err)
		}
		// As many silent streams as there may be: they are given up after requestTime, and others go on meanwhile.
		for range link.MaxStreams - 1 {
			s, err := conn.OpenStream(t.Context(), link.KindFetch)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(nil)
			_, _ = s.Write([]byte{0xff})
			defer s.Reset(0)
		}
		if err := askedAgain(t.Context(), conn); err != nil {
			t.Errorf("beside silent streams: %v", err)
		}
		a.lives("silent streams")
		_ = conn.Close(0, "")
		until(t, "what was of the link stays", func() bool { return runtime.NumGoroutine() <= running })
		if now := held(); now > before+8<<20 {
			t.Errorf("the hub holds %d bytes more", now-before)
		}
	})
}

// TestHostileConnections makes connections by the hundreds, which do not greet or do not join. They take no places of
// other sites.
func TestHostileConnections(t *testing.T) {
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		berlin := a.node("berlin")
		other := a.node("munich")
		busy := func(protocols ...string) (refused int) {
			var conns []link.Conn
			for range 80 {
				if c, err := a.dial(berlin, carrier, protocols...); err == nil {
					conns = append(conns, c)
				}
			}
			// Time stands for the hub: it refuses at once whom it refuses.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var mu sync.Mutex
			var all sync.WaitGroup
			for _, c := range conns {
				all.Go(func() {
					_, err := c.AcceptStream(ctx)
					var e *link.Error
					if errors.As(err, &e) && wire.Code(e.Code) == wire.Code_CODE_BUSY {
						mu.Lock()
						defer mu.Unlock()
						refused++
					}
				})
			}
			all.Wait()
			return refused
		}
		if n := busy(); n < 80-maxPendingOf {
			t.Errorf("%d of 80 connections that say nothing were refused, want %d", n, 80-maxPendingOf)
		}
		a.edge(other, carrier)
		a.lives("connections that do not greet")
		if carrier == link.CarrierTCP {
			return // one connection is a link there
		}
		if n := busy(identity.ProtocolJoin); n < 80-link.MaxConnections {
			t.Errorf("%d of 80 connections that do not join were refused", n)
		}
		c, err := a.dial(other, carrier, identity.ProtocolJoin)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.OpenStream(t.Context(), link.KindJoin)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(make([]byte, 36))
		_, err = c.AcceptStream(t.Context())
		if err := fromLink(err); !errors.Is(err, branchline.ErrDenied) {
			t.Errorf("another site's connection that joins nothing: %v, want denied", err)
		}
		a.lives("connections that do not join")
	})
}

// TestStranger is a client that is nobody: it is refused with a line in the log, and what it sends to enrol is bounded.
func TestStranger(t *testing.T) {
	elsewhere := startHub(t)
	foreign := newNode(t)
	if err := Enrol(t.Context(), foreign, elsewhere.token("berlin"), nil); err != nil {
		t.Fatal(err)
	}
	overCarriers(t, func(t *testing.T, carrier link.Carrier) {
		a := startAttacked(t)
		token, err := a.authority.AddSite("berlin", []string{a.peers.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := identity.ParseToken(token)
		if err != nil {
			t.Fatal(err)
		}
		before := held()
		for name, c := range hostileStreams() {
			conn, err := link.Dial(t.Context(), a.peers.Addr().String(), link.Options{
				TLS: newNode(t).EnrolTLS(parsed), Carriers: []link.Carrier{carrier}})
			if err != nil {
				t.Fatal(err)
			}
			s, err := conn.OpenStream(t.Context(), c.kind)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(c.bytes)
			_, err = conn.AcceptStream(t.Context())
			var e *link.Error
			if !errors.As(err, &e) || !e.Remote || !e.Conn || e.Code == 0 {
				t.Errorf("%s: the connection ended with %v", name, err)
			}
			conn.Close(0, "")
		}
		if now := held(); now > before+16<<20 {
			t.Errorf("the hub holds %d bytes more", now-before)
		}
		a.lives("strangers")
		if !strings.Contains(a.said(), "enrolment") {
			t.Errorf("the hub says\n%s", a.said())
		}
	})
}

// listing counts the lists that are asked for at once.
type listing struct {
	*sourcetest.Memory
	list []branchline.Segment

	mu  sync.Mutex
	all int
}

func (l *listing) Segments(context.Context, branchline.StreamID, branchline.TimeRange) ([]branchline.Segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all++
	return l.list, nil
}

// TestHostileHub links an edge to a hub that sends what no hub sends, and asks for lists that it does not read. The
// edge's memory is bounded, and it goes on to answer.
func TestHostileHub(t *testing.T) {
	h := startHub(t)
	src := &listing{Memory: newSource()}
	seg := scriptedSegment()
	for range 4_000 {
		seg.Fragments = append(seg.Fragments, seg.Fragments[0])
	}
	for range 40 {
		src.list = append(src.list, seg)
	}
	h.startEdge("berlin", src)
	conn := h.wait("berlin").conn
	before := held()
	for name, c := range hostileStreams() {
		if c.code == wire.Code_CODE_DENIED || c.code == wire.Code_CODE_CANCELLED {
			continue // a hub may
		}
		s, err := conn.OpenStream(t.Context(), c.kind)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(c.bytes)
		var got wire.Answer
		err = newReceiver(s).message(&got, maxControl)
		code := got.GetError().GetCode()
		var reset *link.Error
		if errors.As(err, &reset) && !reset.Conn {
			code = wire.Code(reset.Code)
		}
		if code != c.code {
			t.Errorf("%s: %v, %v, want %v", name, code, err, c.code)
		}
	}
	list := framed(&wire.Request{Call: &wire.Request_Segments{
		Segments: &wire.SegmentsRequest{Stream: string(testStream)}}})
	for range maxControlCalls - 10 {
		s, err := conn.OpenStream(t.Context(), link.KindControl)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Reset(0)
		_, _ = s.Write(list)
	}
	if _, err := NewRemote(conn).Cameras(t.Context()); err != nil {
		t.Errorf("beside lists that are not read: %v", err)
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.all > maxLists {
		t.Errorf("%d lists are in memory at once, want at most %d", src.all, maxLists)
	}
	if now := held(); now > before+64<<20 {
		t.Errorf("the edge holds %d bytes more", now-before)
	}
}
