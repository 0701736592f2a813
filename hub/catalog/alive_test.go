package catalog_test

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestSignOfLifeOutlivesTheDisk: a database that takes nothing ends no hub.
func TestSignOfLifeOutlivesTheDisk(t *testing.T) {
	f := newFixture(t)
	f.check(f.db.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.catalog.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run: %v", err)
	}
}
