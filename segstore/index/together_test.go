package index

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/branchline-video/branchline"
)

func set(keys ...string) func(tx *Tx) error {
	return func(tx *Tx) error {
		for _, k := range keys {
			if err := tx.Set([]byte(k), []byte("1")); err != nil {
				return err
			}
		}
		return nil
	}
}

func many(prefix string, n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%s%05d", prefix, i))
	}
	return keys
}

// TestTogether has updates wait until they share commits: each is done as if alone.
func TestTogether(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	var calls, want []string
	var mu sync.Mutex
	note := func(list *[]string, s string) {
		mu.Lock()
		defer mu.Unlock()
		*list = append(*list, s)
	}
	broken := errors.New("broken")
	var work sync.WaitGroup
	begin := func(name string, wanted error, change func(tx *Tx) error) {
		db.mu.Lock()
		n := len(db.waiting)
		db.mu.Unlock()
		work.Go(func() {
			err := db.Update(func(tx *Tx) error {
				note(&calls, name)
				return change(tx)
			})
			if !errors.Is(err, wanted) {
				t.Errorf("%s: %v, want %v", name, err, wanted)
			}
		})
		for waiting := n; waiting == n; runtime.Gosched() { // they wait in this order
			db.mu.Lock()
			waiting = len(db.waiting)
			db.mu.Unlock()
		}
	}
	db.turn <- struct{}{}
	few := many("a", fewWrites-10)
	begin("a", nil, set(append([]string{"a"}, few...)...))
	begin("fails", broken, func(tx *Tx) error { return errors.Join(set("a", "b")(tx), tx.Delete([]byte("a")), broken) })
	begin("sees", nil, func(tx *Tx) error {
		_, err := tx.Get([]byte("a"))
		_, none := tx.Get([]byte("b"))
		if err != nil || !errors.Is(none, ErrNotFound) {
			t.Errorf("a change sees of those before it: %v, %v", err, none)
		}
		return set("c")(tx)
	})
	big := many("d", int(db.db.MaxBatchCount())-fewWrites/2) // fits a commit only alone
	begin("big", nil, set(big...))
	begin("too big", branchline.ErrTooLarge, set(many("e", 100_000)...))
	begin("last", nil, set("f"))
	<-db.turn
	work.Wait()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	defer db.Close()
	want = append(slices.Concat([]string{"a"}, few, []string{"c"}, big), "f")
	if got := strings.ReplaceAll(dump(t, db, "", "", false), "=1", ""); got != strings.Join(want, " ") {
		t.Errorf("%d bytes of keys, want %d keys: %.80s", len(got), len(want), got)
	}
	if got := strings.Join(calls, ", "); got != "a, fails, sees, big, big, too big, last" {
		t.Errorf("called: %s", got)
	}
}
