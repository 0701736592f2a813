package segstore

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
)

// BenchmarkYear lists a month of one stream among a year of 32 in segments of a minute: seventeen million, of
// which only the index is made. BRANCHLINE_YEAR_DAYS makes the year shorter.
func BenchmarkYear(b *testing.B) {
	const streams = 32
	days := setting(b, "BRANCHLINE_YEAR_DAYS", 365)
	s := openStore(b, b.TempDir(), false)
	began := time.Now()
	fillYear(b, s, streams, days)
	b.Logf("%d entries made in %v", streams*days*24*60, time.Since(began))
	month := branchline.TimeRange{Start: testStart().AddDate(0, 0, days/2), End: testStart().AddDate(0, 0, days/2+30)}
	for round := range setting(b, "BRANCHLINE_YEAR_ROUNDS", 1) {
		b.Run(fmt.Sprintf("held/%d", round), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				held, err := s.Held(yearStream(i%streams), month)
				if err != nil || len(held) != 1 {
					b.Fatal(len(held), err)
				}
			}
		})
	}
}

// yearBatch is as much as one update takes.
const yearBatch = 1500

func setting(b *testing.B, name string, otherwise int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	must(b, err)
	return n
}

func yearStream(i int) branchline.StreamID {
	return branchline.CameraID(fmt.Sprintf("cam-%02d", i)).Stream("main")
}

// fillYear enters the segments of the days in the order in which a node records them.
func fillYear(b *testing.B, s *Store, streams, days int) {
	b.Helper()
	var batch []branchline.Segment
	for minute := range days * 24 * 60 {
		start := testStart().Add(time.Duration(minute) * time.Minute)
		for i := range streams {
			id := branchline.SegmentID{0: 1, 1: byte(i), 6: 0x70, 8: 0x80}
			binary.BigEndian.PutUint32(id[12:], uint32(minute))
			batch = append(batch, branchline.Segment{ID: id, Stream: yearStream(i), Run: 1, Number: uint32(minute),
				Span: branchline.TimeRange{Start: start, End: start.Add(time.Minute)}, Codecs: "avc1.42c01f",
				InitSize: 700, Size: 30 << 20, Sealed: true, Hash: branchline.Hash(append(id[:], id[:]...))})
		}
		if len(batch) >= yearBatch {
			must(b, s.adopt(batch))
			batch = batch[:0]
		}
	}
	if len(batch) > 0 {
		must(b, s.adopt(batch))
	}
}
