package retain

import (
	"iter"
	"path"
	"time"

	"github.com/branchline-video/branchline"
)

// MaxActions bounds the actions of one plan, so that a plan for a store that has to lose half of its
// million segments fits memory: some 10 MB. What is left is for the next plan.
const MaxActions = 10_000

// Rule says what is kept of the streams that match its pattern. Zero values limit nothing.
type Rule struct {
	// Streams is a pattern in the syntax of path.Match over stream identifiers, such as "entrance.*"; a
	// star stands for any text, dots included. Empty matches every stream.
	Streams   string
	Keep      time.Duration // what ended longer ago is removed
	ThinAfter time.Duration // what ended longer ago keeps only its key fragments
	Extend    time.Duration // how much longer than Keep what is not yet retrieved is kept, at most
	Quota     int64         // bytes that the streams of one camera may take together
}

// Rules say what a store keeps. The zero value limits nothing but free space, as [Floor] says.
type Rules struct {
	Rules []Rule // the first that matches a stream counts
	Quota int64  // bytes that all may take together; zero: no limit
	Free  Share  // what must stay free on each volume
}

// For returns the rule of a stream, the first that matches; the zero Rule without any. A malformed
// pattern matches nothing.
func (r Rules) For(stream branchline.StreamID) Rule {
	for _, rule := range r.Rules {
		if ok, err := path.Match(rule.Streams, string(stream)); rule.Streams == "" || ok && err == nil {
			return rule
		}
	}
	return Rule{}
}

// Share is an amount of a volume: bytes, or thousandths of its size, whichever is more.
type Share struct {
	Bytes     int64
	Thousands int64
}

// The share of a volume that stays free if the rules say nothing: 2 %, but no more than defaultMost, as
// another program that fills a large disk must not cost all recordings.
const (
	defaultThousands = 20
	defaultMost      = 16 << 30
)

// Floor returns how many bytes must stay free on a volume of the given size: what the rules say, by
// default 2 % and at most 16 GiB; and in any case least, without which nothing can be recorded.
func (r Rules) Floor(size, least int64) int64 {
	floor := min(size/1000*defaultThousands, defaultMost)
	if r.Free != (Share{}) {
		floor = max(r.Free.Bytes, size/1000*r.Free.Thousands)
	}
	return max(min(floor, size/10*9), least) // what asks for more than nine tenths would have all removed
}

// Segment is a sealed segment as it is on disk.
type Segment struct {
	ID     branchline.SegmentID
	Stream branchline.StreamID
	Span   branchline.TimeRange
	Bytes  int64
	Volume string
}

// Facts is what a plan is made from.
type Facts struct {
	Now     time.Time
	Streams []Stream // each once, in any order
	Cameras []Camera // those with a quota, each once
	Volumes []Volume
	Store   Usage // of all streams together

	// Segments yields the sealed segments of a stream that end after from, in the order of their starts
	// and, of equal starts, identifiers. It may be stopped early and called again, also for several
	// streams at a time.
	Segments func(stream branchline.StreamID, from time.Time) iter.Seq[Segment]
	// Most bounds the actions of the plan; zero, and what is more than that, means MaxActions.
	Most int
}

// Stream is what is known of a stream.
type Stream struct {
	ID      branchline.StreamID
	Rule    Rule
	Locks   []branchline.Lock // on this stream; those that have ended have no effect
	Holds   []branchline.Hold // on this stream
	Thinned branchline.Spans  // whose segments need no thinning any more
}

// Usage is how much of a quota is used. A quota of zero limits nothing.
type Usage struct {
	Quota, Bytes int64
	Ahead        int64 // bytes that will probably be written until the next plan
}

// Camera is the use of a camera's quota by its streams together.
type Camera struct {
	ID branchline.CameraID
	Usage
}

// Volume is a disk that segments are on.
type Volume struct {
	Name        string
	Free, Floor int64 // bytes that are free, and that must stay free
	Ahead       int64 // bytes that will probably be written until the next plan
}

// Kind is what an action does.
type Kind string

// The kinds of action.
const (
	Remove Kind = "remove"
	Thin   Kind = "thin"
)

// Action is one thing to do. The zero Cause stands with Thin.
type Action struct {
	Kind    Kind
	Segment Segment
	Cause   branchline.Cause
	Why     string // for people: the rule, and by how much
	// Settles is, of a segment to thin, the time of its stream in which after this action nothing is
	// left to thin.
	Settles branchline.TimeRange
}

// Shortage is what could not be freed.
type Shortage struct {
	Rule  string // for people: which pressure
	Bytes int64  // still missing
	Why   string // for people
}

// Plan is what to do, in the order in which to do it: what is over its age, what pressure asks for, and
// last what is to be thinned.
type Plan struct {
	Actions   []Action
	Shortages []Shortage
	// More tells that the plan has as many actions as it may, and that there may be more to do.
	More bool
}
