package federation

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/budget"
)

// TestMeteredCarriesNoBulk writes in each class while a link goes by metered uplinks alone, and then by another.
func TestMeteredCarriesNoBulk(t *testing.T) {
	barred, changed := true, make(chan struct{})
	for class := budget.Control; class <= budget.Backfill; class++ {
		bulk := class >= budget.Planned
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if !bulk {
			ctx = t.Context()
		}
		p := &paced{ctx, new(bytes.Buffer), nil, always(class),
			func() (bool, <-chan struct{}) { return barred, changed }}
		_, err := p.Write([]byte("x"))
		if errors.Is(err, context.DeadlineExceeded) != bulk {
			t.Errorf("%v: %v, want that it waits: %v", class, err, bulk)
		}
		cancel()
	}
	p := &paced{t.Context(), io.Discard, nil, always(budget.Backfill),
		func() (bool, <-chan struct{}) {
			select {
			case <-changed:
				return false, nil
			default:
				return true, changed
			}
		}}
	written := make(chan error)
	go func() {
		_, err := p.Write([]byte("x"))
		written <- err
	}()
	close(changed)
	if err := <-written; err != nil {
		t.Errorf("when another uplink works: %v", err)
	}
	watches := &watches{}
	defer watches.begin(testStream)()
	p.urgency = func() (budget.Class, <-chan struct{}) { return watches.class(testStream) }
	asked := make(chan struct{}, 1)
	p.bars = func() (bool, <-chan struct{}) {
		asked <- struct{}{}
		return true, nil
	}
	go func() {
		_, err := p.Write([]byte("x"))
		written <- err
	}()
	<-asked
	if err := errors.Join(watches.put(testStream, func() {}), <-written); err != nil {
		t.Errorf("when somebody watches what is recorded: %v", err)
	}
}
