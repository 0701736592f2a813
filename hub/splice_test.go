package hub

import (
	"slices"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestPieces splits ranges of a segment whose init part ends at 10 and of which the fragments at 10, 20
// and 40 are held, each ten bytes long.
func TestPieces(t *testing.T) {
	held := branchline.Segment{InitSize: 10, Fragments: []branchline.Fragment{
		{Offset: 10, Length: 10}, {Offset: 20, Length: 10}, {Offset: 40, Length: 10}}}
	p := func(from, to int64, held bool) piece {
		return piece{branchline.ByteRange{Start: from, End: to}, held}
	}
	for _, c := range []struct {
		from, to int64
		want     []piece
	}{
		{0, 5, []piece{p(0, 5, true)}},
		{0, 30, []piece{p(0, 30, true)}},
		{15, 45, []piece{p(15, 30, true), p(30, 40, false), p(40, 45, true)}},
		{30, 40, []piece{p(30, 40, false)}},
		{35, 0, []piece{p(35, 40, false), p(40, 50, true), p(50, 0, false)}},
		{0, 0, []piece{p(0, 30, true), p(30, 40, false), p(40, 50, true), p(50, 0, false)}},
		{60, 70, []piece{p(60, 70, false)}},
		{20, 20, []piece{p(20, 20, false)}},
	} {
		if got := pieces(held, branchline.ByteRange{Start: c.from, End: c.to}); !slices.Equal(got, c.want) {
			t.Errorf("%d-%d: %v, expected %v", c.from, c.to, got, c.want)
		}
	}
}
