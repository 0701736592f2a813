package evidence

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// MaxStreams bounds the streams of one lock: all feeds of a large branch.
	MaxStreams = 64
	// MaxLocks bounds the locks that are kept, as they are all in memory.
	MaxLocks = 2000
	// MaxSpan bounds the time that one lock covers.
	MaxSpan = 31 * 24 * time.Hour
	// MaxAhead bounds how far into the future it may reach: what comes is locked as it is recorded.
	MaxAhead = 31 * 24 * time.Hour
	// KeepEnded is how long a lock that ended by its date is still listed.
	KeepEnded = 30 * 24 * time.Hour
	// maxCause bounds the text of a site's refusal, in bytes.
	maxCause = 300
)

// Order asks for footage to be locked.
type Order struct {
	Streams []branchline.StreamID // all of one site
	Span    branchline.TimeRange
	Until   time.Time // zero: until it is taken off
	By      string    // who locks, for people
	Reason  string    // for people, up to branchline.MaxName bytes
	For     string    // the lock of a hub above whose part this is, as that is known here; empty for one of this hub
}

// Lock is an order and how it stands. Locks are values: one that was returned does not change.
type Lock struct {
	ID string
	Order
	Created time.Time
	Removed bool   // it was taken off here, and the site has still to do so
	Job     string // the retrieval that brings the footage over; empty without one
	Parts   []Part // one for each stream, in the order's order
}

// Part is how a lock stands on one stream.
type Part struct {
	Stream branchline.StreamID
	Number int    // of the part in its identifier at the stores
	Here   bool   `json:"-"` // the hub's own copies are locked
	Edge   State  // whether the site has done what it is to do
	Cause  string // why not, for people
}

// State is how a site stands to what it is to do.
type State string

// The states at a site.
const (
	Pending State = "pending" // it has still to be told
	Placed  State = "placed"  // it has the lock
	Refused State = "refused" // it does not do it; Cause says why
	Gone    State = "gone"    // it has no lock any more
)

// Site returns the site whose footage is locked.
func (l Lock) Site() branchline.SiteID { return l.Streams[0].Site() }

// Ended reports whether the lock's date has come.
func (l Lock) Ended(now time.Time) bool { return !l.Until.IsZero() && !now.Before(l.Until) }

// Here reports whether all of the hub's own copies are locked.
func (l Lock) Here() bool { return !slices.ContainsFunc(l.Parts, func(p Part) bool { return !p.Here }) }

// Edge returns the state at the site, over all streams the one that needs most attention, and its cause.
func (l Lock) Edge() (State, string) {
	for _, state := range []State{Refused, Pending, Placed} {
		for _, p := range l.Parts {
			if p.Edge == state {
				return state, p.Cause
			}
		}
	}
	return Gone, ""
}

// off reports whether nothing is to be locked any more.
func (l Lock) off(now time.Time) bool { return l.Removed || l.Ended(now) }

// lock returns what a store is told for the i-th stream.
func (l Lock) lock(i int) branchline.Lock {
	return branchline.Lock{
		ID: l.partID(i), Stream: l.Parts[i].Stream, Span: l.Span, Until: l.Until, By: l.By, Reason: l.Reason,
		Created: l.Created,
	}
}

func (l Lock) partID(i int) string { return l.ID + "-" + strconv.Itoa(l.Parts[i].Number) }

// lockOf returns the lock of which a store's lock is a part, and the part's number; nothing if it is none.
func lockOf(part string) (id string, number int) {
	at := max(strings.LastIndexByte(part, '-'), 0)
	number, err := strconv.Atoi(part[min(at+1, len(part)):])
	if id = part[:at]; err != nil || part != id+"-"+strconv.Itoa(number) {
		return "", 0
	}
	return id, number
}

func (l Lock) clone() Lock {
	l.Parts = slices.Clone(l.Parts)
	return l
}

func (o Order) check(now time.Time) error {
	if len(o.Streams) == 0 || len(o.Streams) > MaxStreams {
		return fmt.Errorf("%d streams, 1 to %d are possible: %w", len(o.Streams), MaxStreams, branchline.ErrInvalid)
	}
	for i, s := range o.Streams {
		if err := s.Check(); err != nil {
			return err
		}
		if s.Site() != o.Streams[0].Site() {
			return fmt.Errorf("streams of two sites: %w", branchline.ErrInvalid)
		}
		if slices.Contains(o.Streams[:i], s) {
			return fmt.Errorf("stream %s twice: %w", s, branchline.ErrInvalid)
		}
	}
	switch {
	case o.Span.Empty() || o.Span.Duration() > MaxSpan:
		return fmt.Errorf("the span must be longer than nothing and at most %v: %w", MaxSpan, branchline.ErrInvalid)
	case o.Span.End.After(now.Add(MaxAhead)):
		return fmt.Errorf("the span ends more than %v from now: %w", MaxAhead, branchline.ErrInvalid)
	case !o.Until.IsZero() && !now.Before(o.Until):
		return fmt.Errorf("the lock would end in the past: %w", branchline.ErrInvalid)
	case strings.TrimSpace(o.Reason) == "" || len(o.Reason) > branchline.MaxName:
		return fmt.Errorf("a reason of 1 to %d bytes is needed: %w", branchline.MaxName, branchline.ErrInvalid)
	}
	return nil
}
