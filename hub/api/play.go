package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/hub/access"
	"github.com/branchline-video/branchline/internal/media"
)

// Limits of playback.
const (
	maxPlays    = 256             // at once: each takes a connection, a buffer and a reader at the source
	playBuffer  = 64 << 10        // bytes
	playTimeout = 5 * time.Minute // for playBuffer to be taken: a player that is paused takes nothing
)

// errEnd says that there is nothing more to play.
var errEnd = errors.New("the end of what is recorded")

// play streams what is recorded in a range, see openapi.yaml.
func (a *API) play(w http.ResponseWriter, r *http.Request) {
	if a.plays.Add(1) > maxPlays {
		a.plays.Add(-1)
		a.fail(w, r, fmt.Errorf("%d recordings are being played: %w", maxPlays, branchline.ErrBusy))
		return
	}
	defer a.plays.Add(-1)
	p := playback{source: a.Source, stream: branchline.StreamID(r.PathValue("stream"))}
	download, err := p.parse(r)
	if err == nil {
		err = a.allowPlay(r, &p, download)
	}
	ctx := r.Context()
	if !download { // who saves a file does not watch, and takes what is left of the uplink
		ctx = federation.WithPlayback(ctx, p.stream)
	}
	if err == nil {
		err = p.open(ctx)
	}
	if errors.Is(err, errNothing) {
		err = a.whyNothing(p)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	defer p.close()
	w.Header().Set("Content-Type", fmt.Sprintf("video/mp4; codecs=%q", p.codecs))
	if download {
		file := mime.FormatMediaType("attachment", map[string]string{"filename": p.name()})
		w.Header().Set("Content-Disposition", file)
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	n, err := p.copy(ctx, w)
	a.metrics.played.Add(float64(n))
	if err != nil {
		a.log.Info("playback ended early", "stream", p.stream, "bytes", n, "error", err)
		panic(http.ErrAbortHandler) // so that the receiver does not take what it has for the whole
	}
}

// whyNothing tells apart what is not recorded from what cannot be reached: the source lists only what
// it can.
func (a *API) whyNothing(p playback) error {
	facts, err := a.Catalog.Facts(p.stream, p.span)
	switch {
	case err != nil:
		return err
	case len(facts.Available) > 0 && !facts.Linked:
		return fmt.Errorf("play %s: %w", p.stream, errUnlinked)
	}
	return errNothing
}

// allowPlay checks what the table of roles cannot tell from the path, and audits.
func (a *API) allowPlay(r *http.Request, p *playback, download bool) error {
	c := callerOf(r.Context())
	if download && !c.Role.Includes(access.RoleOperator) {
		return fmt.Errorf("user %s has the role %s, downloading needs %s: %w",
			c.User, c.Role, access.RoleOperator, branchline.ErrDenied)
	}
	if _, err := a.knownStream(string(p.stream)); err != nil {
		return err
	}
	if !download {
		return a.Access.RecordPlay(access.Entry{User: c.User, Address: c.address}, p.stream, p.span)
	}
	object := fmt.Sprintf("%s %s/%s", p.stream, stamp(p.span.Start).Format(time.RFC3339Nano),
		stamp(p.span.End).Format(time.RFC3339Nano))
	return a.record(r.Context(), access.ActionDownload, object)
}

// playback is a walk along a stream's segments, from one piece of contiguous fragments to the next.
// It holds one page of segments and one reader at a time.
type playback struct {
	source branchline.Source
	stream branchline.StreamID
	span   branchline.TimeRange

	page   []branchline.Segment // still to play
	more   bool                 // there is another page after last
	last   branchline.Segment   // newest that was listed
	pieces []branchline.ByteRange
	run    uint64 // of which init was sent
	init   []byte // that the receiver has

	codecs string
	head   []byte // to be sent before reader
	reader io.ReadCloser
}

// parse reads the request's query and reports whether a download is asked for.
func (p *playback) parse(r *http.Request) (download bool, err error) {
	query := r.URL.Query()
	for name, into := range map[string]*time.Time{"from": &p.span.Start, "to": &p.span.End} {
		if *into, err = time.Parse(time.RFC3339Nano, query.Get(name)); err != nil {
			return false, fmt.Errorf("read %s=%.80q as RFC 3339: %w", name, query.Get(name), branchline.ErrInvalid)
		}
	}
	if download, err = boolean(r, "download"); err != nil {
		return false, err
	}
	return download, checkSpan(p.span)
}

// boolean reads a query's true or false; what is left out is false.
func boolean(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("read %s=%.80q as true or false: %w", name, text, branchline.ErrInvalid)
	}
	return value, nil
}

func checkSpan(span branchline.TimeRange) error {
	if span.Empty() {
		return fmt.Errorf("the range from %v to %v is empty: %w", span.Start, span.End, branchline.ErrInvalid)
	}
	return nil
}

func (p *playback) name() string {
	const form = "20060102T150405Z"
	return fmt.Sprintf("%s_%s_%s.mp4", p.stream, p.span.Start.UTC().Format(form), p.span.End.UTC().Format(form))
}

// open finds the first piece, so that what goes wrong before the first byte can be told. errNothing
// says that there is none.
func (p *playback) open(ctx context.Context) error {
	p.more = true
	p.last.Span.Start = p.span.Start
	err := p.next(ctx)
	if errors.Is(err, errEnd) {
		return errNothing
	}
	return err
}

func (p *playback) close() {
	if p.reader != nil {
		p.reader.Close()
		p.reader = nil
	}
}

// copy sends all pieces. What is in memory is one buffer, one init part and one page of segments.
func (p *playback) copy(ctx context.Context, w http.ResponseWriter) (int64, error) {
	out := patient{w, http.NewResponseController(w)}
	buffer := make([]byte, playBuffer)
	var sent int64
	for {
		n, err := io.CopyBuffer(out, bytes.NewReader(p.head), buffer)
		if sent += n; err != nil {
			return sent, err
		}
		n, err = io.CopyBuffer(out, p.reader, buffer)
		if sent += n; err != nil {
			return sent, err
		}
		if err := out.Flush(); err != nil {
			return sent, err
		}
		switch err := p.next(ctx); {
		case errors.Is(err, errEnd):
			return sent, nil
		case err != nil:
			return sent, err
		}
	}
}

// patient is a response whose receiver may take its time, but not for ever.
type patient struct {
	io.Writer
	*http.ResponseController
}

func (w patient) Write(b []byte) (int, error) {
	if err := w.SetWriteDeadline(deadline(playTimeout)); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// next opens the next piece, or returns errEnd. Segments that were removed since they were listed
// are left out, as they are from the time line.
func (p *playback) next(ctx context.Context) error {
	p.close()
	for {
		if len(p.pieces) == 0 {
			if err := p.turn(ctx); err != nil {
				return err
			}
			continue
		}
		seg, piece := p.page[0], p.pieces[0]
		p.pieces = p.pieces[1:]
		err := p.fetch(ctx, seg, piece)
		if err == nil {
			return nil
		}
		if !errors.Is(err, branchline.ErrGone) && !errors.Is(err, branchline.ErrNotFound) {
			return fmt.Errorf("play segment %v: %w", seg.ID, err)
		}
		p.pieces = nil
	}
}

// turn goes on to the next segment, and at the end of the page to the next page.
func (p *playback) turn(ctx context.Context) error {
	if len(p.page) > 0 {
		p.page = p.page[1:]
	}
	if len(p.page) == 0 {
		if err := p.list(ctx); err != nil {
			return err
		}
	}
	p.pieces = pieces(p.page[0], p.span)
	return nil
}

func (p *playback) list(ctx context.Context) error {
	if !p.more {
		return errEnd
	}
	span := branchline.TimeRange{Start: p.last.Span.Start, End: p.span.End}
	if span.Start.Before(p.span.Start) {
		span.Start = p.span.Start
	}
	segments, err := p.source.Segments(ctx, p.stream, span)
	if err != nil {
		return err
	}
	p.more = len(segments) == branchline.MaxSegments
	for i, seg := range segments { // the last page's last one comes again, and what starts with it
		if seg.ID == p.last.ID {
			segments = segments[i+1:]
			break
		}
	}
	if len(segments) == 0 {
		return errEnd
	}
	p.page, p.last = segments, segments[len(segments)-1]
	return nil
}

// fetch opens a piece of seg, with the segment's init part before it where the receiver needs that.
// Within a run the init part does not change, so it is fetched once for each run.
func (p *playback) fetch(ctx context.Context, seg branchline.Segment, piece branchline.ByteRange) (err error) {
	p.head = nil
	if p.init == nil || seg.Run != p.run {
		if seg.InitSize > media.MaxInit {
			return fmt.Errorf("init part of %d bytes: %w", seg.InitSize, branchline.ErrTooLarge)
		}
		init, err := p.read(ctx, seg.ID, branchline.ByteRange{End: seg.InitSize})
		if err != nil {
			return err
		}
		if !bytes.Equal(init, p.init) {
			p.head = init
		}
	}
	if p.reader, err = p.source.Fetch(ctx, seg.ID, piece); err != nil {
		return err
	}
	if p.codecs == "" {
		p.codecs = seg.Codecs
	}
	if p.head != nil {
		p.init = p.head
	}
	p.run = seg.Run
	return nil
}

func (p *playback) read(ctx context.Context, id branchline.SegmentID, r branchline.ByteRange) ([]byte, error) {
	reader, err := p.source.Fetch(ctx, id, r)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	data := make([]byte, r.End-r.Start)
	if _, err := io.ReadFull(reader, data); err != nil {
		return nil, err
	}
	return data, nil
}

// pieces returns the bytes of seg to play for span: from the newest key fragment that starts at or
// before the span, whatever fragments are there and can be decoded, contiguous ones as one range.
// After a hole playing goes on at a key fragment.
func pieces(seg branchline.Segment, span branchline.TimeRange) []branchline.ByteRange {
	first := 0
	for i, f := range seg.Fragments {
		if f.Key && !f.Start.After(span.Start) {
			first = i
		}
	}
	var all []branchline.ByteRange
	var last branchline.Fragment // that was taken
	for _, f := range seg.Fragments[min(first, len(seg.Fragments)):] {
		if !f.Start.Before(span.End) {
			break
		}
		follows := len(all) > 0 && f.Offset == last.End()
		if !follows && !last.Span().End.After(span.Start) {
			all = nil // it led up to nothing
		}
		switch {
		case follows:
			all[len(all)-1].End = f.End()
		case f.Key:
			all = append(all, branchline.ByteRange{Start: f.Offset, End: f.End()})
		default:
			continue
		}
		last = f
	}
	if !last.Span().End.After(span.Start) {
		return nil
	}
	return all
}
