package power

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge"
	"github.com/branchline-video/branchline/segstore"
)

// recorderConfig makes a process of the test binary a recorder: an edge node for each entry, which runs
// until it is killed and tells what happens, one line of JSON each.
const recorderConfig = "BRANCHLINE_POWER_RECORDER"

// nodeConfig is one edge node of a recorder.
type nodeConfig struct {
	Dir     string
	Volumes []string // see segstore.Options
	Cameras []edge.CameraConfig
	Quick   bool // the files are not checked after opening
}

// line is what a recorder tells. Kinds: opened, once the store is open; sealed and gap, which the store
// has acknowledged; checked, when all up to then is what was there after opening; held, how far a stream
// is written; state, with the memory in use; bad, what is wrong.
type line struct {
	Kind   string
	At     time.Time
	Node   int
	Stream branchline.StreamID  `json:",omitempty"`
	ID     branchline.SegmentID `json:",omitzero"`
	Hash   string               `json:",omitempty"`
	Span   branchline.TimeRange `json:",omitzero"`
	Cause  branchline.Cause     `json:",omitempty"`
	Open   bool                 `json:",omitempty"`
	Took   time.Duration        `json:",omitempty"`
	Text   string               `json:",omitempty"`
	Memory int64                `json:",omitempty"` // resident bytes
	Store  segstore.Stats       `json:",omitzero"`
}

func TestMain(m *testing.M) {
	config := os.Getenv(recorderConfig)
	if config == "" {
		os.Exit(m.Run())
	}
	var nodes []nodeConfig
	if err := json.Unmarshal([]byte(config), &nodes); err != nil {
		panic(err)
	}
	out := &teller{enc: json.NewEncoder(os.Stdout)}
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() {
			if err := recorder(n, func(l line) { l.Node = i; out.tell(l) }); err != nil {
				out.tell(line{Kind: "bad", Node: i, Text: err.Error()})
			}
		})
	}
	group.Wait()
}

type teller struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (t *teller) tell(l line) {
	t.mu.Lock()
	l.At = time.Now()
	err := t.enc.Encode(l)
	t.mu.Unlock()
	if err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func recorder(cfg nodeConfig, tell func(line)) error {
	began := time.Now()
	node, err := edge.Open(edge.Config{
		Dir: cfg.Dir, Storage: segstore.Options{Volumes: cfg.Volumes}, Cameras: cfg.Cameras, SegmentLength: 3 * time.Second,
		Signer: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	tell(line{Kind: "opened", Took: time.Since(began)})
	if !cfg.Quick {
		checkFiles(cfg.Dir, tell)
	}
	head := node.Store().Stats().Changes
	ready := make(chan struct{})
	go follow(node, head, ready, tell)
	<-ready
	tell(line{Kind: "checked"})
	go watch(node, cfg.Cameras, tell)
	go state(node, tell)
	return node.Run(context.Background())
}

// checkFiles runs the checker on all sealed files.
func checkFiles(dir string, tell func(line)) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".mp4" || strings.Contains(path, "/quarantine/") {
			return err
		}
		r, err := segstore.Check(path)
		if err == nil && (!r.OK() || !r.Sealed) {
			tell(line{Kind: "bad", Text: r.String()})
		}
		return err
	})
	if err != nil {
		tell(line{Kind: "bad", Text: err.Error()})
	}
}

// follow tells what the store acknowledges. ready is closed once it has told all up to change head.
func follow(node *edge.Node, head uint64, ready chan<- struct{}, tell func(line)) {
	once := sync.OnceFunc(func() { close(ready) })
	for ch, err := range node.Changes(context.Background(), branchline.Position{}) {
		if err != nil {
			tell(line{Kind: "bad", Text: fmt.Sprint("follow: ", err)})
			return
		}
		switch {
		case ch.Sealed != nil:
			tell(line{Kind: "sealed", Stream: ch.Sealed.Stream, ID: ch.Sealed.ID, Hash: ch.Sealed.Hash.String(),
				Span: ch.Sealed.Span})
		case ch.Gap != nil:
			tell(line{Kind: "gap", Stream: ch.Gap.Stream, Span: ch.Gap.Span, Cause: ch.Gap.Cause, Open: ch.Gap.Open})
		case ch.Removed != nil && !ch.Removed.Span.Empty(): // an empty one was given up
			tell(line{Kind: "bad", Text: fmt.Sprintf("removed: %+v", *ch.Removed)})
		}
		if ch.At.Seq >= head {
			once()
		}
	}
}

// watch tells how far each stream is written, whenever that has changed.
func watch(node *edge.Node, cameras []edge.CameraConfig, tell func(line)) {
	told := make(map[branchline.StreamID]time.Time)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		now := time.Now()
		for _, c := range cameras {
			stream := c.ID.Stream(edge.Main)
			held, err := node.Store().Held(stream, branchline.TimeRange{Start: now.Add(-time.Minute), End: now.Add(time.Minute)})
			if err != nil || len(held) == 0 {
				continue
			}
			if last := held[len(held)-1]; last.End.After(told[stream]) {
				told[stream] = last.End
				tell(line{Kind: "held", Stream: stream, Span: last})
			}
		}
	}
}

// state tells the memory in use and the store's totals every 200 milliseconds.
func state(node *edge.Node, tell func(line)) {
	for range time.NewTicker(200 * time.Millisecond).C {
		var size, resident int64
		if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
			fmt.Sscan(string(statm), &size, &resident)
		}
		tell(line{Kind: "state", Memory: resident * int64(os.Getpagesize()), Store: node.Store().Stats()})
	}
}
