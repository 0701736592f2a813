package edge

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/edge/ingest"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore"
)

// The labels of a camera's streams.
const (
	Main = "main"
	Sub  = "sub"
)

// MaxCameras bounds the cameras of one edge: what one disk and one uplink of a branch carry.
const MaxCameras = 256

// The bounds of Config.SegmentLength. A segment ends at the first random access point after it.
const (
	MinSegmentLength = time.Second
	MaxSegmentLength = 30 * time.Minute
)

// Config describes a branch node.
type Config struct {
	Dir           string           // of the store
	Storage       segstore.Options // how recordings are kept; the node sets Clock, Logger and Signer
	Cameras       []CameraConfig
	SegmentLength time.Duration      // zero: one minute
	Signer        ed25519.PrivateKey // signs segments
	Allow         Allow              // what the hub may do
	Clock         clock.Clock
	Logger        *slog.Logger // nil: nothing is logged
}

// CameraConfig describes one camera.
type CameraConfig struct {
	ID     branchline.CameraID // one label, "entrance"
	Name   string              // for people; empty: the ID
	URL    string              // of the main stream, rtsp or rtsps, with credentials
	SubURL string              // of the sub stream; empty: there is none
	Audio  bool                // record sound too
}

// Check returns an error wrapping [branchline.ErrInvalid] that says what is wrong with the camera. It
// never contains the address, which has credentials in it.
func (c CameraConfig) Check() error {
	if err := c.ID.Check(); err != nil || strings.Contains(string(c.ID), ".") {
		return fmt.Errorf("check camera %.80q: the name is not one label of a-z, 0-9 and inner '-': %w",
			c.ID, branchline.ErrInvalid)
	}
	if len(c.Name) > branchline.MaxName {
		return fmt.Errorf("check camera %s: name of %d bytes, at most %d: %w",
			c.ID, len(c.Name), branchline.MaxName, branchline.ErrInvalid)
	}
	for _, url := range c.urls() {
		if err := ingest.CheckURL(url); err != nil {
			return fmt.Errorf("check camera %s: %w", c.ID, err)
		}
	}
	return nil
}

// urls returns the streams' addresses, main first.
func (c CameraConfig) urls() []string {
	if c.SubURL == "" {
		return []string{c.URL}
	}
	return []string{c.URL, c.SubURL}
}

func (c CameraConfig) camera(added time.Time) branchline.Camera {
	camera := branchline.Camera{ID: c.ID, Name: c.Name, Added: added}
	if c.Name == "" {
		camera.Name = string(c.ID)
	}
	for i := range c.urls() {
		camera.Streams = append(camera.Streams, branchline.Stream{ID: c.ID.Stream(label(i))})
	}
	return camera
}

func label(i int) string {
	if i == 0 {
		return Main
	}
	return Sub
}

func (c Config) check() error {
	if len(c.Cameras) > MaxCameras {
		return fmt.Errorf("check edge: %d cameras, at most %d: %w", len(c.Cameras), MaxCameras, branchline.ErrTooLarge)
	}
	if l := c.SegmentLength; l != 0 && (l < MinSegmentLength || l > MaxSegmentLength) {
		return fmt.Errorf("check edge: segment length %v is not within %v and %v: %w",
			l, MinSegmentLength, MaxSegmentLength, branchline.ErrInvalid)
	}
	if len(c.Signer) != ed25519.PrivateKeySize {
		return fmt.Errorf("check edge: no signing key: %w", branchline.ErrInvalid)
	}
	seen := make(map[branchline.CameraID]bool)
	for _, camera := range c.Cameras {
		if err := camera.Check(); err != nil {
			return err
		}
		if seen[camera.ID] {
			return fmt.Errorf("check camera %s: configured twice: %w", camera.ID, branchline.ErrInvalid)
		}
		seen[camera.ID] = true
	}
	return nil
}
