package catalog

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
	"github.com/branchline-video/branchline/segstore/index"
)

// TestManyOutages: a link that comes and goes all the time fills nothing; the oldest outages go.
func TestManyOutages(t *testing.T) {
	db, err := index.Open(t.TempDir(), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := Open(Options{DB: db, Clock: clock.Clock{}})
	if err != nil {
		t.Fatal(err)
	}
	prefix := rangePrefix(tableOutage, "berlin")
	for i := 0; i < MaxOutages; {
		err = db.Update(func(tx *index.Tx) error {
			for end := min(i+maxBatch, MaxOutages); i < end; i++ {
				at := time.Unix(int64(i), 0)
				e := entry{TimeRange: branchline.TimeRange{Start: at, End: at.Add(time.Second / 2)}}
				if err := put(tx, prefix, e); err != nil {
					return err
				}
			}
			return store(tx, tableSite+"berlin", siteRecord{Linked: true, Outages: MaxOutages})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.LinkDown("berlin", time.Unix(MaxOutages, 0), Why{}); err != nil {
		t.Fatal(err)
	}
	left, err := c.Outages("berlin", branchline.TimeRange{Start: time.Unix(0, 0), End: time.Unix(2*MaxOutages, 0)})
	if err != nil || len(left) != MaxOutages*9/10 || !left[len(left)-1].Open {
		t.Errorf("%d outages are left: %v", len(left), err)
	}
}
