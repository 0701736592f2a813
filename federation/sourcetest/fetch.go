package sourcetest

import (
	"bytes"
	"context"
	"io"
	"testing/iotest"

	"github.com/branchline-video/branchline"
)

func (r *run) fetchRanges() {
	seg := r.record(5, piece)
	whole := r.bytes(seg.ID, branchline.ByteRange{})
	if int64(len(whole)) != seg.Size {
		r.Fatalf("the segment has %d bytes, want %d", len(whole), seg.Size)
	}
	r.verify(seg, whole)
	frag := seg.Fragments[2]
	for name, want := range map[string]branchline.ByteRange{
		"the whole, said":          {Start: 0, End: seg.Size},
		"the first byte":           {Start: 0, End: 1},
		"the last byte":            {Start: seg.Size - 1, End: seg.Size},
		"the last byte, open":      {Start: seg.Size - 1},
		"the init part":            {Start: 0, End: seg.InitSize},
		"one fragment":             {Start: frag.Offset, End: frag.End()},
		"over a border":            {Start: frag.Offset - 3, End: frag.Offset + 3},
		"from inside a fragment":   {Start: frag.Offset + 7},
		"the footer":               {Start: seg.Fragments[4].End(), End: seg.Size},
		"nothing, inside":          {Start: frag.Offset, End: frag.Offset},
		"nothing, at the very end": {Start: seg.Size},
	} {
		end := want.End
		if end == 0 {
			end = seg.Size
		}
		if got := r.bytes(seg.ID, want); !bytes.Equal(got, whole[want.Start:end]) {
			r.Errorf("%s: %v gave %d bytes that are not those of the whole", name, want, len(got))
		}
	}
	body, err := r.Source.Fetch(r.ctx, seg.ID, branchline.ByteRange{})
	if err != nil {
		r.Fatal(err)
	}
	if got, err := io.ReadAll(iotest.OneByteReader(body)); err != nil || !bytes.Equal(got, whole) {
		r.Errorf("read byte by byte: %d bytes, %v", len(got), err)
	}
	if err := body.Close(); err != nil {
		r.Error(err)
	}
}

func (r *run) fetchErrors() {
	seg, other := r.record(2, piece), r.record(2, piece)
	r.Feed.Remove(other.ID, branchline.CauseRemovedEarly)
	unknown := seg.ID
	unknown[15]++
	for name, c := range map[string]struct {
		id   branchline.SegmentID
		want branchline.ByteRange
		err  error
	}{
		"unknown":       {unknown, branchline.ByteRange{}, branchline.ErrNotFound},
		"removed":       {other.ID, branchline.ByteRange{}, branchline.ErrGone},
		"past the end":  {seg.ID, branchline.ByteRange{End: seg.Size + 1}, branchline.ErrInvalid},
		"after the end": {seg.ID, branchline.ByteRange{Start: seg.Size + 1}, branchline.ErrInvalid},
		"backwards":     {seg.ID, branchline.ByteRange{Start: 9, End: 8}, branchline.ErrInvalid},
		"negative":      {seg.ID, branchline.ByteRange{Start: -1}, branchline.ErrInvalid},
	} {
		body, err := r.Source.Fetch(r.ctx, c.id, c.want)
		if err == nil {
			_, err = body.Read(make([]byte, 1))
			body.Close()
		}
		r.wantError(name, err, c.err)
	}
}

func (r *run) fetchGrowing() {
	id := r.Feed.Begin(piece)
	body, err := r.Source.Fetch(r.ctx, id, branchline.ByteRange{})
	if err != nil {
		r.Fatal(err)
	}
	defer body.Close()
	var got []byte
	for i := range 4 {
		size := r.segment(id).Size
		part := make([]byte, size-int64(len(got)))
		if _, err := io.ReadFull(body, part); err != nil {
			r.Fatalf("read up to %d: %v", size, err)
		}
		got = append(got, part...)
		r.Feed.Append(i%2 == 0, piece)
	}
	r.Feed.Seal()
	rest, err := io.ReadAll(body)
	if err != nil {
		r.Fatalf("read to the seal: %v", err)
	}
	got = append(got, rest...)
	if seg := r.segment(id); int64(len(got)) != seg.Size {
		r.Errorf("followed %d bytes, want %d", len(got), seg.Size)
	} else {
		r.verify(seg, got)
	}
	if whole := r.bytes(id, branchline.ByteRange{}); !bytes.Equal(got, whole) {
		r.Error("the bytes followed are not the segment's")
	}
}

func (r *run) fetchCancelled() {
	ctx, cancel := context.WithCancel(r.ctx)
	id := r.Feed.Begin(piece)
	body, err := r.Source.Fetch(ctx, id, branchline.ByteRange{})
	if err != nil {
		r.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, r.segment(id).Size)); err != nil {
		r.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, body)
		ended <- err
	}()
	cancel()
	r.wantError("a read that waits for growth", <-ended, context.Canceled)
}

func (r *run) fetchClosed() {
	seg := r.record(8, bulk)
	for range 40 { // more than any limit on calls at once would take, were they not given back
		body, err := r.Source.Fetch(r.ctx, seg.ID, branchline.ByteRange{})
		if err != nil {
			r.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
			r.Fatal(err)
		}
		if err := body.Close(); err != nil {
			r.Fatal(err)
		}
	}
}
