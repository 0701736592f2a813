package hub_test

import (
	"slices"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/sourcetest"
)

// TestRegionPassesOnTheUnknown: what an edge of the future tells of a camera and with live items reaches the hub above
// the region, of which neither knows what it is.
func TestRegionPassesOnTheUnknown(t *testing.T) {
	inStack(t, nil, nil, func(s *stack) {
		more := branchline.More{0xfa, 0xff, 0x7f, 2, 0xff, 0xfe} // field 262143 with two bytes that are no text
		defer join(s.node, "lyon", sourcetest.NewMemory(s.edge.began, branchline.Camera{
			ID: "gate", Name: "Gate", Added: s.edge.began, More: more, Streams: []branchline.Stream{{ID: "gate.main"}},
		}))()
		s.wait(time.Minute, "the hub above does not know it", func() bool {
			cameras, err := s.top.Cameras(s.Context())
			return err == nil && slices.ContainsFunc(cameras, func(c branchline.Camera) bool {
				return c.ID == "region.lyon.gate" && slices.Equal(c.More, more)
			})
		})
		for i, err := range s.top.Live(s.Context(), below) {
			switch {
			case err != nil:
				s.Fatal(err)
			case i.RunEnd == nil:
				s.edge.ring.Publish(branchline.Item{RunEnd: &branchline.RunEnd{Run: 1, At: time.Now()}, More: more})
				continue
			case !slices.Equal(i.More, more):
				s.Errorf("the item arrives as %+v", i)
			}
			return
		}
	})
}
