package sourcetest

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

func newMemory() *Memory {
	return NewMemory(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), branchline.Camera{
		ID: "entrance", Name: "Entrance", Streams: []branchline.Stream{{ID: "entrance.main"}},
	})
}

func TestMemory(t *testing.T) {
	Run(t, func(t *testing.T) Fixture {
		m := newMemory()
		return Fixture{Source: m, Stream: "entrance.main", Feed: m.Feed("entrance.main")}
	})
}

func TestMemoryControl(t *testing.T) {
	RunControl(t, func(t *testing.T) ControlFixture {
		m := newMemory()
		return ControlFixture{Control: m, Stream: "entrance.main", Holds: m.Holds}
	})
}
