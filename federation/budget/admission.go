package budget

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
)

// Streams tells how much a site's streams take. Methods may be called concurrently.
type Streams interface {
	// BitRate returns what the stream lately took, all of it and its key frames alone; zero while not known.
	BitRate(stream branchline.StreamID) (all, keys Rate)
	// Beside returns the other streams of the same camera, the best first.
	Beside(stream branchline.StreamID) []branchline.StreamID
}

// Asked is what somebody wants to see. Equal ones count once.
type Asked struct {
	Hub       string // who asks
	Stream    branchline.StreamID
	KeyFrames bool // only those
	Playback  bool // recorded, at the speed at which it was; else live
}

// maxAdmitted bounds what is watched at one site at once, and maxOfHub how much of that by one hub: every stream of a
// large site, live and played back.
const (
	maxAdmitted = 2048
	maxOfHub    = 1024
)

// admission is somebody who was let in.
type admission struct {
	Asked
	users int
}

// Admit lets somebody in, until release is called, if what is asked for fits the budget of now beside those who
// were let in before; else its error is a [*Refusal]. Who was let in stays, whatever becomes of the budget.
// Where nobody knows what the stream takes it is let in.
func (b *Budget) Admit(a Asked) (release func(), err error) {
	if b == nil {
		return func() {}, nil
	}
	offers := b.offers(a)
	used, entries := b.used()
	b.mu.Lock()
	for entries != b.entries { // somebody else came or left meanwhile
		b.mu.Unlock()
		used, entries = b.used()
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	same := 0
	for other := range b.admitted {
		if other.Asked == a {
			return b.enter(other), nil
		}
		if other.Hub == a.Hub {
			same++
		}
	}
	class := Live
	if a.Playback {
		class = Request
	}
	now := b.cfg.Clock.Now()
	if same >= maxOfHub || len(b.admitted) >= maxAdmitted {
		return nil, fmt.Errorf("admit %s: %d are watching, %d of this hub: %w", a.Stream, len(b.admitted), same,
			branchline.ErrBusy)
	}
	if err := b.barred(class, now); err != nil {
		return nil, fmt.Errorf("admit %s: %w", a.Stream, err)
	}
	rate, need := b.rate(), offers[0].Need
	if rate == Unlimited || need == 0 || used+need <= rate {
		return b.enter(&admission{Asked: a}), nil
	}
	r := &Refusal{Budget: rate, Until: b.until, Zone: b.cfg.Schedule.Zone().String(), Used: used,
		Viewers: len(b.admitted), Need: need}
	for _, o := range offers[1:] {
		if o.Need < need && used+o.Need <= rate {
			r.Instead = append(r.Instead, o)
		}
	}
	return nil, fmt.Errorf("admit %s: %w", a.Stream, r)
}

// used returns what those take who were let in, and the number of the entry or leaving after which that is so.
func (b *Budget) used() (used Rate, entries uint64) {
	b.mu.Lock()
	all := make([]*admission, 0, len(b.admitted))
	for a := range b.admitted {
		all = append(all, a)
	}
	entries = b.entries
	b.mu.Unlock()
	for _, a := range all {
		used += b.need(a.Stream, a.KeyFrames)
	}
	return used, entries
}

// enter counts one more of whom was let in.
func (b *Budget) enter(a *admission) (release func()) {
	b.admitted[a] = true
	b.entries++
	a.users++
	var once bool
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if once {
			return
		}
		if once = true; a.users > 1 {
			a.users--
			return
		}
		b.entries++
		delete(b.admitted, a)
	}
}

// offers lists what was asked for and then what could be had instead: another stream of the camera whole, then
// key frames. Key frames alone are not played back.
func (b *Budget) offers(a Asked) []Alternative {
	all := []Alternative{{Stream: a.Stream, KeyFrames: a.KeyFrames, Need: b.need(a.Stream, a.KeyFrames)}}
	if b.cfg.Streams == nil {
		return all
	}
	beside := b.cfg.Streams.Beside(a.Stream)
	for _, s := range beside {
		all = append(all, Alternative{Stream: s, Need: b.need(s, false)})
	}
	if a.Playback {
		return all
	}
	for _, s := range append([]branchline.StreamID{a.Stream}, beside...) {
		all = append(all, Alternative{Stream: s, KeyFrames: true, Need: b.need(s, true)})
	}
	return all
}

func (b *Budget) need(stream branchline.StreamID, keyFrames bool) Rate {
	if b.cfg.Streams == nil {
		return 0
	}
	all, keys := b.cfg.Streams.BitRate(stream)
	if keyFrames {
		return keys
	}
	return all
}

// State is how the uplink's budget stands.
type State struct {
	Rate     Rate      // that may be sent now
	Percent  int       // of the capacity that Rate is; zero: it does not depend on that
	Until    time.Time // when the schedule says something else; zero: never
	Zone     string    // IANA name
	Capacity Rate      // of the uplink; zero while not known
	Bulk     Rate      // at which what is less urgent than live keeps the line's queue short
	Viewers  []Viewer  // sorted
	Waiting  [6]int    // by class
	Passed   [6]int64  // bytes since the start, by class
	Sent     uint64    // bytes since the start, all that went over the network
	Quota    Quota
	Used     int64     // bytes of the quota's month
	Month    time.Time // its beginning
	Ends     time.Time
	Spent    bool // the quota
}

// Viewer is somebody who was let in.
type Viewer struct {
	Asked
	Need Rate // now
}

// State returns how the budget stands.
func (b *Budget) State() State {
	b.lookNow(b.cfg.Clock.Now())
	b.mu.Lock()
	s := State{
		Rate: b.rate(), Percent: b.limit.Percent, Until: b.until, Zone: b.cfg.Schedule.Zone().String(),
		Capacity: b.capacity(), Bulk: Rate(b.path.rate * 8), Sent: b.count.total, Quota: b.cfg.Quota,
		Used: b.count.used, Month: b.count.start, Ends: b.count.end, Spent: b.count.spent(),
	}
	for c := range b.waiting {
		s.Waiting[c], s.Passed[c] = len(b.waiting[c]), b.passed[c].Load()
	}
	for a := range b.admitted {
		s.Viewers = append(s.Viewers, Viewer{Asked: a.Asked})
	}
	b.mu.Unlock()
	for i := range s.Viewers {
		s.Viewers[i].Need = b.need(s.Viewers[i].Stream, s.Viewers[i].KeyFrames)
	}
	slices.SortFunc(s.Viewers, func(a, b Viewer) int {
		if c := strings.Compare(string(a.Stream), string(b.Stream)); c != 0 {
			return c
		}
		return strings.Compare(a.Hub, b.Hub)
	})
	return s
}
