package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

// TestKnock knocks at a hub over a cable that is cut at first, and at one that has no key for resets.
func TestKnock(t *testing.T) {
	a, _ := enrolled(t)
	verify := func(tls.ConnectionState) (branchline.SiteID, *link.Error) { return "", nil }
	hub, err := link.Listen("127.0.0.1:0", link.Options{TLS: a.TLS(), Verify: verify, ResetKey: a.ResetKey()})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	var cable link.Cuttable
	cable.Cut()
	opt := link.Options{ListenPacket: cable.ListenPacket}
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if err := link.Knock(ctx, hub.Addr().String(), opt); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over a cut cable: %v", err)
	}
	answered := make(chan error)
	go func() { answered <- link.Knock(t.Context(), hub.Addr().String(), opt) }()
	cable.Heal()
	began := time.Now()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	t.Logf("the hub answered %v after healing", time.Since(began))

	mute, err := link.Listen("127.0.0.1:0", link.Options{TLS: a.TLS(), Verify: verify})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if err := link.Knock(ctx, mute.Addr().String(), opt); err == nil {
		t.Error("a hub without a key answered")
	}
}
