package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/branchline-video/branchline/internal/backoff"
)

func TestPausesGrowToTheLimitAndStartOver(t *testing.T) {
	b := backoff.New(100*time.Millisecond, 5*time.Second)
	first := func() {
		t.Helper()
		if d := b.Next(); d < 50*time.Millisecond || d > 150*time.Millisecond {
			t.Fatalf("first pause is %v, want 50 to 150 ms", d)
		}
	}
	first()
	for range 30 {
		if d := b.Next(); d > 5*time.Second {
			t.Fatalf("pause of %v exceeds the limit", d)
		}
	}
	if d := b.Next(); d < 2500*time.Millisecond {
		t.Fatalf("pause after many attempts is %v, want about the limit", d)
	}
	b.Reset()
	first()
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(stop) })
		began := time.Now()
		if err := backoff.New(time.Hour, time.Hour).Wait(ctx); !errors.Is(err, stop) {
			t.Fatalf("Wait returned %v, want the cause", err)
		}
		if d := time.Since(began); d != time.Second {
			t.Fatalf("Wait took %v, want 1s", d)
		}
		if err := backoff.New(time.Second, time.Second).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
