package edge

import (
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

func TestMeter(t *testing.T) {
	var m meter
	at := time.Unix(1_800_000_000, 0)
	add := func(seconds float64, perFrame int) {
		for range int(seconds * 10) {
			m.add(&branchline.Frame{DTS: at, Key: at.Nanosecond() == 0, Data: make([]byte, perFrame)})
			at = at.Add(100 * time.Millisecond)
		}
	}
	want := func(what string, all, keys int64) {
		t.Helper()
		a, k := m.rate()
		near := func(got, want int64) bool { return got >= want*9/10 && got <= want*12/10 }
		if !near(a, all) || !near(k, keys) {
			t.Errorf("%s: %d and %d bit/s, want %d and %d", what, a, k, all, keys)
		}
	}
	add(1, 1000)
	want("too early", 0, 0)
	add(3, 1000)
	want("in the first window", 80_000, 8000)
	add(20, 1000)
	want("after windows", 80_000, 8000)
	add(25, 5000)
	want("after a change", 400_000, 40_000)
	at = at.Add(-time.Hour)
	add(25, 1000)
	want("after a step of the clock", 80_000, 8000)
}
