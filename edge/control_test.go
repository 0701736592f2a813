package edge

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/sourcetest"
)

func openControlled(t *testing.T, allow Allow) *Node {
	t.Helper()
	n, err := Open(Config{
		Dir: t.TempDir(), Signer: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Allow: allow,
		Cameras: []CameraConfig{{ID: "gate", URL: "rtsp://127.0.0.1:1/main"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestControlConformance(t *testing.T) {
	sourcetest.RunControl(t, func(t *testing.T) sourcetest.ControlFixture {
		return sourcetest.ControlFixture{Control: openControlled(t, Allow{Hold: true, Lock: true}), Stream: "gate.main"}
	})
}

// TestTheSiteDecides shows that a hub gets what the site's administrator allows and nothing else, and
// that what it holds can always be released.
func TestTheSiteDecides(t *testing.T) {
	at := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	span := branchline.TimeRange{Start: at, End: at.Add(time.Minute)}
	for _, c := range []struct {
		allow      Allow
		hold, lock error
	}{
		{Allow{}, branchline.ErrDenied, branchline.ErrDenied},
		{Allow{Hold: true}, nil, branchline.ErrDenied},
		{Allow{Lock: true}, branchline.ErrDenied, nil},
		{Allow{Hold: true, Lock: true}, nil, nil},
	} {
		n, ctx := openControlled(t, c.allow), t.Context()
		held := branchline.Hold{Holder: "hub", Stream: "gate.main", Spans: branchline.Spans{span}, Until: span.End}
		hold := n.Hold(ctx, held)
		held.Spans = nil
		release := n.Hold(ctx, held)
		lock := n.Lock(ctx, branchline.Lock{ID: "1", Stream: "gate.main", Span: span})
		unlock := n.Unlock(ctx, "2")
		if !errors.Is(hold, c.hold) || release != nil || !errors.Is(lock, c.lock) || !errors.Is(unlock, c.lock) {
			t.Errorf("%+v: hold %v, release %v, lock %v, unlock %v", c.allow, hold, release, lock, unlock)
		}
		if lock != nil && !strings.Contains(lock.Error(), "allow.lock") {
			t.Errorf("refusal %q does not say what to change", lock)
		}
		locks, err := n.Locks(ctx)
		if err != nil || (len(locks) == 1) != c.allow.Lock {
			t.Errorf("%+v: locks %v, %v", c.allow, locks, err)
		}
	}
}

// TestLocksWithTheirHolders shows that a node keeps the locks of two hubs apart, with identifiers as long as
// they come over the link with their holder.
func TestLocksWithTheirHolders(t *testing.T) {
	n, ctx := openControlled(t, Allow{Lock: true}), t.Context()
	at := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	lock := branchline.Lock{Stream: "gate.main", Span: branchline.TimeRange{Start: at, End: at.Add(time.Hour)}}
	long := strings.Repeat("x", branchline.MaxLockID-2) + "/1"
	for _, id := range []string{"hub/1", long} {
		lock.ID = id
		if err := n.Lock(ctx, lock); err != nil {
			t.Fatal(err)
		}
		lock.Span.End = at.Add(time.Minute)
	}
	locks, err := n.Locks(ctx)
	if err != nil || len(locks) != 2 || locks[0].Span.Duration() != time.Hour {
		t.Errorf("locks %+v, %v", locks, err)
	}
	if err := n.Unlock(ctx, long); err != nil {
		t.Fatal(err)
	}
	if locks, err := n.Locks(ctx); err != nil || len(locks) != 1 || locks[0].ID != "hub/1" {
		t.Errorf("after one was taken off: %+v, %v", locks, err)
	}
}
