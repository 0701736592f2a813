package fetch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore/index"
)

// State is where a job stands.
type State string

// The states of a job. The last four are final.
const (
	Waiting    State = "waiting"    // queued, or the site is down, or the recording is still to come
	Retrieving State = "retrieving" // bytes flow
	Done       State = "done"
	Partial    State = "partial" // done but for what does not exist or no longer does; Cause says which
	Failed     State = "failed"
	Cancelled  State = "cancelled"
)

// Final reports whether a job in this state has ended.
func (s State) Final() bool { return s != Waiting && s != Retrieving }

const (
	// MaxStreams bounds the streams of one order: all feeds of a large branch.
	MaxStreams = 64
	// MaxActive bounds the jobs that have not ended, for their state is kept in memory.
	MaxActive = 1000
	// MaxKept bounds the jobs that have ended and are still listed.
	MaxKept = 1000
	// MaxSpan bounds the time that one order asks for.
	MaxSpan = 31 * 24 * time.Hour
	// MaxAhead bounds how far into the future it may reach, so that no job waits for years.
	MaxAhead = 31 * 24 * time.Hour
)

// Order asks for recordings to be brought to the hub.
type Order struct {
	Streams []branchline.StreamID // all of one site
	Span    branchline.TimeRange  // may reach into the future: what comes is fetched as it is recorded
	By      string                // who orders, for people
	Reason  string                // for people; "request" if empty
}

// Job is an order and its state. Jobs are values: one that was returned does not change.
type Job struct {
	ID     string
	Number uint64 // counts the hub's jobs in the order of their creation, whatever its clock did
	Order
	Priority policy.Priority
	Created  time.Time
	Ended    time.Time // zero until the state is final
	State    State
	Cause    string  // why it waits, failed or is partial; for people
	Parts    []Part  // one for each stream, in the order's order
	Brought  int64   // bytes fetched for this job
	Rate     float64 // bytes a second at present
}

// Part is the progress on one stream of a job. Bytes are those of the fragments wanted; Total is an
// estimate until the last part of the span has been listed by the edge.
type Part struct {
	Stream      branchline.StreamID
	Through     time.Time // everything wanted before is held
	Total, Held int64
	Complete    bool
	Empty       bool   // complete, and there was nothing to bring
	Lost        bool   // some of it was removed at the edge before it could be fetched
	Damage      string // why some of it could not be brought however often it was tried, if so
}

// Site returns the site from which the job fetches.
func (j Job) Site() branchline.SiteID { return j.Streams[0].Site() }

// Share returns how much of the job is held, from 0 to 1. It is 1 only for a job that succeeded.
func (j Job) Share() float64 {
	if j.State == Done || j.State == Partial {
		return 1
	}
	var total, held int64
	for _, p := range j.Parts {
		total, held = total+p.Total, held+p.Held
	}
	if total == 0 {
		return 0
	}
	return min(float64(held)/float64(total), 0.999)
}

// ETA returns how long the rest will take at the present rate, and whether that can be told.
func (j Job) ETA() (time.Duration, bool) {
	if j.State != Retrieving || j.Rate <= 0 {
		return 0, false
	}
	var left int64
	for _, p := range j.Parts {
		left += p.Total - p.Held
	}
	return time.Duration(float64(left) / j.Rate * float64(time.Second)), true
}

func (o Order) check(now time.Time) error {
	if len(o.Streams) == 0 || len(o.Streams) > MaxStreams {
		return fmt.Errorf("check order: %d streams, 1 to %d are possible: %w",
			len(o.Streams), MaxStreams, branchline.ErrInvalid)
	}
	for i, s := range o.Streams {
		if err := s.Check(); err != nil {
			return err
		}
		if s.Site() != o.Streams[0].Site() {
			return fmt.Errorf("check order: streams of two sites: %w", branchline.ErrInvalid)
		}
		if slices.Contains(o.Streams[:i], s) {
			return fmt.Errorf("check order: stream %s twice: %w", s, branchline.ErrInvalid)
		}
	}
	if o.Span.Empty() || o.Span.Duration() > MaxSpan {
		return fmt.Errorf("check order: the span must be longer than nothing and at most %v: %w",
			MaxSpan, branchline.ErrInvalid)
	}
	if o.Span.End.After(now.Add(MaxAhead)) {
		return fmt.Errorf("check order: the span ends more than %v from now: %w", MaxAhead, branchline.ErrInvalid)
	}
	return nil
}

// clone returns a copy that shares nothing with j that changes.
func (j Job) clone() Job {
	j.Parts = slices.Clone(j.Parts)
	return j
}

const tableJob = "fetch/job/"

// save stores jobs as they are in memory when their turn comes, and deletes those that are no longer
// there. Updates of the database take turns, so what is stored last is the newest, whoever saves.
func (f *Fetcher) save(ids ...string) error {
	err := f.db.Update(func(tx *index.Tx) error {
		for _, id := range ids {
			if err := f.saveIn(tx, id); err != nil {
				return fmt.Errorf("job %s: %w", id, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store jobs: %w", err)
	}
	return nil
}

func (f *Fetcher) saveIn(tx *index.Tx, id string) error {
	key := []byte(tableJob + id)
	f.mu.Lock()
	j := f.jobs[id]
	if j == nil {
		f.mu.Unlock()
		return tx.Delete(key)
	}
	stored := j.clone()
	f.mu.Unlock()
	value, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return tx.Set(key, value)
}

func loadJobs(db *index.DB) (map[string]*Job, error) {
	jobs := make(map[string]*Job)
	err := db.View(func(tx *index.Tx) error {
		for key, value := range tx.Scan([]byte(tableJob), nil) {
			j := new(Job)
			if err := json.Unmarshal(value, j); err != nil {
				return fmt.Errorf("parse %q: %w", key, err)
			}
			if !j.State.Final() {
				j.State, j.Rate = Waiting, 0
			}
			jobs[j.ID] = j
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load jobs: %w", err)
	}
	return jobs, nil
}

// older compares jobs by the order of their creation.
func older(a, b *Job) int { return cmp.Compare(a.Number, b.Number) }

// newestFirst sorts jobs by creation, the newest first.
func newestFirst(jobs []Job) {
	slices.SortFunc(jobs, func(a, b Job) int { return older(&b, &a) })
}
