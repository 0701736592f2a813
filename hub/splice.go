package hub

import (
	"context"
	"errors"
	"io"

	"github.com/branchline-video/branchline"
)

// piece is a range of a segment's bytes that is in one place.
type piece struct {
	branchline.ByteRange
	held bool // at the hub, else at the site
}

// pieces splits a range by what the hub holds of the segment. It returns at least one.
func pieces(held branchline.Segment, all branchline.ByteRange) []piece {
	here := []branchline.ByteRange{{End: held.InitSize}}
	for _, f := range held.Fragments {
		if last := &here[len(here)-1]; last.End == f.Offset {
			last.End = f.End()
		} else {
			here = append(here, branchline.ByteRange{Start: f.Offset, End: f.End()})
		}
	}
	var split []piece
	at := all.Start
	for _, h := range here {
		if all.End != 0 {
			h.End = min(h.End, all.End)
		}
		if h.Start = max(h.Start, at); h.Start >= h.End {
			continue
		}
		if at < h.Start {
			split = append(split, piece{branchline.ByteRange{Start: at, End: h.Start}, false})
		}
		split = append(split, piece{h, true})
		at = h.End
	}
	if all.End == 0 || at < all.End || len(split) == 0 {
		split = append(split, piece{branchline.ByteRange{Start: at, End: all.End}, false})
	}
	return split
}

// fetcher is the part of a source that gives bytes.
type fetcher interface {
	Fetch(ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange) (io.ReadCloser, error)
}

// splice returns the pieces as one reader, which opens each where it is when its turn comes, the first
// at once.
func splice(
	ctx context.Context, here, there fetcher, id branchline.SegmentID, split []piece,
) (io.ReadCloser, error) {
	s := &spliced{left: split, open: func(p piece) (io.ReadCloser, error) {
		if p.held {
			return here.Fetch(ctx, id, p.ByteRange)
		}
		return there.Fetch(ctx, id, p.ByteRange)
	}}
	if err := s.next(); err != nil {
		return nil, err
	}
	return s, nil
}

// spliced is for one reader.
type spliced struct {
	open func(piece) (io.ReadCloser, error)
	left []piece
	body io.ReadCloser // nil after the last piece
}

func (s *spliced) next() (err error) {
	if len(s.left) == 0 {
		return io.EOF
	}
	s.body, err = s.open(s.left[0])
	s.left = s.left[1:]
	return err
}

func (s *spliced) Read(b []byte) (int, error) {
	for {
		if s.body == nil {
			return 0, io.EOF
		}
		n, err := s.body.Read(b)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := s.Close(); err != nil {
			return n, err
		}
		if err := s.next(); err != nil || n > 0 {
			return n, err
		}
	}
}

func (s *spliced) Close() error {
	if s.body == nil {
		return nil
	}
	body := s.body
	s.body = nil
	return body.Close()
}
