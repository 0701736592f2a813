package budget_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/internal/clock"
)

// TestQuotaOverWrongClocks sends a megabyte at each of the times, of which a "|" before one is a restart, and tells
// what is counted of the month then. The present month begins in March.
func TestQuotaOverWrongClocks(t *testing.T) {
	for _, c := range []struct {
		name  string
		times []string
		want  int64 // megabytes
	}{
		{"right", []string{"2026-03-10", "2026-03-11", "|2026-03-12"}, 3},
		{"a new month", []string{"2026-03-10", "2026-04-01"}, 1},
		{"a new month at a restart", []string{"2026-03-10", "|2026-04-01"}, 1},
		{"behind at a start", []string{"2026-03-10", "|1970-01-01", "1970-01-01"}, 3},
		{"behind at a start, then right", []string{"2026-03-10", "|1970-01-01", "2026-03-11"}, 3},
		{"behind at a start, then a new month", []string{"2026-03-10", "|1970-01-01", "2026-04-02"}, 1},
		{"behind over two starts", []string{"2026-03-10", "|1970-01-01", "|1970-01-01", "2026-03-11"}, 4},
		{"behind for a while", []string{"2026-03-10", "2026-02-27", "2026-03-11"}, 3},
		{"ahead for a moment", []string{"2026-03-10", "2030-01-01", "2026-03-10"}, 3},
		{"ahead at a start", []string{"2026-03-10", "|2030-01-01", "2026-03-10", "2026-03-11"}, 4},
		{"ahead over two starts", []string{"2026-03-10", "|2030-01-01", "|2030-01-01", "|2026-03-10"}, 4},
		{"ahead twice", []string{"2026-03-10", "2030-01-01", "2026-03-11", "2031-01-01", "2026-03-12"}, 5},
		{"off for months", []string{"2026-03-10", "|2026-06-01", "2026-06-02"}, 2},
		{"it had been ahead", []string{"2030-01-01", "2026-03-10", "2026-03-20"}, 3},
		{"it had been ahead, a month ago", []string{"2030-01-01", "2026-03-10", "2026-04-20", "2026-04-21"}, 2},
		{"it had been ahead before a start", []string{"2030-01-01", "|2026-03-10", "2026-04-20"}, 1},
	} {
		path := filepath.Join(t.TempDir(), "uplink.json")
		var now time.Time
		var sent uint64
		var b *budget.Budget
		for i, text := range c.times {
			restart := text[0] == '|'
			if restart {
				text = text[1:]
			}
			at, err := time.Parse(time.DateOnly, text)
			if err != nil {
				t.Fatal(err)
			}
			now = at
			if i == 0 || restart {
				if b != nil {
					if err := b.Close(); err != nil {
						t.Fatal(err)
					}
				}
				b = open(t, budget.Config{
					Path: path, Quota: budget.Quota{Bytes: 1e12}, Clock: clock.New(func() time.Time { return now }),
				})
				sent = 0
				b.Attach(func() budget.Sample { return budget.Sample{Sent: sent} })
			}
			sent += 1_000_000
			b.State()
		}
		if got := b.State(); got.Used != c.want*1_000_000 {
			t.Errorf("%s: %d bytes are counted, want %d MB", c.name, got.Used, c.want)
		}
	}
}
