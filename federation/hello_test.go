package federation

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// wiretap is a connection that writes down what this side sends and receives on its streams.
type wiretap struct {
	link.Conn
	log *transcript
}

type transcript struct {
	mu    sync.Mutex
	lines []string
}

func (t *transcript) add(direction string, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf("%s %s\n", direction, hex.EncodeToString(b)))
}

func (w wiretap) OpenStream(ctx context.Context, kind link.Kind) (link.Stream, error) {
	s, err := w.Conn.OpenStream(ctx, kind)
	w.log.add("edge>", []byte{byte(kind)})
	return tapped{s, w.log}, err
}

type tapped struct {
	link.Stream
	log *transcript
}

func (t tapped) Write(b []byte) (int, error) {
	t.log.add("edge>", b)
	return t.Stream.Write(b)
}

func (t tapped) Read(b []byte) (int, error) {
	n, err := t.Stream.Read(b)
	if n > 0 {
		t.log.add("hub >", b[:n])
	}
	return n, err
}

var update = flag.Bool("update", false, "write the golden files anew")

// TestHelloTranscript compares the bytes of the greeting with those of the first release: what they
// are can never change.
func TestHelloTranscript(t *testing.T) {
	edge, hub := link.Pipe("berlin", "")
	defer edge.Close(0, "")
	log := &transcript{}
	welcomed := make(chan error)
	go func() {
		software, err := welcome(t.Context(), hub, "branchline 1.0", nil)
		if software != "branchline 1.0 edge" {
			t.Errorf("the edge calls itself %q", software)
		}
		welcomed <- err
	}()
	if _, err := greet(t.Context(), wiretap{edge, log}, "branchline 1.0 edge", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-welcomed; err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/hello.txt"
	got := strings.Join(log.lines, "")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("the greeting is\n%swant\n%s%v", got, want, err)
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		name      string
		low, high uint32
		version   uint32
	}{
		{"the same", 1, 1, 1},
		{"a newer edge that still knows this version", 1, 2, 1},
		{"an edge that is too new", 2, 3, 0},
		{"an edge that says nothing", 0, 0, 0},
		{"nonsense", 3, 1, 0},
	} {
		version, err := negotiate(c.low, c.high)
		if version != c.version || (version == 0) != errors.Is(err, ErrVersion) {
			t.Errorf("%s: %d, %v, want %d", c.name, version, err, c.version)
		}
	}
}

// TestVersionRefused shows that an edge of another time hears what to do.
func TestVersionRefused(t *testing.T) {
	edge, hub := link.Pipe("berlin", "")
	defer edge.Close(0, "")
	go welcome(t.Context(), hub, "", nil)
	c, err := ask(t.Context(), edge, link.KindControl, &wire.Request{Call: &wire.Request_Hello{
		Hello: &wire.HelloRequest{MinVersion: 7, MaxVersion: 8},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const says = "speaks 7 to 8, the hub 1 to 1"
	if _, err = c.one(); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), says) {
		t.Errorf("the hub says %v", err)
	}
}

// greet opens a link with nothing but software and tier.
func greet(ctx context.Context, conn link.Conn, software string, tier *Tier) ([]Way, error) {
	return greetAs(ctx, conn, &wire.HelloRequest{Software: software, Hub: tier.hello()})
}

// welcome lets in whom the tier lets in.
func welcome(ctx context.Context, conn link.Conn, software string, tier *Tier) (string, error) {
	return welcomeIf(ctx, conn, software, tier, func(*wire.HelloRequest) error { return nil })
}
