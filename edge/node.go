package edge

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/buffer"
	"github.com/branchline-video/branchline/internal/live"
	"github.com/branchline-video/branchline/segstore"
)

// Node is a branch node: a [branchline.Source] of what its cameras show and have shown.
type Node struct {
	cfg     Config
	store   *segstore.Store
	ledger  *ledger
	buffers buffer.Pool
	budget  *live.Budget // of the streams' rings
	streams []*stream    // sorted by ID
}

var _ branchline.Source = (*Node)(nil)

// The streams' rings hold the newest items in memory, together at most ringBytes, or ringShare for each stream
// where that is more: some six seconds of 4 Mbit/s, for a disk that stalls.
const (
	ringBytes = 48 << 20
	ringShare = 3 << 20
)

// Open opens the store, repairs what a crash left, and enters into it which cameras were added,
// changed or removed. The node records while Run does; what is stored can be read from now on. Its
// error wraps [branchline.ErrInvalid] if the configuration is wrong.
func Open(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	storage := cfg.Storage
	storage.Clock, storage.Logger, storage.Signer = cfg.Clock, cfg.Logger, cfg.Signer
	store, err := segstore.Open(cfg.Dir, storage)
	if err != nil {
		return nil, fmt.Errorf("open edge: %w", err)
	}
	n := &Node{cfg: cfg, store: store}
	if err := n.prepare(); err != nil {
		store.Close()
		return nil, fmt.Errorf("open edge: %w", err)
	}
	return n, nil
}

// prepare brings the store's cameras in line with the configuration and finds where streams stand.
func (n *Node) prepare() error {
	known, err := n.store.Cameras(context.Background())
	if err != nil {
		return err
	}
	n.ledger, err = enterCameras(n.store, known, n.cfg)
	if err != nil {
		return err
	}
	streams := 0
	for _, camera := range n.cfg.Cameras {
		streams += len(camera.urls())
	}
	n.budget = live.NewBudget(max(ringBytes, ringShare*int64(streams)))
	for _, camera := range n.cfg.Cameras {
		for i, url := range camera.urls() {
			s, err := newStream(n, camera, label(i), url)
			if err != nil {
				return err
			}
			n.streams = append(n.streams, s)
		}
	}
	slices.SortFunc(n.streams, func(a, b *stream) int { return compare(a.id, b.id) })
	return nil
}

func compare(a, b branchline.StreamID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Run records until ctx ends; then it completes and seals what is open, and live readers end with an
// error wrapping [branchline.ErrUnavailable]. It returns nil after that. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	var recording, keeping sync.WaitGroup
	keeping.Go(n.ledger.run)
	for _, s := range n.streams {
		items := s.ring.Subscribe(context.WithoutCancel(ctx))
		recording.Go(func() { s.record(ctx, items) })
		recording.Go(func() { s.run(ctx) })
	}
	recording.Wait()
	n.ledger.end()
	keeping.Wait()
	return nil
}

// Close closes the store. Run must have returned, or never have been called.
func (n *Node) Close() error {
	for _, s := range n.streams {
		s.ring.Close(branchline.ErrUnavailable)
	}
	return n.store.Close()
}

// Cameras implements [branchline.Source].
func (n *Node) Cameras(ctx context.Context) ([]branchline.Camera, error) { return n.store.Cameras(ctx) }

// Changes implements [branchline.Source].
func (n *Node) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	return n.store.Changes(ctx, after)
}

// Segments implements [branchline.Source].
func (n *Node) Segments(
	ctx context.Context, stream branchline.StreamID, span branchline.TimeRange,
) ([]branchline.Segment, error) {
	return n.store.Segments(ctx, stream, span)
}

// Fetch implements [branchline.Source].
func (n *Node) Fetch(
	ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange,
) (io.ReadCloser, error) {
	return n.store.Fetch(ctx, id, bytes)
}

// Live implements [branchline.Source].
func (n *Node) Live(ctx context.Context, id branchline.StreamID) iter.Seq2[branchline.Item, error] {
	i, ok := slices.BinarySearchFunc(n.streams, id, func(s *stream, id branchline.StreamID) int {
		return compare(s.id, id)
	})
	if ok {
		return n.streams[i].ring.Subscribe(ctx)
	}
	return func(yield func(branchline.Item, error) bool) {
		yield(branchline.Item{}, fmt.Errorf("read live stream %s: %w", id, branchline.ErrNotFound))
	}
}

// Store gives the node's own store, for what an edge does with it beyond a Source.
func (n *Node) Store() *segstore.Store { return n.store }

// Metrics returns the state and counters of every stream, sorted by stream.
func (n *Node) Metrics() []StreamMetrics {
	all := make([]StreamMetrics, len(n.streams))
	for i, s := range n.streams {
		all[i] = s.metrics()
	}
	return all
}
