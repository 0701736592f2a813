package federation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// MaxCameras bounds the cameras of one site.
	MaxCameras = 10_000
	// maxList bounds a list as a whole, in bytes on the wire: four times a day of segments with as many
	// fragments as they have by default.
	maxList = 64 << 20
)

// Remote is the source at the other end of a connection. Its errors wrap [branchline.ErrUnavailable]
// when the connection is gone, which never comes back: a new link gives a new Remote. A call ends at
// once when its context does. It needs no closing; whoever made the connection closes that.
type Remote struct {
	conn   link.Conn
	signer ed25519.PublicKey // told by a site with a certificate of the organisation's; nil: its certificate's

	version version // that the link speaks
}

var _ branchline.Source = (*Remote)(nil)

// NewRemote returns the source that [Serve] serves at the other end of conn.
func NewRemote(conn link.Conn) *Remote { return &Remote{conn: conn} }

// Site returns the name of the site, as in its certificate.
func (r *Remote) Site() branchline.SiteID { return r.conn.Peer().Site }

// Key returns the key that signs the site's segments: that of its certificate, or, where certificates are the
// organisation's, the one that the site told. It is nil for a connection in memory, which has no certificates.
func (r *Remote) Key() ed25519.PublicKey {
	if r.signer != nil {
		return r.signer
	}
	return identity.KeyOf(r.conn.Peer().Leaf)
}

// Stats returns the link's present figures.
func (r *Remote) Stats() link.Stats { return r.conn.Stats() }

// Lanes returns how many connections the link has at present: so many fetches do not hold each other up.
func (r *Remote) Lanes() int {
	s := r.conn.Stats()
	if s.Bulk { // live is not on it, and fetches go by the streams on it
		s.Connections--
	}
	return max(s.Connections, 1)
}

// Cameras is [branchline.Source.Cameras].
func (r *Remote) Cameras(ctx context.Context) ([]branchline.Camera, error) {
	req := &wire.Request{Call: &wire.Request_Cameras{Cameras: &wire.CamerasRequest{}}}
	list, err := collect(ctx, r.conn, req, MaxCameras, func(a *wire.Answer) (branchline.Camera, error) {
		return decodeCamera(a.GetCamera())
	})
	if err != nil {
		return nil, fmt.Errorf("list cameras: %w", err)
	}
	return list, nil
}

// Segments is [branchline.Source.Segments].
func (r *Remote) Segments(ctx context.Context, stream branchline.StreamID, span branchline.TimeRange) (
	[]branchline.Segment, error,
) {
	req := &wire.Request{Call: &wire.Request_Segments{Segments: &wire.SegmentsRequest{
		Stream: string(stream), Span: encodeRange(span),
	}}}
	list, err := collect(ctx, r.conn, req, branchline.MaxSegments, func(a *wire.Answer) (branchline.Segment, error) {
		s, err := decodeSegment(a.GetSegment())
		if err == nil && s.Stream != stream {
			err = invalid("segment of stream %s", s.Stream)
		}
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("list segments of %s: %w", stream, err)
	}
	return list, nil
}

// collect asks for a list, of which each answer is an element.
func collect[T any](ctx context.Context, conn link.Conn, req *wire.Request, most int,
	decode func(*wire.Answer) (T, error),
) ([]T, error) {
	c, err := ask(ctx, conn, link.KindControl, req)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var list []T
	for size := 0; ; {
		a, err := c.next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if size += len(c.in.buf); len(list) == most || size > maxList {
			return nil, fmt.Errorf("more than %d answers or %d bytes: %w", most, maxList, branchline.ErrTooLarge)
		}
		e, err := decode(a)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
}

// Changes is [branchline.Source.Changes].
func (r *Remote) Changes(ctx context.Context, after branchline.Position) iter.Seq2[branchline.Change, error] {
	req := &wire.Request{Call: &wire.Request_Changes{Changes: &wire.ChangesRequest{After: encodePosition(after)}}}
	return follow(ctx, r.conn, link.KindChanges, req, func(a *wire.Answer) (branchline.Change, bool, error) {
		c, err := decodeChange(a.GetChange())
		known := c.Opened != nil || c.Sealed != nil || c.Removed != nil || c.Gap != nil || c.Camera != nil ||
			c.Recorded != nil || c.Site != nil
		return c, known, err
	})
}

// Live is [branchline.Source.Live].
func (r *Remote) Live(ctx context.Context, stream branchline.StreamID) iter.Seq2[branchline.Item, error] {
	return func(yield func(branchline.Item, error) bool) {
		err := r.live(ctx, stream, func(i branchline.Item) bool { return yield(i, nil) })
		if err != nil && ctx.Err() == nil {
			yield(branchline.Item{}, fmt.Errorf("follow %s: %w", link.KindLive, err))
		}
	}
}

// follow asks for answers without end and yields them until ctx ends or an error is yielded. Answers
// that this node does not know yet are passed over.
func follow[T any](ctx context.Context, conn link.Conn, kind link.Kind, req *wire.Request,
	decode func(*wire.Answer) (T, bool, error),
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		err := followTo(ctx, conn, kind, req, func(a *wire.Answer) (bool, error) {
			v, known, err := decode(a)
			if err != nil || !known {
				return err == nil, err
			}
			return yield(v, nil), nil
		})
		if err != nil && ctx.Err() == nil {
			var none T
			yield(none, fmt.Errorf("follow %s: %w", kind, err))
		}
	}
}

// followTo hands the answers to each until that returns false; an end that the peer makes is an error.
func followTo(ctx context.Context, conn link.Conn, kind link.Kind, req *wire.Request,
	each func(*wire.Answer) (bool, error),
) error {
	c, err := ask(ctx, conn, kind, req)
	if err != nil {
		return err
	}
	defer c.close()
	for {
		a, err := c.next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the peer stopped: %w", branchline.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		if more, err := each(a); err != nil || !more {
			return err
		}
	}
}

// Fetch is [branchline.Source.Fetch], with the priority of [WithPriority]. The context ends the reader
// too.
func (r *Remote) Fetch(ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange) (
	io.ReadCloser, error,
) {
	req := &wire.Request{Call: &wire.Request_Fetch{Fetch: &wire.FetchRequest{
		Segment: id[:], Start: bytes.Start, End: bytes.End, Watched: playbackOf(ctx),
		Verifies: branchline.Verifies(ctx),
	}}}
	open := ctx
	if branchline.Verifies(ctx) { // who verifies fragments goes on where a fetch has ended
		open = link.WithBulk(ctx)
	}
	c, err := ask(open, r.conn, link.KindFetch, req)
	if err != nil {
		return nil, fmt.Errorf("fetch segment %s: %w", id, err)
	}
	if _, err := c.one(); err != nil {
		c.close()
		return nil, fmt.Errorf("fetch segment %s: %w", id, err)
	}
	return &fetched{c: c, open: bytes.End == 0, left: bytes.End - bytes.Start}, nil
}

// fetched is the bytes of a fetch. One goroutine reads; another may close.
type fetched struct {
	c    *call
	open bool  // the range has no end
	left int64 // bytes still to come, unless open
}

func (f *fetched) Read(b []byte) (int, error) {
	n, err := f.c.in.r.Read(b)
	if f.left -= int64(n); f.left < 0 && !f.open {
		return 0, fmt.Errorf("read segment: more bytes than asked for: %w", branchline.ErrInvalid)
	}
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, callError(f.c.ctx, err)
	case f.left > 0 && !f.open:
		return n, fmt.Errorf("read segment: the peer stopped %d bytes early: %w", f.left, branchline.ErrUnavailable)
	}
	return n, io.EOF
}

func (f *fetched) Close() error {
	f.c.close()
	return nil
}
