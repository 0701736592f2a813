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

// TestHelloTranscript compares the bytes of the greeting with those of each version: what they are can never
// change.
func TestHelloTranscript(t *testing.T) {
	for v, golden := range map[version]string{1: "testdata/hello.txt", 2: "testdata/hello2.txt"} {
		edge, hub := link.Pipe("berlin", "")
		defer edge.Close(0, "")
		log := &transcript{}
		welcomed := make(chan error)
		go func() {
			g, err := welcoming{software: "branchline 1.0", high: maxVersion,
				may: func(*wire.HelloRequest) error { return nil }}.welcome(t.Context(), hub)
			if g.software != "branchline 1.0 edge" || g.version != v {
				t.Errorf("the edge calls itself %q and speaks %d", g.software, g.version)
			}
			welcomed <- err
		}()
		hello := &wire.HelloRequest{Software: "branchline 1.0 edge"}
		if g, err := greetAs(t.Context(), wiretap{edge, log}, hello, v); err != nil || g.version != v {
			t.Fatal(g, err)
		}
		if err := <-welcomed; err != nil {
			t.Fatal(err)
		}
		got := strings.Join(log.lines, "")
		if _, err := os.Stat(golden); *update && errors.Is(err, os.ErrNotExist) {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("the greeting is\n%swant\n%s%v", got, want, err)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		name            string
		low, high, mine version
		version         version
		update          string
	}{
		{"the same", 1, 2, 2, 2, ""},
		{"an edge of the version before", 1, 1, 2, 1, ""},
		{"a hub of the version before", 1, 2, 1, 1, ""},
		{"both of it", 1, 1, 1, 1, ""},
		{"a newer edge that still knows this version", 2, 3, 2, 2, ""},
		{"an edge that is too new", 3, 4, 2, 0, "update the hub"},
		{"an edge that is too new for a hub of the version before", 2, 3, 1, 0, "update the hub"},
		{"an edge that says nothing", 0, 0, 2, 0, "makes no sense"},
		{"an edge from before the first", 0, 1, 2, 0, "makes no sense"},
		{"nonsense", 3, 1, 2, 0, "makes no sense"},
	} {
		hello := &wire.HelloRequest{MinVersion: uint32(c.low), MaxVersion: uint32(c.high)}
		version, err := negotiate(hello, c.mine)
		if version != c.version || (version == 0) != errors.Is(err, ErrVersion) ||
			err != nil && !strings.Contains(err.Error(), c.update) {
			t.Errorf("%s: %d, %v, want %d, %q", c.name, version, err, c.version, c.update)
		}
	}
	for v, update := range map[version]string{0: "update the hub", 1: "", 2: "", 3: "update the edge"} {
		if err := chosen(v, 2); err == nil && update != "" || err != nil && !strings.Contains(err.Error(), update) {
			t.Errorf("the hub chose %d: %v, want %q", v, err, update)
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
	const says = "speaks 7 to 8, the hub 1 to 2: update the hub"
	if _, err = c.one(); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), says) {
		t.Errorf("the hub says %v", err)
	}
}

// greet opens a link with nothing but software and tier.
func greet(ctx context.Context, conn link.Conn, software string, tier *Tier) ([]Way, error) {
	g, err := greetAs(ctx, conn, &wire.HelloRequest{Software: software, Hub: tier.hello()}, maxVersion)
	return g.above, err
}

// welcome lets in whom the tier lets in.
func welcome(ctx context.Context, conn link.Conn, software string, tier *Tier) (string, error) {
	g, err := welcoming{software: software, tier: tier, high: maxVersion,
		may: func(*wire.HelloRequest) error { return nil }}.welcome(ctx, conn)
	return g.software, err
}
