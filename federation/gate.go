package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/budget"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

type (
	keyFramesKey struct{}
	playbackKey  struct{}
)

// WithKeyFrames makes [Remote.Live] ask for the pictures alone that need no others, without sound. What comes can
// be watched and not recorded: it has no fragments.
func WithKeyFrames(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyFramesKey{}, true)
}

// KeyFrames reports whether [WithKeyFrames] was used.
func KeyFrames(ctx context.Context) bool { return ctx.Value(keyFramesKey{}) != nil }

// WithPlayback tells [Remote.Fetch] that somebody watches the stream as it comes, so that the site lets it in, or
// refuses it with a [*budget.Refusal], by what its stream takes.
func WithPlayback(ctx context.Context, stream branchline.StreamID) context.Context {
	return context.WithValue(ctx, playbackKey{}, stream)
}

// Playback returns the stream of [WithPlayback], empty for none.
func Playback(ctx context.Context) branchline.StreamID {
	return branchline.StreamID(playbackOf(ctx))
}

// asked returns the context with which to ask a source for what a peer asks for: one that is a hub passes on to
// its site how urgent that is and what it is for.
func asked(a *answer, keyFrames bool, playback branchline.StreamID, verifies bool) context.Context {
	ctx := WithPriority(a.ctx, a.priority)
	if keyFrames {
		ctx = WithKeyFrames(ctx)
	}
	if playback != "" {
		ctx = WithPlayback(ctx, playback)
	}
	if verifies {
		ctx = branchline.WithVerifier(ctx)
	}
	return ctx
}

// playbackOf returns the stream that is played back, empty for none.
func playbackOf(ctx context.Context) string {
	stream, _ := ctx.Value(playbackKey{}).(branchline.StreamID)
	return string(stream)
}

// urgency returns how urgent something is now, and a channel that is closed when that changes; nil: never.
type urgency func() (class budget.Class, other <-chan struct{})

// always is the urgency of what never changes.
func always(class budget.Class) urgency {
	return func() (budget.Class, <-chan struct{}) { return class, nil }
}

// paced is a writer that lets bytes pass in chunks as the budget allows. One goroutine writes.
type paced struct {
	ctx     context.Context
	w       io.Writer
	budget  *budget.Budget
	urgency urgency
	bars    func() (barred bool, changed <-chan struct{}) // as the server's
}

func (p *paced) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		n := min(p.budget.Chunk(), len(b))
		if err := p.pass(n); err != nil {
			return written, err
		}
		n, err := p.w.Write(b[:n])
		written, b = written+n, b[n:]
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// sampleOf returns what the budget looks at of a connection.
func sampleOf(conn link.Conn) func() budget.Sample {
	return func() budget.Sample {
		s := conn.Stats()
		rtt := s.Latest
		if rtt == 0 {
			rtt = s.RTT
		}
		return budget.Sample{RTT: rtt, Sent: s.Sent, Packets: s.PacketsSent}
	}
}

// admit lets in a live stream and returns how urgent it is, which may change while it is recorded.
func (s *server) admit(a *answer, stream branchline.StreamID, keyFrames bool) (urgency, func(), error) {
	watched := a.priority <= PriorityLive
	var leave func()
	if watched {
		var err error
		leave, err = s.budget.Admit(budget.Asked{Hub: s.hub(), Stream: stream, KeyFrames: keyFrames})
		if err != nil || keyFrames {
			return always(budget.Live), leave, err
		}
	}
	end := s.watches.begin(stream)
	if watched {
		if err := s.watches.put(stream, leave); err != nil {
			end()
			return nil, nil, err
		}
	}
	class, done := s.carry(a, stream)
	return class, func() { done(); end() }, nil
}

// carry returns how urgent the answer is that carries a live stream. Until done is called what it has written is, too.
func (s *server) carry(a *answer, stream branchline.StreamID) (_ urgency, done func()) {
	done = func() {}
	if st, ok := a.out.w.(link.Stream); ok {
		done = s.watches.carry(stream, st)
	}
	return func() (budget.Class, <-chan struct{}) { return s.watches.class(stream) }, done
}

// playback lets in whoever watches what a fetch brings. Between the fetches of one playback its place is kept
// for a while, so that nobody else takes it: release gives it back after so long.
func (s *server) playback(stream branchline.StreamID) (release func(after time.Duration), err error) {
	if stream == "" || s.budget == nil {
		return func(time.Duration) {}, nil
	}
	if err := stream.Check(); err != nil {
		return nil, err
	}
	leave, err := s.budget.Admit(budget.Asked{Hub: s.hub(), Stream: stream, Playback: true})
	if err != nil {
		return nil, err
	}
	return func(after time.Duration) { time.AfterFunc(after, leave) }, nil
}

// playbackPause is how long a playback may take from one fetch to the next without losing its place.
const playbackPause = 10 * time.Second

// hub returns the name of the hub at the other end, for admission.
func (s *server) hub() string {
	if s.name != "" {
		return namedHub + s.name
	}
	name, err := holderOf(s.conn.Peer())
	if err != nil {
		return ""
	}
	return name
}

// keyFrame reports whether an item is for those who get key frames only, and returns it as they get it.
func keyFrame(i branchline.Item) (branchline.Item, bool) {
	switch {
	case i.Frame != nil:
		return i, i.Frame.Key
	case i.Start != nil, i.RunEnd != nil:
		return i, true
	}
	return i, false
}

// keyFramesTo hands on what those get who get key frames only, of a site that knows only the whole stream.
func keyFramesTo(yield func(branchline.Item) bool) func(branchline.Item) bool {
	return func(i branchline.Item) bool {
		i, of := keyFrame(i)
		return !of || yield(i)
	}
}

func encodeRefusal(err error) *wire.Refusal {
	var r *budget.Refusal
	if !errors.As(err, &r) {
		return nil
	}
	w := &wire.Refusal{
		Budget: int64(r.Budget), UntilNs: encodeTime(r.Until), Zone: r.Zone, Used: int64(r.Used),
		Viewers: uint32(r.Viewers), Need: int64(r.Need), Spent: r.Spent,
	}
	for _, o := range r.Instead[:min(len(r.Instead), maxInstead)] {
		w.Instead = append(w.Instead, &wire.Alternative{
			Stream: string(o.Stream), KeyFramesOnly: o.KeyFrames, Need: int64(o.Need)})
	}
	return w
}

const (
	// maxInstead bounds the alternatives of a refusal.
	maxInstead = 8
	// maxZone bounds the name of a zone, in bytes.
	maxZone = 64
)

// decodeRefusal returns what the peer refused for, nil if it makes no sense.
func decodeRefusal(w *wire.Refusal) *budget.Refusal {
	if w == nil || len(w.GetZone()) > maxZone || len(w.GetInstead()) > maxInstead {
		return nil
	}
	r := &budget.Refusal{
		Budget: budget.Rate(w.GetBudget()), Until: decodeTime(w.GetUntilNs()), Zone: knownZone(w.GetZone()),
		Used: budget.Rate(w.GetUsed()), Viewers: int(w.GetViewers()), Need: budget.Rate(w.GetNeed()), Spent: w.GetSpent(),
	}
	for _, o := range w.GetInstead() {
		stream := branchline.StreamID(o.GetStream())
		if err := stream.Check(); err != nil {
			return nil //nolint:nilerr // a refusal that cannot be understood is none
		}
		r.Instead = append(r.Instead, budget.Alternative{
			Stream: stream, KeyFrames: o.GetKeyFramesOnly(), Need: budget.Rate(o.GetNeed())})
	}
	return r
}

// knownZone returns the name of a zone that this machine knows, UTC for any other.
func knownZone(name string) string {
	zone, err := time.LoadLocation(name)
	if err != nil || zone == time.Local {
		return time.UTC.String()
	}
	return zone.String()
}

// UplinkBudget is how a site's uplink stands.
type UplinkBudget struct {
	Rate     budget.Rate // that may be sent now
	Percent  int         // of the capacity that Rate is; zero: it does not depend on that
	Until    time.Time   // when it changes; zero: never
	Zone     string      // IANA name
	Capacity budget.Rate // zero while not known
	Bulk     budget.Rate // at which what is less urgent than live keeps the line's queue short
	Used     budget.Rate // by those who were let in
	Viewers  int
	Quota    int64 // bytes of the month; zero: there is none
	Sent     int64 // bytes in it
	Month    time.Time
	Ends     time.Time
	Spent    bool // the quota
}

// Uplink asks the site how its uplink's budget stands. A site that has none wraps [branchline.ErrNotFound].
func (r *Remote) Uplink(ctx context.Context) (UplinkBudget, error) {
	if !r.version.speaks(version2) {
		return UplinkBudget{}, fmt.Errorf("this site tells of no uplink budget, as it is older: %w", branchline.ErrNotFound)
	}
	c, err := ask(ctx, r.conn, link.KindControl, &wire.Request{Call: &wire.Request_Uplink{Uplink: &wire.UplinkRequest{}}})
	if err != nil {
		return UplinkBudget{}, fmt.Errorf("ask for the uplink's budget: %w", err)
	}
	defer c.close()
	a, err := c.one()
	if err == nil && (a.GetUplink() == nil || len(a.GetUplink().GetZone()) > maxZone) {
		err = invalid("answer about the uplink")
	}
	if err != nil {
		return UplinkBudget{}, fmt.Errorf("ask for the uplink's budget: %w", err)
	}
	w := a.GetUplink()
	return UplinkBudget{
		Rate: budget.Rate(w.GetRate()), Percent: int(w.GetPercent()), Until: decodeTime(w.GetUntilNs()),
		Zone: knownZone(w.GetZone()), Capacity: budget.Rate(w.GetCapacity()), Bulk: budget.Rate(w.GetBulk()),
		Used: budget.Rate(w.GetUsed()), Viewers: int(w.GetViewers()), Quota: w.GetQuotaBytes(), Sent: w.GetUsedBytes(),
		Month: decodeTime(w.GetMonthNs()), Ends: decodeTime(w.GetEndsNs()), Spent: w.GetSpent(),
	}, nil
}

func (s *server) uplink(a *answer) error {
	if s.budget == nil {
		return fmt.Errorf("this node has no uplink budget: %w", branchline.ErrNotFound)
	}
	st := s.budget.State()
	w := &wire.UplinkAnswer{
		Rate: int64(st.Rate), Percent: uint32(st.Percent), UntilNs: encodeTime(st.Until), Zone: st.Zone,
		Capacity: int64(st.Capacity), Bulk: int64(st.Bulk), Viewers: uint32(len(st.Viewers)),
		QuotaBytes: st.Quota.Bytes, UsedBytes: st.Used, MonthNs: encodeTime(st.Month), EndsNs: encodeTime(st.Ends),
		Spent: st.Spent,
	}
	for _, v := range st.Viewers {
		w.Used += int64(v.Need)
	}
	return a.send(&wire.Answer{Body: &wire.Answer_Uplink{Uplink: w}})
}
