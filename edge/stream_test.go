package edge

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestUnusedTracksAreToldOnce: not again on each reconnect, but when they change.
func TestUnusedTracksAreToldOnce(t *testing.T) {
	var log bytes.Buffer
	s := stream{logger: slog.New(slog.NewTextHandler(&log, nil))}
	for _, formats := range []string{"", "a", "a", "a b", "a b", "", "a"} {
		s.tellUnused(strings.Fields(formats))
	}
	if n := strings.Count(log.String(), "not recorded"); n != 3 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}
