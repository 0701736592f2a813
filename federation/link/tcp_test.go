package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// raw returns a connection that accepted, and the bare other end of it.
func raw(t testing.TB) (c *tcpConn, peer net.Conn) {
	t.Helper()
	c, peer = unanswered(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer()
	return c, peer
}

// unanswered is raw of a connection on which nothing was written yet.
func unanswered(t testing.TB) (c *tcpConn, peer net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	on := &socket{Conn: here}
	c = newTCP(on, on, Peer{}, false)
	t.Cleanup(func() {
		there.Close()
		c.Close(0, "")
	})
	return c, there
}

// frames writes frames in a small notation, each a kind, a stream and a number: the size of data, or what
// is in the frame.
func frames(t testing.TB, text string) []byte {
	t.Helper()
	var b []byte
	for word := range strings.FieldsSeq(text) {
		var name string
		var stream uint32
		var n int
		if _, err := fmt.Sscanf(strings.ReplaceAll(word, ":", " "), "%s %d %d", &name, &stream, &n); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		switch name {
		case "data":
			for ; n > maxFrame; n -= maxFrame {
				b = append(appendFrame(b, frameData, stream, maxFrame), make([]byte, maxFrame)...)
			}
			b = append(appendFrame(b, frameData, stream, n), make([]byte, n)...)
		case "end":
			b = append(appendFrame(b, frameEnd, stream, n), make([]byte, n)...)
		case "reset":
			b = appendCode(b, frameReset, stream, uint64(n))
		case "stop":
			b = appendCode(b, frameStop, stream, uint64(n))
		case "credit":
			b = appendCount(b, frameCredit, stream, n)
		case "streams":
			b = appendCount(b, frameStreams, stream, n)
		case "ping":
			b = appendCode(b, framePing, stream, uint64(n))
		case "short":
			b = append(appendFrame(b, frameReset, stream, n), make([]byte, n)...)
		case "other":
			b = append(appendFrame(b, 99, stream, n), make([]byte, n)...)
		case "close":
			b = append(appendFrame(b, frameClose, stream, n), make([]byte, n)...)
		default:
			t.Fatalf("%s: no such frame", word)
		}
	}
	return b
}

// TestFrames sends frames, good ones and such as no peer sends.
func TestFrames(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+" ", 2*i+1)
		}
		return b.String()
	}
	full := fmt.Sprint(firstStreamWindow)
	for text, want := range map[string]error{
		"data:1:100 data:1:100 end:1:0 ping:0:7":                 nil,
		"data:1:" + full:                                         nil,
		"data:1:" + full + " data:1:1":                           errFrames,
		many(maxConnWindow/firstStreamWindow, "data:%d:"+full):   nil,
		many(maxConnWindow/firstStreamWindow+1, "data:%d:"+full): errFrames,
		many(MaxStreams, "data:%d:1"):                            nil,
		many(MaxStreams+1, "data:%d:1"):                          errFrames,
		many(MaxStreams, "end:%d:1 stop:%[1]d:1"):                nil,
		many(MaxStreams+1, "end:%d:1 stop:%[1]d:1"):              errFrames, // nobody accepted them
		"end:1:1 data:1:1":                                       errFrames,
		"data:1:1 reset:1:7 reset:1:8 stop:1:7 data:1:1":         nil,
		"data:3:1":                     errFrames, // not the next one
		"data:2:1":                     errFrames, // to be opened here
		"data:0:1":                     errFrames,
		"reset:1:1":                    errFrames,
		"stop:2:1":                     errFrames,
		"credit:1:1":                   errFrames,
		"credit:0:1":                   nil,
		"credit:0:1073741824":          errFrames,
		"data:1:1 credit:1:1":          nil,
		"data:1:1 credit:1:1073741824": errFrames,
		"streams:0:1":                  errFrames,
		"other:5:16000":                nil,
		"short:1:7":                    errFrames,
		"close:0:409":                  errFrames,
		"other:5:16378":                errFrames,
	} {
		t.Run(text[:min(len(text), 60)], func(t *testing.T) {
			sent := append(frames(t, text), frames(t, "close:0:8")...)
			c, peer := raw(t)
			go io.Copy(io.Discard, peer)
			if _, err := peer.Write(sent); err != nil && want == nil {
				t.Fatal(err)
			}
			<-c.done
			var closed *Error
			if err := c.cause(); want != nil && !errors.Is(err, want) || want == nil && !errors.As(err, &closed) {
				t.Errorf("ended with %v, want %v", err, want)
			}
		})
	}
}

// readFrame reads one frame of data, passing over all others.
func readFrame(t *testing.T, r io.Reader) (f frame, body []byte) {
	t.Helper()
	for {
		var head [frameHeader]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatal(err)
		}
		f, err := parseFrame(head)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, f.size)
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		if f.kind == frameData || f.kind == frameEnd {
			return f, body
		}
	}
}

// TestPriorities fills three streams while nothing is taken: then the most urgent goes first, and those of
// one urgency take turns. What had been handed on already is little.
func TestPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := raw(t)
		urgencies := map[uint32]int8{}
		open := func(urgency int8) Stream {
			s, err := c.OpenStream(t.Context(), KindFetch)
			if err != nil {
				t.Fatal(err)
			}
			s.SetPriority(urgency)
			urgencies[uint32(2*len(urgencies)+2)] = urgency
			return s
		}
		fill := func(s Stream) {
			if _, err := s.Write(make([]byte, sendBuffer-1)); err != nil {
				t.Fatal(err)
			}
		}
		fill(open(5)) // its beginning goes at once
		synctest.Wait()
		one, two, three := open(7), open(3), open(3)
		fill(one)
		fill(two)
		fill(three)
		one.SetPriority(1)
		var order []string
		for got := 0; got < 4*sendBuffer; {
			f, body := readFrame(t, peer)
			got += len(body)
			if order = append(order, fmt.Sprint(f.stream)); got <= firstBatch && f.stream != 2 {
				t.Errorf("stream %d goes before what was sent already", f.stream)
			}
		}
		turns := strings.Join(slices.Compact(order), "")
		if turns != "2464646464"[:1]+"4"+turns[2:len(turns)-1]+"2" || !strings.Contains(turns, "686868") {
			t.Errorf("streams took turns as %s: want the first one's beginning, all of 4, 6 and 8 in turn, the rest", turns)
		}
	})
}

// TestSilence shows when a peer that says nothing is given up, on both sides, and that an answer each
// second is enough.
func TestSilence(t *testing.T) {
	for _, dialled := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			on := &socket{Conn: here}
			c := newTCP(on, on, Peer{}, dialled)
			go io.Copy(io.Discard, there)
			for range 10 {
				time.AfterFunc(KeepAlive, func() { there.Write(frames(t, "ping:0:1")) })
				select {
				case <-c.done:
					t.Fatalf("it ended with %v", c.cause())
				case <-time.After(2 * KeepAlive):
				}
			}
			began := time.Now()
			<-c.done
			if took := time.Since(began) + KeepAlive; took != silence || !errors.Is(c.cause(), ErrSilent) {
				t.Errorf("ended %v after the last frame with %v", took, c.cause())
			}
			c.Close(0, "")
		})
	}
}

// TestStallWatch gives the watch a look each second. A line is what it sees: acknowledged bytes, packets that
// came, and '!' where it is to say that the connection stalls.
func TestStallWatch(t *testing.T) {
	for text, rtt := range map[string]time.Duration{
		"1,1 1,2 1,3 1,4! 1,5!":      0,
		"1,1 1,2 1,3 1,4 1,5 1,6!":   2 * time.Second,
		"1,1 1,1 1,1 1,1 1,1 1,2!":   0, // first nothing comes at all
		"1,1 1,2 1,3 2,4 2,5 2,6":    0,
		"1,1 1,2 - 1,3 1,4 1,5 1,6!": 0, // nothing waits
	} {
		var w stallWatch
		now := time.Unix(0, 0)
		for _, look := range strings.Fields(text) {
			now = now.Add(KeepAlive)
			p := progress{waiting: look != "-", rtt: rtt}
			fmt.Sscanf(look, "%d,%d", &p.acked, &p.received)
			if got := w.look(p, now); got != strings.HasSuffix(look, "!") {
				t.Errorf("%q: at %s it says %v", text, look, got)
			}
		}
	}
}

// TestCloseMute closes a connection whose peer takes nothing: it does not wait for longer than it says.
func TestCloseMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := raw(t)
		s, err := c.OpenStream(t.Context(), KindFetch)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		if err := c.Close(3, "why"); err != nil || time.Since(began) != closeTime {
			t.Errorf("closed after %v: %v", time.Since(began), err)
		}
	})
}

// FuzzFrames takes any bytes from the peer: the connection ends, and keeps no more than its windows.
func FuzzFrames(f *testing.F) {
	f.Add(frames(f, "data:1:5 end:1:2 stop:1:7 credit:0:9 ping:0:3"))
	f.Add(frames(f, "data:1:5 reset:1:7 data:3:20000 streams:0:1"))
	f.Add(frames(f, "data:1:5 close:0:20"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, peer := raw(t)
		go io.Copy(io.Discard, peer)
		if s, err := c.OpenStream(t.Context(), KindLive); err == nil {
			s.Write([]byte("x"))
		}
		go func() {
			for {
				s, err := c.AcceptStream(t.Context())
				if err != nil {
					return
				}
				s.Reset(1)
			}
		}()
		peer.Write(b)
		peer.Close()
		<-c.done
		kept := 0
		c.mu.Lock()
		defer c.mu.Unlock()
		for s := range c.open {
			kept += s.in.size
		}
		if kept > 0 || len(c.open) > 2*MaxStreams {
			t.Errorf("it keeps %d bytes and %d streams", kept, len(c.open))
		}
	})
}

// TestFrameHeader reads back what is written.
func TestFrameHeader(t *testing.T) {
	b := appendCode(nil, frameStop, 7, 9)
	f, err := parseFrame([frameHeader]byte(b[:frameHeader]))
	code := binary.BigEndian.AppendUint64(nil, 9)
	if err != nil || f != (frame{frameStop, 7, 8}) || !bytes.Equal(b[frameHeader:], code) {
		t.Errorf("%+v, %v from %x", f, err, b)
	}
}

// TestResetsThatNobodyReads: a peer that reads nothing and opens one stream after the other, each of which is reset
// here, is cut off, and what there is to tell it does not grow.
func TestResetsThatNobodyReads(t *testing.T) {
	c, peer := raw(t)
	go func() {
		for {
			s, err := c.AcceptStream(context.Background())
			if err != nil {
				return
			}
			s.Reset(5)
		}
	}()
	for id := 1; id < 8*MaxStreams; id += 2 {
		if _, err := peer.Write(frames(t, fmt.Sprintf("data:%d:1", id))); err != nil {
			break
		}
	}
	<-c.done
	if err := c.cause(); !errors.Is(err, errFrames) {
		t.Errorf("ended with %v, want that it breaks the rules", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.listed) > MaxStreams {
		t.Errorf("%d streams wait to be told of", len(c.listed))
	}
}

// TestUnanswered: of a peer to whom nothing was written yet little is taken, and the rest when something was.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := unanswered(t)
		go func() { _, _ = io.Copy(io.Discard, peer) }()
		const all = 500_000
		var sent atomic.Int64
		go func() {
			for b := frames(t, fmt.Sprintf("data:1:%d", all)); len(b) > 0; {
				n, err := peer.Write(b[:min(len(b), 1000)])
				if b = b[n:]; err != nil {
					return
				}
				sent.Add(int64(n))
			}
		}()
		synctest.Wait()
		if n := sent.Load(); n < maxUnanswered || n > maxUnanswered+2*readAhead {
			t.Errorf("%d bytes were taken before anything was written, want about %d", n, maxUnanswered)
		}
		s, err := c.AcceptStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(s, make([]byte, all/2)); err != nil {
			t.Errorf("%d bytes, %v: what is read is replaced", n, err)
		}
		synctest.Wait()
		if n := sent.Load(); n < all/2+maxUnanswered || n > all/2+maxUnanswered+2*readAhead {
			t.Errorf("%d bytes were taken when %d were read", n, all/2)
		}
		if _, err := s.Write([]byte("welcome")); err != nil {
			t.Fatal(err)
		}
		if synctest.Wait(); sent.Load() < all {
			t.Errorf("%d bytes were taken after an answer", sent.Load())
		}
	})
}
