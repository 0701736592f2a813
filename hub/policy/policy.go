package policy

import (
	"path"
	"time"

	"github.com/branchline-video/branchline"
)

// Kind says which recordings of a stream a policy wants at the centre.
type Kind string

const (
	// Never: nothing but what operators request.
	Never Kind = "never"
	// Always: everything recorded since the policy began. The hub records the live stream, and
	// fetches whatever live missed.
	Always Kind = "always"
	// Backfill: what was recorded while the site's link was down.
	Backfill Kind = "backfill"
)

// Policy wants recordings of the streams that match its pattern.
type Policy struct {
	// Streams is a pattern in the syntax of path.Match over the hub's own stream identifiers, such as
	// "berlin.entrance.main", "berlin.*" or "*.main"; a star stands for any text, dots included.
	Streams string
	Kind    Kind
	Since   time.Time // when the policy began: nothing recorded before is wanted
}

// Matches reports whether the policy's pattern matches the stream. A malformed pattern matches none.
func (p Policy) Matches(stream branchline.StreamID) bool {
	ok, err := path.Match(p.Streams, string(stream))
	return ok && err == nil
}

// Valid reports whether the pattern is well formed and the kind is known.
func (p Policy) Valid() bool {
	_, err := path.Match(p.Streams, "")
	return err == nil && p.Streams != "" && (p.Kind == Never || p.Kind == Always || p.Kind == Backfill)
}

// For returns the policy that the stream follows, the first that matches. Without any it is the zero
// Policy of the kind [Never].
func For(policies []Policy, stream branchline.StreamID) Policy {
	for _, p := range policies {
		if p.Matches(stream) {
			return p
		}
	}
	return Policy{Kind: Never}
}

// Priority orders traffic; a smaller value is more urgent and is served to its end first.
type Priority int

// The priorities, most urgent first. The uplink knows the same order.
const (
	Control Priority = iota
	Live
	Request
	Event
	Schedule
	Bulk
)

// String returns the word that the API and the pages use.
func (p Priority) String() string {
	switch p {
	case Control:
		return "control"
	case Live:
		return "live"
	case Request:
		return "request"
	case Event:
		return "event"
	case Schedule:
		return "schedule"
	}
	return "backfill"
}

// Want is a span of a stream that something wishes held at the centre.
type Want struct {
	Stream   branchline.StreamID
	Span     branchline.TimeRange
	Priority Priority
	Reason   string // for people: "always", "backfill", "request"
}

// Facts is what the hub knows of one stream at one moment.
type Facts struct {
	Stream  branchline.StreamID
	Exists  branchline.Spans // recorded at the edge, as far as the hub was told
	Held    branchline.Spans // at the hub
	Outages branchline.Spans // of the site's link
	Dropped branchline.Spans // held once, and removed by the hub's retention
	// Settled is the time up to which live recording has had its chance: later recordings are on
	// their way anyhow and no policy fetches them.
	Settled time.Time
	// Told is the time up to which the site's feed has told what there is.
	Told time.Time
	// Keep is how long the edge keeps a recording; zero if that is not known.
	Keep time.Duration
}

// OutageMargin is added at both ends of an outage: a dead link is noticed up to 5 s late, and a live
// stream comes back with the first key frame after the link.
const OutageMargin = 5 * time.Second

// Wants returns what the policies want of the stream. It knows nothing of what is held; what the hub has
// dropped is not wanted again, or it would be fetched and removed for ever.
func Wants(policies []Policy, f Facts) []Want {
	p := For(policies, f.Stream)
	since := branchline.TimeRange{Start: p.Since, End: f.Settled}
	if since.Empty() {
		return nil
	}
	switch p.Kind {
	case Always:
		var wants []Want
		for _, span := range (branchline.Spans{since}).Minus(f.Dropped) {
			wants = append(wants, Want{Stream: f.Stream, Span: span, Priority: Bulk, Reason: string(Always)})
		}
		return wants
	case Backfill:
		var widened []branchline.TimeRange
		for _, o := range f.Outages {
			widened = append(widened, branchline.TimeRange{
				Start: o.Start.Add(-OutageMargin), End: o.End.Add(OutageMargin)}.Intersect(since))
		}
		var wants []Want
		for _, span := range branchline.NewSpans(widened...).Minus(f.Dropped) {
			wants = append(wants, Want{Stream: f.Stream, Span: span, Priority: Bulk, Reason: string(Backfill)})
		}
		return wants
	}
	return nil
}
