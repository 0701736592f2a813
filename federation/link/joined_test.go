package link

import (
	"errors"
	"testing"

	"github.com/branchline-video/branchline"
)

// TestOneSiteTakesNoOthersPlaces has a site make bundle after bundle, and fill each: the others have their places, and
// what it gives back it may have again.
func TestOneSiteTakesNoOthersPlaces(t *testing.T) {
	l := &bundles{of: make(map[ticket]*bundle)}
	made := 0
	bundleOf := func(site branchline.SiteID) *bundle {
		made++
		c, _ := Pipe("", site)
		return l.found(c, ticket{byte(made)})
	}
	join := func(b *bundle) error {
		c, far := Pipe("", b.peer.Site)
		s, err := far.OpenStream(t.Context(), KindJoin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		control, err := c.AcceptStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return l.enter(b, &joined{conn: c, number: 1, control: control})
	}
	fill := func(b *bundle) (joined int, err error) {
		for ; err == nil; joined++ {
			err = join(b)
		}
		return joined - 1, err
	}
	sum := 0
	var all []*bundle
	for range 4 {
		b := bundleOf("berlin")
		all = append(all, b)
		n, err := fill(b)
		if !errors.Is(err, errNoRoom) {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != maxJoinedOf {
		t.Errorf("one site has %d connections that have joined, at most %d", sum, maxJoinedOf)
	}
	other := bundleOf("munich")
	if n, _ := fill(other); n != MaxConnections-1 {
		t.Errorf("another site has %d", n)
	}
	for _, b := range append(all, other) {
		if err := b.Close(0, ""); err != nil {
			t.Fatal(err)
		}
	}
	l.work.Wait()
	if l.joined != 0 || len(l.joinedOf) != 0 {
		t.Errorf("%d places are not given back: %v", l.joined, l.joinedOf)
	}
	again := bundleOf("berlin")
	if err := join(again); err != nil {
		t.Errorf("when all have gone: %v", err)
	}
	_ = again.Close(0, "")
	l.close()
}
