package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/federation/members"
	wire "github.com/branchline-video/branchline/proto"
)

const (
	// requestTime is how long a stream may take to bring its request.
	requestTime = 10 * time.Second
	// What a peer may have going on at once, so that bulk leaves room for the rest: of fetches two for each
	// connection of a bundle and some more. More is answered with ErrBusy.
	maxControlCalls = 64
	maxChangesCalls = 8
	maxFetchCalls   = 224
	maxLiveCalls    = 88 * maxLanes
	maxAllCalls     = maxControlCalls + maxChangesCalls + maxFetchCalls + maxLiveCalls
	// maxLists bounds the lists of segments of one peer that are in memory at once, each of some 15 MB for a day;
	// the others wait. A peer that does not read its lists gets no more of them.
	maxLists = 8
	// copySize is the piece in which a fetch is read and sent.
	copySize = 64 << 10
)

func maxCalls(kind link.Kind) int {
	switch kind {
	case link.KindControl:
		return maxControlCalls
	case link.KindChanges:
		return maxChangesCalls
	case link.KindFetch:
		return maxFetchCalls
	case link.KindLive:
		return maxLiveCalls
	}
	return 0
}

// Serve answers the peer's calls on conn from src until ctx ends or the connection does; it always
// returns an error, which tells why. Calls that are under way end with it. It does not close conn. If
// src is a [branchline.Control] too, a hub at the other end may control it.
func Serve(ctx context.Context, conn link.Conn, src branchline.Source) error {
	return (&server{conn: conn, src: src}).run(ctx)
}

// server answers the calls of one peer.
type server struct {
	conn    link.Conn
	version version                                        // that the link speaks
	src     branchline.Source                              // nil: this side has nothing to give
	renew   func(csr []byte) (identity.Certificate, error) // nil: this side is no authority
	// refresh makes this node renew its certificate; nil: it has none to renew.
	refresh func()
	// denied is told of a call of the peer that is not its to make; nil: nobody is.
	denied func(req *wire.Request, err error)
	// copies gives the peer what it has lost; nil: nothing.
	copies func(ctx context.Context, id branchline.SegmentID, bytes branchline.ByteRange) (io.ReadCloser, error)
	gossip *members.Link // nil: this side does not gossip
	// budget decides how fast this side sends; nil: nothing does.
	budget *budget.Budget
	// bars tells whether bulk is not to be sent now, and when to ask again; nil: it may always be.
	bars    func() (barred bool, changed <-chan struct{})
	watches watches
	tier    *Tier  // of this side, if it is a hub that knows of others
	name    string // of the peer, as [UplinkConfig.Name]

	mu   sync.Mutex
	busy [link.KindGossip + 1]int // calls by kind

	spreads map[liveTicket]*spread // live calls on several streams

	lists chan struct{} // a token for each list of segments in memory; made by run
}

func (s *server) run(ctx context.Context) error {
	defer s.budget.Attach(sampleOf(s.conn))()
	defer s.watches.end()
	s.lists = make(chan struct{}, maxLists)
	g, ctx := errgroup.WithContext(ctx)
	// Not one of the group's: its end is the end of the group.
	free := make(chan struct{}, maxAllCalls)
	g.Go(func() error {
		for {
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			st, err := s.conn.AcceptStream(ctx)
			if err != nil {
				return fmt.Errorf("serve: %w", callError(ctx, err))
			}
			g.Go(func() error {
				defer func() { <-free }()
				s.stream(ctx, g, st)
				return nil
			})
		}
	})
	return g.Wait()
}

// stream answers one stream, whatever comes on it.
func (s *server) stream(ctx context.Context, g *errgroup.Group, st link.Stream) {
	late := time.AfterFunc(requestTime, func() { st.Reset(linkCode(wire.Code_CODE_INVALID)) })
	gone := context.AfterFunc(ctx, func() { st.Reset(linkCode(wire.Code_CODE_UNAVAILABLE)) })
	defer gone()
	in := newReceiver(st)
	if b, err := in.r.Peek(1); err == nil && link.Kind(b[0]) == link.KindGossip && s.gossip != nil {
		_, _ = in.r.ReadByte() // it is there
		late.Stop()
		s.gossip.Serve(ctx, st, in.r)
		return
	}
	kind, req, err := readRequest(in)
	late.Stop()
	if err != nil {
		st.Reset(linkCode(codeOf(fromLink(err))))
		return
	}
	if !s.begin(kind) {
		err = fmt.Errorf("more than %d %s calls at once: %w", maxCalls(kind), kind, branchline.ErrBusy)
	}
	if err == nil {
		defer s.finish(kind)
	}
	priority := bounded(Priority(min(req.GetPriority(), uint32(PriorityBackfill))), kind)
	st.SetPriority(int8(priority))

	// The peer keeps its direction open for as long as it wants answers.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.Go(func() error {
		_, _ = in.r.ReadByte() // anything ends the call
		cancel()
		return nil
	})
	quit := context.AfterFunc(ctx, func() { st.Reset(linkCode(wire.Code_CODE_CANCELLED)) })
	a := &answer{ctx: ctx, out: &sender{w: st}, limit: maxAnswer(kind), priority: priority}
	if err == nil {
		err = s.checked(req, s.answer(a, kind, req))
	}
	a.end(st, err)
	quit()
	st.Reset(linkCode(wire.Code_CODE_CANCELLED)) // the peer's direction only, where ours has ended
}

func (s *server) begin(kind link.Kind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[kind] >= maxCalls(kind) {
		return false
	}
	s.busy[kind]++
	return true
}

func (s *server) finish(kind link.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[kind]--
}

// readRequest reads what every stream begins with. Its error wraps [branchline.ErrInvalid] for a kind
// that is not known here.
func readRequest(in *receiver) (link.Kind, *wire.Request, error) {
	kind, err := link.ReadKind(in.r)
	if err != nil {
		return 0, nil, err
	}
	if maxCalls(kind) == 0 {
		return 0, nil, invalid("stream of %s", kind)
	}
	var req wire.Request
	if err := in.message(&req, maxRequest); err != nil {
		return 0, nil, err
	}
	return kind, &req, nil
}

// answer is what goes back on a stream.
type answer struct {
	ctx   context.Context
	out   *sender
	limit int
	raw   bool // bytes follow: an error can no longer be told in a message

	priority Priority
}

func (a *answer) send(m *wire.Answer) error { return a.out.message(m, a.limit) }

// end finishes the stream, with the error if there is one.
func (a *answer) end(st link.Stream, err error) {
	if a.ctx.Err() != nil {
		return // reset already
	}
	if err != nil && !a.raw && !a.out.torn { // it waits for no budget
		err = (&sender{w: st}).message(&wire.Answer{Body: &wire.Answer_Error{Error: encodeError(err)}}, maxFetch)
	}
	if err != nil {
		st.Reset(linkCode(codeOf(err)))
		return
	}
	if err := st.Close(); err != nil {
		st.Reset(linkCode(wire.Code_CODE_INTERNAL))
	}
}

// answer answers the request. A stream carries only the calls of its kind.
func (s *server) answer(a *answer, kind link.Kind, req *wire.Request) error {
	if !s.version.speaks(sinceOf(req)) && s.src != nil {
		return invalid("call that version %d of the protocol has not", s.version)
	}
	if r := req.GetRenew(); r != nil && kind == link.KindControl && s.renew != nil {
		return s.certificate(a, r)
	}
	if call := req.GetFetch(); call != nil && kind == link.KindFetch && s.copies != nil {
		return s.fetch(a, call, s.copies)
	}
	if req.GetAbove() != nil && kind == link.KindControl && s.tier != nil && s.version.speaks(version2) {
		return a.send(&wire.Answer{Body: &wire.Answer_Above{Above: &wire.AboveAnswer{Ways: encodeWays(s.tier.Ways())}}})
	}
	if req.GetRefresh() != nil && kind == link.KindControl && s.refresh != nil {
		s.refresh()
		return a.done(nil)
	}
	if s.src == nil {
		return fmt.Errorf("a hub has no answer to this: %w", branchline.ErrDenied)
	}
	if kind == link.KindControl && req.GetWatch() != nil {
		return s.watch(a, req.GetWatch())
	}
	if kind == link.KindControl && req.GetUplink() != nil {
		return s.uplink(a)
	}
	if isControl(req) && kind == link.KindControl {
		return s.control(a, req)
	}
	return s.serve(a, kind, req)
}

// serve answers what a source is asked for.
func (s *server) serve(a *answer, kind link.Kind, req *wire.Request) error {
	switch call := req.GetCall().(type) {
	case *wire.Request_Cameras:
		if kind == link.KindControl {
			return s.cameras(a)
		}
	case *wire.Request_Segments:
		if kind == link.KindControl {
			return s.segments(a, call.Segments)
		}
	case *wire.Request_Changes:
		if kind == link.KindChanges {
			return s.changes(a, call.Changes)
		}
	case *wire.Request_Fetch:
		if kind == link.KindFetch {
			return s.fetch(a, call.Fetch, s.src.Fetch)
		}
	case *wire.Request_Live:
		if kind == link.KindLive {
			return s.live(a, call.Live)
		}
	}
	return invalid("unknown call on a %s stream", kind)
}

func (s *server) certificate(a *answer, r *wire.RenewRequest) error {
	c, err := s.renew(r.GetCsr())
	if err != nil {
		return err
	}
	return a.send(&wire.Answer{Body: &wire.Answer_Certificate{Certificate: encodeCertificate(c)}})
}

func (s *server) cameras(a *answer) error {
	list, err := s.src.Cameras(a.ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := a.send(&wire.Answer{Body: &wire.Answer_Camera{Camera: encodeCamera(c)}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) segments(a *answer, r *wire.SegmentsRequest) error {
	stream := branchline.StreamID(r.GetStream())
	if err := stream.Check(); err != nil {
		return err
	}
	select {
	case s.lists <- struct{}{}:
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
	defer func() { <-s.lists }()
	list, err := s.src.Segments(a.ctx, stream, decodeRange(r.GetSpan()))
	if err != nil {
		return err
	}
	for _, seg := range list {
		if err := a.send(&wire.Answer{Body: &wire.Answer_Segment{Segment: encodeSegment(seg)}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) changes(a *answer, r *wire.ChangesRequest) error {
	for c, err := range s.src.Changes(a.ctx, decodePosition(r.GetAfter())) {
		if err != nil {
			return err
		}
		if err := a.send(&wire.Answer{Body: &wire.Answer_Change{Change: encodeChange(c)}}); err != nil {
			return err
		}
	}
	return fmt.Errorf("the feed ended: %w", branchline.ErrUnavailable)
}

// live is one cursor on the source's ring: while the peer is slow it stands still, and the ring drops.
func (s *server) live(a *answer, r *wire.LiveRequest) error {
	if t := r.GetTicket(); len(t) > 0 {
		return s.joinLive(a, t)
	}
	stream := branchline.StreamID(r.GetStream())
	if err := stream.Check(); err != nil {
		return err
	}
	urgency, leave, err := s.admit(a, stream, r.GetKeyFramesOnly())
	if err != nil {
		return err
	}
	defer leave()
	a.ctx = asked(a, r.GetKeyFramesOnly(), "", false)
	a.out = &sender{w: s.paced(a, urgency)}
	if s.version.speaks(version2) && !r.GetKeyFramesOnly() {
		return s.spreadLive(a, stream)
	}
	for i, err := range s.src.Live(a.ctx, stream) {
		if err != nil {
			return err
		}
		if r.GetKeyFramesOnly() {
			var of bool
			if i, of = keyFrame(i); !of {
				continue
			}
		}
		if err := a.send(&wire.Answer{Body: &wire.Answer_Item{Item: encodeItem(i)}}); err != nil {
			return err
		}
	}
	return fmt.Errorf("the stream ended: %w", branchline.ErrUnavailable)
}

func (s *server) fetch(a *answer, r *wire.FetchRequest,
	from func(context.Context, branchline.SegmentID, branchline.ByteRange) (io.ReadCloser, error)) error {
	id, err := decodeSegmentID(r.GetSegment())
	if err != nil {
		return err
	}
	want := branchline.ByteRange{Start: r.GetStart(), End: r.GetEnd()}
	if want.Start < 0 || want.End < 0 || want.End != 0 && want.End < want.Start {
		return invalid("bytes %d to %d", want.Start, want.End)
	}
	leave, err := s.playback(branchline.StreamID(r.GetWatched()))
	if err != nil {
		return err
	}
	body, err := from(asked(a, false, branchline.StreamID(r.GetWatched()), r.GetVerifies()), id, want)
	if err != nil {
		leave(0) // nothing is played back
		return err
	}
	defer leave(playbackPause)
	if err := a.send(&wire.Answer{Body: &wire.Answer_Fetch{Fetch: &wire.FetchAnswer{}}}); err != nil {
		return errors.Join(err, body.Close())
	}
	a.raw = true
	// Without the methods by which a file would copy itself in pieces of its own choice.
	out := s.paced(a, always(budget.Class(a.priority)))
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{body}, make([]byte, copySize))
	return errors.Join(err, body.Close())
}
