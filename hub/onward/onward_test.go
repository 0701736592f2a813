package onward

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a log whose sum is whatever the test says, one stream for each word.
type fixture struct {
	*testing.T
	db  *index.DB
	log *Log
	sum string
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t}
	var err error
	if f.db, err = index.Open(t.TempDir(), index.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.db.Close() })
	f.open(false)
	return f
}

func (f *fixture) open(past bool) {
	f.Helper()
	var err error
	f.log, err = Open(Options{DB: f.db, Past: past, Sum: func(context.Context) iter.Seq2[branchline.Change, error] {
		return func(yield func(branchline.Change, error) bool) {
			for _, name := range strings.Fields(f.sum) {
				if !yield(change(name), nil) {
					return
				}
			}
		}
	}})
	if err != nil {
		f.Fatal(err)
	}
}

func change(name string) branchline.Change {
	return branchline.Change{Recorded: &branchline.Recorded{Stream: branchline.StreamID(name)}}
}

func (f *fixture) tell(names string) {
	f.Helper()
	err := f.db.Update(func(tx *index.Tx) error {
		for _, name := range strings.Fields(names) {
			if err := f.log.Tell(tx, change(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.log.Wake()
}

// read reads n changes and returns their names and the position after them.
func (f *fixture) read(after branchline.Position, n int) (string, branchline.Position, error) {
	var names []string
	for c, err := range f.log.Changes(f.Context(), after) {
		if err != nil {
			return strings.Join(names, " "), after, err
		}
		names, after = append(names, string(c.Recorded.Stream)), c.At
		if len(names) == n {
			break
		}
	}
	return strings.Join(names, " "), after, nil
}

func (f *fixture) reads(after branchline.Position, want string) branchline.Position {
	f.Helper()
	got, at, err := f.read(after, len(strings.Fields(want)))
	if err != nil || got != want {
		f.Errorf("after %v: %q, %v, want %q", after, got, err, want)
	}
	return at
}

func (f *fixture) gone(after branchline.Position) {
	f.Helper()
	if got, _, err := f.read(after, 1); !errors.Is(err, branchline.ErrGone) {
		f.Errorf("after %v: %q, %v, want gone", after, got, err)
	}
}

// TestChanges: a new log tells all; what is told while somebody reads arrives.
func TestChanges(t *testing.T) {
	f := newFixture(t)
	f.tell("a b c")
	at := f.reads(branchline.Position{}, "a b c")
	next := make(chan string)
	go func() {
		got, _, err := f.read(at, 2)
		next <- fmt.Sprint(got, err)
	}()
	f.tell("d")
	f.tell("e")
	if got := <-next; got != "d e<nil>" {
		t.Error(got)
	}
	f.open(true)
	f.reads(at, "d e")
	at.Seq += 3
	f.gone(at) // not told yet: the database is an older one
	at.Epoch++
	f.gone(at)
}

// TestSum: who asks for what is no longer kept gets the sum, then what came since; one that was interrupted in
// the sum gets it again.
func TestSum(t *testing.T) {
	f := newFixture(t)
	f.tell("a b")
	at := f.reads(branchline.Position{}, "a b")
	if err := f.db.Update(func(tx *index.Tx) error { return f.log.Anew(tx) }); err != nil {
		t.Fatal(err)
	}
	f.gone(at)
	f.sum = "x y z"
	f.tell("c")
	f.gone(f.reads(branchline.Position{}, "x y"))
	at = f.reads(branchline.Position{}, "x y z")
	f.tell("d")
	f.reads(at, "d")
}

// TestLapse: changes that were made while no log was kept are in the sum.
func TestLapse(t *testing.T) {
	f := newFixture(t)
	f.tell("a")
	at := f.reads(branchline.Position{}, "a")
	if err := Lapse(f.db); err != nil {
		t.Fatal(err)
	}
	f.sum = "a b"
	f.open(true)
	f.gone(at)
	f.reads(branchline.Position{}, "a b")
}

// TestPast: the first log of a hub that has long had sites begins with the sum.
func TestPast(t *testing.T) {
	f := newFixture(t)
	if err := f.db.Update(func(tx *index.Tx) error { return tx.Delete([]byte(keyHead)) }); err != nil {
		t.Fatal(err)
	}
	f.sum = "x"
	f.open(true)
	f.reads(branchline.Position{}, "x")
}

// TestKept: only so many changes are kept, in the database too.
func TestKept(t *testing.T) {
	f := newFixture(t)
	f.tell("a b")
	at := f.reads(branchline.Position{}, "a b")
	err := f.db.Update(func(tx *index.Tx) error { // as after many more
		h, err := load(tx)
		if err != nil {
			return err
		}
		h.Next += MaxKept - 2
		return save(tx, h)
	})
	if err != nil {
		t.Fatal(err)
	}
	f.tell("c")
	f.tell("d")
	f.tell("e")
	f.gone(at)
	rows := 0
	if err := f.db.View(func(tx *index.Tx) error {
		for range tx.Scan([]byte(tableLog), nil) {
			rows++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if rows != 3 {
		t.Errorf("%d rows are kept of 5 that are not made up", rows)
	}
}
