package ingest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// packets makes the packets of n access units, each a key frame of three packets; unit i is full of the
// letter i. Every packet is named by its unit's letter and its place in it: "a0", "a1", "a2".
func packets(t *testing.T, f *format.H264, n int) map[string]*rtp.Packet {
	t.Helper()
	encoder, err := f.CreateEncoder()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*rtp.Packet)
	for i := range n {
		letter := byte('a' + i)
		unit := append([]byte{0x65}, bytes.Repeat([]byte{letter}, 4000)...)
		list, err := encoder.Encode([][]byte{unit})
		if err != nil || len(list) != 3 {
			t.Fatalf("%d packets, %v", len(list), err)
		}
		for j, p := range list {
			p.Timestamp = uint32(i) * 3600
			all[fmt.Sprintf("%c%d", letter, j)] = p
		}
	}
	return all
}

func TestUnitsAreWholeOrNotThere(t *testing.T) {
	for _, c := range []struct{ name, packets, want string }{
		{"nothing lost", "a0 a1 a2 b0 b1 b2", "a b"},
		{"joined in the middle", "a1 a2 b0 b1 b2", "b"},
		{"one packet lost", "a0 a2 b0 b1 b2", "lost1 !b"},
		{"a unit's end lost", "a0 a1 b0 b1 b2 c0 c1 c2", "lost1 !c"},
		{"a unit's start lost", "a0 a1 a2 b1 b2 c0 c1 c2", "a lost1 !c"},
		{"a whole unit lost", "a0 a1 a2 c0 c1 c2 d0 d1 d2", "a lost3 !d"},
		{"a packet twice", "a0 a1 a1 a2 b0 b1 b2", "lost1 !b"},
		{"no marker", "a0 a1 a2- b0 b1 b2- c0 c1 c2-", "a b"},
	} {
		f := &format.H264{PayloadTyp: 96, PacketizationMode: 1}
		track, err := newTrack(&description.Media{}, f)
		if err != nil {
			t.Fatal(err)
		}
		all := packets(t, f, 4)
		var got []string
		for _, name := range strings.Fields(c.packets) {
			p := *all[strings.TrimSuffix(name, "-")]
			p.Marker = p.Marker && !strings.HasSuffix(name, "-")
			units, lost := track.decode(&p, stamp{pts: time.Duration(p.Timestamp)})
			if lost > 0 {
				got = append(got, fmt.Sprintf("lost%d", lost))
			}
			for _, u := range units {
				letter := u.Data[0][1]
				if want := append([]byte{0x65}, bytes.Repeat([]byte{letter}, 4000)...); !bytes.Equal(u.Data[0], want) {
					t.Errorf("%s: unit %c is not whole", c.name, letter)
				}
				if want := time.Duration(letter-'a') * 3600; u.PTS != want {
					t.Errorf("%s: unit %c is shown at %d, want %d", c.name, letter, u.PTS, want)
				}
				got = append(got, strings.Repeat("!", bool2int(u.Lost))+string(letter))
			}
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// answering listens and treats each connection as told, until the test ends.
func answering(t *testing.T, treat func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			treat(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "rtsp://u:p@" + l.Addr().String() + "/main"
}

// reply answers every request with a status and headers.
func reply(status string) func(net.Conn) {
	return func(c net.Conn) {
		requests := bufio.NewScanner(c)
		for requests.Scan() {
			if cseq, ok := strings.CutPrefix(requests.Text(), "CSeq: "); ok {
				fmt.Fprintf(c, "RTSP/1.0 %s\r\nCSeq: %s\r\n\r\n", status, cseq)
			}
		}
	}
}

func TestCauses(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name, url string
		want      branchline.Cause
	}{
		{"nobody listens", "rtsp://" + closed.Addr().String() + "/main", branchline.CauseUnreachable},
		{"hangs up", answering(t, func(net.Conn) {}), branchline.CauseUnreachable},
		{"not found", answering(t, reply("404 Not Found")), branchline.CauseUnreachable},
		{"forbidden", answering(t, reply("403 Forbidden")), branchline.CauseRefused},
		{"describes nothing", answering(t, reply("200 OK")), branchline.CauseDamaged},
	} {
		session, err := Open(t.Context(), Config{URL: c.url})
		if err == nil {
			session.Close()
			t.Errorf("%s: was opened", c.name)
			continue
		}
		if got := CauseOf(err); got != c.want {
			t.Errorf("%s: %v is %q, want %q", c.name, err, got, c.want)
		}
		if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: the error shows the password: %v", c.name, err)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	url := answering(t, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		cancel(stop)
		c.Read(make([]byte, 4096)) // until the client hangs up
	})
	if _, err := Open(ctx, Config{URL: url}); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
