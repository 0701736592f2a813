package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/internal/media"
	"github.com/branchline-video/branchline/internal/record"
	"github.com/branchline-video/branchline/segstore"
)

// branch is an edge's store and identity, without cameras, linked by an uplink over real QUIC.
type branch struct {
	*segstore.Store
	dir  string
	node *identity.Node
}

func openBranch(t *testing.T, dir string) *branch {
	t.Helper()
	node, err := identity.OpenNode(filepath.Join(dir, "identity"), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	b := &branch{dir: filepath.Join(dir, "store"), node: node}
	if b.Store, err = segstore.Open(b.dir, segstore.Options{Signer: node.Key()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (b *branch) Live(context.Context, branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) { yield(branchline.Item{}, branchline.ErrUnavailable) }
}

// Lost and Restore are as package edge has them.
func (b *branch) Lost() ([]branchline.SegmentID, error) {
	lost, err := b.Store.Lost()
	var ids []branchline.SegmentID
	for _, r := range lost {
		ids = append(ids, r.ID)
	}
	return ids, err
}

// film records some seconds of a camera at once, a segment for each five.
func (b *branch) film(t *testing.T, start time.Time, length int) {
	t.Helper()
	err := b.PutCamera(branchline.Camera{ID: "door", Name: "Door", Added: start,
		Streams: []branchline.Stream{{ID: local, Codecs: "avc1.42c01f"}}})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := media.NewMuxer(muxerConfig(start, 5*time.Second, b.node.Key()))
	if err != nil {
		t.Fatal(err)
	}
	items := func(yield func(branchline.Item, error) bool) {
		for n := range 10*length + 1 {
			nalu := append([]byte{0x41}, fmt.Sprintf("frame %d %s", n, strings.Repeat("x", 500))...)
			if n%10 == 0 {
				nalu[0] = 0x65
			}
			at := time.Duration(n) * 100 * time.Millisecond
			made, err := mux.Write(media.AccessUnit{Track: 1, PTS: at, DTS: at, Key: n%10 == 0, Data: [][]byte{nalu}})
			if err != nil {
				t.Error(err)
			}
			for _, item := range made {
				if !yield(item, nil) {
					return
				}
			}
		}
	}
	err = record.Run(t.Context(), record.Config{Store: b.Store, Stream: local, Logger: slog.New(slog.DiscardHandler),
		Gap: func(g branchline.Gap) { t.Errorf("gap %+v", g) }}, items)
	if err != nil {
		t.Fatal(err)
	}
}

// link runs an uplink until the returned function is called.
func (b *branch) link(t *testing.T, token string) (unlink func()) { return b.linkAs(t, b, token) }

func (b *branch) linkAs(t *testing.T, lost federation.Restorer, token string) (unlink func()) {
	t.Helper()
	uplink := federation.NewUplink(federation.UplinkConfig{Node: b.node, Source: b, Restore: lost, Token: token})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = uplink.Run(ctx)
	}()
	return func() {
		stop()
		<-done
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(what)
		}
	}
}

// ruin makes the disk lose a segment, and somebody find that.
func (b *branch) ruin(t *testing.T, seg branchline.Segment) {
	t.Helper()
	path := segstore.Path(b.dir, local, seg.ID, seg.Span.Start)
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 500), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Fetch(t.Context(), seg.ID, branchline.ByteRange{}); !errors.Is(err, branchline.ErrGone) {
		t.Fatalf("a ruined file is served: %v", err)
	}
}

func (b *branch) file(t *testing.T, seg branchline.Segment) []byte {
	t.Helper()
	data, err := os.ReadFile(segstore.Path(b.dir, local, seg.ID, seg.Span.Start))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// listeningHub runs a hub to which sites link by QUIC, and which holds all that is recorded after since.
func listeningHub(t *testing.T, since time.Time) *hub.Node {
	t.Helper()
	node, err := hub.Open(hub.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0",
		Policies: []policy.Policy{{Streams: "*", Kind: policy.Always, Since: since}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ran
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// TestEdgeGetsBackWhatItLost, over real QUIC: two files at the edge rot, of which the hub holds one; that one
// comes back as it was. Another site cannot have it.
func TestEdgeGetsBackWhatItLost(t *testing.T) {
	start := time.Now().UTC().Add(-time.Minute).Truncate(time.Second)
	node := listeningHub(t, start.Add(-time.Hour))
	token := func(site branchline.SiteID) string {
		token, err := node.Authority().AddSite(site, []string{node.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	b := openBranch(t, t.TempDir())
	b.film(t, start, 15)
	segs, err := b.Segments(t.Context(), local, branchline.TimeRange{Start: start, End: start.Add(time.Minute)})
	segs = slices.DeleteFunc(segs, func(s branchline.Segment) bool { return !s.Sealed })
	if err != nil || len(segs) != 3 {
		t.Fatalf("%d segments: %v", len(segs), err)
	}
	unlink := b.link(t, token(site))
	eventually(t, "not held", func() bool { return node.Store().Stats().Segments == 3 })
	unlink()
	if err := node.Store().Remove(segs[2].ID, branchline.CauseExpired); err != nil {
		t.Fatal(err)
	}
	whole := b.file(t, segs[1])
	b.ruin(t, segs[1])
	b.ruin(t, segs[2])
	unlink = b.link(t, "")
	defer unlink()
	eventually(t, "not restored", func() bool {
		seg, err := b.Segment(segs[1].ID)
		return err == nil && seg.Sealed
	})
	if got := b.file(t, segs[1]); !bytes.Equal(got, whole) {
		t.Error("differs from what was recorded")
	}
	if _, err := b.Segment(segs[2].ID); !errors.Is(err, branchline.ErrGone) {
		t.Errorf("what the hub does not hold: %v", err)
	}
	other := openBranch(t, t.TempDir())
	other.film(t, start, 6)
	unlinkOther := other.link(t, token("hamburg"))
	eventually(t, "not held", func() bool { return node.Store().Stats().Segments >= 3 })
	unlinkOther()
	own, err := other.Segments(t.Context(), local, branchline.TimeRange{Start: start, End: start.Add(time.Second)})
	if err != nil || len(own) != 1 {
		t.Fatal(own, err)
	}
	greedy := &thief{other, []branchline.SegmentID{segs[0].ID, own[0].ID}, make(chan branchline.SegmentID, 2)}
	defer greedy.link(t)()
	select {
	case first := <-greedy.given:
		if first != own[0].ID {
			t.Error("a site is given what another has recorded")
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing is given")
	}
}

// thief asks for what it never had.
type thief struct {
	*branch
	wants []branchline.SegmentID
	given chan branchline.SegmentID
}

func (s *thief) Lost() ([]branchline.SegmentID, error) { return s.wants, nil }

func (s *thief) Restore(_ context.Context, id branchline.SegmentID, _ io.Reader) error {
	s.given <- id
	return nil
}

func (s *thief) link(t *testing.T) (unlink func()) { return s.linkAs(t, s, "") }
