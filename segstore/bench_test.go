package segstore

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/branchline-video/branchline"
)

// BenchmarkSeal makes small segments durable, one after another and for 32 streams at a time.
func BenchmarkSeal(b *testing.B) {
	for _, streams := range []int{1, 32} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			s := openStore(b, b.TempDir(), false)
			b.SetParallelism(max(streams/2, 1))
			turn := make(chan int, 1)
			turn <- 0
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := <-turn
					turn <- n + 1
					record(b, s, makeSegment(uint32(n%256), n, 2, branchline.Hash{}))
				}
			})
		})
	}
}

// BenchmarkList lists an hour out of many days of one stream.
func BenchmarkList(b *testing.B) {
	s := openStore(b, b.TempDir(), false)
	const minutes = 20_000
	for from := 0; from < minutes; from += adoptBatch {
		var batch []branchline.Segment
		for i := from; i < from+adoptBatch; i++ {
			seg := makeSegment(uint32(i%256), i*60, 1, branchline.Hash{})
			batch = append(batch, branchline.Segment{ID: seg.start.ID, Stream: testStream, Run: 1, Sealed: true,
				Span: day(float64(i*60), float64(i*60+60)), Size: seg.seal.Size, Hash: seg.seal.Hash})
		}
		must(b, s.adopt(batch))
	}
	for _, c := range []struct {
		name string
		span branchline.TimeRange
	}{{"hour", day(600_000, 603_600)}, {"all", day(0, minutes*60)}} {
		b.Run("held/"+c.name, func(b *testing.B) {
			for b.Loop() {
				held, err := s.Held(testStream, c.span)
				if err != nil || len(held) != 1 {
					b.Fatal(held, err)
				}
			}
		})
	}
}

// BenchmarkContent reads fragments of half a second at 4 Mbit/s as Fetch does, in plain and encrypted, and
// their bytes alone, unverified.
func BenchmarkContent(b *testing.B) {
	data := make([]byte, 250_000-ChecksumSize)
	data = append(data, ChecksumBox(data)...)
	row := branchline.Fragment{Length: int64(len(data)), Start: testStart(), Hash: sha256.Sum256(data)}
	key, _ := testKeys(b, "1").First()
	encrypted := cipherOf(testKeys(b, "1"), key.ID(), branchline.SegmentID{1})
	sealed, err := encrypted.encrypt(data, 0)
	must(b, err)
	for _, c := range []struct {
		name string
		c    content
	}{
		{"plain", content{file: bytes.NewReader(data)}},
		{"encrypted", content{file: bytes.NewReader(sealed), open: encrypted}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(row.Length)
			for b.Loop() {
				c.c.forget()
				if _, err := c.c.fragment(row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("unverified", func(b *testing.B) {
		b.SetBytes(row.Length)
		buf := make([]byte, len(data))
		for b.Loop() {
			bytes.NewReader(data).ReadAt(buf, 0)
		}
	})
}
