package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/branchline-video/branchline"
)

// readSize is how much is read of a stream at once, at most.
const readSize = 64 << 10

// bite is a range of consecutive bytes of a segment that one stream brings, with the parts that it touches.
// The crew's mu guards what is below it while somebody is at the bite.
type bite struct {
	st       *segmentTransfer
	start    int64
	parts    []*part // from pos on
	pos, end int64   // what is still to come; the end may be taken away
	since    time.Time
	stop     context.CancelFunc // ends the stream; nil: there is none
	taken    bool               // somebody else brings the rest
}

func newBite(st *segmentTransfer, parts []*part) *bite {
	start := parts[0].bytes.Start
	return &bite{st: st, parts: parts, start: start, pos: start, end: parts[len(parts)-1].bytes.End}
}

// split takes what comes before a position off a bite that nobody has begun, and returns it.
func (b *bite) split(at int64) *bite {
	before, behind := b.share(at)
	first := &bite{st: b.st, parts: before, start: b.start, pos: b.start, end: at}
	b.parts, b.start, b.pos = behind, at, at
	return first
}

// give takes what comes from a position on off a bite that somebody is at, and returns it.
func (b *bite) give(at int64) *bite {
	before, behind := b.share(at)
	rest := &bite{st: b.st, parts: behind, start: at, pos: at, end: b.end}
	b.parts, b.end = before, at
	if b.pos == at {
		b.taken = true
		b.stop()
	}
	return rest
}

// share returns the parts before a position and those behind it; one that it is inside of is among both.
func (b *bite) share(at int64) (before, behind []*part) {
	i, _ := slices.BinarySearchFunc(b.parts, at+1, func(p *part, at int64) int { return cmp.Compare(p.bytes.End, at) })
	before, behind = b.parts[:i:i], b.parts[i:]
	if len(behind) > 0 && behind[0].bytes.Start < at {
		before = b.parts[: i+1 : i+1]
	}
	return before, behind
}

// running reports whether there is a stream and something to come.
func (b *bite) running() bool { return b.stop != nil && !b.taken && b.pos < b.end }

// rate returns how fast it comes, in bytes a second. The caller holds the crew's mu, as for left.
func (b *bite) rate(now time.Time) float64 {
	return float64(b.pos-b.start) / max(now.Sub(b.since).Seconds(), 0.001)
}

// left returns how long the rest will take; usual is the rate of other bites, in bytes a second, which counts
// as long as little is known of this one.
func (b *bite) left(now time.Time, usual float64) time.Duration {
	rate := b.rate(now)
	if now.Sub(b.since) < slowAfter {
		rate = max(rate, usual)
	}
	return time.Duration(float64(b.end-b.pos) / max(rate, 1) * float64(time.Second))
}

// bring brings the bite, asking anew for the rest, from the byte on at which it stopped, when a connection
// ends and the link goes on, and after a while if the site is busy.
func (b *bite) bring(ctx context.Context, c *crew) error {
	for try, away := 1, 0; ; try++ {
		from := b.pos
		err := b.fetch(ctx, c)
		if b.pos-from >= leastBite {
			try = 1
		}
		if b.pos > from {
			away = 0
		}
		switch {
		case err == nil:
			c.another()
			return nil
		case ctx.Err() != nil || errors.Is(err, errStore):
			return err
		case errors.Is(err, errAway) && away < maxAway:
			c.tooMany()
			select {
			case <-time.After(busyPause):
				try, away = try-1, away+1
			case <-ctx.Done():
				return ctx.Err()
			}
		case !errors.Is(err, branchline.ErrUnavailable) || try >= tries:
			return err
		}
	}
}

// maxAway bounds how often a bite is sent away, one time after the other: ten seconds' worth.
const maxAway = 100

// errAway is wrapped by the error of a site that does not take a fetch because it has too many. One that it has taken
// and that it gives nothing of, as its uplink's budget is used up, is no such: it is left alone for a while.
var errAway = errors.New("the site takes no more fetches")

// another lets there be one stream more, after each has brought a bite, where the site has once sent some away.
func (c *crew) another() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > 0 && rand.IntN(c.most) == 0 {
		c.most++
	}
	if c.most >= mostStreams {
		c.most = 0
	}
}

// errStore is wrapped by errors of the hub's own store.
var errStore = errors.New("store what was fetched")

// errOver means that of the segment no more is to be fetched, for a reason that is noted.
var errOver = errors.New("the segment is given up")

// fetch asks for what is still to come and takes it, as long as nobody else brings it.
func (b *bite) fetch(ctx context.Context, c *crew) error {
	if p, _ := c.next(b); p == nil {
		return nil
	}
	stream, stop := context.WithCancel(ctx)
	defer stop()
	body, err := c.src.Fetch(branchline.WithVerifier(stream), b.st.seg.ID, c.begin(b, stop))
	end := func() {}
	switch {
	case err == nil:
		end = sync.OnceFunc(func() { _ = body.Close() })
		defer end()
	case errors.Is(err, branchline.ErrBusy):
		err = fmt.Errorf("%w: %w", errAway, err)
	}
	buf := make([]byte, readSize)
	for {
		p, left := c.next(b)
		switch {
		case p == nil:
			return nil
		case left == 0:
			waits := !p.init && b.st.waits()
			if waits { // for the segment's first part, which may be waiting for this one's place at the site
				stop()
				end()
			}
			if err := b.hand(ctx, c, p); err != nil {
				return err
			}
			if waits {
				return b.fetch(ctx, c)
			}
			continue
		case errors.Is(err, io.EOF) && ctx.Err() == nil:
			return fmt.Errorf("bytes ended early: %w", branchline.ErrUnavailable)
		case err != nil:
			return bySite(ctx, err)
		}
		var n int
		n, err = body.Read(buf[:min(left, readSize)])
		c.all.came.Add(int64(n))
		c.took(b, buf[:n])
	}
}

// hand ends what the bite brings of a part, and stores the part once it is whole.
func (b *bite) hand(ctx context.Context, c *crew, p *part) error {
	whole := c.leave(b, p)
	if whole == nil {
		return nil
	}
	defer c.all.lent.Return(whole)
	if !p.init {
		if err := b.st.begun(ctx); err != nil {
			return err
		}
	}
	if err := b.st.stored(ctx, p, whole); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(p)
	return nil
}

// begin notes that the bite has a stream, and returns what to ask it for.
func (c *crew) begin(b *bite, stop context.CancelFunc) branchline.ByteRange {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.stop = stop; b.since.IsZero() {
		b.since = c.clock.Now()
	}
	return branchline.ByteRange{Start: b.pos, End: b.end}
}

// next returns the part that is being brought, nil if there is none any more, and how much of it is still to
// come in this bite.
func (c *crew) next(b *bite) (*part, int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(b.parts) == 0 {
		return nil, 0
	}
	return b.parts[0], min(b.parts[0].bytes.End, b.end) - b.pos
}

// took notes that bytes came, but for those that somebody else brings by now.
func (c *crew) took(b *bite, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data = data[:min(int64(len(data)), b.end-b.pos)]
	if len(data) > 0 {
		b.parts[0].place(b.pos-b.parts[0].bytes.Start, data, &c.all.lent)
	}
	b.pos += int64(len(data))
}

// leave has the bite go on behind the part, of which it has brought its share, and returns all of the part if nothing
// is missing any more and nobody has it yet.
func (c *crew) leave(b *bite, p *part) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.parts = b.parts[1:]
	if p.came < p.size() {
		return nil
	}
	whole := p.data
	p.data = nil
	return whole
}
