package federation

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// call is a request to the peer and what comes back. One goroutine at a time uses it.
type call struct {
	ctx   context.Context
	s     link.Stream
	in    *receiver
	limit int
	stop  func() bool // of the watch on ctx
}

// ask opens a stream of the kind and sends the request. When ctx ends the stream is reset at once,
// whatever goes on on it. The caller closes the call.
func ask(ctx context.Context, conn link.Conn, kind link.Kind, req *wire.Request) (*call, error) {
	s, err := conn.OpenStream(ctx, kind)
	if err != nil {
		return nil, callError(ctx, err)
	}
	c := &call{ctx: ctx, s: s, in: newReceiver(s), limit: maxAnswer(kind)}
	c.stop = context.AfterFunc(ctx, func() { s.Reset(linkCode(wire.Code_CODE_CANCELLED)) })
	p := priorityOf(ctx, kind)
	s.SetPriority(int8(p))
	req.Priority = uint32(p)
	if err := (&sender{w: s}).message(req, maxRequest); err != nil {
		c.close()
		return nil, callError(ctx, err)
	}
	return c, nil
}

// callError says what went wrong from the caller's side: if it gave up itself, that.
func callError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fromLink(err)
}

// next returns the next answer, and io.EOF after the last one.
func (c *call) next() (*wire.Answer, error) {
	var a wire.Answer
	if err := c.in.message(&a, c.limit); err != nil {
		if errors.Is(err, branchline.ErrTooLarge) {
			c.s.Reset(linkCode(wire.Code_CODE_TOO_LARGE))
		}
		return nil, callError(c.ctx, err)
	}
	if e := a.GetError(); e != nil {
		return nil, decodeError(e)
	}
	return &a, nil
}

// one returns the only answer.
func (c *call) one() (*wire.Answer, error) {
	a, err := c.next()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the peer gave no answer: %w", branchline.ErrUnavailable)
	}
	return a, err
}

// close gives the stream back; what the peer still sends is lost.
func (c *call) close() {
	c.stop()
	c.s.Reset(linkCode(wire.Code_CODE_CANCELLED))
}
